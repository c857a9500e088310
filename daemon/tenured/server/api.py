"""The Registry service: what clients, the CLI and the operator ask for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from tenure_api.identity import Identity, Role
from tenure_proto.v1 import common_pb2, registry_pb2
from tenured.core import agentspec, commands, model, results
from tenured.raft import COMMAND_LIMIT, Applied, NotApplied, Outcome
from tenured.raft import Role as RaftRole
from tenured.server import fromwire, rows
from tenured.server.asking import Asking
from tenured.server.replica import Replica, cannot_tell
from tenured.server.watching import WatchHub
from tenured.transport.serving import EncodedStream, Invalid, Refusal, Unserved

T = TypeVar("T", agentspec.AgentSpec, str)

COMMAND_TIMEOUT_S = 10.0
_BARRIER_S = 1.0
_MAX_WAIT_S = 60.0
_ROWS_A_COMMAND = 200
"""Agents in one log entry: it is applied in one turn of every server's loop."""
_ROUTES_A_TURN = 200


class Consensus(Protocol):
    """The part of `tenured.raft.Consensus` that is used here."""

    async def propose(self, command: bytes, timeout_s: float, *, term: int | None = None) -> Outcome:
        """Place one entry."""
        ...

    async def barrier(self, timeout_s: float) -> Outcome:
        """Read after it what was acknowledged before it."""
        ...

    def role(self) -> RaftRole:
        """How this server stands."""
        ...


class Api:
    """Implements `transport.registry.RegistryHandler`."""

    def __init__(
        self,
        cluster: str,
        replica: Replica,
        consensus: Consensus,
        hub: WatchHub,
        describe: Callable[[], registry_pb2.StatusResponse],
        changes_address: Callable[[], str] = str,
    ) -> None:
        """`describe`: what of the status is not in the registry or in consensus (see `status`). `changes_address`:
        host:port where the leader takes changes by framed TLS; empty: not known.
        """
        self._cluster = cluster
        self._replica = replica
        self._consensus = consensus
        self._hub = hub
        self._describe = describe
        self._changes_address = changes_address
        asking = Asking(replica, consensus)
        self.lookup, self.failovers = asking.lookup, asking.failovers
        self.confirm_failover = asking.confirm_failover
        self.reserve, self.unreserve = asking.reserve, asking.unreserve

    # --- changes ------------------------------------------------------------------------------------------------------

    async def apply_agents(
        self, peer: Identity, request: registry_pb2.ApplyAgentsRequest
    ) -> registry_pb2.ApplyAgentsResponse:
        """Create or change rows; each is answered on its own."""
        door = _door(peer, request.managed_by)
        specs = [fromwire.spec_from(spec) for spec in request.agents]

        def command(part: Sequence[agentspec.AgentSpec], command_id: str) -> commands.Command:
            return commands.ApplyAgents(
                command_id=command_id,
                wall=time.time(),
                agents=tuple(part),
                managed_by=door,
                expected_revision=request.expected_revision,
            )

        answers, revision = await self._in_parts(specs, request.command_id, command, lambda spec: spec.id)
        for start in range(0, len(answers), _ROUTES_A_TURN):
            self._add_routes(answers[start : start + _ROUTES_A_TURN])
            await asyncio.sleep(0)
        return registry_pb2.ApplyAgentsResponse(
            results=answers, revision=revision, changes_address=self._changes_address()
        )

    def _add_routes(self, answers: Sequence[registry_pb2.RowResult]) -> None:
        """So that who has created an agent need not ask where it is."""
        registry = self._replica.registry
        for answer in answers:
            agent = registry.agents.get(answer.uid)
            if agent is not None and agent.held and not agent.deleting:
                answer.route.CopyFrom(rows.held_route(registry, agent))

    async def delete_agents(
        self, peer: Identity, request: registry_pb2.DeleteAgentsRequest
    ) -> registry_pb2.DeleteAgentsResponse:
        """Mark rows for deletion; each is answered on its own."""
        door = _door(peer, request.managed_by)

        def command(part: Sequence[str], command_id: str) -> commands.Command:
            return commands.DeleteAgents(
                command_id=command_id,
                wall=time.time(),
                ids=tuple(part),
                managed_by=door,
                object_uid=request.object_uid,
                expected_revision=request.expected_revision,
            )

        answers, revision = await self._in_parts(list(request.ids), request.command_id, command, str)
        return registry_pb2.DeleteAgentsResponse(results=answers, revision=revision)

    async def apply_cluster(
        self, _: Identity, request: registry_pb2.ApplyClusterRequest
    ) -> registry_pb2.ApplyClusterResponse:
        """Set the pools. A refusal is INVALID_ARGUMENT with the sentence."""
        pools = tuple(fromwire.pool_from(pool) for pool in request.pools)
        command = commands.ApplyPools(command_id=request.command_id, wall=time.time(), pools=pools)
        return registry_pb2.ApplyClusterResponse(revision=await self._whole(command))

    async def set_nodes(self, _: Identity, request: registry_pb2.SetNodesRequest) -> registry_pb2.SetNodesResponse:
        """Set which nodes take new agents. A refusal is INVALID_ARGUMENT with the sentence."""
        nodes = tuple(fromwire.node_from(node) for node in request.nodes)
        command = commands.SetNodes(command_id=request.command_id, wall=time.time(), nodes=nodes)
        return registry_pb2.SetNodesResponse(revision=await self._whole(command))

    async def _whole(self, command: commands.Command) -> int:
        outcome = await self._consensus.propose(commands.encode(command), COMMAND_TIMEOUT_S)
        if not isinstance(outcome, Applied):
            raise Unserved(
                f"The servers have not decided it: {outcome.reason}. Send it again with the same command id."
            )
        result = results.decode(outcome.result)
        if not result.ok:
            raise Invalid(result.message)
        return result.revision

    async def _in_parts(
        self,
        items: Sequence[T],
        command_id: str,
        command: Callable[[Sequence[T], str], commands.Command],
        name: Callable[[T], str],
    ) -> tuple[list[registry_pb2.RowResult], int]:
        """Propose in entries of bounded size, in order; the first that is not decided ends it.

        The revision is not older than what was changed, although this server may not have applied it yet.
        """
        answers: list[registry_pb2.RowResult] = []
        revision = 0
        for number, start in enumerate(range(0, len(items), _ROWS_A_COMMAND)):
            part = items[start : start + _ROWS_A_COMMAND]
            decided, at = await self._part(part, f"{command_id}#{number}" if command_id else "", command, name)
            answers += decided
            revision = max(revision, at)
        return answers, max(revision, self._replica.registry.revision)

    async def _part(
        self,
        part: Sequence[T],
        command_id: str,
        command: Callable[[Sequence[T], str], commands.Command],
        name: Callable[[T], str],
    ) -> tuple[list[registry_pb2.RowResult], int]:
        encoded = commands.encode(command(part, command_id))
        if len(encoded) > COMMAND_LIMIT and len(part) > 1:
            half = len(part) // 2
            first, earlier = await self._part(part[:half], f"{command_id}a" if command_id else "", command, name)
            second, later = await self._part(part[half:], f"{command_id}b" if command_id else "", command, name)
            return first + second, max(earlier, later)
        outcome = await self._consensus.propose(encoded, COMMAND_TIMEOUT_S)
        if not isinstance(outcome, Applied):
            return [_undecided(name(item), outcome) for item in part], 0
        result = results.decode(outcome.result)
        if not result.ok:
            refused = [results.RowResult(name(item), "", "refused", result.reason, result.message) for item in part]
            return [_row(row) for row in refused], result.revision
        return [_row(row) for row in result.rows], result.revision

    # --- reads --------------------------------------------------------------------------------------------------------

    async def resolve(self, _: Identity, request: registry_pb2.ResolveRequest) -> registry_pb2.ResolveResponse:
        """Where an agent is; with `wait_ms` and its `known_epoch`: when epoch or readiness changed, or then."""
        registry = self._replica.registry
        loop = asyncio.get_running_loop()
        end = loop.time() + min(request.wait_ms / 1000, _MAX_WAIT_S)
        if registry.agent(request.agent) is None:
            truth = await self._consensus.barrier(_BARRIER_S)  # so that "not found" is the truth and no lag
            if self._replica.registry.agent(request.agent) is None and not isinstance(truth, Applied):
                raise Unserved(cannot_tell(request.agent, truth))
        agent = self._replica.registry.agent(request.agent)
        if agent is None:
            return registry_pb2.ResolveResponse(error=_not_found(request.agent), cluster_time=self._cluster_time())
        if agent.epoch == request.known_epoch:
            seen = (agent.epoch, agent.ready)
            left = max(0.0, end - loop.time())
            await self._replica.until_agent(agent.uid, lambda: self._standing(request.agent) != seen, left)
        agent = self._replica.registry.agent(request.agent)
        if agent is None:
            return registry_pb2.ResolveResponse(error=_not_found(request.agent), cluster_time=self._cluster_time())
        found = rows.route(self._replica.registry, agent, time.time())
        return registry_pb2.ResolveResponse(route=found, cluster_time=self._cluster_time())

    async def watch(self, _: Identity, request: registry_pb2.WatchRequest, stream: EncodedStream) -> None:
        """Follow the registry."""
        unknown = set(request.kinds) - {"agents", "hosts", "pools", "servers"}
        if unknown:
            raise Invalid(f"There is nothing to watch of kind {', '.join(sorted(unknown))}.")
        await self._hub.serve(request, stream)

    async def status(self, _: Identity, __: registry_pb2.StatusRequest) -> registry_pb2.StatusResponse:
        """The cluster as this server sees it."""
        return self._describe()

    def _standing(self, agent_id: str) -> tuple[int, bool] | None:
        agent = self._replica.registry.agent(agent_id)
        return None if agent is None else (agent.epoch, agent.ready)

    def _cluster_time(self) -> float:
        return self._replica.registry.cluster_ns / 1e9


def server_statuses(
    role: RaftRole,
    registry_servers: Mapping[str, model.Server],
    addresses: Mapping[str, str],
    stores: Mapping[str, str],
) -> list[registry_pb2.ServerStatus]:
    """All servers as one of them sees them. `stores`: of the own one, and of those that are joining. Pure."""
    found: list[registry_pb2.ServerStatus] = []
    for name in sorted({role.name, *role.peers}):
        row = registry_servers.get(name)
        status = registry_pb2.ServerStatus(
            name=name,
            address=addresses.get(name, row.address if row is not None else ""),
            version=row.version if row is not None else "",
            store="ready" if row is not None and not row.joining else stores.get(name, "joining"),
        )
        if name == role.name:
            status.role = _own_role(role)
            status.lag, status.connected = role.lag, True
            status.store = stores[name]
        else:
            peer = role.peers[name]
            status.connected = peer.connected
            status.lag = peer.lag or 0
            status.role = "leader" if name == role.leader else "follower" if peer.connected else "unreachable"
        found.append(status)
    return found


def quorum_ready(role: RaftRole) -> int:
    """Servers that are caught up, as far as this one knows."""
    close = 1000  # entries: what a healthy follower may be behind in a burst
    others = sum(peer.connected and (peer.lag or 0) < close for peer in role.peers.values())
    return others + role.ready


def _own_role(role: RaftRole) -> str:
    if role.is_leader:
        return "leader"
    if not role.voter:
        return "joining"
    return "follower" if role.leader else "candidate"


def _door(peer: Identity, asked: registry_pb2.ManagedBy.ValueType) -> model.ManagedBy:
    """Which door the caller comes through. Only the operator speaks for Kubernetes objects."""
    if asked == registry_pb2.MANAGED_BY_KUBERNETES or (not asked and peer.role is Role.OPERATOR):
        if peer.role is not Role.OPERATOR:
            raise Refusal(f"{peer.uri} may not write rows of Kubernetes objects: use kubectl, or managed_by API.")
        return "Kubernetes"
    return "API"


def _row(row: results.RowResult) -> registry_pb2.RowResult:
    message = registry_pb2.RowResult(id=row.id, uid=row.uid, outcome=row.outcome)
    if row.outcome == "refused":
        message.error.CopyFrom(
            common_pb2.Error(code=row.reason, message=row.message, outcome=common_pb2.OUTCOME_NOT_APPLIED)
        )
    return message


def _undecided(agent_id: str, outcome: Outcome) -> registry_pb2.RowResult:
    reason = "" if isinstance(outcome, Applied) else outcome.reason
    error = common_pb2.Error(
        code="NoQuorum",
        message=f"The servers have not decided it: {reason}.",
        outcome=common_pb2.OUTCOME_NOT_APPLIED if isinstance(outcome, NotApplied) else common_pb2.OUTCOME_UNKNOWN,
        retryable=True,
        next_step="Send it again with the same command id.",
    )
    return registry_pb2.RowResult(id=agent_id, outcome="refused", error=error)


def _not_found(agent_id: str) -> common_pb2.Error:
    return common_pb2.Error(
        code="NotFound",
        message=f"There is no agent {agent_id}.",
        outcome=common_pb2.OUTCOME_NOT_APPLIED,
        next_step="`tenure get agents` lists those that are.",
    )
