"""Model K, volatile agents (additions 10): one volatile sender to a durable receiver, and one durable sender to a
volatile receiver.

A volatile agent keeps nothing over a take-over. Its stream is (uid, epoch), each signal at most once; the receiver
keeps a mark for the highest epoch only. To a volatile receiver a signal goes at least once; it never calls `applied`
what its present activation did not apply itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from models.explore import Model, Step

Signal = tuple[int, int]
"""(epoch, number)"""


class World(NamedTuple):
    """A state of the whole."""

    # A volatile sender, a durable receiver.
    epoch: int = 1
    n: int = 0
    net: frozenset[Signal] = frozenset()  # deliverable for ever
    mark: Signal = (0, 0)
    hist: tuple[Signal, ...] = ()
    # A durable sender, a volatile receiver.
    box: tuple[int, ...] = ()
    sent: int = 0
    first: int = 0  # the first number that the present activation applied; 0: none yet
    last: int = 0
    applied: frozenset[int] = frozenset()  # for the checker: by any activation
    lives: int = 1
    bad: str | None = None


class Volatile(Model[World]):
    """See the module."""

    epochs, signals = 2, 2
    live = True
    FAST = ({},)
    SMALL = ({"epochs": 3},)
    BIG = {"epochs": 5, "signals": 6}
    GUARDS = {"vol_epoch": {}, "vol_highest": {}, "vol_once": {}, "vol_gap": {}, "vol_ack": {}}

    def init(self) -> World:
        """Nothing sent."""
        return World()

    def check(self, s: World) -> str | None:
        """At most once from a volatile sender; in order in each epoch."""
        if len(set(s.hist)) < len(s.hist):
            return "a signal of a volatile sender was applied twice"
        for epoch in range(1, s.epoch + 1):
            numbers = [n for e, n in s.hist if e == epoch]
            if numbers != sorted(numbers):
                return "signals of one start were applied out of order"
        return s.bad

    def goal(self, s: World) -> bool:
        """The durable sender's box is empty."""
        return not s.box

    def steps(self, s: World) -> Iterator[Step[World]]:
        """Both pairs."""
        yield from self.volatile_sender(s)
        yield from self.volatile_receiver(s)

    def volatile_sender(self, s: World) -> Iterator[Step[World]]:
        """At most once, by (epoch, number)."""
        if s.n < self.signals:
            yield f"sender.{s.epoch} emits {s.n + 1}", s._replace(n=s.n + 1, net=s.net | {(s.epoch, s.n + 1)})
        if s.epoch < self.epochs:
            yield "!the volatile sender starts anew", s._replace(epoch=s.epoch + 1, n=0)
        for epoch, n in s.net:
            known, last = s.mark
            old = epoch < known if self.on("vol_highest") else False
            same = epoch == known or not self.on("vol_epoch")
            if old or (same and n <= last and self.on("vol_once")):
                swallowed = same and not any(e == epoch and m >= n for e, m in s.hist) and not old
                if swallowed:
                    bad = "a signal of a new start was taken for a duplicate of an old one's"
                    yield f"receiver drops {epoch}.{n}", s._replace(bad=bad)
                continue
            yield f"receiver applies {epoch}.{n}", s._replace(mark=(epoch, n), hist=(*s.hist, (epoch, n)))

    def volatile_receiver(self, s: World) -> Iterator[Step[World]]:
        """At least once; `prev` orders what it can, and a new activation starts where the stream stands."""
        if s.sent < self.signals:
            yield f"durable sender emits {s.sent + 1}", s._replace(sent=s.sent + 1, box=(*s.box, s.sent + 1))
        if s.lives < self.epochs:
            yield "!the volatile receiver is taken over", s._replace(lives=s.lives + 1, first=0, last=0)
        for n in s.box:
            prev = max((m for m in s.box if m < n), default=0)
            rest = tuple(m for m in s.box if m != n)
            if n <= s.last:
                mine = n >= s.first or not self.on("vol_ack")
                bad = f"{n} was called applied and was not" if mine and n not in s.applied else None
                yield f"acks {n}: {'applied' if mine else 'unknown'}", s._replace(box=rest, bad=bad)
            # Delivered late, with the `prev` of its time: that one may have been settled by an earlier activation.
            for stale in {prev, n - 1}:
                fits = stale <= s.last or (not s.last and self.on("vol_gap"))
                if n > s.last and fits and (self.on("vol_gap") or stale == n - 1):
                    now = s._replace(first=s.first or n, last=n, applied=s.applied | {n})
                    yield f"volatile receiver applies {n}", now
