"""One activation: an agent at one epoch on this host, from the seal to the last reply.

    own the record -> activate in a worker -> serve the queue -> ...
                  ^                        |
                  +-- worker lost, or refused: again, same epoch (protocol additions 3); after a pause if it failed

Owned by one task. Who ends it cancels the task; what that means for what is under way is said in `_close`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import tenure_link
from tenure_proto.v1.calls_pb2 import Call
from tenured.clocks import boot_ns
from tenured.core import endings, turns
from tenured.core.backoff import NO_FAILURE, Backoff
from tenured.core.signals import Signal
from tenured.host.activating import Intake
from tenured.host.arrivals import Answered
from tenured.host.events import UNHEARD, Events
from tenured.host.failures import reason_of
from tenured.host.folding import Folded, fold
from tenured.host.jobs import CallJob
from tenured.host.judging import has_ended
from tenured.host.ledger import Ledger
from tenured.host.mailbox import Mailbox
from tenured.host.parts import Parts
from tenured.host.reports import GATHERED, SOON
from tenured.host.resting import REST_S, Resting, idle_s, may_rest, may_sleep, next_look_s
from tenured.host.rows import Row
from tenured.host.site import Site
from tenured.host.standing import Phase, Standing
from tenured.host.stores import Record, RecordDeleted, RecordLost, RecordUnreadable
from tenured.host.telling import Telling
from tenured.host.worker import ActivationRefused, Worker, WorkerLost

log = logging.getLogger("tenured.host.holder")

TELL_S = 1.0
"""How long an agent that has ended may go on delivering before users are told: most are gone by then."""
LINGER_S = 10.0
"""How long a holder that finds the mark of an end in the record waits before the row may go: who called the turn that
ended the agent, and lost its host, asks again for the reply.
"""


class Holder:
    """See the module. `stop` it before its agent may run elsewhere."""

    def __init__(
        self,
        site: Site,
        row: Row,
        *,
        known: Folded | None = None,
        told: turns.Wake | None = None,
        events: Events = UNHEARD,
        rested: Resting | None = None,
    ) -> None:
        """`known`: what was committed when it went to sleep here under this epoch; `told`: when it would be awake, as
        the registry was told then. `rested`: what was kept of it when it went to rest.
        """
        self.uid = row.uid
        self.epoch = row.epoch
        self._site = site
        self._row = row
        self._agent = row.id
        self._telling = Telling(site, row.uid, row.id, row.epoch)
        self._policy = row.kind.policy
        self._intake = Intake(site, row)
        self._mailbox = Mailbox(row, site.pool)
        self._parts: Parts | None = None
        self._stopping = False
        self._worker: Worker | None = None
        self._standing = Standing(site, self._telling, told)
        self._known = known
        self._idle: asyncio.TimerHandle | None = None
        self._events = events
        self._begun = self._watched = self._tires = self._rests = self._leaves = False
        self._record: Record | None = None
        self._was_ready = rested is not None
        self._patience_s = REST_S if rested is None else rested.next_patience_s
        if rested is None:
            self._backoff = Backoff(row.attempt, boot_ns()) if row.attempt else NO_FAILURE
        else:
            self._backoff, self._worker = rested.backoff, rested.worker
            self._standing.phase = Phase.READY
            self._record, ledger = rested.opened()
            if ledger is not None:
                self._make_parts(ledger)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"agent {row.id}")

    # --- for the host -----------------------------------------------------------------------------------------------

    def submit(self, call: Call, caller: str, deadline_ns: int) -> CallJob:
        """Queues a call; it is answered by its turn, or at once with why not."""
        return self._mailbox.call(call, caller, deadline_ns, self._unavailable())

    def deliver(self, signal: Signal, answered: Answered) -> None:
        """Queues a signal; it is answered after its commit, or at once with why not."""
        self._mailbox.signal(signal, self._unavailable(), answered)

    @property
    def phase(self) -> Phase:
        """How it stands."""
        return self._standing.phase

    @property
    def told(self) -> turns.Wake | None:
        """When the registry believes that it wakes; None: it knows that it is awake."""
        return self._standing.told

    @property
    def failure(self) -> BaseException | None:
        """Why the activation ended by itself: a defect of ours."""
        return self._task.exception() if self._task.done() and not self._task.cancelled() else None

    async def stop(self, *, finish_turn: bool) -> None:
        """Ends the activation: after it nothing of it runs here. `finish_turn`: let what runs end and be committed."""
        self._stopping = True
        if finish_turn and self._parts is not None and self._parts.runner.busy:
            self._parts.runner.stop_serving()
        else:
            self._cancel()
        await asyncio.wait({self._task})

    def abort(self) -> None:
        """Ends it now, without waiting."""
        self._stopping = True
        self._cancel()

    def _cancel(self) -> None:
        self._task.cancel()
        if not self._begun:  # nor will it: of a task that is cancelled before its first step nothing runs
            self._begun = True
            self._over()

    def _unavailable(self) -> str | None:
        if self._stopping or self._task.done():
            return f"{self._agent} is leaving this host"
        if self.phase in (Phase.BACKOFF, Phase.DOWN):
            return f"{self._agent}: {self._standing.trouble}"
        return None

    # --- the life -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        self._begun = True
        record = self._record = self._record or self._opened()
        try:
            await self._live(record)
            if not self._stopping and self._parts is not None:
                await self._leave(self._parts, record)
        except RecordUnreadable as error:
            await self._stay_down(str(error))
        except turns.Damaged as error:
            await self._stay_down(str(error))
        except RecordDeleted:
            log.info("%s: its record is gone with its row", self._agent)
            await self._until_stopped("the agent is being deleted")
        except RecordLost as error:
            log.warning("%s: epoch %d is over: %s", self._agent, self.epoch, error)
            await self._until_stopped("another host has taken over")
        finally:
            self._over()

    def _over(self) -> None:
        if self._record is not None and not self._rests:
            self._site.store.close(self._record)
        self._close()

    def _opened(self) -> Record:
        expected = self._policy.durable and self._row.ready_epoch > 0
        known = None if self._known is None else self._known.known
        return self._site.store.open(self.uid, self.epoch, expect_state=expected, known=known)

    async def _leave(self, parts: Parts, record: Record) -> None:
        """It rests, sleeps, or is no more: say so, and forget it."""
        ended, worker = parts.ledger.book.ended, self._worker
        if worker is not None and self._events.rests is not None:
            self._worker, self._rests, self._leaves = None, True, True
            resting = Resting(self.uid, self.epoch, self._site.store, record, parts.ledger, worker, self._backoff)
            resting.patience_s = self._patience_s
            if not self._events.rests(self, resting):
                resting.abort()
        elif ended is None:
            self._leaves = True
            if self._events.asleep is not None:
                self._events.asleep(self, fold(record.known), parts.ledger.book.wake)
        elif self._events.ended is not None:
            self._events.ended(self, ended.reason)
        else:
            await self._until_stopped(has_ended(self._agent, ended))

    async def _live(self, record: Record) -> None:
        if self._parts is None:
            adopted = await record.adopted()
            self._make_parts(Ledger(record, adopted.entries, durable=self._policy.durable))
        parts = cast(Parts, self._parts)
        ledger = parts.ledger
        linger_s = LINGER_S if ledger.book.ended is not None else 0.0
        while not self._stopping:
            await parts.runner.settled()
            if (ended := ledger.book.ended) is not None and parts.runner.has_ended:
                await self._close_down(parts, ended, linger_s)
                return
            try:
                failure = await self._once(parts)
            finally:
                parts.trials.leave()
            if failure is not None:
                await self._back_off(*failure)
            elif self._worker is not None or self._may_sleep(parts):
                return

    def _make_parts(self, ledger: Ledger) -> None:
        if self._was_ready:
            self._standing.was_ready(ledger.book.boxes)
        self._parts = parts = Parts(self._site, self._row, self._telling, ledger)
        parts.runner.on_committed = self._committed
        parts.outgoing.adopt(ledger.book.boxes)
        self._mailbox.adopted(parts)

    async def _close_down(self, parts: Parts, ended: endings.Ended, linger_s: float) -> None:
        """Goes on with its end until nothing is owed [box_first]."""
        self._standing.phase = Phase.ENDING
        log.info("%s", has_ended(self._agent, ended))
        tell_s = 0.0 if linger_s else TELL_S
        tells = asyncio.get_running_loop().call_later(
            tell_s, lambda: self._standing.ending(parts.ledger.book.boxes, ended)
        )
        try:
            await parts.runner.close_down(linger_s)
        finally:
            tells.cancel()

    def _may_sleep(self, parts: Parts) -> bool:
        return self._events.asleep is not None and may_sleep(parts, self._standing, self._policy)

    def look(self) -> float | None:
        """See `resting.Watched`."""
        parts = self._parts
        self._watched = not (parts is None or self._worker is None or self._stopping or self._task.done())
        if parts is None or not self._watched:
            return None
        if may_rest(parts, self._standing, self._patience_s):
            self._tires, self._watched = True, False
            parts.runner.rest()
            return None
        return next_look_s(parts, self._patience_s)

    def _watch(self) -> None:
        if self._events.serves is not None and not self._watched:
            self._watched = True
            self._events.serves(self)

    def _look_idle(self, parts: Parts) -> None:
        """While it serves: end that when it may sleep."""
        limit = self._policy.idle_timeout_s
        if limit is None or self._events.asleep is None:
            return
        if self._may_sleep(parts):
            parts.runner.rest()  # nothing, while it does not serve yet: so look again
        wait_s = max(limit - idle_s(parts), min(limit, 0.05))
        self._idle = asyncio.get_running_loop().call_later(wait_s, self._look_idle, parts)

    async def _once(self, parts: Parts) -> tuple[str, str] | None:
        """One time in a worker's memory, until it is over, or the agent may rest there: then it has a worker still.
        (reason, message) of a failure that asks for a pause.
        """
        trial = await parts.trials.next()
        if trial is None and self._intake.alone and self._worker is None:
            return await self._come_alone(parts)
        pool = self._site.pool
        worker = self._worker or await (pool.pick() if trial is None else pool.trial_worker())  # from rest: it has one
        try:
            if self._worker is None:
                await self._activate(worker, parts)
            if trial is None:
                if await self._serve(worker, parts):
                    return None
            else:
                await parts.runner.serve(worker, trial)
                parts.trials.over(trial)
            self._let_go()
        except ActivationRefused as refused:
            self._let_go()
            if trial is not None:
                trial.cut_off("NotReady", refused.fault.message)
            return reason_of(refused.fault), refused.fault.message
        except WorkerLost as error:
            self._worker = None
            self._standing.phase = Phase.STARTING
            # The same epoch goes on elsewhere only once this process is provably dead (protocol additions 3).
            await worker.dead.wait()
            begun = not self._intake.under_way
            failure = self._intake.ended_its_worker(worker, str(error))
            if trial is None:
                parts.runner.acquit(worker.begun)
                return failure
            return parts.trials.ended_its_worker(trial, str(error), blamed=begun and not worker.no_fault) or failure
        finally:
            self._stop_planning(parts)
            if trial is not None:
                pool.end_trial(worker)
        return None

    async def _come_alone(self, parts: Parts) -> tuple[str, str] | None:
        """Into a worker of its own, and out again: whether it may live among others. As of `_once`."""
        await self._site.trials.enter(alone=False)
        worker = None
        try:
            worker = await self._site.pool.trial_worker()
            await self._activate(worker, parts)
            self._let_go()
        except ActivationRefused as refused:
            self._let_go()
            return reason_of(refused.fault), refused.fault.message
        except WorkerLost as error:
            self._worker = None
            if worker is not None:
                await worker.dead.wait()
                return self._intake.ended_its_worker(worker, str(error))
        finally:
            self._stop_planning(parts)
            self._site.trials.leave()
            if worker is not None:
                self._site.pool.end_trial(worker)
        return None

    def _stop_planning(self, parts: Parts) -> None:
        parts.alarms.stop()
        parts.beginning.stop()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    async def _serve(self, worker: Worker, parts: Parts) -> bool:
        """Whether it may rest now: nothing was asked since it was looked at."""
        parts.alarms.begin()
        self._serves(parts)
        while True:
            self._tires = False
            self._watch()
            await parts.runner.serve(worker)
            if not self._tires:
                return False
            if may_rest(parts, self._standing, self._patience_s) and not worker.lost:
                return True

    async def _activate(self, worker: Worker, parts: Parts) -> None:
        """Takes the agent into a worker's memory; what it begins with is committed before anything sees it."""
        await self._site.lease.wait()  # user code must not run in two places at once
        self._worker = worker
        await self._intake.take_in(worker, parts)

    def _serves(self, parts: Parts) -> None:
        """It is in a worker's memory, and Ready as soon as what it begins with is durable [ready_written]."""
        if parts.beginning.serves():
            self._standing.ready(parts.ledger.book.boxes)
        self._look_idle(parts)

    def _committed(self, due: tuple[tenure_link.Due, ...] | None) -> None:
        if self._parts is not None:
            self._parts.alarms.committed(due)
            if self._parts.beginning.is_over():
                patience = GATHERED if self._parts.beginning.asked else SOON
                self._standing.ready(self._parts.ledger.book.boxes, patience=patience)
            else:
                self._standing.committed(self._parts.ledger.book.boxes)

    # --- when it goes wrong ---------------------------------------------------------------------------------

    async def _back_off(self, reason: str, message: str) -> None:
        """Reports the failure and pauses: 1 s doubling to 5 min, forgotten after 10 min of peace. The attempt is kept
        in the registry.
        """
        self._worker = None
        self._backoff = self._backoff.failed(boot_ns())
        pause_s = self._backoff.delay_ns / 1e9
        self._standing.backs_off(reason, message, self._backoff.attempt, pause_s)
        self._mailbox.refuse("NotReady", self._standing.trouble)
        await asyncio.sleep(pause_s)
        self._standing.phase = Phase.STARTING

    async def _stay_down(self, message: str) -> None:
        """Never start empty where there was a state: stay down, with the reason, until somebody acts."""
        self._standing.down(message)
        await self._until_stopped(message)

    async def _until_stopped(self, why: str) -> None:
        """Serves nobody until the registry tells this host to stop."""
        if self.phase is not Phase.DOWN:
            self._standing.phase = Phase.STARTING
        self._stopping = True
        self._mailbox.refuse("NotReady", why)
        self._let_go()
        await asyncio.get_running_loop().create_future()

    def _close(self) -> None:
        """The last thing: nothing stays unanswered, the worker forgets the agent."""
        self._standing.close()
        self._let_go()
        self._mailbox.close()
        if self._parts is not None:
            self._parts.close(f"{self._agent} left this host during the turn")
            if self._leaves:  # with nothing under way
                self._parts.dissolve()
                self._parts = None

    def _let_go(self) -> None:
        """The worker forgets the agent."""
        if self._worker is not None:
            self._worker.deactivate(self.uid, self.epoch)
            self._worker = None
