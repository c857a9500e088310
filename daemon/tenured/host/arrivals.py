"""Signals that other hosts send: one `Arrival` for each connection, into the activations here.

No task and no turn of the loop for a signal: a frame is worked off in one go, answers are collected and leave together.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from tenured.core import signalframes
from tenured.core.receiving import Inbound, Shares
from tenured.core.signalframes import BadFrame, Batch, Hello, Refused, Welcome
from tenured.core.signals import Again, Answer, Signal
from tenured.host.gathering import Gathering
from tenured.host.metrics import SignalMetrics
from tenured.transport.signals import Wire

log = logging.getLogger("tenured.host.signals")

HELLO_S = 3.0
"""For the first frame of a peer."""

Answered = Callable[[Answer], None]
"""Takes the answer to a signal. Called once, on the loop, whoever is under way there; raises nothing."""
Deliver = Callable[[Signal, Answered], None]
"""Into the activation of the receiver; answered when its turn is committed, or with why it has to come again."""


def hand(deliver: Deliver, signal: Signal, answered: Answered) -> None:
    """Deliver one signal. What is raised is a defect, and settles nothing."""
    try:
        deliver(signal, answered)
    except Exception as error:  # whatever it was, the others' signals go on
        log.exception("a delivery failed")
        answered(Again("NotReady", f"a defect: {error}"))


class Arrivals:
    """All connections that came in."""

    def __init__(self, incarnation: str, deliver: Deliver, gathering: Gathering, metrics: SignalMetrics) -> None:
        self.incarnation, self.deliver, self.gathering, self.metrics = incarnation, deliver, gathering, metrics
        self.shares = Shares()
        self._open: dict[tuple[str, str], Arrival] = {}
        self._new: set[Arrival] = set()
        self._waiting: deque[Arrival] = deque()
        self._working = False

    def accepted(self, host: str, wire: Wire) -> None:
        """A host whose certificate was checked has connected."""
        self._new.add(Arrival(self, host, wire))

    def stop(self) -> None:
        """End them all."""
        for arrival in [*self._new, *self._open.values()]:
            arrival.end()

    def welcome(self, arrival: Arrival, incarnation: str) -> None:
        """It has said who it is. A newer connection ends the older one: what it still brings would be out of order."""
        older = self._open.get((arrival.host, incarnation))
        if older is not None:
            older.end()
        self._new.discard(arrival)
        self._open[arrival.host, incarnation] = arrival
        self.shares.connections = len(self._open)

    def work(self, arrival: Arrival) -> None:
        """It has frames. They are worked off one in a turn of the loop, the connections in turn: a long read, or many
        at once, do not hold the loop.
        """
        self._waiting.append(arrival)
        if not self._working:
            self._working = True
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        arrival = self._waiting.popleft()
        try:
            if arrival.work():
                self._waiting.append(arrival)
        finally:
            self._working = bool(self._waiting)
            if self._working:
                asyncio.get_running_loop().call_soon(self._work)

    def gone(self, arrival: Arrival) -> None:
        """It is over."""
        self._new.discard(arrival)
        for key, each in list(self._open.items()):
            if each is arrival:
                del self._open[key]
        self.shares.connections = len(self._open)


class Arrival:
    """One connection of a sending host."""

    def __init__(self, parent: Arrivals, host: str, wire: Wire) -> None:
        self.host = host
        self._parent, self._wire = parent, wire
        self._loop = asyncio.get_running_loop()
        self._inbound: Inbound | None = None
        self._frames: deque[bytes] = deque()
        self._listed = self._flushing = self._over = False
        self._patience = self._loop.call_later(HELLO_S, self._impatient)
        wire.on_frame = self._came
        wire.on_lost = self._lost

    def end(self) -> None:
        """Cut it."""
        self._lost()
        self._wire.cut()

    def _lost(self) -> None:
        if not self._over:
            self._over = True
            self._patience.cancel()
            self._frames.clear()
            self._parent.gone(self)

    def _impatient(self) -> None:
        log.info("%s connected for signals and said nothing", self.host)
        self.end()

    def _came(self, frame: bytes) -> None:
        self._frames.append(frame)
        if not self._listed:
            self._listed = True
            self._parent.work(self)

    def work(self) -> bool:
        """Take one frame; whether there are more."""
        if not self._over:
            self._take(self._frames.popleft())
        self._listed = bool(self._frames)
        return self._listed

    def _take(self, data: bytes) -> None:
        try:
            frame = signalframes.decode_to_receiver(data)
            if self._inbound is None:
                self._hello(frame)
            elif isinstance(frame, Batch):
                self._batch(self._inbound, frame)
            else:
                raise BadFrame("a second hello")  # noqa: TRY301 - one place that cuts
        except BadFrame as error:
            log.warning("signals from %s: %s; the connection is cut", self.host, error)
            self.end()

    def _hello(self, frame: Hello | Batch) -> None:
        if not isinstance(frame, Hello):
            raise BadFrame("the first frame is no hello")
        if why := self._objection(frame):
            self._wire.send(signalframes.encode(Refused(why)))
            self._wire.close()
            self._lost()
            return
        self._patience.cancel()
        self._parent.welcome(self, frame.incarnation)
        self._inbound = Inbound(self._parent.shares)
        self._wire.send(signalframes.encode(Welcome(*self._inbound.granted)))

    def _objection(self, hello: Hello) -> str:
        if hello.version != signalframes.VERSION:
            return f"signals are served in version {signalframes.VERSION}, not {hello.version}"
        if hello.to != self._parent.incarnation:
            return f"{hello.to} is not here, this is {self._parent.incarnation}"
        return ""

    def _batch(self, inbound: Inbound, batch: Batch) -> None:
        inbound.take(batch)
        deliver, metrics, seq = self._parent.deliver, self._parent.metrics, batch.first
        metrics.received += len(batch.signals)
        with self._parent.gathering:
            for signal in batch.signals:
                if inbound.admit(seq, signal) is None:
                    hand(deliver, signal, partial(self._answer, inbound, seq, signal))
                seq += 1
        self._flush_soon()

    def _answer(self, inbound: Inbound, seq: int, signal: Signal, answer: Answer) -> None:
        if self._over or seq not in inbound.open:
            return
        if isinstance(answer, Again):
            inbound.refused(signal)
        inbound.answer(seq, answer)
        if not self._flushing:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._over or self._inbound is None:
            return
        answers = self._inbound.flush()
        if answers is not None:
            self._wire.send(signalframes.encode(answers))
