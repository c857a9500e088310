"""Lookups, the record of failovers, and reservations: methods of the Registry service beside those of `server.api`."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Mapping
from typing import Protocol

from tenure_api.identity import Identity
from tenure_proto.v1 import common_pb2, registry_pb2
from tenured.core import commands, model, results
from tenured.core.lookup import Answer
from tenured.core.profile import NS
from tenured.raft import Applied, Outcome
from tenured.server import rows
from tenured.server.replica import Replica, cannot_tell
from tenured.transport.serving import Invalid, Unserved

ROWS_MAX = 1000
"""Agents in one answer; the next page is asked for with `after_uid`."""
COMMAND_TIMEOUT_S = 10.0
_BARRIER_S = 1.0
_ROWS_A_TURN = 200
_RECORDS_A_TURN = 5
"""Encoded in one turn of the loop; a record names up to 200 agents."""


class Consensus(Protocol):
    """The part of `tenured.raft.Consensus` that is used here."""

    async def propose(self, command: bytes, timeout_s: float, *, term: int | None = None) -> Outcome:
        """Place one entry."""
        ...

    async def barrier(self, timeout_s: float) -> Outcome:
        """Read after it what was acknowledged before it."""
        ...


class Asking:
    """Answers of one server."""

    def __init__(self, replica: Replica, consensus: Consensus) -> None:
        self._replica = replica
        self._consensus = consensus

    async def lookup(self, _: Identity, request: registry_pb2.LookupRequest) -> registry_pb2.LookupResponse:
        """Agents by id, capability, node or labels; by id with the answer in three kinds when it is not found."""
        asked = [request.agent, request.capability, request.node, bool(request.labels)]
        if sum(map(bool, asked)) != 1:
            raise Invalid("Ask for an agent, a capability, a node or labels: for exactly one of them.")
        truth = await self._caught_up()
        if request.agent:
            if not isinstance(truth, Applied) and self._replica.registry.agent(request.agent) is None:
                raise Unserved(cannot_tell(request.agent, truth))
            return self._by_id(request.agent)
        registry = self._replica.registry
        if request.capability:
            uids = registry.uids_offering(request.capability)
        elif request.node:
            uids = registry.uids_on(request.node)
        else:
            uids = registry.uids_labelled(request.labels)
        return await self._page(uids, request)

    async def _page(self, uids: set[str], request: registry_pb2.LookupRequest) -> registry_pb2.LookupResponse:
        """The rows with the smallest uids; chosen in a thread and encoded in pieces, so that the loop runs on."""
        limit = min(request.limit or ROWS_MAX, ROWS_MAX)
        after = int(request.after_uid) if request.after_uid.isdecimal() else 0
        registry = self._replica.registry
        answer = registry_pb2.LookupResponse(revision=registry.revision)
        chosen = await asyncio.to_thread(_smallest, registry.agents, uids, after, limit + 1, live=request.live)
        wall = time.time()
        for start in range(0, min(limit, len(chosen)), _ROWS_A_TURN):
            part = [registry.agents.get(uid) for uid in chosen[start : min(limit, start + _ROWS_A_TURN)]]
            answer.agents.extend(rows.agent_row(registry, agent, wall) for agent in part if agent is not None)
            await asyncio.sleep(0)
        answer.more = len(chosen) > limit
        return answer

    def _by_id(self, agent_id: str) -> registry_pb2.LookupResponse:
        registry = self._replica.registry
        found = registry.lookup(agent_id)
        answer = registry_pb2.LookupResponse(revision=registry.revision)
        if found.agent is not None:
            answer.agents.append(rows.agent_row(registry, found.agent, time.time()))
        if found.answer is not Answer.FOUND:
            answer.error.CopyFrom(
                common_pb2.Error(
                    code=found.answer,
                    message=found.message,
                    outcome=common_pb2.OUTCOME_NOT_APPLIED,
                    retryable=found.answer is Answer.NODE_UNAVAILABLE,
                    next_step=NEXT_STEPS[found.answer],
                )
            )
        return answer

    async def failovers(self, _: Identity, __: registry_pb2.FailoversRequest) -> registry_pb2.FailoversResponse:
        """The records that are kept, the newest first."""
        await self._caught_up()
        registry = self._replica.registry
        answer = registry_pb2.FailoversResponse(revision=registry.revision)
        for number, record in enumerate(reversed(list(registry.failovers.values())), 1):
            answer.failovers.append(rows.failover_row(record))
            if not number % _RECORDS_A_TURN:
                await asyncio.sleep(0)
        return answer

    async def confirm_failover(
        self, _: Identity, request: registry_pb2.ConfirmFailoverRequest
    ) -> registry_pb2.ConfirmFailoverResponse:
        """Take an operator's word for hosts whose failover is held back."""
        command = commands.ConfirmFailover(command_id=request.command_id, hosts=tuple(request.hosts), wall=time.time())
        revision = await self._propose(command)
        confirmed = {host.name for host in self._replica.registry.hosts.values() if host.silence == "Confirmed"}
        return registry_pb2.ConfirmFailoverResponse(hosts=sorted(confirmed), revision=revision)

    async def reserve(self, _: Identity, request: registry_pb2.ReserveRequest) -> registry_pb2.ReserveResponse:
        """Keep room on the newest living incarnation of a host."""
        await self._caught_up()
        registry = self._replica.registry
        old = registry.reservations.get(request.id)
        alive = [
            host
            for incarnation in registry.incarnations.get(request.host, ())
            if (host := registry.hosts[incarnation]).alive
        ]
        if not alive and old is None:
            raise Invalid(f"There is no host {request.host!r} that lives.")
        incarnation = old.incarnation if old is not None else max(alive, key=lambda host: host.revision).incarnation
        until = old.until_ns if old is not None else registry.cluster_ns + round(request.seconds * NS)
        asked = model.Reservation(
            id=request.id,
            incarnation=incarnation,
            cpu_milli=request.cpu_milli,
            memory_bytes=request.memory_bytes,
            agents=request.agents,
            until_ns=until,
        )
        revision = await self._propose(commands.Reserve(reservation=asked, wall=time.time()))
        return registry_pb2.ReserveResponse(revision=revision, until=until / NS)

    async def unreserve(self, _: Identity, request: registry_pb2.UnreserveRequest) -> registry_pb2.UnreserveResponse:
        """Give the room back."""
        revision = await self._propose(commands.Unreserve(id=request.id, wall=time.time()))
        return registry_pb2.UnreserveResponse(revision=revision)

    async def _caught_up(self) -> Outcome:
        """So that the answer is no older than the question. Without a quorum a list is what this server knows."""
        return await self._consensus.barrier(_BARRIER_S)

    async def _propose(self, command: commands.Command) -> int:
        outcome = await self._consensus.propose(commands.encode(command), COMMAND_TIMEOUT_S)
        if not isinstance(outcome, Applied):
            raise Unserved(f"The servers have not decided it: {outcome.reason}. Send it again with the same id.")
        result = results.decode(outcome.result)
        if not result.ok:
            raise Invalid(f"{result.reason}: {result.message}.")
        return result.revision


def _smallest(agents: Mapping[str, model.Agent], uids: set[str], after: int, limit: int, *, live: bool) -> list[str]:
    """Run in a thread: rows are frozen, and looking one up is atomic."""
    numbers = (
        int(uid)
        for uid in uids
        if int(uid) > after and (not live or ((row := agents.get(uid)) is not None and row.ready))
    )
    return [str(number) for number in heapq.nsmallest(limit, numbers)]


NEXT_STEPS = {
    Answer.NOT_FOUND: "`tenure get agents` lists those that are.",
    Answer.UNAVAILABLE: "`tenure describe agent` says why, and what brings it back.",
    Answer.NODE_UNAVAILABLE: "It is moved, or comes back with its node: ask again.",
}
