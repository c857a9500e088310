"""One activation: an agent at one epoch on this host, from the seal to the last reply.

    own the record -> activate in a worker -> serve the queue -> ...
                  ^                        |
                  +-- worker lost, or refused: again, same epoch (protocol additions 3); after a pause if it failed

Owned by one task. Who ends it cancels the task; what that means for what is under way is said in `_close`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import tenure_link
from tenure_proto.v1.calls_pb2 import CALL_KIND_ACTION, CALL_KIND_CONTROL, CALL_KIND_QUERY, Call
from tenure_proto.v1.registry_pb2 import AgentRow
from tenured.clocks import boot_ns, wall_s
from tenured.core import endings, turns
from tenured.core.backoff import Backoff
from tenured.core.frames import Known
from tenured.core.signals import Answer, Signal
from tenured.host.controls import Refused, refusal
from tenured.host.failures import not_applied, reason_of
from tenured.host.jobs import CallJob, Job, Kind
from tenured.host.judging import has_ended
from tenured.host.ledger import Ledger
from tenured.host.parts import Parts, class_name
from tenured.host.policy import policy_of
from tenured.host.signaljobs import SignalJob
from tenured.host.site import Site
from tenured.host.standing import Phase, Standing
from tenured.host.stores import Record, RecordDeleted, RecordLost, RecordUnreadable
from tenured.host.telling import Telling
from tenured.host.waitlist import Waitlist
from tenured.host.worker import ActivationRefused, Worker, WorkerLost

log = logging.getLogger("tenured.host.holder")

QUEUE_LIMIT = 128
"""Calls that may wait for one agent; more get `Busy`."""
MAILBOX = 1024
"""Signals that may wait for one agent here; their senders keep the rest."""
ACTIVATION_LIMIT_S = 60.0
"""User code that takes longer to come up has failed."""
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
        row: AgentRow,
        *,
        known: Known | None = None,
        told: turns.Wake | None = None,
        on_asleep: Callable[[Holder, Known, turns.Wake], None] | None = None,
        on_ended: Callable[[Holder, str], None] | None = None,
    ) -> None:
        """`known`: what was committed when it went to sleep here under this epoch; `told`: when it would be awake, as
        the registry was told then. `on_asleep(holder, known, wake)` is called when it has gone to sleep: nothing of it
        runs any more; None: it never does. `on_ended(holder, reason)` is called when it has ended by itself, and owes
        nothing any more; None: its row stays.
        """
        self.uid = row.uid
        self.epoch = row.epoch
        self._site = site
        self._row = row
        self._agent = row.spec.id
        self._telling = Telling(site, row.uid, row.spec.id, row.epoch)
        self._policy = policy_of(row)
        self._queue: Waitlist[Job] = Waitlist()
        """What came before the record was adopted."""
        self._parts: Parts | None = None
        self._stopping = False
        self._worker: Worker | None = None
        self._backoff = Backoff(attempt=row.attempt, failed_ns=boot_ns() if row.attempt else 0)
        self._standing = Standing(site, self._telling, told)
        self._known = known
        self._idle: asyncio.TimerHandle | None = None
        self._on_asleep = on_asleep
        self._on_ended = on_ended
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"agent {row.spec.id}")

    # --- for the host -----------------------------------------------------------------------------------------------

    def submit(self, call: Call, caller: str, deadline_ns: int) -> CallJob:
        """Queues a call; it is answered by its turn, or at once with why not."""
        job = CallJob(call, self._kind(call), caller, deadline_ns)
        if (why := self._unavailable()) is not None:
            job.fail(not_applied("NotReady", why))
        elif call.kind == CALL_KIND_CONTROL:
            return self._control(job)
        elif self._waiting >= QUEUE_LIMIT:
            job.fail(not_applied("Busy", f"{QUEUE_LIMIT} calls wait for {self._agent}"))
        else:
            self._add(job)
        return job

    def deliver(self, signal: Signal) -> asyncio.Future[Answer]:
        """Queues a signal; the answer comes after its commit, or at once with why not."""
        job = SignalJob(signal)
        if (why := self._unavailable()) is not None:
            job.cut_off("NotReady", why)
        elif self._waiting >= MAILBOX:
            job.cut_off("Busy", f"{MAILBOX} signals wait for {self._agent}")
        else:
            self._add(job)
        return job.answer

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
            self._task.cancel()
        await asyncio.wait({self._task})

    def abort(self) -> None:
        """Ends it now, without waiting."""
        self._stopping = True
        self._task.cancel()

    def _unavailable(self) -> str | None:
        if self._stopping or self._task.done():
            return f"{self._agent} is leaving this host"
        if self.phase in (Phase.BACKOFF, Phase.DOWN):
            return f"{self._agent}: {self._standing.trouble}"
        return None

    @property
    def _waiting(self) -> int:
        return len(self._queue) if self._parts is None else self._parts.runner.waiting

    def _add(self, job: Job) -> None:
        if self._parts is None:
            self._queue.append(job)
        else:
            self._parts.runner.add(job)

    def _control(self, job: CallJob) -> CallJob:
        """An operation by this host, on what is committed."""
        if self._parts is None or self._parts.ledger.first is not None:
            if self._parts is not None:
                self._parts.runner.write_first()
            job.fail(not_applied("NotReady", f"{self._agent} is starting"))
            return job
        try:
            asked = self._parts.controls.job(job.call, job.caller, job.deadline_ns)
        except Refused as refused:
            refusal(job, refused)
            return job
        if isinstance(asked, bytes):
            job.answer(asked)
            return job
        self._add(asked)
        return asked

    # --- the life -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        expected = self._policy.durable and self._row.ready_epoch > 0
        record = self._site.store.open(self.uid, self.epoch, expect_state=expected, known=self._known)
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
            self._site.store.close(record)
            self._close()

    async def _leave(self, parts: Parts, record: Record) -> None:
        """It sleeps, or is no more: say so, and forget it."""
        ended = parts.ledger.book.ended
        if ended is None:
            if self._on_asleep is not None:
                self._on_asleep(self, record.known, parts.ledger.book.wake)
        elif self._on_ended is not None:
            self._on_ended(self, ended.reason)
        else:
            await self._until_stopped(has_ended(self._agent, ended))

    async def _live(self, record: Record) -> None:
        adopted = await record.adopted()
        ledger = Ledger(record, adopted.entries, durable=self._policy.durable)
        self._parts = parts = Parts(self._site, self._row, self._telling, ledger)
        parts.runner.on_committed = self._committed
        parts.outgoing.adopt(ledger.book.boxes)
        while self._queue:
            parts.runner.add(self._queue.popleft())
        linger_s = LINGER_S if ledger.book.ended is not None else 0.0
        while not self._stopping:
            await parts.runner.settled()
            if (ended := ledger.book.ended) is not None and parts.runner.has_ended:
                await self._close_down(parts, ended, linger_s)
                return
            failure = await self._once(parts)
            if failure is not None:
                await self._back_off(*failure)
            elif self._may_sleep(parts):
                return

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
        """Nothing was asked for so long, and nothing is under way [sleep_settled, sleep_owing]."""
        limit = self._policy.idle_timeout_s
        if limit is None or self._on_asleep is None or self.phase is not Phase.READY or not self._policy.durable:
            return False
        if parts.ledger.book.ended is not None:
            return False
        idle_s = (boot_ns() - parts.runner.used_ns) / 1e9
        return idle_s >= limit and parts.runner.may_rest and not parts.ledger.book.boxes.out

    def _look_idle(self, parts: Parts) -> None:
        """While it serves: end that when it may sleep."""
        limit = self._policy.idle_timeout_s
        if limit is None or self._on_asleep is None:
            return
        if self._may_sleep(parts):
            parts.runner.rest()  # nothing, while it does not serve yet: so look again
        idle_s = (boot_ns() - parts.runner.used_ns) / 1e9
        wait_s = max(limit - idle_s, min(limit, 0.05))
        self._idle = asyncio.get_running_loop().call_later(wait_s, self._look_idle, parts)

    async def _once(self, parts: Parts) -> tuple[str, str] | None:
        """One time in a worker's memory, until it is over; (reason, message) of a failure that asks for a pause."""
        trial = await parts.trials.next()
        worker = await (self._site.pool.pick() if trial is None else self._site.pool.trial_worker())
        try:
            await self._activate(worker, parts, alarms=trial is None)
            if trial is None:
                self._serves(parts)
                await parts.runner.serve(worker)
            else:
                await parts.runner.serve(worker, trial)
                parts.trials.over(trial)
            worker.deactivate(self.uid, self.epoch)
            self._worker = None
        except ActivationRefused as refused:
            worker.deactivate(self.uid, self.epoch)
            self._worker = None
            if trial is not None:
                trial.cut_off("NotReady", refused.fault.message)
            return reason_of(refused.fault), refused.fault.message
        except WorkerLost as error:
            self._worker = None
            self._standing.phase = Phase.STARTING
            # The same epoch goes on elsewhere only once this process is provably dead (protocol additions 3).
            await worker.dead.wait()
            if trial is None:
                parts.runner.acquit(worker.begun)
                return None
            return parts.trials.ended_its_worker(trial, str(error), blamed=not worker.no_fault)
        finally:
            parts.alarms.stop()
            parts.beginning.stop()
            if self._idle is not None:
                self._idle.cancel()
                self._idle = None
            if trial is not None:
                self._site.pool.end_trial(worker)
        return None

    async def _activate(self, worker: Worker, parts: Parts, *, alarms: bool) -> None:
        """Takes the agent into a worker's memory; what it begins with is committed before anything sees it."""
        await self._site.lease.wait()  # user code must not run in two places at once
        self._worker = worker
        spec, ledger = self._row.spec, parts.ledger
        frame = tenure_link.Activate(
            uid=self.uid,
            epoch=self.epoch,
            id=spec.id,
            class_name=class_name(self._row),
            state=ledger.state,
            initial=spec.state,
            config=spec.config,
            now=self._site.lease.cluster_now,
            wall=wall_s(),
        )
        try:
            async with asyncio.timeout(ACTIVATION_LIMIT_S):
                activated = await worker.activate(frame)
        except TimeoutError:
            worker.deactivate(self.uid, self.epoch)
            slow = f"the agent was not in memory after {ACTIVATION_LIMIT_S:g} s"
            raise ActivationRefused(tenure_link.Fault(code="ActivationFailed", message=slow)) from None
        if ledger.state is None and activated.state is None:
            raise ActivationRefused(tenure_link.Fault(code="StateInvalid", message="the worker made no first state"))
        await parts.beginning.commit(activated)
        parts.alarms.due = activated.due
        if alarms:
            parts.alarms.begin()

    def _serves(self, parts: Parts) -> None:
        """It is in a worker's memory, and Ready as soon as what it begins with is durable [ready_written]."""
        if parts.beginning.serves():
            self._standing.ready(parts.ledger.book.boxes)
        self._look_idle(parts)

    def _committed(self, due: tuple[tenure_link.Due, ...] | None) -> None:
        if self._parts is not None:
            self._parts.alarms.committed(due)
            if self._parts.beginning.is_over():
                self._standing.ready(self._parts.ledger.book.boxes, hurry=False)
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
        self._refuse_queued("NotReady", self._standing.trouble)
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
        self._refuse_queued("NotReady", why)
        if self._worker is not None:
            self._worker.deactivate(self.uid, self.epoch)
            self._worker = None
        await asyncio.get_running_loop().create_future()

    def _close(self) -> None:
        """The last thing: nothing stays unanswered, the worker forgets the agent."""
        self._standing.close()
        if self._worker is not None:
            self._worker.deactivate(self.uid, self.epoch)
            self._worker = None
        for job in self._queue:
            job.refuse("NotReady", f"{self._agent} has left this host")
        self._queue.clear()
        if self._parts is not None:
            self._parts.close(f"{self._agent} left this host during the turn")

    def _refuse_queued(self, code: str, message: str) -> None:
        while self._queue:
            self._queue.popleft().refuse(code, message)
        if self._parts is not None:
            self._parts.runner.refuse_all(code, message, queued_only=True)

    def _kind(self, call: Call) -> Kind:
        """What the worker is asked for; a name is looked up here, so that a query by name costs no commit."""
        if call.kind == CALL_KIND_ACTION:
            return "action"
        if call.kind == CALL_KIND_QUERY:
            return "query"
        query = self._site.pool.is_query(class_name(self._row), call.method)
        return "by_name" if query is None else "query" if query else "action"
