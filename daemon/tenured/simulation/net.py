"""The simulated network: connections between processes, which behave as TCP with keepalive does.

What is sent on one connection arrives in order and at most once. A blocked direction stalls; what stalls arrives late
and in order when the way is open again, unless keepalive has cut the connection by then, at both ends. A process that
dies is noticed at once (its kernel says so), a machine that dies only by keepalive. Loss and duplicates of single
messages are the business of whoever writes: on a stream of bytes they cannot happen, and some protocols bear them
anyway (`SimStream.wild`).
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tenured.simulation.timeline import NS, ProcessLoop, Timeline
from tenured.transport.errors import NotConnected

MS = 1_000_000
KEEPALIVE_NS = 3 * NS
"""Silence after which either end gives a connection up: ping after 2 s, 1 s for its answer (tenured.transport.tls)."""
DIAL_TIMEOUT_S = 1.0

Accept = Callable[["End", str], None]
"""(end, machine that dialled)"""


@dataclass
class Way:
    """One direction between two machines."""

    blocked: bool = False
    factor: float = 1.0
    """Of the delay: a slow link."""
    ends: dict[End, None] = field(default_factory=dict["End", None])
    """Open ends that send this way."""


class End:
    """One side of a connection, owned by one process."""

    def __init__(self, net: Net, loop: ProcessLoop, here: str, there: str) -> None:
        self.net = net
        self.loop = loop
        self.here, self.there = here, there
        self.peer: End
        self.open = True
        self.on_item: Callable[[Any], None] | None = None
        """Takes each message; without it, `read` does."""
        self.on_end: Callable[[], None] | None = None
        self._inbox: deque[Any] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._latest = 0
        self._stalled: list[Any] = []

    # --- for its process --------------------------------------------------------------------------------------------

    def write(self, message: Any) -> bool:
        """Send; False when the connection has ended."""
        if not self.open or self.loop.dead:
            return False
        if self.net.way(self.here, self.there).blocked:
            self._stalled.append(message)
        else:
            self._send(message)
        return True

    async def read(self) -> Any:
        """The next message; None: the connection has ended."""
        while not self._inbox:
            if not self.open:
                return None
            self._waiting = self.loop.create_future()
            await self._waiting
        return self._inbox.popleft()

    def close(self) -> None:
        """End the connection; the other side hears of it after what was sent."""
        if self.open:
            self._end()
            self.net.hang_up(self)

    # --- for the network --------------------------------------------------------------------------------------------

    def _send(self, message: Any, *, extra_ns: int = 0) -> None:
        self._latest = max(self._latest, self.net.arrival(self.here, self.there)) + extra_ns
        self.peer.loop.deliver(self._latest, self.peer.arrived, message)

    def arrived(self, message: Any) -> None:
        """In the owner's loop."""
        if not self.open:
            return
        if self.on_item is not None:
            self.on_item(message)
        else:
            self._inbox.append(message)
            self._wake()

    def resume(self) -> None:
        """The way is open again."""
        stalled, self._stalled = self._stalled, []
        for message in stalled:
            self._send(message)

    def lost(self) -> None:
        """The connection is gone, in the owner's loop."""
        if self.open:
            self._end()

    def _end(self) -> None:
        self.open = False
        self._stalled.clear()
        self.net.way(self.here, self.there).ends.pop(self, None)
        self._wake()
        if self.on_end is not None:
            self.on_end()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    @property
    def settled_at(self) -> int:
        """When the last message that was sent arrives."""
        return self._latest


class Net:
    """All ways and connections. `delay_ns` and `jitter_ns` may be changed at any time."""

    def __init__(self, timeline: Timeline, rng: random.Random) -> None:
        self.timeline = timeline
        self.rng = rng
        self.delay_ns = MS
        self.jitter_ns = MS
        self._ways: dict[tuple[str, str], Way] = {}
        self._services: dict[tuple[str, str], tuple[ProcessLoop, Accept]] = {}

    def way(self, source: str, target: str) -> Way:
        """The direction between two machines."""
        found = self._ways.get((source, target))
        if found is None:
            found = self._ways[source, target] = Way()
        return found

    def arrival(self, source: str, target: str) -> int:
        """When a message that is sent now arrives."""
        if source == target:
            return self.timeline.now + MS // 20
        delay = self.delay_ns + self.rng.random() * self.jitter_ns
        return self.timeline.now + int(delay * self.way(source, target).factor)

    # --- connections ------------------------------------------------------------------------------------------------

    def listen(self, loop: ProcessLoop, machine: str, service: str, accept: Accept) -> None:
        """Take connections for as long as the process lives."""
        self._services[machine, service] = (loop, accept)

    async def dial(self, loop: ProcessLoop, here: str, there: str, service: str) -> End:
        """Connect. Raises NotConnected."""
        answered: asyncio.Future[End | None] = loop.create_future()
        if not self.way(here, there).blocked:
            self.timeline.at(self.arrival(here, there), lambda: self._knock(loop, here, there, service, answered))
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                end = await answered
        except TimeoutError as error:
            raise NotConnected(f"No connection to {there}: no answer") from error
        if end is None:
            raise NotConnected(f"No connection to {there}: refused")
        return end

    def _knock(
        self, loop: ProcessLoop, here: str, there: str, service: str, answered: asyncio.Future[End | None]
    ) -> None:
        """At the other machine's kernel."""
        if self.way(there, here).blocked or loop.dead:
            return
        listening = self._services.get((there, service))
        if listening is None or listening[0].dead:
            loop.deliver(self.arrival(there, here), _answer, answered, None)
            return
        listening[0].deliver(self.timeline.now, self._accept, loop, listening, (here, there), answered)

    def _accept(
        self,
        loop: ProcessLoop,
        listening: tuple[ProcessLoop, Accept],
        places: tuple[str, str],
        answered: asyncio.Future[End | None],
    ) -> None:
        """In the process that listens."""
        here, there = places
        near, far = End(self, loop, here, there), End(self, listening[0], there, here)
        near.peer, far.peer = far, near
        self.way(here, there).ends[near] = None
        self.way(there, here).ends[far] = None
        loop.deliver(self.arrival(there, here), _answer, answered, near)
        listening[1](far, here)
        if self.way(there, here).blocked:
            self._watch_silence(far)

    def hang_up(self, end: End) -> None:
        """One side closed: the other hears of it, or finds out."""
        peer = end.peer
        if self.way(end.here, end.there).blocked:
            peer.loop.deliver(self.timeline.now + KEEPALIVE_NS, peer.lost)
        else:
            peer.loop.deliver(max(end.settled_at, self.arrival(end.here, end.there)), peer.lost)

    def process_died(self, loop: ProcessLoop, *, silently: bool) -> None:
        """Its connections end. `silently`: with its machine, so that nobody says so."""
        for way in list(self._ways.values()):
            for end in [end for end in way.ends if end.loop is loop]:
                end.open = False
                way.ends.pop(end, None)
                if silently:
                    end.peer.loop.deliver(self.timeline.now + KEEPALIVE_NS, end.peer.lost)
                else:
                    self.hang_up(end)

    # --- trouble ----------------------------------------------------------------------------------------------------

    def block(self, source: str, target: str) -> None:
        """Nothing passes this way until `unblock`."""
        way = self.way(source, target)
        if not way.blocked:
            way.blocked = True
            for end in list(way.ends):
                self._watch_silence(end)

    def unblock(self, source: str, target: str) -> None:
        """What stalled goes on."""
        way = self.way(source, target)
        way.blocked = False
        for end in list(way.ends):
            end.resume()

    def heal(self) -> None:
        """Every way is open and quick."""
        for (source, target), way in list(self._ways.items()):
            way.factor = 1.0
            if way.blocked:
                self.unblock(source, target)

    def cut(self, source: str, target: str) -> None:
        """Break the connections between two machines, what is under way included."""
        for pair in ((source, target), (target, source)):
            for end in list(self.way(*pair).ends):
                end.loop.deliver(self.arrival(*reversed(pair)), end.lost)

    def _watch_silence(self, end: End) -> None:
        """Keepalive: a way that stays blocked ends the connections that need it."""

        def silent() -> None:
            if end.open and self.way(end.here, end.there).blocked:
                for side in (end, end.peer):
                    side.loop.deliver(self.timeline.now, side.lost)

        self.timeline.after(KEEPALIVE_NS, silent)


def _answer(answered: asyncio.Future[End | None], end: End | None) -> None:
    if not answered.done():
        answered.set_result(end)
    elif end is not None:
        end.close()  # nobody waits any more
