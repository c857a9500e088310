"""One call: sent to the holder, and again under the same call id wherever the agent is, until its deadline.

Retrying is safe since the turn's commit holds the call id's mark and reply: whoever holds the agent answers a
repetition with the recorded reply (protocol section 3, external clients).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from tenure import errors
from tenure._remote.channels import from_proto
from tenure._remote.routes import Routes
from tenure._remote.sessions import SessionLost
from tenure_proto.v1 import calls_pb2, common_pb2

PATIENCE_S = 0.25
"""How long an answer may take, while nobody gets one there, before a changed route is looked for: a frozen host sends
no RST.
"""
EACH_S = 0.002
LONGER_S = 0.75
"""And how much longer for each call that waits there, and at most: no lease has ended by then."""
FIRST_PAUSE_S = 0.02
LAST_WORDS_S = 1.0
"""How long a host may take to say what became of a call to an agent that has gone: it waits half of that for news."""
_BEFORE_JUDGEMENT = (errors.DeadlineExceeded, errors.PermissionDenied, errors.Unauthenticated, errors.VersionSkew)
"""Refusals that a host gives before it has looked for the call id among the marks (protocol additions 11)."""
LONGEST_PAUSE_S = 0.25


ReplyFuture = asyncio.Future[calls_pb2.Reply]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the agent answered, and who gave it."""

    value: bytes
    """msgpack"""
    host: str
    epoch: int
    recorded: bool
    """The call had been applied before; this is the reply that was kept with it."""


class Peer(Protocol):
    """Somebody who takes calls: `sessions.Session`."""

    heard: float
    opened: bool
    """It was connected, if only for a moment. Before that what is cancelled has not been sent."""

    @property
    def waiting(self) -> int: ...

    def send(self, call: calls_pb2.Call) -> asyncio.Future[calls_pb2.Reply]: ...


@dataclass
class Attempt:
    """One call on its way. Owns the futures of its sends."""

    call: calls_pb2.Call
    routes: Routes
    peer_of: Callable[[common_pb2.Route], Awaitable[Peer]]
    deadline: float
    """On the loop's clock."""
    sends: dict[ReplyFuture, tuple[int, Peer]] = field(default_factory=dict[ReplyFuture, tuple[int, Peer]])
    """Sends without an answer yet, with the epoch and the peer that they went to."""
    doubtful: bool = False
    """A send was lost, or its answer said "unknown": the call may have been applied there."""
    error: errors.CallError | None = None
    pause: float = FIRST_PAUSE_S

    async def run(self) -> Reply:
        """Raises CallError."""
        try:
            async with asyncio.timeout_at(self.deadline):
                route = await self._route()
                while True:
                    answer = await self._try(route)
                    if answer is not None:
                        return answer
                    route = await self._next(route)
        except TimeoutError as error:
            raise self._late() from error
        except errors.NotFound as error:
            return await self._gone(error)
        finally:
            for future in self.sends:
                future.cancel()

    async def _gone(self, error: errors.NotFound) -> Reply:
        """There is no agent any more. What is under way at a host is answered there within a moment: before that
        nobody knows whether it was applied. Raises NotFound; what the host says.
        """
        clock = asyncio.get_running_loop().time
        until = min(self.deadline, clock() + LAST_WORDS_S)
        while self._unknown() and not self.doubtful and (left := until - clock()) > 0:
            await asyncio.wait(self.sends, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            with contextlib.suppress(errors.NotFound):
                if (reply := self._settle(0)) is not None:
                    return reply
        if self._unknown() and error.outcome == "not_applied":  # deleted since, and its marks with it
            raise errors.NotFound(error.message, outcome="unknown", agent=self.call.agent) from error
        raise error

    async def _route(self) -> common_pb2.Route:
        """Where to send first."""
        while True:
            route = self.routes.known(self.call.agent)
            if route is not None and route.host:
                return route
            try:
                route = await self.routes.ask(self.call.agent, min(1.5, self._left()))
            except errors.Transient as error:
                self.error = error
                await self._rest()
                continue
            if route.host:
                return route
            self.error = errors.from_code(
                route.standing or "NotReady",
                f"{self.call.agent}: {route.summary or 'no host holds it'}",
                agent=self.call.agent,
            )
            if not isinstance(self.error, errors.Transient) and not self._unknown():
                raise self.error  # by a decision nobody is to hold it: waiting helps nobody
            await self.routes.changed(self.call.agent, route.epoch)

    async def _try(self, route: common_pb2.Route) -> Reply | None:
        """Send to this route and wait; None: try elsewhere, or again. Raises errors that repeating does not mend."""
        try:
            peer = await self.peer_of(route)
        except errors.Transient as error:
            self.error = error
            return None
        self.call.timeout_ms = max(1, int(self._left() * 1000))
        self.sends[peer.send(self.call)] = (route.epoch, peer)
        done = await self._patiently(peer)
        if done and (reply := self._settle(route.epoch)) is not None:
            return reply
        changed = self.routes.changed(self.call.agent, route.epoch)
        try:
            while not changed.done() and any(epoch == route.epoch for epoch, _ in self.sends.values()):
                either: set[ReplyFuture | asyncio.Future[common_pb2.Route]] = {*self.sends, changed}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if (reply := self._settle(route.epoch)) is not None:
                    return reply
            if changed.done():
                changed.result()  # a later route is known now; NotFound ends the call
        finally:
            changed.cancel()
        return None

    async def _patiently(self, peer: Peer) -> set[ReplyFuture]:
        """Wait for an answer for as long as the peer answers others, or has much to answer: it is busy, not frozen."""
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            patience_s = PATIENCE_S + min(LONGER_S, EACH_S * peer.waiting)
            left = max(began, peer.heard) + patience_s - clock()
            if left <= 0:
                return set()
            done, _ = await asyncio.wait(self.sends, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return done

    def _settle(self, epoch: int) -> Reply | None:
        """Look at the answers that have come. Raises the final error of the newest epoch asked."""
        for future in [future for future in self.sends if future.done()]:
            asked, _ = self.sends.pop(future)
            try:
                reply = future.result()
            except SessionLost as lost:
                self.doubtful = self.doubtful or lost.sent
                self.error = errors.Unavailable(str(lost), agent=self.call.agent)
                continue
            if reply.HasField("value"):
                return Reply(reply.value, reply.host, reply.epoch, reply.recorded)
            self._refused(reply.error, final=asked >= epoch)
        return None

    def _refused(self, answer: common_pb2.Error, *, final: bool) -> None:
        error = from_proto(answer, self.call.agent)
        retryable = answer.retryable or isinstance(error, errors.Transient)
        if not retryable and final:
            if isinstance(error, _BEFORE_JUDGEMENT) and self._unknown():
                error.outcome = "unknown"  # it was said of this send; an earlier one may have taken effect
            raise error
        self.doubtful = self.doubtful or error.outcome == "unknown"
        self.error = error
        if answer.HasField("moved_to") and answer.moved_to.host:
            self.routes.learn(answer.moved_to)

    async def _next(self, tried: common_pb2.Route) -> common_pb2.Route:
        """Where to try next: a later route if one is known or comes within the pause, else the same again."""
        agent = self.call.agent
        known = self.routes.known(agent)
        if known is not None and known.epoch > tried.epoch and known.host:
            self.pause = FIRST_PAUSE_S
            return known
        changed = self.routes.changed(agent, tried.epoch)
        try:
            async with asyncio.timeout(self._lengthen()):
                route = await changed
        except TimeoutError:
            return self.routes.known(agent) or tried
        self.pause = FIRST_PAUSE_S
        return route

    def _unknown(self) -> bool:
        """A send may have taken effect, and nobody has said. A query has no effect to be unsure of."""
        under_way = any(peer.opened for _, peer in self.sends.values())
        return self.call.kind != calls_pb2.CALL_KIND_QUERY and (self.doubtful or under_way)

    async def _rest(self) -> None:
        await asyncio.sleep(self._lengthen())

    def _lengthen(self) -> float:
        pause, self.pause = self.pause, min(LONGEST_PAUSE_S, self.pause * 2)
        return pause

    def _left(self) -> float:
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    def _late(self) -> errors.CallError:
        """The deadline passed. Not applied only if every send was answered so."""
        outcome: errors.Outcome = "unknown" if self._unknown() else "not_applied"
        agent, method = self.call.agent, self.call.method
        lost = self._lost_host()
        if self.error is None:
            return errors.DeadlineExceeded(
                f"no answer from {agent} to {method} in time{lost}",
                outcome=outcome,
                agent=agent,
            )
        return errors.from_code(
            self.error.code,
            f"{method} of {agent} did not succeed before its deadline: {self.error.message}{lost}",
            outcome=outcome,
            agent=agent,
            next_step=self.error.next_step,
        )

    def _lost_host(self) -> str:
        """What the servers said of the holder, if that is why nothing came: no address tells it."""
        route = self.routes.known(self.call.agent)
        if route is None or not route.host or route.standing != errors.NodeUnavailable.code:
            return ""
        return f"; its host {route.host} is silent, and another takes the agent over when that one's lease has ended"
