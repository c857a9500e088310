"""One activation: an agent at one epoch on this host, from the seal to the last reply.

    own the record -> activate in a worker -> serve the queue, one call at a time -> ...
                  ^                        |
                  +-- worker lost, or refused: again, same epoch (protocol additions 3); after a pause if it failed

Owned by one task. Who ends it cancels the task; what that means for the calls under way is said in `_close`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from enum import StrEnum

import tenure_link
from tenure_api.reasons import Reason
from tenure_proto.v1.calls_pb2 import CALL_KIND_ACTION, CALL_KIND_QUERY, Call
from tenure_proto.v1.hostlink_pb2 import Trouble
from tenure_proto.v1.registry_pb2 import AgentRow
from tenured.clocks import boot_ns
from tenured.core import turns
from tenured.core.backoff import Backoff
from tenured.host.failures import not_applied
from tenured.host.site import Site
from tenured.host.store import Record, RecordDeleted, RecordLost, RecordUnreadable
from tenured.host.turning import Job, Kind, Ledger, Stage, Turns
from tenured.host.worker import ActivationRefused, Worker, WorkerLost

log = logging.getLogger("tenured.host.holder")

QUEUE_LIMIT = 128
"""Calls that may wait for one agent; more get `Busy`."""
ACTIVATION_LIMIT_S = 60.0
"""User code that takes longer to come up has failed."""


class Phase(StrEnum):
    """Of an activation, as metrics and refusals name it."""

    STARTING = "Starting"
    READY = "Running"
    BACKOFF = "Backoff"
    DOWN = "Unavailable"
    """Its state cannot be read: it stays down until somebody acts."""


class Holder:
    """See the module. `stop` it before its agent may run elsewhere."""

    def __init__(self, site: Site, row: AgentRow) -> None:
        self.uid = row.uid
        self.epoch = row.epoch
        self.phase = Phase.STARTING
        self._site = site
        self._row = row
        self._queue: deque[Job] = deque()
        self._wake = asyncio.Event()
        self._stopping = False
        self._current: Job | None = None
        self._suspect: Job | None = None
        """Was in turn when its worker ended: to be tried alone."""
        self._worker: Worker | None = None
        self._backoff = Backoff(attempt=row.attempt, failed_ns=boot_ns() if row.attempt else 0)
        self._trouble = ""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"agent {row.spec.id}")

    # --- for the host -----------------------------------------------------------------------------------------------

    def submit(self, call: Call, caller: str, deadline_ns: int) -> Job:
        """Queues a call; it is answered by its turn, or at once with why not."""
        job = Job(call, self._kind(call), caller, deadline_ns)
        if self._stopping or self._task.done():
            job.fail(not_applied("NotReady", f"{self._row.spec.id} is leaving this host"))
        elif self.phase in (Phase.BACKOFF, Phase.DOWN):
            job.fail(not_applied("NotReady", f"{self._row.spec.id}: {self._trouble}"))
        elif len(self._queue) >= QUEUE_LIMIT:
            job.fail(not_applied("Busy", f"{QUEUE_LIMIT} calls wait for {self._row.spec.id}"))
        else:
            self._queue.append(job)
            self._wake.set()
        return job

    @property
    def failure(self) -> BaseException | None:
        """Why the activation ended by itself: a defect of ours."""
        return self._task.exception() if self._task.done() and not self._task.cancelled() else None

    async def stop(self, *, finish_turn: bool) -> None:
        """Ends the activation: after it nothing of it runs here. `finish_turn`: let the running turn end and be
        committed.
        """
        self._stopping = True
        self._wake.set()
        if not finish_turn or (self._current is None and self._suspect is None):
            self._task.cancel()
        await asyncio.wait({self._task})

    def abort(self) -> None:
        """Ends it now, without waiting."""
        self._stopping = True
        self._task.cancel()

    # --- the life -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        record = self._site.store.open(self.uid, self.epoch, expect_state=self._row.ready_epoch > 0)
        try:
            await self._live(record)
        except RecordUnreadable as error:
            await self._stay_down(str(error))
        except turns.Damaged as error:
            await self._stay_down(str(error))
        except RecordDeleted:
            log.info("%s: its record is gone with its row", self._row.spec.id)
            await self._until_stopped("the agent is being deleted")
        except RecordLost as error:
            log.warning("%s: epoch %d is over: %s", self._row.spec.id, self.epoch, error)
            await self._until_stopped("another host has taken over")
        finally:
            self._site.store.close(record)
            self._close()

    async def _live(self, record: Record) -> None:
        adopted = await record.adopted()
        ledger = Ledger(record, adopted.entries)
        runner = Turns(self._site, self.uid, self._row.spec.id, self.epoch, ledger)
        while not self._stopping:
            failure = await self._once(ledger, runner)
            if failure is not None:
                await self._back_off(*failure)

    async def _once(self, ledger: Ledger, runner: Turns) -> tuple[str, str] | None:
        """One time in a worker's memory, until it is over; (reason, message) of a failure that asks for a pause."""
        trial = self._suspect
        worker = await (self._site.pool.pick() if trial is None else self._site.pool.trial_worker())
        try:
            await self._activate(worker, ledger)
            if trial is None:
                self._report_ready()
                await self._serve(worker, runner)
            else:
                await self._try_alone(trial, worker, runner)
        except ActivationRefused as refused:
            self._worker = None
            if trial is not None:
                trial.cut_off("NotReady", refused.fault.message)
                self._suspect = None
            return _reason_of(refused.fault), refused.fault.message
        except WorkerLost as error:
            self._worker = None
            self.phase = Phase.STARTING
            # The same epoch goes on elsewhere only once this process is provably dead (protocol additions 3).
            await worker.dead.wait()
            return self._judge_loss(trial, str(error))
        finally:
            if trial is not None:
                self._site.pool.end_trial(worker)
        return None

    async def _activate(self, worker: Worker, ledger: Ledger) -> None:
        """Takes the agent into a worker's memory; what it begins with is committed before anything sees it."""
        await self._site.lease.wait()  # user code must not run in two places at once
        self._worker = worker
        spec = self._row.spec
        frame = tenure_link.Activate(
            uid=self.uid,
            epoch=self.epoch,
            id=spec.id,
            class_name=_class_name(self._row),
            state=ledger.state,
            initial=spec.state,
            config=spec.config,
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
        if activated.state is not None:
            await ledger.begin(activated.state, self._site.lease.cluster_time)

    def _report_ready(self) -> None:
        self._trouble = ""
        if self.phase is not Phase.READY:
            self.phase = Phase.READY
            self._site.reports.ready(self.uid, self.epoch)

    async def _serve(self, worker: Worker, runner: Turns) -> None:
        """Runs calls until the activation stops. Raises WorkerLost as soon as the worker is lost, idle or not."""
        wake = self._wake.set
        worker.on_lost[wake] = None
        try:
            while not self._stopping:
                if worker.lost:
                    raise WorkerLost(f"worker {worker.pid} is gone")
                if not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                self._current = self._queue.popleft()
                await runner.run(worker, self._current)
                self._current = None
        finally:
            worker.on_lost.pop(wake, None)

    # --- when it goes wrong ---------------------------------------------------------------------------------

    def _judge_loss(self, trial: Job | None, how: str) -> tuple[str, str] | None:
        """Only a crash in a worker of its own counts against a call: others may have ended the process (protocol
        additions 15).
        """
        job, self._current = self._current, None
        if trial is not None:
            self._suspect = None
            text = f"{trial.call.method} ended its worker process, also alone: {how}"
            trial.cut_off("WorkerCrashed", text)
            return Reason.CRASH_LOOP, text
        if job is not None and not job.answered:
            if job.stage is Stage.RUNNING:
                self._suspect = job
            else:
                self._queue.appendleft(job)  # it never reached the worker
        return None

    async def _try_alone(self, job: Job, worker: Worker, runner: Turns) -> None:
        """The call that was in turn when its worker ended, once more, with nobody else in the process."""
        self._current = job
        job.stage = Stage.QUEUED
        await runner.run(worker, job)
        self._current = self._suspect = None
        worker.deactivate(self.uid, self.epoch)
        self._worker = None

    async def _back_off(self, reason: str, message: str) -> None:
        """Reports the failure and pauses: 1 s doubling to 5 min, forgotten after 10 min of peace. The attempt is kept
        in the registry.
        """
        self._worker = None
        self._backoff = self._backoff.failed(boot_ns())
        pause_s = self._backoff.delay_ns / 1e9
        self.phase = Phase.BACKOFF
        self._trouble = f"backing off (attempt {self._backoff.attempt}, next in {pause_s:g} s): {message}"
        log.warning("%s: %s", self._row.spec.id, self._trouble)
        self._site.logs.add(self.uid, self._row.spec.id, self.epoch, "error", self._trouble)
        self._site.reports.trouble(
            self.uid,
            self.epoch,
            Trouble(
                phase=self.phase,
                reason=reason,
                message=message,
                attempt=self._backoff.attempt,
                retry_in_seconds=pause_s,
            ),
        )
        self._refuse_queued("NotReady", self._trouble)
        await asyncio.sleep(pause_s)
        self.phase = Phase.STARTING

    async def _stay_down(self, message: str) -> None:
        """Never start empty where there was a state: stay down, with the reason, until somebody acts."""
        self.phase = Phase.DOWN
        self._trouble = message
        log.error("%s stays down: %s", self._row.spec.id, message)
        self._site.reports.trouble(
            self.uid, self.epoch, Trouble(phase=self.phase, reason=Reason.STATE_UNREADABLE, message=message)
        )
        await self._until_stopped(message)

    async def _until_stopped(self, why: str) -> None:
        """Serves nobody until the registry tells this host to stop."""
        if self.phase is not Phase.DOWN:
            self.phase = Phase.STARTING
        self._stopping = True
        self._refuse_queued("NotReady", why)
        if self._worker is not None:
            self._worker.deactivate(self.uid, self.epoch)
            self._worker = None
        await asyncio.get_running_loop().create_future()

    def _close(self) -> None:
        """The last thing: no call stays unanswered, the worker forgets the agent."""
        if self._worker is not None:
            self._worker.deactivate(self.uid, self.epoch)
            self._worker = None
        for job in (self._current, self._suspect):
            if job is not None:
                job.cut_off("NotReady", f"{self._row.spec.id} left this host during the turn")
        self._current = self._suspect = None
        self._refuse_queued("NotReady", f"{self._row.spec.id} has left this host")

    def _refuse_queued(self, code: str, message: str) -> None:
        while self._queue:
            self._queue.popleft().fail(not_applied(code, message))

    def _kind(self, call: Call) -> Kind:
        """What the worker is asked for; a name is looked up here, so that a query by name costs no commit."""
        if call.kind == CALL_KIND_ACTION:
            return "action"
        if call.kind == CALL_KIND_QUERY:
            return "query"
        query = self._site.pool.is_query(_class_name(self._row), call.method)
        return "by_name" if query is None else "query" if query else "action"


def _class_name(row: AgentRow) -> str:
    """The field is a keyword of Python."""
    return str(getattr(row.spec, "class"))


def _reason_of(fault: tenure_link.Fault) -> str:
    """A reason of the catalogue for what the worker said."""
    return (
        fault.code
        if fault.code in {Reason.STATE_INVALID, Reason.CLASS_NOT_FOUND, Reason.STATE_UNREADABLE}
        else Reason.ACTIVATION_FAILED
    )
