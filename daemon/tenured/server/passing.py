"""Calls that reach a server are passed on to the holder's host: for clients that cannot reach hosts themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from tenure_api.identity import Identity, Role
from tenure_proto.v1.calls_pb2 import Call, LogBatch, LogsRequest, Reply
from tenure_proto.v1.common_pb2 import OUTCOME_NOT_APPLIED, OUTCOME_UNKNOWN, Error, Route
from tenured.core.lookup import Answer
from tenured.raft import Applied, Outcome
from tenured.server import rows
from tenured.server.replica import Replica, cannot_tell
from tenured.transport.calls import InTasks
from tenured.transport.errors import OutcomeUnknown, TransportError
from tenured.transport.serving import Unserved

_PAUSE_MIN_S, _PAUSE_MAX_S = 0.02, 0.2
_DEFAULT_TIMEOUT_MS = 10_000
_IDLE_CLIENTS = 256


class Barrier(Protocol):
    """The part of Consensus that is used here."""

    async def barrier(self, timeout_s: float) -> Outcome:
        """Read after it what was acknowledged before it."""
        ...


class Client(Protocol):
    """A stream of calls to one host."""

    address: str

    async def call(self, call: Call, timeout_s: float) -> Reply:
        """Send and wait. Raises TransportError."""
        ...

    def logs(self, request: LogsRequest) -> AsyncIterator[LogBatch]:
        """Lines of a log. Raises TransportError."""
        ...

    async def close(self) -> None:
        """End the stream."""
        ...


@dataclass(slots=True)
class _Attempts:
    """What is known of one call after all that was tried. A call that may have been applied stays unknown."""

    deadline: float
    maybe_applied: bool = False
    pause_s: float = _PAUSE_MIN_S
    last: Error | None = None


class Passing(InTasks):
    """Implements `transport.calls.CallsHandler` for a server."""

    def __init__(
        self, cluster: str, replica: Replica, consensus: Barrier, connect: Callable[[str, str], Client]
    ) -> None:
        """`connect(address, expected)` makes a client; see `transport.calls.CallsClient`."""
        super().__init__()
        self._cluster = cluster
        self._replica = replica
        self._consensus = consensus
        self._connect = connect
        self._clients: dict[str, Client] = {}

    async def call(self, peer: Identity, call: Call) -> Reply:
        """Pass the call on, and again under the same call id, until it is settled or its time has passed."""
        loop = asyncio.get_running_loop()
        call.caller = peer.uri
        attempts = _Attempts(loop.time() + (call.timeout_ms or _DEFAULT_TIMEOUT_MS) / 1000)
        while (left := attempts.deadline - loop.time()) > 0:
            try:
                route = await self._route(call.agent)
            except Unserved as error:
                attempts.last = Error(code="Unavailable", message=str(error), retryable=True)
                await self._pause(call.agent, None, attempts)
                continue
            if route is None:
                return Reply(error=_not_found(call.agent, attempts.maybe_applied))
            if route.address:
                call.timeout_ms = max(1, int(left * 1000))
                reply = await self._attempt(call, route, left, attempts)
                if reply is not None:
                    return reply
            else:
                attempts.last = _not_ready(route)
                if not attempts.last.retryable and not attempts.maybe_applied:
                    return Reply(error=attempts.last)  # by a decision nobody is to hold it: waiting helps nobody
            await self._pause(call.agent, route, attempts)
        return Reply(error=_give_up(call.agent, attempts))

    async def logs(self, _: Identity, request: LogsRequest) -> AsyncIterator[LogBatch]:
        """Lines from the holder's host. Raises Unserved while nobody holds the agent."""
        route = await self._route(request.agent)
        if route is None or not route.address:
            raise Unserved(route.summary if route is not None else f"There is no agent {request.agent}.")
        try:
            async for batch in self._client(route).logs(request):
                yield batch
        except TransportError as error:
            raise Unserved(str(error)) from error

    async def close(self) -> None:
        """End every stream to hosts."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    async def _attempt(self, call: Call, route: Route, left: float, attempts: _Attempts) -> Reply | None:
        """One try; None when the same call may be repeated."""
        try:
            reply = await self._client(route).call(call, left)
        except TransportError as error:
            unknown = isinstance(error, OutcomeUnknown)
            attempts.maybe_applied |= unknown
            attempts.last = Error(code="Unavailable", message=str(error), retryable=True)
            return None
        if not reply.HasField("error") or not reply.error.retryable:
            return reply
        attempts.maybe_applied |= reply.error.outcome == OUTCOME_UNKNOWN
        attempts.last = reply.error
        return None

    async def _pause(self, agent_id: str, route: Route | None, attempts: _Attempts) -> None:
        """Wait a little, or until the registry shows another route."""
        left = attempts.deadline - asyncio.get_running_loop().time()
        seen = None if route is None else (route.epoch, route.ready)
        await self._replica.until(lambda: self._standing(agent_id) != seen, max(0.0, min(attempts.pause_s, left)))
        attempts.pause_s = min(attempts.pause_s * 2, _PAUSE_MAX_S)

    def _standing(self, agent_id: str) -> tuple[int, bool] | None:
        agent = self._replica.registry.agent(agent_id)
        return None if agent is None else (agent.epoch, agent.ready)

    async def _route(self, agent_id: str) -> Route | None:
        """None: there is no such agent. Raises Unserved when that cannot be told."""
        if self._replica.registry.agent(agent_id) is None:
            truth = await self._consensus.barrier(1.0)  # so that "not found" is the truth and no lag
            if not isinstance(truth, Applied) and self._replica.registry.agent(agent_id) is None:
                raise Unserved(cannot_tell(agent_id, truth))
        registry = self._replica.registry
        agent = registry.agent(agent_id)
        return None if agent is None else rows.route(registry, agent, time.time())

    def _client(self, route: Route) -> Client:
        client = self._clients.pop(route.host, None)
        if client is None or client.address != route.address:  # a host's pod came back with another address
            expected = Identity(self._cluster, Role.HOST, route.host).dns_name
            if client is not None:
                _close_later(client)
            client = self._connect(route.address, expected)
        self._clients[route.host] = client  # last in, last out
        if len(self._clients) > _IDLE_CLIENTS:
            _close_later(self._clients.pop(next(iter(self._clients))))
        return client


_closing: set[asyncio.Task[None]] = set()


def _close_later(client: Client) -> None:
    task = asyncio.ensure_future(client.close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


def _not_found(agent_id: str, maybe_applied: bool) -> Error:
    """It may have gone after an attempt that was not answered."""
    return Error(
        code="NotFound",
        message=f"There is no agent {agent_id}.",
        outcome=OUTCOME_UNKNOWN if maybe_applied else OUTCOME_NOT_APPLIED,
        next_step="`tenure get agents` lists those that are.",
    )


def _not_ready(route: Route) -> Error:
    return Error(
        code=route.standing or "NotReady",
        message=f"{route.agent}: {route.summary}.",
        outcome=OUTCOME_NOT_APPLIED,
        retryable=route.standing not in {Answer.UNAVAILABLE, Answer.NOT_FOUND},
    )


def _give_up(agent_id: str, attempts: _Attempts) -> Error:
    """The last error, with what all attempts together leave known."""
    error = Error(code="DeadlineExceeded", message=f"{agent_id} did not answer in time.")
    if attempts.last is not None:
        error.CopyFrom(attempts.last)
    error.outcome = OUTCOME_UNKNOWN if attempts.maybe_applied else OUTCOME_NOT_APPLIED
    error.retryable = True
    return error
