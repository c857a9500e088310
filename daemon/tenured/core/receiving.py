"""What a host takes of the signals that others send it: credits, bounds for each agent, answers in runs. Pure.

A connection may have so many signals unanswered: its share of what the host takes in all. Within it an agent that
stands still may have an eighth of what is free, so that it never takes the last place of others; beyond that its
signals are answered `Busy`, and wait at their sender. What follows a refused signal of the same pair is refused too,
until that one comes again: a receiver that keeps no marks would take up the stream behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tenured.core.signalframes import Answers, BadFrame, Batch
from tenured.core.signals import Again, Answer, Signal
from tenured.core.streams import OVERHEAD

HOST_SIGNALS = 65_536
HOST_BYTES = 128 << 20
"""Unanswered signals of all connections of a host."""
LINK_SIGNALS, LEAST_SIGNALS = 8192, 256
LINK_BYTES, LEAST_BYTES = 16 << 20, 1 << 20
"""Of one connection: at most, and at least however many there are."""
SHARE = 8
"""An agent may have one part in so many of what is free on a connection."""
PAIRS = 4096
"""Refused pairs that are remembered for a connection; beyond it the oldest is forgotten."""

_BUSY = Again("Busy", "too many signals wait for this agent")
_ORDER = Again("OutOfOrder", "one before it was refused")


class Shares:
    """How many connections share what a host takes."""

    def __init__(self, signals: int = HOST_SIGNALS, size: int = HOST_BYTES) -> None:
        self.connections = 0
        self._signals, self._size = signals, size

    @property
    def signals(self) -> int:
        """For one connection."""
        return min(LINK_SIGNALS, max(LEAST_SIGNALS, self._signals // max(1, self.connections)))

    @property
    def size(self) -> int:
        """Bytes for one connection."""
        return min(LINK_BYTES, max(LEAST_BYTES, self._size // max(1, self.connections)))


class Inbound:
    """One connection. `take` a batch, `admit` its signals, say `answer` once for each, send what `flush` makes."""

    def __init__(self, shares: Shares) -> None:
        self.open: dict[int, tuple[str, int]] = {}
        """Unanswered: seq -> (receiver, bytes)."""
        self._shares = shares
        self._agents: dict[str, int] = {}
        """Receiver -> its unanswered signals."""
        self._refused: dict[tuple[str, str], int] = {}
        self._seq = self._serial = 0
        self._answered = self._answered_bytes = self._came_bytes = 0
        self._granted, self._granted_bytes = shares.signals, shares.size
        self._waiting: list[tuple[int, Answer]] = []

    @property
    def granted(self) -> tuple[int, int]:
        """Signals and bytes that may come, from the beginning of the connection."""
        return self._granted, self._granted_bytes

    def take(self, batch: Batch) -> None:
        """Note what has come. Raises BadFrame: a gap, or more than was granted; the connection is of no more use."""
        if batch.first != self._seq + 1:
            raise BadFrame(f"signal {batch.first} came after {self._seq}")
        if self._seq + len(batch.signals) > self._granted:
            raise BadFrame("more signals came than were granted")
        seq = self._seq
        for signal in batch.signals:
            if self._came_bytes >= self._granted_bytes and self.open:
                raise BadFrame("more bytes came than were granted")
            seq += 1
            size = len(signal.body) + OVERHEAD
            self._came_bytes += size
            self.open[seq] = (signal.receiver, size)
        self._seq = seq

    def admit(self, seq: int, signal: Signal) -> Again | None:
        """None: hand it on. Else its answer, which has been said already."""
        again = self._judge(signal)
        if again is None:
            self._agents[signal.receiver] = self._agents.get(signal.receiver, 0) + 1
            return None
        self._say(seq, again)
        return again

    def _judge(self, signal: Signal) -> Again | None:
        if self._refused:
            pair = (signal.sender, signal.receiver)
            refused = self._refused.get(pair)
            if refused is not None:
                if signal.n > refused and signal.prev >= refused:
                    return _ORDER
                del self._refused[pair]
        waiting = self._agents.get(signal.receiver, 0)
        if waiting and waiting >= (self._shares.signals - len(self.open)) // SHARE:
            self.refused(signal)
            return _BUSY
        return None

    def refused(self, signal: Signal) -> None:
        """Answered `Again`: what follows of its pair waits for it."""
        pair = (signal.sender, signal.receiver)
        if len(self._refused) >= PAIRS and pair not in self._refused:
            del self._refused[next(iter(self._refused))]
        self._refused[pair] = min(signal.n, self._refused.get(pair, signal.n))

    def answer(self, seq: int, answer: Answer) -> None:
        """Of one that was admitted."""
        receiver = self.open[seq][0]
        left = self._agents[receiver] - 1
        if left:
            self._agents[receiver] = left
        else:
            del self._agents[receiver]
        self._say(seq, answer)

    def _say(self, seq: int, answer: Answer) -> None:
        self._answered += 1
        self._answered_bytes += self.open.pop(seq)[1]
        self._waiting.append((seq, answer))

    def flush(self) -> Answers | None:
        """What is to be said now, with new credits; None: nothing."""
        if not self._waiting:
            return None
        runs = _runs(self._waiting)
        self._waiting = []
        self._serial += 1
        self._granted = max(self._granted, self._answered + self._shares.signals)
        self._granted_bytes = max(self._granted_bytes, self._answered_bytes + self._shares.size)
        return Answers(self._serial, self._granted, self._granted_bytes, runs)


def _runs(said: Sequence[tuple[int, Answer]]) -> list[tuple[int, int, Answer]]:
    """Neighbours with one answer together."""
    ordered = sorted(said, key=_seq_of)
    first, answer = ordered[0]
    last = first
    runs: list[tuple[int, int, Answer]] = []
    for seq, each in ordered[1:]:
        if seq == last + 1 and (each is answer or each == answer):
            last = seq
        else:
            runs.append((first, last, answer))
            first, last, answer = seq, seq, each
    runs.append((first, last, answer))
    return runs


def _seq_of(said: tuple[int, Answer]) -> int:
    return said[0]
