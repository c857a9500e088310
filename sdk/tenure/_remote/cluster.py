"""`Remote`: one connection to a cluster, with calls, logs and the registry's methods."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import msgspec

from tenure import errors
from tenure._instruction import Kind
from tenure._remote import channels
from tenure._remote.callids import CallIds
from tenure._remote.calls import Attempt, Peer, Reply
from tenure._remote.channels import Channel, RpcError
from tenure._remote.endpoint import Endpoint
from tenure._remote.framed import FramedSession
from tenure._remote.registry import ATTEMPT_S, DEFAULT_TIMEOUT_S, RegistryClient, Works
from tenure._remote.resolving import Resolver
from tenure._remote.routes import Routes
from tenure._remote.sessions import Session
from tenure_proto.v1 import calls_pb2, calls_pb2_grpc, common_pb2, registry_pb2, registry_pb2_grpc

FRESH_S = 30.0
"""Cluster time that was read longer ago than this is read again: it stamps the birth of call ids."""
LOG_PAUSE_S = 0.5
WITHOUT_FRAMES_S = 30.0
AnySession = Session | FramedSession

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
        self._ids = CallIds(f"{secrets.randbits(64):016x}")
        self._cluster_time = (0.0, float("-inf"))  # as read, and when, on the loop's clock
        self._sessions: dict[str, AnySession] = {}
        self._without_frames: dict[str, float] = {}
        """Until when, on the loop's clock, by address."""
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
        client_id, key = self._ids.next(agent_id, query=kind == calls_pb2.CALL_KIND_QUERY)
        call = calls_pb2.Call(
            agent=agent_id, kind=kind, method=method, arguments=arguments, client_id=client_id, key=key
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

    async def _peer(self, route: common_pb2.Route) -> Peer:
        """The session that leads to the holder: to its host, or to a server that passes calls on."""
        if self.endpoint.proxied or not route.address:
            address = self._servers.first
            session = await self._open(address, lambda: self._by_grpc(address, self.endpoint.server_name()))
            return session or await self._peer(route)
        expected = self.endpoint.host_name(route.host)
        if self._frames_of(route):
            framed = await self._open(route.frames_address, lambda: self._by_frames(route.frames_address, expected))
            return framed or await self._peer(route)
        session = await self._open(route.address, lambda: self._by_grpc(route.address, expected))
        return session or await self._peer(route)

    async def _open(self, address: str, make: Callable[[], AnySession]) -> AnySession | None:
        """The session there. None: it was lost, look again; another call may have opened one meanwhile."""
        session = self._sessions.get(address)
        if session is None:
            session = self._sessions[address] = make()
        elif session.lost:
            del self._sessions[address]
            await session.close()
            self._lost(address, session)
            return None
        return session

    def _lost(self, address: str, session: AnySession) -> None:
        if isinstance(session, FramedSession) and not session.opened:
            self._without_frames[address] = asyncio.get_running_loop().time() + WITHOUT_FRAMES_S
        self._servers.turn(address)

    def _frames_of(self, route: common_pb2.Route) -> str:
        """Where to call by framed TLS; empty: by gRPC. Where the former was not to be had the latter is taken a while:
        a firewall may know only one port, and an older host serves no calls there.
        """
        until = self._without_frames.get(route.frames_address, 0.0)
        return route.frames_address if asyncio.get_running_loop().time() >= until else ""

    def _by_grpc(self, address: str, expected: str) -> AnySession:
        return Session(self._channel(address, expected), address)

    def _by_frames(self, address: str, expected: str) -> AnySession:
        return FramedSession(address, expected, self._tls())

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
