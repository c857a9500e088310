"""The courier: carries signals from committed outboxes to the activations that they are for, here or on other hosts.

    outbox.release(...) ── core.sending: order, routes, credits, pauses ──> a lane for each host process
        receiver here:   deliver(signal) ──> answer                         (never touches the network)
        elsewhere:       departures ── framed TLS ──> arrivals ── deliver ──> answers
    settle(n, Settled) <── once for each

The rules are protocol 3's; the decisions are `core.sending` and `core.receiving`. Here are the loop's turns: all that
is ready goes in one turn, a bounded part of it at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from tenure_proto.v1.registry_pb2 import WatchBatch
from tenured.core import signalframes
from tenured.core.sending import Entry, Sending, Waiting
from tenured.core.signals import Answer, Settled
from tenured.core.streams import Lane, Owner, Route
from tenured.host.arrivals import Arrivals, Deliver, hand
from tenured.host.departures import Departure
from tenured.host.gathering import Gathering
from tenured.host.metrics import SignalMetrics
from tenured.host.mirror import Mirror
from tenured.transport.signals import Wires

log = logging.getLogger("tenured.host.signals")

Settle = Callable[[int, Settled], None]

HERE_SIGNALS = 8192
"""Signals under way between agents of this host."""
TURN_SIGNALS = 512
"""Signals that leave in one turn of the loop: some 2 ms."""
CODES = frozenset({"Moved", "NotReady", "Busy", "Paused", "Fenced", "OutOfOrder", "Unreachable", "TooLarge"})
"""Of refusals, as metrics name them; a peer may say others."""
_NEVER = 1 << 62


class Outbound:
    """The signals of one activation. Made by `Courier.open`."""

    def __init__(self, courier: Courier, sending: Sending, owner: Owner) -> None:
        self._courier, self._sending, self._owner = courier, sending, owner

    def release(self, entries: Sequence[Entry]) -> None:
        """Carry these, which are committed, in the order of n. With the same n again and `void`: replaces a live one.

        Bodies are kept by reference until `forget`. Raises ValueError when the order is broken.
        """
        self._sending.release(self._owner, entries, self._courier.now())
        self._courier.wake()

    def forget(self, ns: Iterable[int]) -> None:
        """Stop carrying these: their settlement is committed. Unknown numbers are none."""
        self._sending.forget(self._owner, ns)
        self._courier.wake()

    def close(self) -> None:
        """Stop all of it: the activation has ended here, and `settle` is called no more."""
        self._sending.close(self._owner)
        self._courier.closed(self._owner)

    @property
    def waiting(self) -> Waiting:
        """How many are unsettled, since when, and which receivers are stuck, with the last refusal."""
        return self._sending.waiting(self._owner)


class Courier:
    """See the module. `bind` who takes signals here, then `start`. Used on the loop only."""

    def __init__(
        self, incarnation: str, mirror: Mirror, wires: Wires, metrics: SignalMetrics, jitter: Callable[[], float]
    ) -> None:
        """`jitter()`: a number from 0 to 1."""
        self._incarnation, self._mirror, self._wires, self._metrics = incarnation, mirror, wires, metrics
        self._sending = Sending(self._route, jitter)
        self._settle: dict[Owner, Settle] = {}
        self._whole = False
        """The mirror was whole at its last batch."""
        self._reached: dict[str, str] = {}
        """Incarnation -> address, of hosts that live."""
        self._departures: dict[str, tuple[Departure, asyncio.Task[None]]] = {}
        self._deliver: Deliver
        self._gathering: Gathering
        self._arrivals: Arrivals
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awake = self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        """Of the timer; uvloop's handle of one that is due at once does not know it."""

    # --- for the host -------------------------------------------------------------------------------------------------

    def bind(self, deliver: Deliver, gathering: Gathering) -> None:
        """Say who takes signals for agents of this host; `gathering` is entered while several are handed on."""
        self._deliver, self._gathering = deliver, gathering
        self._arrivals = Arrivals(self._incarnation, deliver, gathering, self._metrics)

    async def start(self) -> None:
        """Take connections of other hosts. Raises TransportError when the port is taken, BadFiles."""
        await self._wires.listen(self._arrivals.accepted)

    @property
    def port(self) -> int:
        """Where other hosts connect."""
        return self._wires.port

    async def stop(self) -> None:
        """End every connection. What is unsettled stays so: the next holders of its senders resend it."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._arrivals.stop()
        tasks = [task for _, task in self._departures.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._wires.stop()

    def watched(self, batch: WatchBatch) -> None:
        """The mirror has taken this batch: routes may have changed."""
        mirror = self._mirror
        whole, self._whole = self._whole, mirror.synced
        if not mirror.synced:  # a snapshot comes in parts: what it has not brought yet is not gone
            return
        # Rows of hosts change often, and where they are reached hardly ever: then all routes are looked at.
        reached = self._reached
        if batch.hosts or batch.gone_hosts or not whole:
            self._reached = {row.incarnation: row.signals_address for row in mirror.hosts.values() if not row.expired}
        if not whole or self._reached != reached:
            self._sending.routes_changed(None, self.now())
        else:
            self._sending.routes_changed([*(row.uid for row in batch.agents), *batch.gone_agents], self.now())
        self.wake()

    def count(self) -> None:
        """Bring the gauges of `metrics` up to date."""
        results, metrics = self._sending.results, self._metrics
        metrics.unsettled, metrics.resent = results.unsettled, results.resent
        metrics.credits = {each.host: float(each.lane.credits) for each, _ in self._departures.values()}

    # --- for activations ----------------------------------------------------------------------------------------------

    def open(self, uid: str, source: str, tenant: str, settle: Settle, *, epoch: int = 0) -> Outbound:
        """The way out for one activation. `source`: its id; `tenant`: its namespace; `epoch`: of a volatile sender,
        0 when it is durable. `settle(n, answer)` is called on the loop, once for each number.
        """
        owner = Owner(uid, source, tenant, epoch)
        self._settle[owner] = settle
        return Outbound(self, self._sending, owner)

    def closed(self, owner: Owner) -> None:
        """An `Outbound` ended."""
        self._settle.pop(owner, None)

    # --- turns of the loop --------------------------------------------------------------------------------------------

    def now(self) -> float:
        """The loop's seconds."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    def wake(self) -> None:
        """Something may be sent, or was answered: look at it in a turn of its own."""
        if not self._awake and not self._stopped:
            self._awake = True
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._awake = False
        if self._stopped:
            return
        now, sending = self.now(), self._sending
        if sending.next_due is not None:
            sending.due(now)
        self._serve_all(now)
        self._refusals(now)
        self._report()
        self._set_timer()

    def _serve_all(self, now: float) -> None:
        """A bounded part of what waits; those who got nothing in this turn come first in the next."""
        lanes, budget = self._sending.lanes, TURN_SIGNALS
        for incarnation, lane in list(lanes.items()):
            if budget <= 0:
                self.wake()
                return
            taken = self._serve(lane, now)
            budget -= taken
            if taken and lanes.pop(incarnation, None) is not None:
                lanes[incarnation] = lane

    def _serve(self, lane: Lane, now: float) -> int:
        """A part of what waits for one host, the rest in the next turn; how many were sent."""
        if lane.incarnation == self._incarnation:
            return self._serve_here(lane, now)
        found = self._departures.get(lane.incarnation)
        if found is None:
            if lane.streams:
                self._depart(lane)
            elif not lane.flying:
                del self._sending.lanes[lane.incarnation]
            return 0
        if not found[0].can_send:
            return 0
        taken = found[0].pump(now)
        if found[0].can_send:
            self.wake()
        return taken

    def _serve_here(self, lane: Lane, now: float) -> int:
        """Never by the network."""
        if not lane.open:
            lane.opened(_NEVER, _NEVER)
        if len(lane.flying) >= HERE_SIGNALS:
            return 0
        first = lane.next_seq
        signals = lane.take(signalframes.BATCH_SIGNALS, signalframes.BATCH_BYTES, now)
        self._metrics.sent_here += len(signals)
        with self._gathering:
            for seq, signal in enumerate(signals, first):
                hand(self._deliver, signal, partial(self._answered_here, lane, seq))
        if lane.has_work:
            self.wake()
        return len(signals)

    def _answered_here(self, lane: Lane, seq: int, answer: Answer) -> None:
        lane.answered(seq, seq, answer, self.now())
        self.wake()

    def _depart(self, lane: Lane) -> None:
        row = self._mirror.hosts.get(lane.incarnation)
        if row is None or self._loop is None:
            return
        departure = Departure(lane, row.name, row.signals_address, self._incarnation, self._wires, self._metrics)
        departure.on_change = self.wake
        task = self._loop.create_task(departure.run(), name=f"signals to {row.name}")
        self._departures[lane.incarnation] = (departure, task)
        task.add_done_callback(partial(self._departed, lane.incarnation))

    def _departed(self, incarnation: str, _: asyncio.Task[None]) -> None:
        self._departures.pop(incarnation, None)
        self.wake()  # a stream may have come meanwhile

    def _refusals(self, now: float) -> None:
        refused = self._sending.results.refused
        if refused:
            for stream in refused:
                self._metrics.refused.add(stream.code if stream.code in CODES else "other")
            self._sending.refusals(now)
            self.wake()  # a route that has changed is followed at once

    def _report(self) -> None:
        """Tell senders what was settled. They may release and forget in turn."""
        outcomes = self._sending.take_outcomes()
        for verdict, number in Counter(answer.verdict for _, _, answer in outcomes).items():
            self._metrics.settled.add(verdict, number)
        for owner, n, answer in outcomes:
            settle = self._settle.get(owner)
            if settle is not None:
                try:
                    settle(n, answer)
                except Exception:  # one activation's defect is not another's: the rest must hear
                    log.exception("signal %d of %s was settled, and its sender failed to hear it", n, owner.source)

    def _set_timer(self) -> None:
        due = self._sending.next_due
        if self._timer is not None:
            if due is not None and self._timer_at <= due:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None and self._loop is not None:
            self._timer_at = due
            self._timer = self._loop.call_at(due, self._time)

    def _time(self) -> None:
        self._timer = None
        self.wake()

    # --- routes -------------------------------------------------------------------------------------------------------

    def _route(self, receiver: str) -> Route | None:
        """As this host has read the registry; a stale one costs a `Moved`. None: it reads anew, and cannot tell now."""
        mirror = self._mirror
        row = mirror.agents.get(receiver)
        if row is None:
            # Deleted, if this copy has seen its creation: its uid is the revision of that.
            return Route(deleted=mirror.revision >= int(receiver)) if mirror.synced else None
        if row.ended:  # nobody takes it ever again, and whether the last holder had is not known here
            return Route(deleted=True)
        if row.incarnation == self._incarnation:
            return Route(row.incarnation, row.epoch, row.ready)
        host = mirror.hosts.get(row.incarnation) if row.incarnation else None
        if host is None and not mirror.synced:
            return None
        if host is None or host.expired or not host.signals_address:
            return Route("", row.epoch, row.ready)
        return Route(row.incarnation, row.epoch, row.ready)
