"""`Remote`: one connection to a cluster, with calls, logs and the registry's methods."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Self

import msgspec

from tenure import errors
from tenure._instruction import Kind
from tenure._remote import channels
from tenure._remote.calls import Attempt, Reply
from tenure._remote.channels import Channel, RpcError
from tenure._remote.endpoint import Endpoint
from tenure._remote.registry import ATTEMPT_S, DEFAULT_TIMEOUT_S, RegistryClient, Works
from tenure._remote.resolving import Resolver
from tenure._remote.routes import Routes
from tenure._remote.sessions import Session
from tenure_proto.v1 import calls_pb2, calls_pb2_grpc, common_pb2, registry_pb2, registry_pb2_grpc

FRESH_S = 30.0
"""Cluster time that was read longer ago than this is read again: it stamps the birth of call ids."""
LOG_PAUSE_S = 0.5

_LOOKING = frozenset({"dlq.list", "dlq.show", "state.get", "timers.list"})
"""Operations that change nothing: their outcome is never unknown."""
_KINDS: dict[Kind, calls_pb2.CallKind.ValueType] = {
    "action": calls_pb2.CALL_KIND_ACTION,
    "query": calls_pb2.CALL_KIND_QUERY,
    "by_name": calls_pb2.CALL_KIND_BY_NAME,
}


class Remote(RegistryClient):
    """A cluster, over its servers' API and its hosts. One event loop; close it when done."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        super().__init__(endpoint, timeout_s=timeout_s)
        self._client_id = f"{secrets.randbits(64):016x}"
        self._next_key = 0
        self._cluster_time = (0.0, float("-inf"))  # as read, and when, on the loop's clock
        self._sessions: dict[str, Session] = {}
        self._routes = Routes(Resolver(self._servers, self._resolve_at).resolve)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all streams. Calls that wait fail."""
        await self._routes.close()
        await asyncio.gather(*(session.close() for session in self._sessions.values()))
        self._sessions.clear()
        await super().close()

    # --- calls ---

    async def invoke(self, agent_id: str, kind: Kind, method: str, arguments: bytes, timeout: float | None) -> bytes:  # noqa: ASYNC109
        """Where references lead. Raises CallError."""
        return (await self.call(agent_id, kind, method, arguments, timeout_s=timeout)).value

    async def call(
        self, agent_id: str, kind: Kind, method: str, arguments: bytes, *, timeout_s: float | None = None
    ) -> Reply:
        """Call an action or a query of `namespace/name`, arguments as a msgpack map. Raises CallError."""
        return await self._send(agent_id, _KINDS[kind], method, arguments, timeout_s)

    async def control(
        self, agent_id: str, method: str, arguments: Mapping[str, object], *, timeout_s: float | None = None
    ) -> object:
        """An operation on an agent by its holder's host, not by user code (docs/operating.md); its answer as values.

        It carries a call id, as an action does: sent again after a failover, it takes effect once. Raises CallError.
        """
        packed = msgspec.msgpack.encode(arguments)
        try:
            reply = await self._send(agent_id, calls_pb2.CALL_KIND_CONTROL, method, packed, timeout_s)
        except errors.CallError as error:
            if method in _LOOKING:
                error.outcome = "not_applied"
            raise
        return msgspec.msgpack.decode(reply.value)

    async def _send(
        self, agent_id: str, kind: calls_pb2.CallKind.ValueType, method: str, arguments: bytes, timeout_s: float | None
    ) -> Reply:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self._timeout_s if timeout_s is None else timeout_s)
        self._next_key += 1
        call = calls_pb2.Call(
            agent=agent_id,
            kind=kind,
            method=method,
            arguments=arguments,
            client_id=self._client_id,
            key=self._next_key,
        )
        attempt = Attempt(call, self._routes, self._peer, deadline)
        call.born = await self._now(attempt)
        return await attempt.run()

    async def _now(self, attempt: Attempt) -> float:
        """Cluster time for the birth of a call id; 0 if no server tells it before the deadline, which passes then."""
        clock = asyncio.get_running_loop().time
        time, read_at = self._cluster_time
        while clock() - read_at > FRESH_S and clock() < attempt.deadline:
            try:
                async with asyncio.timeout_at(attempt.deadline):  # a second server that is asked has no time of its own
                    await self._routes.ask(attempt.call.agent, min(ATTEMPT_S, attempt.deadline - clock()))
            except TimeoutError:
                break
            except (errors.Transient, errors.DeadlineExceeded) as error:
                attempt.error = error if isinstance(error, errors.Transient) else attempt.error
                await asyncio.sleep(min(0.1, max(0.0, attempt.deadline - clock())))
            time, read_at = self._cluster_time
        return time

    async def _peer(self, route: common_pb2.Route) -> Session:
        """The session that leads to the holder: to its host, or to a server that passes calls on."""
        proxied = self.endpoint.proxied or not route.address
        address = self._servers.first if proxied else route.address
        session = self._sessions.get(address)
        if session is not None and not session.lost:
            return session
        if session is not None:
            del self._sessions[address]
            await session.close()
            if proxied:
                self._servers.turn(address)
            return await self._peer(route)  # another call may have opened one meanwhile
        expected = self.endpoint.server_name() if proxied else self.endpoint.host_name(route.host)
        session = Session(self._channel(address, expected), address)
        self._sessions[address] = session
        return session

    # --- agents ---

    async def apply_agents(
        self,
        specs: Sequence[registry_pb2.AgentSpec],
        *,
        managed_by: registry_pb2.ManagedBy.ValueType = registry_pb2.MANAGED_BY_API,
        timeout_s: float | None = None,
    ) -> Sequence[registry_pb2.RowResult]:
        """Create or change agents; one result each, in their order. Raises CallError."""
        results = await super().apply_agents(specs, managed_by=managed_by, timeout_s=timeout_s)
        for result in results:
            if result.HasField("route"):  # the next call need not ask
                self._routes.learn(result.route)
        return results

    async def create(
        self, agent_id: str, class_name: str, *, pool: str, state: bytes, config: bytes, works: Works | None = None
    ) -> None:
        """Create one agent, or leave it as it is. Raises Conflict if what is fixed for life differs, CallError."""
        await super().create(agent_id, class_name, pool=pool, state=state, config=config, works=works)
        self._routes.expect(agent_id)

    async def resolve(self, agent_id: str, *, timeout_s: float = ATTEMPT_S) -> common_pb2.Route:
        """Where the agent is, as a server knows it now. Raises NotFound, Unavailable."""
        return await self._routes.ask(agent_id, timeout_s)

    async def logs(self, agent_id: str, *, tail: int = 100, follow: bool = False) -> AsyncIterator[calls_pb2.LogLine]:
        """What the agent logged: up to `tail` lines of the past; with `follow` also what comes, at later holders too.

        Raises CallError.
        """
        while True:
            route = await self._routes.ask(agent_id, ATTEMPT_S)
            try:
                request = calls_pb2.LogsRequest(agent=agent_id, tail=tail, follow=follow)
                async for batch in calls_pb2_grpc.CallsStub(await self._log_channel(route)).Logs(request):
                    for line in batch.lines:
                        yield line
            except RpcError as error:
                if not (follow and channels.is_transient(error)):
                    raise channels.translate(error, f"logs of {agent_id}") from error
            if not follow:
                return
            tail = 0
            await asyncio.sleep(LOG_PAUSE_S)

    async def _log_channel(self, route: common_pb2.Route) -> Channel:
        if self.endpoint.proxied or not route.address:
            return self._channel(self._servers.first, self.endpoint.server_name())
        return self._channel(route.address, self.endpoint.host_name(route.host))

    async def _resolve_at(
        self, server: str, request: registry_pb2.ResolveRequest, timeout_s: float
    ) -> registry_pb2.ResolveResponse:
        stub = registry_pb2_grpc.RegistryStub(self._channel(server, self.endpoint.server_name()))
        try:
            answer = await stub.Resolve(request, timeout=timeout_s)
        except RpcError as error:
            self._servers.turn(server)
            if channels.is_transient(error):
                raise errors.Unavailable(f"resolving {request.agent} at {server}: {error.details()}") from error
            raise channels.translate(error, f"resolving {request.agent} at {server}") from error
        if answer.cluster_time > self._cluster_time[0]:
            self._cluster_time = (answer.cluster_time, asyncio.get_running_loop().time())
        return answer
