"""The registry's methods, asked of a cluster's servers in turn."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tenure import errors
from tenure._remote import channels
from tenure._remote.changing import ToLeader
from tenure._remote.channels import Channel, RpcError
from tenure._remote.credentials import context_of
from tenure._remote.endpoint import Endpoint
from tenure._remote.resolving import Turns
from tenure_proto.v1 import changes_pb2, registry_pb2, registry_pb2_grpc

DEFAULT_TIMEOUT_S = 30.0
ATTEMPT_S = 2.0
"""Of one request to one server, where another could answer as well."""
_SAID_TO_ALL = {"ImmutableField": errors.Conflict.code, "Deleting": errors.NotReady.code}
"""The registry's words; callers of the SDK know one for all runtimes. What is going may be asked for again soon."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Works:
    """How an agent keeps its state and answers. Empty words and 0: the cluster's defaults."""

    durability: str = ""
    reads: str = ""
    idle_timeout_s: float = 0.0
    """0: never."""
    on_exhausted: str = ""
    max_attempts: int = 0
    backoff_s: float = 0.0
    ttl_s: float = 0.0
    """Of signals; docs/operating.md."""


class RegistryClient:
    """A cluster's registry, over its servers' API. One event loop; close it when done."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._servers = Turns(endpoint.servers)
        self._channels: dict[str, Channel] = {}
        self._context: ssl.SSLContext | None = None
        self._to_leader = ToLeader(endpoint, self._tls)

    async def close(self) -> None:
        """Close the connections."""
        await self._to_leader.close()
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))
        self._channels.clear()

    async def status(self, *, timeout_s: float | None = None) -> registry_pb2.StatusResponse:
        """Who leads, which servers are up, as one server sees it. Raises CallError."""

        async def ask(stub: registry_pb2_grpc.RegistryStub, seconds: float) -> registry_pb2.StatusResponse:
            return await stub.Status(registry_pb2.StatusRequest(), timeout=seconds)

        return await self._ask("status", ask, timeout_s)

    async def statuses(self, *, timeout_s: float = ATTEMPT_S) -> list[registry_pb2.StatusResponse]:
        """What each server says that answers in time, in no order. Behind a port-forward that is one of them."""

        async def ask(server: str) -> registry_pb2.StatusResponse | None:
            stub = registry_pb2_grpc.RegistryStub(self._channel(server, self.endpoint.server_name()))
            try:
                return await stub.Status(registry_pb2.StatusRequest(), timeout=timeout_s)
            except RpcError:
                return None

        answers = await asyncio.gather(*map(ask, self.endpoint.servers))
        return [answer for answer in answers if answer is not None]

    async def explain(self, agent_id: str, *, timeout_s: float | None = None) -> registry_pb2.ExplainResponse:
        """Why an agent is where it is, or nowhere. Raises NotFound, CallError."""
        request = registry_pb2.ExplainRequest(agent=agent_id)

        async def ask(stub: registry_pb2_grpc.RegistryStub, seconds: float) -> registry_pb2.ExplainResponse:
            return await stub.Explain(request, timeout=seconds)

        answer = await self._ask("explain", ask, timeout_s)
        if answer.HasField("error"):
            raise channels.from_proto(answer.error, agent_id)
        return answer

    async def dry_run(
        self, spec: registry_pb2.AgentSpec, *, timeout_s: float | None = None
    ) -> registry_pb2.DryRunResponse:
        """Where an agent would be placed now; changes nothing. Raises CallError."""
        request = registry_pb2.DryRunRequest(spec=spec)

        async def ask(stub: registry_pb2_grpc.RegistryStub, seconds: float) -> registry_pb2.DryRunResponse:
            return await stub.DryRun(request, timeout=seconds)

        return await self._ask("place", ask, timeout_s)

    async def resources(self, *, timeout_s: float | None = None) -> registry_pb2.ResourcesResponse:
        """Capacity, use and reservations, by node and in all. Raises CallError."""

        async def ask(stub: registry_pb2_grpc.RegistryStub, seconds: float) -> registry_pb2.ResourcesResponse:
            return await stub.Resources(registry_pb2.ResourcesRequest(), timeout=seconds)

        return await self._ask("resources", ask, timeout_s)

    async def decisions(
        self, host: str = "", limit: int = 0, *, timeout_s: float | None = None
    ) -> registry_pb2.DecisionsResponse:
        """The last placements of the cluster, or of one host, the newest first. Raises CallError."""
        request = registry_pb2.DecisionsRequest(host=host, limit=limit)

        async def ask(stub: registry_pb2_grpc.RegistryStub, seconds: float) -> registry_pb2.DecisionsResponse:
            return await stub.Decisions(request, timeout=seconds)

        return await self._ask("placements", ask, timeout_s)

    async def quarantine(
        self, host: str, reason: str, *, timeout_s: float | None = None
    ) -> registry_pb2.QuarantineResponse:
        """Place nothing new on a host; an empty reason lifts that. Raises CallError."""
        request = registry_pb2.QuarantineRequest(host=host, reason=reason, command_id=_command_id())

        async def ask(stub: registry_pb2_grpc.RegistryStub, seconds: float) -> registry_pb2.QuarantineResponse:
            return await stub.Quarantine(request, timeout=seconds)

        return await self._ask("quarantine", ask, timeout_s)

    async def failovers(self, *, timeout_s: float | None = None) -> registry_pb2.FailoversResponse:
        """The last losses of hosts, the newest first. Raises CallError."""

        async def ask(stub: registry_pb2_grpc.RegistryStub, seconds: float) -> registry_pb2.FailoversResponse:
            return await stub.Failovers(registry_pb2.FailoversRequest(), timeout=seconds)

        return await self._ask("failovers", ask, timeout_s)

    async def confirm_failover(
        self, hosts: Sequence[str], *, timeout_s: float | None = None
    ) -> registry_pb2.ConfirmFailoverResponse:
        """Say that these hosts are gone (none: all whose failover is held back). Raises CallError."""
        request = registry_pb2.ConfirmFailoverRequest(hosts=hosts, command_id=_command_id())

        async def ask(stub: registry_pb2_grpc.RegistryStub, seconds: float) -> registry_pb2.ConfirmFailoverResponse:
            return await stub.ConfirmFailover(request, timeout=seconds)

        return await self._ask("failover confirm", ask, timeout_s)

    async def apply_agents(
        self,
        specs: Sequence[registry_pb2.AgentSpec],
        *,
        managed_by: registry_pb2.ManagedBy.ValueType = registry_pb2.MANAGED_BY_API,
        timeout_s: float | None = None,
    ) -> Sequence[registry_pb2.RowResult]:
        """Create or change agents; one result each, in their order. Raises CallError."""
        request = registry_pb2.ApplyAgentsRequest(agents=specs, managed_by=managed_by, command_id=_command_id())
        deadline = asyncio.get_running_loop().time() + (self._timeout_s if timeout_s is None else timeout_s)
        changed = await self._to_leader.ask(changes_pb2.Change(apply=request), min(ATTEMPT_S, self._left(deadline)))
        answer = None if changed is None else changed.applied
        if answer is None or _undecided(answer.results):

            async def ask(stub: registry_pb2_grpc.RegistryStub, seconds: float) -> registry_pb2.ApplyAgentsResponse:
                return await stub.ApplyAgents(request, timeout=seconds)

            left_s = self._left(deadline)
            answer = await self._ask("apply", ask, left_s, again=lambda answer: _undecided(answer.results))
        self._to_leader.learn(answer.changes_address)
        return answer.results

    async def delete_agents(
        self,
        ids: Sequence[str],
        *,
        managed_by: registry_pb2.ManagedBy.ValueType = registry_pb2.MANAGED_BY_API,
        timeout_s: float | None = None,
    ) -> Sequence[registry_pb2.RowResult]:
        """Stop agents and remove them; one result each, in their order. Raises CallError."""
        request = registry_pb2.DeleteAgentsRequest(ids=ids, managed_by=managed_by, command_id=_command_id())

        async def ask(stub: registry_pb2_grpc.RegistryStub, seconds: float) -> Sequence[registry_pb2.RowResult]:
            return (await stub.DeleteAgents(request, timeout=seconds)).results

        return await self._ask("delete", ask, timeout_s, again=_undecided)

    async def find(
        self,
        *,
        capability: str = "",
        labels: Mapping[str, str] | None = None,
        node: str = "",
        live: bool = True,
        timeout_s: float | None = None,
    ) -> list[registry_pb2.AgentRow]:
        """Agents that offer a capability, have these labels, or are on a node: one of the three. Raises CallError."""
        found: list[registry_pb2.AgentRow] = []
        more = True
        while more:
            request = registry_pb2.LookupRequest(
                capability=capability, labels=labels, node=node, live=live, after_uid=found[-1].uid if found else ""
            )

            async def ask(
                stub: registry_pb2_grpc.RegistryStub, seconds: float, request: registry_pb2.LookupRequest = request
            ) -> registry_pb2.LookupResponse:
                return await stub.Lookup(request, timeout=seconds)

            answer = await self._ask("find", ask, timeout_s)
            found += answer.agents
            more = answer.more and len(answer.agents) > 0
        return found

    async def create(
        self, agent_id: str, class_name: str, *, pool: str, state: bytes, config: bytes, works: Works | None = None
    ) -> None:
        """Create one agent, or leave it as it is. Raises Conflict if what is fixed for life differs, NotReady while one
        of that name is going, CallError.
        """
        works = works or Works()
        spec = registry_pb2.AgentSpec(
            id=agent_id, pool=pool, state=state, config=config, critical=True,
            durability=works.durability, reads=works.reads, idle_timeout_s=works.idle_timeout_s,
            on_exhausted=works.on_exhausted,
            delivery=registry_pb2.Delivery(
                max_attempts=works.max_attempts, backoff_s=works.backoff_s, ttl_s=works.ttl_s
            ),
        )  # fmt: skip
        setattr(spec, "class", class_name)  # a keyword of Python
        results = await self.apply_agents([spec])
        for result in results:
            if (code := _SAID_TO_ALL.get(result.error.code)) is not None:
                result.error.code = code
        _raise_refused(results)

    async def delete(self, agent_id: str) -> None:
        """Remove one agent, if it exists. Raises CallError."""
        _raise_refused(await self.delete_agents([agent_id]))

    async def apply_pools(self, pools: Sequence[registry_pb2.PoolSpec], *, timeout_s: float | None = None) -> int:
        """Declare the whole set of pools; the registry's revision then. Raises CallError."""
        request = registry_pb2.ApplyClusterRequest(pools=pools, command_id=_command_id())

        async def ask(stub: registry_pb2_grpc.RegistryStub, seconds: float) -> registry_pb2.ApplyClusterResponse:
            return await stub.ApplyCluster(request, timeout=seconds)

        return (await self._ask("apply", ask, timeout_s)).revision

    async def watch(
        self, kinds: Sequence[str] = (), *, patience_s: float = 10.0
    ) -> AsyncIterator[registry_pb2.WatchBatch]:
        """The registry: a snapshot, a batch with `synced`, then deltas; goes on at another server when one is lost.

        `kinds`: agents, hosts, pools, servers; none: all. Raises CallError when no server answers for `patience_s`
        seconds.
        """
        clock = asyncio.get_running_loop().time
        revision, synced, give_up = 0, False, clock() + patience_s
        while True:
            server = self._servers.first
            stub = registry_pb2_grpc.RegistryStub(self._channel(server, self.endpoint.server_name()))
            try:
                async for batch in stub.Watch(registry_pb2.WatchRequest(from_revision=revision, kinds=kinds)):
                    give_up = clock() + patience_s
                    synced = (synced and not batch.snapshot) or batch.synced
                    revision = batch.revision if synced else 0  # a snapshot that breaks off begins anew
                    yield batch
            except RpcError as error:
                self._servers.turn(server)
                if not channels.is_transient(error) or clock() > give_up:
                    raise channels.translate(error, "watch") from error
            else:
                self._servers.turn(server)
            await asyncio.sleep(0.1)

    async def _ask(
        self,
        what: str,
        ask: Callable[[registry_pb2_grpc.RegistryStub, float], Awaitable[T]],
        timeout_s: float | None,
        *,
        again: Callable[[T], bool] = lambda _: False,
    ) -> T:
        """Ask servers in turn until one answers, and answers for good. Raises CallError.

        Requests that change something carry a command id: a repetition changes nothing twice.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + (self._timeout_s if timeout_s is None else timeout_s)
        pause, why = 0.02, None
        while True:
            server = self._servers.first
            stub = registry_pb2_grpc.RegistryStub(self._channel(server, self.endpoint.server_name()))
            # Longer each time: a large apply may need it, and a frozen server must not hold it up.
            seconds = min(ATTEMPT_S + 20 * pause, max(0.05, deadline - clock()))
            try:
                answer = await ask(stub, seconds)
            except RpcError as error:
                why = channels.more_telling(why, error, whole=seconds >= ATTEMPT_S)
                if not channels.is_transient(error) or clock() + pause >= deadline:
                    raise channels.translate(why, f"{what} at {server}") from why
            else:
                if not again(answer) or clock() + pause >= deadline:
                    return answer
            self._servers.turn(server)
            await asyncio.sleep(pause)
            pause = min(0.5, pause * 2)

    def _left(self, deadline: float) -> float:
        """Seconds; enough to ask once."""
        return max(0.05, deadline - asyncio.get_running_loop().time())

    def _tls(self) -> ssl.SSLContext:
        """Of framed connections. Raises ConfigurationError."""
        if self._context is None:
            self._context = context_of(self.endpoint)
        return self._context

    def _channel(self, address: str, expected: str) -> Channel:
        key = f"{expected}@{address}"
        channel = self._channels.get(key)
        if channel is None:
            here = self.endpoint
            channel = channels.open_channel(address, expected, here.authority_pem, here.certificate_pem, here.key_pem)
            self._channels[key] = channel
        return channel


def _undecided(results: Sequence[registry_pb2.RowResult]) -> bool:
    """The servers could not decide some row: the same command may be sent again."""
    return any(result.error.retryable for result in results)


def _raise_refused(results: Sequence[registry_pb2.RowResult]) -> None:
    for result in results:
        if result.HasField("error"):
            raise channels.from_proto(result.error, result.id)


def _command_id() -> str:
    return secrets.token_hex(16)
