"""What a host has to send for its agents, and where to (protocol 3, "Sender"). Pure: time is passed in.

    release -> (route) -> a lane's queue -> take ... answered -> outcomes -> (the sender commits) -> forget

Kept: what was released is sent until it is settled or forgotten [keep_box]; for one receiver in the order of numbers;
`prev` names the one before it that is not forgotten [prev]. A refusal settles nothing: its pair waits for another
route, for the connection or for a pause, and goes on from there. A settled one is reported once.

Bodies are kept by reference: what waits here is in its sender's outbox in memory anyway, which bounds it [limit]. Only
what is under way is held twice, within the credits of each host.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from tenured.core.signals import Settled, Verdict
from tenured.core.streams import Item, Lane, Outcome, Owner, Results, Route, Stream


class Entry(Protocol):
    """A committed entry of an outbox, as `release` reads it."""

    @property
    def n(self) -> int:
        """Its number."""
        ...

    @property
    def receiver(self) -> str:
        """uid."""
        ...

    @property
    def born(self) -> float:
        """Cluster time of its commit, seconds."""
        ...

    @property
    def body(self) -> bytes:
        """Empty for a void."""
        ...

    @property
    def void(self) -> bool:
        """Given up."""
        ...

    @property
    def priority(self) -> int:
        """Higher first, between senders of one tenant."""
        ...


class Waiting(msgspec.Struct, frozen=True):
    """What a sender waits for, for status and `explain`."""

    unsettled: int = 0
    oldest_born: float = 0.0
    """Cluster time, seconds; 0: nothing waits."""
    stuck: dict[str, tuple[str, str]] = {}
    """Receiver uid -> (code of the last refusal, its sentence)."""


class Sending:
    """See the module. Whoever drives it hands out `take_outcomes` after each call, and calls `due` at `next_due`."""

    def __init__(self, route: Callable[[str], Route | None], jitter: Callable[[], float]) -> None:
        """`route(uid)`: where a receiver is now; None: where it was. `jitter()`: a number from 0 to 1."""
        self.lanes: dict[str, Lane] = {}
        """By the incarnation of the host."""
        self.results = Results(jitter)
        self._route = route
        self._streams: dict[str, dict[Stream, None]] = {}
        """By receiver."""
        self._waits: list[tuple[float, int, Stream]] = []
        self._serial = 0

    # --- senders ------------------------------------------------------------------------------------------------------

    def release(self, owner: Owner, entries: Sequence[Entry], now: float) -> None:
        """Send these, in order of n. One that is there already is replaced by its void.

        Raises:
            ValueError: a number is lower than one released before for the same receiver, and is not among those.

        """
        items = owner.items
        for entry in entries:
            item = items.get(entry.n)
            if item is not None:
                self._give_up(item, void=entry.void)
                continue
            stream = owner.streams.get(entry.receiver)
            if stream is None:
                stream = self._begin(owner, entry.receiver, now)
            if stream.last is not None and stream.last.n > entry.n:
                raise ValueError(f"signal {entry.n} was released after {stream.last.n}")
            body = b"" if entry.void else entry.body
            items[entry.n] = item = Item(entry.n, entry.born, body, entry.priority, void=entry.void)
            stream.add(item)
            self.results.unsettled += 1
            if stream.lane is not None:
                stream.lane.ready(stream)
            elif stream.route.deleted:
                self._deleted(stream)

    def _give_up(self, item: Item, *, void: bool) -> None:
        """The same number as a void; what is under way may still be answered, and that counts [void]."""
        if item.done or not void or item.void:
            return
        item.void, item.body = True, b""
        stream = item.stream
        if item.seq:
            stream.rewind(item)
        if stream.code == "TooLarge":
            stream.until = 0.0
        if stream.lane is not None:
            stream.lane.ready(stream)

    def forget(self, owner: Owner, numbers: Iterable[int]) -> None:
        """Drop these: their settlement is committed, or their sender gave them up otherwise."""
        for n in numbers:
            item = owner.items.pop(n, None)
            if item is None:
                continue
            stream = item.stream
            if not item.done:
                item.done = True
                self.results.unsettled -= 1
            stream.drop(item)
            if stream.first is None:
                self._end(stream)
            elif stream.code == "OutOfOrder":  # it named the one that is forgotten now
                self._wake(stream)
            elif stream.lane is not None:  # one that was under way made room
                stream.lane.ready(stream)

    def close(self, owner: Owner) -> None:
        """Drop everything of it. Answers that still come are nobody's."""
        for item in owner.items.values():
            if not item.done:
                item.done = True
                self.results.unsettled -= 1
        owner.items.clear()
        for stream in list(owner.streams.values()):
            self._end(stream)

    def waiting(self, owner: Owner) -> Waiting:
        """What it waits for."""
        open_items = [item for item in owner.items.values() if not item.done]
        if not open_items:
            return Waiting()
        stuck = {receiver: why for receiver, stream in owner.streams.items() if (why := self._why(stream)) is not None}
        return Waiting(len(open_items), min(item.born for item in open_items), stuck)

    def _why(self, stream: Stream) -> tuple[str, str] | None:
        """Why a pair makes no progress; None: nothing speaks against it."""
        if stream.code:
            return stream.code, stream.message
        if stream.lane is None or stream.lane.open:
            return None
        return "Unreachable", stream.lane.trouble or "there is no connection to its host yet"

    # --- routes -----------------------------------------------------------------------------------------------------

    def routes_changed(self, receivers: Iterable[str] | None, now: float) -> None:
        """Look again where these receivers are; None: all."""
        for receiver in list(self._streams) if receivers is None else receivers:
            for stream in list(self._streams.get(receiver, ())):
                self._look(stream, now)

    def _look(self, stream: Stream, now: float) -> None:
        route = self._route(stream.receiver)
        if route is not None and route != stream.route:
            self._follow(stream, route, now)

    def _follow(self, stream: Stream, route: Route, now: float) -> None:
        """A stale route is corrected, nothing fails by it."""
        stream.route = route
        stream.pauses, stream.until, stream.code, stream.message = 0, 0.0, "", ""
        if route.deleted:
            self._deleted(stream)
            return
        lane = self._lane(route.incarnation) if route.incarnation else None
        if lane is not stream.lane:
            if stream.lane is not None:
                stream.lane.detach(stream)
            if (
                not stream.owner.epoch
            ):  # one of a volatile sender is not sent twice: its answer may still come [vol_once]
                stream.rewind(stream.first)
        if lane is None:
            self.results.wait(stream, "NotReady", "no host holds it that can be reached", now)
            self._note_waits()
        elif stream.lane is lane:
            lane.ready(stream)
        else:
            lane.attach(stream)

    def _deleted(self, stream: Stream) -> None:
        """Protocol 3, dead letters (c): an earlier activation of the sender, or this one, may have been heard. So it is
        `unknown` in each case, never "not applied".
        """
        if stream.lane is not None:
            stream.lane.detach(stream)
        item = stream.first
        while item is not None:
            if not item.done:
                self.results.settle(item, Settled(Verdict.UNKNOWN))
            item = item.after

    def _lane(self, incarnation: str) -> Lane:
        lane = self.lanes.get(incarnation)
        if lane is None:
            lane = self.lanes[incarnation] = Lane(incarnation, self.results)
        return lane

    def _begin(self, owner: Owner, receiver: str, now: float) -> Stream:
        stream = owner.streams[receiver] = Stream(owner, receiver)
        self._streams.setdefault(receiver, {})[stream] = None
        self._follow(stream, self._route(receiver) or Route(), now)
        return stream

    def _end(self, stream: Stream) -> None:
        if stream.lane is not None:
            stream.lane.detach(stream)
        stream.over, stream.until = True, 0.0
        stream.owner.streams.pop(stream.receiver, None)
        others = self._streams.get(stream.receiver)
        if others is not None:
            others.pop(stream, None)
            if not others:
                del self._streams[stream.receiver]

    # --- answers and pauses -------------------------------------------------------------------------------------------

    def refusals(self, now: float) -> None:
        """After answers: pairs that were refused look at their routes, which may have changed meanwhile, and wait."""
        for stream in list(self.results.refused):
            if stream.code == "Moved":
                self._look(stream, now)
        self._note_waits()

    def take_outcomes(self) -> list[Outcome]:
        """What was settled since the last time."""
        settled = self.results.settled
        if settled:
            self.results.settled = []
        return settled

    @property
    def next_due(self) -> float | None:
        """When the first pause ends; None: nobody pauses."""
        return self._waits[0][0] if self._waits else None

    def due(self, now: float) -> None:
        """Let those go on whose pause is over; the route is looked at again, in case a change was missed."""
        while self._waits and self._waits[0][0] <= now:
            stream = heapq.heappop(self._waits)[2]
            if 0 < stream.until <= now and not stream.over:
                stream.until = 0.0
                self._look(stream, now)
                if stream.lane is not None:
                    stream.lane.ready(stream)
                elif not stream.route.deleted and not stream.until:
                    self.results.wait(stream, stream.code, stream.message, now)
                    self._note_waits()

    def _wake(self, stream: Stream) -> None:
        stream.until, stream.code, stream.message = 0.0, "", ""
        if stream.lane is not None:
            stream.lane.ready(stream)

    def _note_waits(self) -> None:
        for stream in self.results.refused:
            if stream.until and not stream.over:
                self._serial += 1
                heapq.heappush(self._waits, (stream.until, self._serial, stream))
        self.results.refused.clear()
