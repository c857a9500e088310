"""One sender's signals to one receiver, and the way to one host (protocol 3, "Sender"): order, credits, resending.

A `Stream` is a pair of agents: its unsettled signals in the order of their numbers, and which of them goes next. A
`Lane` is the way to one process start of a host: it numbers what it sends (`seq`, anew with each connection), and an
answer names that number. What was sent again meanwhile is recognised by it: an old refusal is not heard twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tenured.core.fairness import FairQueue
from tenured.core.signals import Answer, Settled, Signal, Verdict

PAIR_WINDOW = 128
"""Signals of one pair that may be under way at once: one receiver that stands still takes no more of a connection."""
BURST = 16
"""Signals of one pair in a row, while others of the same tenant and priority wait."""
OVERHEAD = 96
"""Bytes that a signal counts beside its body."""
MAX_BODY = 12 << 20
"""Bytes of the largest body that travels between hosts: a frame takes 16 MiB. A larger one waits to be given up."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 5.0

_UNKNOWN = Settled(Verdict.UNKNOWN)


class Route(NamedTuple):
    """Where a receiver is, as this host has read it."""

    incarnation: str = ""
    """Of the host that holds it; empty: nobody who can be reached."""
    epoch: int = 0
    ready: bool = False
    deleted: bool = False
    """It is gone for good."""


class Owner:
    """The sending activation, as its streams see it."""

    __slots__ = ("epoch", "items", "source", "streams", "tenant", "uid")

    def __init__(self, uid: str, source: str, tenant: str, epoch: int) -> None:
        self.uid, self.source, self.tenant = uid, source, tenant
        self.epoch = epoch
        """Of a volatile sender; 0: it is durable."""
        self.items: dict[int, Item] = {}
        """Number -> what was released and not forgotten."""
        self.streams: dict[str, Stream] = {}
        """By receiver."""


class Item:
    """One released signal."""

    __slots__ = ("after", "before", "body", "born", "done", "lane", "n", "priority", "seq", "stream", "tried", "void")

    def __init__(self, n: int, born: float, body: bytes, priority: int, *, void: bool) -> None:
        self.n, self.born, self.body, self.void, self.priority = n, born, body, void, priority
        self.stream: Stream
        self.before: Item | None = None
        self.after: Item | None = None
        self.seq = 0
        """Number under which it is under way on its stream's lane; 0: it is not."""
        self.lane: Lane | None = None
        """Where it is under way, or was last."""
        self.tried = False
        """It was sent once at least."""
        self.done = False
        """Answered, or forgotten: nothing more is sent of it."""


class Stream:
    """One (sender, receiver) pair: a chain of items in the order of n."""

    __slots__ = (
        *(
            "code",
            "first",
            "flying",
            "lane",
            "last",
            "message",
            "next",
            "over",
            "owner",
            "pauses",
            "queued",
            "receiver",
        ),
        *("route", "until"),
    )

    def __init__(self, owner: Owner, receiver: str) -> None:
        self.owner, self.receiver = owner, receiver
        self.first: Item | None = None
        self.last: Item | None = None
        self.next: Item | None = None
        """The first one that is to be sent; those before it are under way or done."""
        self.flying = 0
        """Number of items with a `seq`."""
        self.lane: Lane | None = None
        self.route = Route()
        self.queued = False
        """It stands in its lane's queue."""
        self.until = 0.0
        """It waits until then, in the caller's seconds; 0: it does not wait."""
        self.pauses = 0
        """Refusals in a row."""
        self.code = self.message = ""
        """Of the last refusal, until something was settled after it."""
        self.over = False
        """It has nothing more to send, and another stream of the same pair may have begun."""

    def add(self, item: Item) -> None:
        """At the end."""
        item.stream = self
        if self.last is None:
            self.first = item
        else:
            item.before, self.last.after = self.last, item
        self.last = item
        if self.next is None:
            self.next = item

    def drop(self, item: Item) -> None:
        """Take it out: later ones do not name it any more [prev]."""
        if item.seq:
            item.seq = 0
            self.flying -= 1
        if self.next is item:
            self.next = item.after
        if item.before is None:
            self.first = item.after
        else:
            item.before.after = item.after
        if item.after is None:
            self.last = item.before
        else:
            item.after.before = item.before

    def peek(self) -> Item | None:
        """The next one to send."""
        item = self.next
        while item is not None and item.done:
            item = item.after
        self.next = item
        return item

    def rewind(self, item: Item | None) -> None:
        """Send this one and all after it again, in order. It is not behind `next`."""
        each = item
        while each is not None and each is not self.next:
            if each.seq:
                each.seq = 0
                self.flying -= 1
            each = each.after
        self.next = item

    def signal(self, item: Item) -> Signal:
        """As it goes on the wire. `prev`: the one before it in the box as it is now; 0: none [prev].

        A volatile sender has no box: what is answered is settled.
        """
        owner, before = self.owner, item.before
        while owner.epoch and before is not None and before.done:
            before = before.before
        return Signal(
            owner.uid,
            self.receiver,
            item.n,
            0 if before is None else before.n,
            item.born,
            item.body,
            item.void,
            item.priority,
            owner.epoch,
            owner.source,
        )


Outcome = tuple[Owner, int, Settled]
"""(sender, n, answer)"""


class Results:
    """What lanes and streams report to whoever drives them."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        """`jitter()`: a number from 0 to 1."""
        self.jitter = jitter
        self.settled: list[Outcome] = []
        self.refused: list[Stream] = []
        """Streams that have begun to wait."""
        self.unsettled = 0
        self.resent = 0

    def settle(self, item: Item, answer: Settled) -> None:
        """The first answer of an item that settles it."""
        item.done = True
        self.unsettled -= 1
        self.settled.append((item.stream.owner, item.n, answer))

    def wait(self, stream: Stream, code: str, message: str, now: float) -> None:
        """Let a pair wait: 50 ms, doubling to 5 s, half of it by chance."""
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(stream.pauses, 10))
        stream.pauses += 1
        stream.code, stream.message = code, message
        stream.until = now + pause * (0.5 + 0.5 * self.jitter())
        self.refused.append(stream)


class BadAnswer(ValueError):
    """The peer answered what was never sent: its connection is of no more use."""


class Lane:
    """The way to one process start of a host; also to the own one, without a network."""

    def __init__(self, incarnation: str, results: Results) -> None:
        self.incarnation = incarnation
        self.streams: dict[Stream, None] = {}
        """Those whose receivers are there."""
        self.open = False
        """A connection stands and the peer has granted credits."""
        self.trouble = ""
        """Why it is not open."""
        self.flying: dict[int, Item] = {}
        """seq -> what is not answered yet."""
        self._queue: FairQueue[Stream] = FairQueue()
        self._results = results
        self._seq = self._bytes = 0
        self._granted, self._granted_bytes = 0, 0

    # --- what is sent -----------------------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """Something can be taken now."""
        return self.open and len(self._queue) > 0 and self._seq < self._granted and self._may_send_bytes()

    @property
    def credits(self) -> int:
        """Signals that may be sent before the next answer."""
        return max(0, self._granted - self._seq) if self.open else 0

    @property
    def next_seq(self) -> int:
        """The number that the next signal gets."""
        return self._seq + 1

    def ready(self, stream: Stream) -> None:
        """Queue a stream if it has something to send and may."""
        if stream.queued or stream.until or stream.flying >= PAIR_WINDOW:
            return
        item = stream.next if stream.next is None or not stream.next.done else stream.peek()
        if item is not None:
            stream.queued = True
            self._queue.put(stream.owner.tenant, item.priority, stream)

    def take(self, most: int, most_bytes: int, now: float) -> list[Signal]:
        """What to send next, in this order, under the numbers from `next_seq` on, within the credits."""
        out: list[Signal] = []
        end = self._bytes + most_bytes
        while self.open and len(out) < most and self._bytes < end and self._seq < self._granted:
            if not self._may_send_bytes():
                break
            stream = self._queue.pop()
            if stream is None:
                break
            if stream.lane is self and stream.queued:
                stream.queued = False
                if not stream.until:  # it may have been refused while it stood here
                    self._burst(stream, out, min(most, len(out) + BURST), now)
                    self.ready(stream)
        return out

    def _burst(self, stream: Stream, out: list[Signal], most: int, now: float) -> None:
        """Some of one stream, while its tenant's turn and its priority last."""
        tenant, priority = stream.owner.tenant, None
        item = stream.peek()
        while item is not None and len(out) < most and stream.flying < PAIR_WINDOW and self._seq < self._granted:
            if priority is None:
                priority = item.priority
            if item.priority != priority or not self._may_send_bytes():
                return
            if len(item.body) > MAX_BODY:
                self._results.wait(stream, "TooLarge", f"signal {item.n} has more than {MAX_BODY} bytes", now)
                return
            size = len(item.body) + OVERHEAD
            self._launch(stream, item, size)
            out.append(stream.signal(item))
            if not self._queue.charge(tenant, size):
                return
            item = stream.peek()

    def _launch(self, stream: Stream, item: Item, size: int) -> None:
        self._seq += 1
        self._bytes += size
        item.seq, item.lane = self._seq, self
        self.flying[item.seq] = item
        stream.flying += 1
        stream.next = item.after
        if item.tried:
            self._results.resent += 1
        item.tried = True

    def _may_send_bytes(self) -> bool:
        """One signal may go over the bytes that were granted, and alone any may go."""
        return self._bytes < self._granted_bytes or not self.flying

    # --- what comes back ----------------------------------------------------------------------------------------------

    def opened(self, signals: int, size: int) -> None:
        """A new connection stands; what the peer grants from its beginning, in signals and bytes."""
        self.open, self.trouble = True, ""
        self._seq = self._bytes = 0
        self._granted, self._granted_bytes = signals, size

    def grant(self, signals: int, size: int) -> None:
        """The peer takes so much, counted from the connection's beginning. Less than before changes nothing."""
        self._granted = max(self._granted, signals)
        self._granted_bytes = max(self._granted_bytes, size)

    def answered(self, first: int, last: int, answer: Answer, now: float) -> None:
        """One answer for the signals under these numbers. Raises BadAnswer when one of them is not under way."""
        flying, results = self.flying, self._results
        for seq in range(first, last + 1):
            item = flying.pop(seq, None)
            if item is None:
                raise BadAnswer(f"signal {seq} of this connection is not under way")
            stream = item.stream
            present = item.seq == seq and item.lane is self
            if present:
                item.seq = 0
                stream.flying -= 1
            if isinstance(answer, Settled):  # also of a copy that was sent again since: it is for good
                if not item.done:
                    results.settle(item, answer)
                    stream.pauses = 0
                    if not stream.until:
                        stream.code = stream.message = ""
                if stream.next is not None and not stream.queued and stream.lane is not None:
                    stream.lane.ready(stream)
            elif present and not item.done:
                stream.rewind(item)
                results.wait(stream, answer.code, answer.message, now)

    def broken(self, why: str) -> None:
        """The connection is over: everything that was under way is sent again, in order [keep_box]; of a volatile
        sender it is not, nobody knows what became of it [vol_once].
        """
        flying, self.flying = self.flying, {}
        self.open, self.trouble = False, why
        first: dict[Stream, Item] = {}
        for seq, item in flying.items():
            stream = item.stream
            present = item.seq == seq and item.lane is self
            if present:
                item.seq = 0
                stream.flying -= 1
            if item.done:
                continue
            if stream.owner.epoch:
                self._results.settle(item, _UNKNOWN)
            elif present:
                first.setdefault(stream, item)
        for stream, item in first.items():
            stream.rewind(item)
        for stream in self.streams:
            self.ready(stream)

    def attach(self, stream: Stream) -> None:
        """Its receiver is there now."""
        stream.lane, stream.queued = self, False
        self.streams[stream] = None
        self.ready(stream)

    def detach(self, stream: Stream) -> None:
        """Its receiver is there no more. What is under way may still be answered."""
        stream.lane, stream.queued = None, False
        self.streams.pop(stream, None)
