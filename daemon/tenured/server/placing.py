"""Placement as users ask about it: methods of the Registry service beside those of `server.api`.

Reads are answered by any server from its applied registry, after a barrier. Measured load and what the detector thinks
beyond the rows are in the leader's memory: another server answers without them and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from difflib import get_close_matches
from itertools import islice
from typing import Protocol

import msgspec

from tenure_api.identity import Identity
from tenure_proto.v1 import common_pb2, registry_pb2
from tenured import clocks
from tenured.core import commands, model, placement, results
from tenured.core.describe import describe
from tenured.core.lease import LeaderLeases
from tenured.core.registry import Registry
from tenured.raft import Applied
from tenured.server import fromwire, rows
from tenured.server.asking import COMMAND_TIMEOUT_S, Consensus
from tenured.server.replica import Replica
from tenured.transport.serving import Invalid, Unserved

DECISIONS_SHOWN = 20
"""Of one agent, the newest."""
DECISIONS_DEFAULT = 100
DECISIONS_MAX = 1000
"""Of the cluster, in one answer."""
NAMELESS = "default/dry-run"
"""The agent of a dry run that names none."""
_BARRIER_S = 1.0
_NEAR_AMONG = 1000
"""Names among which a near one is looked for: it takes a millisecond."""


class Leadership(Protocol):
    """The part of `server.leading.Leader` that is used here."""

    leases: LeaderLeases

    @property
    def leading(self) -> bool:
        """Whether what `leases` knows is of use."""
        ...


class Seen(msgspec.Struct, frozen=True):
    """What only the leader knows of hosts; `known` is False elsewhere."""

    known: bool = False
    avoid: AbstractSet[str] = frozenset()
    loads: Mapping[str, float] | None = None


class Placing:
    """Implements `transport.registry.PlacementHandler`."""

    def __init__(self, name: str, replica: Replica, consensus: Consensus, leader: Leadership) -> None:
        """`name`: of this server."""
        self._name = name
        self._replica = replica
        self._consensus = consensus
        self._leader = leader

    async def explain(self, _: Identity, request: registry_pb2.ExplainRequest) -> registry_pb2.ExplainResponse:
        """Why an agent is where it is, since when, who held it before; if it waits, for what."""
        registry = await self._caught_up()
        agent = registry.agent(request.agent)
        if agent is None:
            return registry_pb2.ExplainResponse(
                error=_not_found(registry, request.agent), revision=registry.revision, answered_by=self._name
            )
        seen = self._seen(registry)
        answer = _explained(registry, agent)
        answer.revision, answer.answered_by, answer.loads_known = registry.revision, self._name, seen.known
        if not agent.held:
            trial = placement.dry_run(registry, agent, avoid=seen.avoid, loads=seen.loads)
            answer.verdicts.extend(map(_verdict, trial.verdicts))
        return answer

    async def dry_run(self, _: Identity, request: registry_pb2.DryRunRequest) -> registry_pb2.DryRunResponse:
        """Where the agent would go now. Changes nothing. A spec that no server would take is refused as there."""
        registry = await self._caught_up()
        if not request.spec.id:
            request.spec.id = NAMELESS
        spec = fromwire.spec_from(request.spec)
        problem = placement.problem(spec)
        if problem:
            raise Invalid(problem)
        known = registry.agent(spec.id)
        agent = msgspec.structs.replace(known, spec=spec) if known is not None else placement.newcomer(spec)
        seen = self._seen(registry)
        trial = placement.dry_run(registry, agent, avoid=seen.avoid, loads=seen.loads)
        found = trial.placement
        return registry_pb2.DryRunResponse(
            host=found.host,
            node=trial.node,
            strategy=trial.strategy,
            explanation=found.explanation,
            reason=found.reason,
            message=found.message,
            next_action=found.next_action,
            verdicts=map(_verdict, trial.verdicts),
            revision=registry.revision,
            answered_by=self._name,
            loads_known=seen.known,
        )

    async def resources(self, _: Identity, __: registry_pb2.ResourcesRequest) -> registry_pb2.ResourcesResponse:
        """Capacity, use and reservations, by node and in all."""
        registry = await self._caught_up()
        seen = self._seen(registry)
        found = placement.rooms(registry, avoid=seen.avoid, loads=seen.loads)
        return registry_pb2.ResourcesResponse(
            nodes=[
                registry_pb2.NodeRoom(
                    node=node.node,
                    zone=node.zone,
                    available=node.available,
                    why=node.why,
                    hosts=node.hosts,
                    room=_room(node.room),
                    load=node.load,
                )
                for node in found.nodes
            ],
            total=_room(found.total),
            waiting=found.waiting,
            agents=found.agents,
            revision=registry.revision,
            answered_by=self._name,
            loads_known=seen.known,
        )

    async def decisions(self, _: Identity, request: registry_pb2.DecisionsRequest) -> registry_pb2.DecisionsResponse:
        """The last placements of the cluster, the newest first."""
        registry = await self._caught_up()
        chosen = (each for each in reversed(registry.decisions) if request.host in ("", each.host))
        newest = islice(chosen, min(request.limit or DECISIONS_DEFAULT, DECISIONS_MAX))
        return registry_pb2.DecisionsResponse(
            decisions=map(_decision, newest), kept=len(registry.decisions), revision=registry.revision
        )

    async def quarantine(self, _: Identity, request: registry_pb2.QuarantineRequest) -> registry_pb2.QuarantineResponse:
        """Place nothing new on a host, or (no reason) lift that. A refusal is INVALID_ARGUMENT with the sentence."""
        registry = await self._caught_up()
        known = registry.incarnations.keys() | registry.quarantines.keys()
        if request.host not in known:
            raise Invalid(f"There is no host {request.host!r}{_near(request.host, known)}.")
        command = commands.QuarantineHost(
            command_id=request.command_id, wall=clocks.wall_s(), name=request.host, reason=request.reason
        )
        outcome = await self._consensus.propose(commands.encode(command), COMMAND_TIMEOUT_S)
        if not isinstance(outcome, Applied):
            raise Unserved(f"The servers have not decided it: {outcome.reason}. Send it again.")
        result = results.decode(outcome.result)
        if not result.ok:
            raise Invalid(f"{result.message}.")
        held = (registry.held_by.get(name, ()) for name in registry.incarnations.get(request.host, ()))
        return registry_pb2.QuarantineResponse(revision=result.revision, agents=sum(map(len, held)))

    async def _caught_up(self) -> Registry:
        """After it "not found" is the truth and no lag. Without a quorum the answer is what this server knows."""
        await self._consensus.barrier(_BARRIER_S)
        return self._replica.registry

    def _seen(self, registry: Registry) -> Seen:
        if not self._leader.leading:
            return Seen()
        leases = self._leader.leases
        loads = {incarnation: load.cpu for incarnation, load in leases.loads().items()}
        return Seen(known=True, avoid=leases.suspects(clocks.boot_ns(), registry), loads=loads)


def _explained(registry: Registry, agent: model.Agent) -> registry_pb2.ExplainResponse:
    said = describe(registry, agent, clocks.wall_s())
    decisions = [decision for decision in reversed(registry.decisions) if decision.uid == agent.uid]
    since = next((decision.wall for decision in decisions if decision.epoch == agent.epoch), 0.0)
    answer = registry_pb2.ExplainResponse(
        uid=agent.uid,
        id=agent.id,
        phase=said.phase,
        summary=said.summary,
        reason=said.reason,
        next_action=said.next_action,
        ready=agent.ready,
        epoch=agent.epoch,
        host=agent.host,
        node=agent.node,
        strategy=agent.spec.strategy,
        since_wall=since if agent.held else 0.0,
        assigned_reason=agent.assigned_reason,
        explanation=agent.explanation,
        previous_explanation=agent.previous_explanation,
        last_host=agent.last_host,
        last_node=agent.last_node,
        decisions=map(_decision, decisions[:DECISIONS_SHOWN]),
    )
    if agent.last_failover is not None:
        answer.last_failover.CopyFrom(rows.failover(agent.last_failover))
    return answer


def _decision(made: model.Decision) -> registry_pb2.Decision:
    return registry_pb2.Decision(
        uid=made.uid,
        id=made.id,
        epoch=made.epoch,
        host=made.host,
        wall=made.wall,
        reason=made.reason,
        explanation=made.explanation,
    )


def _verdict(found: placement.Verdict) -> registry_pb2.Verdict:
    return registry_pb2.Verdict(
        host=found.host,
        incarnation=found.incarnation,
        node=found.node,
        zone=found.zone,
        pool=found.pool,
        fits=not found.rejected,
        rank=found.rank,
        score=found.score,
        detail=found.detail,
        rejected=found.rejected,
        why=found.why,
    )


def _room(room: placement.Room) -> registry_pb2.Room:
    return registry_pb2.Room(
        cpu_capacity=room.cpu_capacity,
        cpu_used=room.cpu_used,
        cpu_reserved=room.cpu_reserved,
        cpu_free=room.cpu_free,
        memory_capacity=room.memory_capacity,
        memory_used=room.memory_used,
        memory_reserved=room.memory_reserved,
        memory_free=room.memory_free,
        agents=room.agents,
        capacity_known=room.capacity_known,
    )


def _not_found(registry: Registry, agent_id: str) -> common_pb2.Error:
    return common_pb2.Error(
        code="NotFound",
        message=f"There is no agent {agent_id}{_near(agent_id, registry.by_id.keys())}.",
        outcome=common_pb2.OUTCOME_NOT_APPLIED,
        next_step="`tenure get agents` lists those that are.",
    )


def _near(name: str, known: AbstractSet[str]) -> str:
    """A suggestion, where it costs little to find one."""
    close = get_close_matches(name, sorted(known), n=1) if len(known) <= _NEAR_AMONG else []
    return f" (did you mean {close[0]!r}?)" if close else ""
