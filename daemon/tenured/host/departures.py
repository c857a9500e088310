"""The connection to another host over which signals leave: dialled while something waits for it, closed when idle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tenured.core import signalframes
from tenured.core.signalframes import Answers, BadFrame, Batch, Hello, Refused, Welcome
from tenured.core.streams import BadAnswer, Lane
from tenured.host.metrics import SignalMetrics
from tenured.transport.backoff import Reconnect
from tenured.transport.errors import NotConnected, PeerRefused, TransportError
from tenured.transport.signals import Wire, Wires

log = logging.getLogger("tenured.host.signals")

WELCOME_S = 3.0
"""For the peer's first frame."""
IDLE_S = 60.0
"""Without a signal for so long, and with nothing that waits, a connection is closed."""


class Departure:
    """The way of one lane, dialled again after every loss for as long as the lane has streams."""

    def __init__(self, lane: Lane, host: str, address: str, own: str, wires: Wires, metrics: SignalMetrics) -> None:
        """`own`: our incarnation. `on_change` is called when more can be sent, or something was answered."""
        self.lane, self.host = lane, host
        self.on_change: Callable[[], None] = _nothing
        self._address, self._own, self._wires, self._metrics = address, own, wires, metrics
        self._wire: Wire | None = None
        self._serial = 0
        self._welcomed: asyncio.Future[Welcome | Refused]
        self._lost: asyncio.Future[None]

    @property
    def can_send(self) -> bool:
        """The lane has something, and the peer keeps up."""
        wire = self._wire
        return wire is not None and wire.writable and not self._lost.done() and self.lane.has_work

    def pump(self, now: float) -> int:
        """Send one frame's worth; how many signals."""
        wire, first = self._wire, self.lane.next_seq
        if wire is None:
            return 0
        signals = self.lane.take(signalframes.BATCH_SIGNALS, signalframes.BATCH_BYTES, now)
        if signals:
            self._metrics.sent_to_hosts += len(signals)
            wire.send(signalframes.encode(Batch(first, signals)))
        return len(signals)

    async def run(self) -> None:
        """Until the lane has no streams."""
        reconnect = Reconnect()
        while self.lane.streams:
            try:
                await self._session(reconnect)
            except TransportError as error:
                reconnect.failed(log, f"signals to {self.host}", str(error))
                self.lane.trouble = str(error)
            except Exception as error:  # what waits here waits for nothing else
                log.exception("signals to %s", self.host)
                self.lane.trouble = f"a defect: {error}"
            if self.lane.streams:
                await reconnect.pause()

    async def _session(self, reconnect: Reconnect) -> None:
        wire = await self._wires.dial(self.host, self._address)
        loop = asyncio.get_running_loop()
        self._welcomed, self._lost, self._serial = loop.create_future(), loop.create_future(), 0
        wire.on_frame, wire.on_lost, wire.on_writable = self._came, self._over, self._changed
        try:
            wire.send(signalframes.encode(Hello(signalframes.VERSION, self._own, self.lane.incarnation)))
            welcome = await self._welcome()
            reconnect.succeeded()
            self._wire = wire
            self.lane.opened(welcome.signals, welcome.size)
            self._changed()
            await self._until_idle_or_lost()
        finally:
            self._end(wire)

    async def _welcome(self) -> Welcome:
        await asyncio.wait((self._welcomed, self._lost), timeout=WELCOME_S, return_when=asyncio.FIRST_COMPLETED)
        if not self._welcomed.done():
            ended = "closed the connection at once" if self._lost.done() else "did not answer in time"
            raise NotConnected(f"{self.host} {ended}")
        said = self._welcomed.result()
        if isinstance(said, Refused):
            raise PeerRefused(f"{self.host} refused: {said.message}")
        return said

    async def _until_idle_or_lost(self) -> None:
        seen = -1
        while not self._lost.done():
            await asyncio.wait((self._lost,), timeout=IDLE_S)
            if not self.lane.streams and self.lane.next_seq == seen:
                return
            seen = self.lane.next_seq

    def _end(self, wire: Wire) -> None:
        opened, self._wire = self._wire is not None, None
        wire.cut()
        if opened:
            self.lane.broken(f"the connection to {self.host} broke")
            self._changed()

    def _over(self) -> None:
        if not self._lost.done():
            self._lost.set_result(None)

    def _changed(self) -> None:
        self.on_change()

    def _came(self, frame: bytes) -> None:
        if self._lost.done():
            return
        try:
            said = signalframes.decode_to_sender(frame)
            if not self._welcomed.done() and not isinstance(said, Answers):
                self._welcomed.set_result(said)
            elif isinstance(said, Answers) and self._wire is not None:
                self._answers(said)
            else:
                raise BadFrame("a frame that is not in its place")  # noqa: TRY301 - one place that cuts
        except (BadFrame, BadAnswer) as error:
            log.warning("signals to %s: %s; the connection is cut", self.host, error)
            self._over()

    def _answers(self, said: Answers) -> None:
        self._serial += 1
        if said.serial != self._serial:
            raise BadFrame(f"answers {said.serial} came in place of {self._serial}")
        now = asyncio.get_running_loop().time()
        self.lane.grant(said.signals, said.size)
        for first, last, answer in said.runs:
            self.lane.answered(first, last, answer, now)
        self._changed()


def _nothing() -> None:
    """Nobody listens."""
