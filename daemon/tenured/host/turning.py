"""The turns of one agent, from its queue to what is released: the order of duties of docs/architecture.md, "The path of
one call".

    lease held? -> judge the id -> Turn -> TurnDone -> write to a majority -> Commit -> lease held? -> release

Turns run ahead of their commits, each on the draft that the one before left; what has ended while a write was under way
is the next write (protocol 3, several turns in one write). A turn that cannot be kept takes along those that ran on its
draft: they are run again.

What is known of a call that fails: before its store write was sent, *not applied*; after it *unknown*, unless the
write's fate is known (protocol additions 11).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

import tenure_link
from tenured.clocks import boot_ns
from tenured.core import turns
from tenured.host.composing import Composer
from tenured.host.flights import Flight
from tenured.host.jobs import CallJob, Job, Stage
from tenured.host.judging import Judge
from tenured.host.ledger import Ledger
from tenured.host.outgoing import Outgoing
from tenured.host.owing import Owing
from tenured.host.queries import Queries
from tenured.host.site import Site
from tenured.host.stores import RecordLost, RecordTooLarge
from tenured.host.stuck import Watchdog
from tenured.host.telling import Telling
from tenured.host.worker import Worker, WorkerLost

AHEAD = 64
"""Turns of one agent that may be in a worker, or wait for a write, at once."""


class Turns:
    """See the module. Everything happens in callbacks; `serve` waits for the end."""

    def __init__(self, site: Site, telling: Telling, ledger: Ledger, judge: Judge, outgoing: Outgoing) -> None:
        self.ledger = ledger
        self.used_ns = boot_ns()
        """When something was asked last."""
        self.suspects: deque[Job] = deque()
        """Were running when their worker ended: to be tried alone (protocol 3, poison)."""
        self.on_committed: Callable[[tuple[tenure_link.Due, ...] | None], None] = lambda _: None
        self._site = site
        self._telling = telling
        self._judge = judge
        self._outgoing = outgoing
        self._composer = Composer(site, telling, ledger, judge, outgoing)
        self._queries = Queries(site, telling, judge, self.pump)
        self._watchdog = Watchdog(self._running, self._kill)
        self.owing = Owing(site.lease, lambda: ledger.book, partial(self.add, first=True))
        self._asides: list[Flight] = []
        """Of jobs that are no turns, while a turn is owed: they wait for no draft."""
        self._accepting = False
        """A turn has come to its first step: nothing begins until it is known to be owed."""
        self._queue: deque[Job] = deque()
        self._flights: deque[Flight] = deque()
        self._writing: list[Flight] = []
        self._worker: Worker | None = None
        self._over: asyncio.Future[None] | None = None
        self._only: Job | None = None
        self._pumping = self._stopping = False
        self._landing: asyncio.Future[None] | None = None

    # --- what is asked ------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Jobs whose turns have not ended."""
        return len(self._queue) + len(self._flights) + self._judge.parked + self.owing.waiting

    @property
    def busy(self) -> bool:
        """Something is under way."""
        return bool(self._flights or self._landing is not None or self._queries.busy)

    @property
    def idle(self) -> bool:
        """Nothing is asked and nothing under way; a turn that is owed waits."""
        waits = self._queue or self._asides or self._queries.waiting or self._judge.parked or self.owing.waiting
        return not (self.busy or waits or self.suspects)

    def add(self, job: Job, *, first: bool = False) -> None:
        """Queue a job; `first`: before all others."""
        self.used_ns = boot_ns()
        if isinstance(job, CallJob) and job.kind == "query":
            self._ask(job)
            return
        (self._queue.appendleft if first else self._queue.append)(job)
        self.pump()

    def refuse_all(self, code: str, message: str, *, queued_only: bool = False) -> None:
        """Answer everything that has not begun; unless `queued_only`, also what has."""
        jobs: list[Job] = [*self._queue, *self._judge.take_parked(), *self._queries.waited(), *self.owing.stop()]
        self._queue.clear()
        if not queued_only:
            jobs += [flight.job for flight in (*self._writing, *self._flights, *self._asides)]
            jobs += [*self._queries.lost(), *self.suspects]
            self._flights.clear()
            self._asides.clear()
            self.suspects.clear()
        for job in jobs:
            job.cut_off(code, message)

    # --- a time in a worker's memory -------------------------------------------------------------------------------

    async def serve(self, worker: Worker, only: Job | None = None) -> None:
        """Run jobs until `stop_serving`, or, with `only`, until that one has ended, or until there are suspects.

        Raises WorkerLost as soon as the worker is lost, idle or not; RecordLost.
        """
        over = self._over = asyncio.get_running_loop().create_future()
        self._worker, self._only = worker, only
        worker.on_lost[self._lost] = None
        try:
            if worker.lost:
                raise WorkerLost(f"worker {worker.pid} is gone")
            for query in self._queries.waited():
                self._ask(query)
            if only is not None:
                self.add(only, first=True)
            self.pump()
            await over
        finally:
            worker.on_lost.pop(self._lost, None)
            self._worker = self._only = self._over = None

    def rest(self) -> None:
        """End `serve` if nothing is asked."""
        if self.idle:
            self._end()

    def stop_serving(self) -> None:
        """Begin nothing more, and end `serve` once what runs has ended and is written."""
        self._stopping = True
        running = next((at for at, flight in enumerate(self._flights) if flight.done is None), len(self._flights))
        if running + 1 < len(self._flights):
            self._cut(self._flights[running + 1], keep=True)
        self.pump()

    async def settled(self) -> None:
        """Until no write is under way: what is committed is known. Raises RecordLost."""
        while self._landing is not None:
            await asyncio.wait({self._landing})
            await asyncio.sleep(0)
        if (error := self._judge.lost) is not None:
            raise error

    def _end(self, error: BaseException | None = None) -> None:
        if self._over is not None and not self._over.done():
            if error is None:
                self._over.set_result(None)
            else:
                self._over.set_exception(error)

    def _lost(self) -> None:
        """The worker is gone, with every draft: what was running first is a suspect, the rest begins anew."""
        worker = self._worker
        running = self._running()
        for flight in reversed(self._flights):
            flight.cut = True
            if flight is running and not flight.job.answered:
                self._ended(flight.job)
                self.suspects.append(flight.job)
            elif not flight.silent:
                self.requeue(flight.job)
        self._flights.clear()
        self._accepting = False
        self.suspects += self._queries.lost()
        self._end(WorkerLost(f"worker {worker.pid if worker is not None else 0} is gone"))

    # --- the pump -----------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Begin what can begin, write what can be written."""
        if self._pumping or self._worker is None or self._worker.lost or self._judge.lost is not None:
            return
        self._pumping = True
        try:
            if not self._stopping:
                self._feed(self._worker)
            self._write()
            if not (self._flights or self._writing) and self._has_ended():
                self._end()
        except RecordLost as error:
            self._record_lost(error)
        finally:
            self._pumping = False

    def _has_ended(self) -> bool:
        """Whether `serve` is over, now that nothing is under way."""
        if self._queries.busy:
            return False
        if self._only is not None:
            return self._only not in self._queue
        return bool(self.suspects) or self._stopping

    def _feed(self, worker: Worker) -> None:
        while self._queue and not self._accepting and len(self._flights) + len(self._writing) < AHEAD:
            if self.suspects and self._only is None:
                return  # first what is under way ends, then they are tried
            job = self._queue.popleft()
            if self._only is not None and job is not self._only:
                self._queue.appendleft(job)
                return
            if job.answered:
                continue
            if not self._site.lease.held:
                job.refuse("Fenced", "the lease of this host has lapsed")
            elif not self.owing.defers(job) and self._judge.is_new(job):
                self._begin(worker, job)

    def _begin(self, worker: Worker, job: Job) -> None:
        if job.alone and job.needs_worker and self._only is not job:
            self.suspects.append(job)
            return
        if not job.needs_worker:
            self._judge.begun(job)
            job.stage = Stage.RUNNING
            flight = Flight(job, 0, done=tenure_link.TurnDone(0, reply=b""), letter=job.poisoned)
            (self._flights if self.ledger.book.journal.owed is None else self._asides).append(flight)
            return
        number = next(self._site.turns)
        flight = Flight(job, number, boot_ns(), letter=job.poisoned)
        frame = job.frame(number, self._telling.uid, self._site.lease.cluster_now)
        worker.ask(frame, partial(self._done, flight), partial(self._progress, flight))
        self._judge.begun(job)
        job.stage = Stage.RUNNING
        self._flights.append(flight)
        self._watchdog.watch()

    def _running(self) -> Flight | None:
        return next((flight for flight in self._flights if flight.done is None and flight.number), None)

    def _kill(self, why: str) -> None:
        if self._worker is not None:
            self._site.pool.kill(self._worker, f"{self._telling.agent} {why}")

    def _done(self, flight: Flight, done: tenure_link.TurnDone) -> None:
        if flight.cut:
            return
        flight.done = done
        self._site.metrics.turn_seconds.observe((boot_ns() - flight.began_ns) / 1e9)
        if done.fault is not None:
            self._failed(flight, done, done.fault)
        self.pump()

    def _progress(self, flight: Flight, progress: tenure_link.Progress) -> None:
        """The turn waits until its acceptance, or its step, is durable (protocol 9, rules 1 and 2)."""
        if flight.cut:
            return
        flight.progress = progress
        if progress.entry is None:
            self._accepting = True
            later = self._flights.index(flight) + 1
            if later < len(self._flights):
                self._cut(self._flights[later], keep=True)
        self.pump()

    def _failed(self, flight: Flight, done: tenure_link.TurnDone, fault: tenure_link.Fault) -> None:
        """A failure in user code. The draft is as the turn found it, but for what its class makes of the failure."""
        self._telling.failed(fault)
        job = flight.job
        retry_s = self._judge.failed(job, fault)
        if retry_s is None and job.ends_in_letter:
            flight.letter = fault
            return
        if retry_s is not None:
            # What ran on this draft may include later signals of the same sender, which must not overtake it [prev].
            self._cut(flight, keep=False)
            job.stage = Stage.QUEUED
            self._judge.park(job, retry_s, self._unpark)
            return
        if done.state is not None or done.sends:
            flight.silent = True
        else:
            self._flights.remove(flight)
        self._ended(job)
        job.refuse(fault.code, fault.message)

    def _unpark(self, jobs: Iterable[Job]) -> None:
        for job in reversed(list(jobs)):
            self._queue.appendleft(job)
        self.pump()

    def _cut(self, flight: Flight, *, keep: bool) -> None:
        """This turn and all later ones did not happen; they go back to the queue, this one only to be kept."""
        at = self._flights.index(flight)
        gone = [self._flights.pop() for _ in range(len(self._flights) - at)]  # the last one first
        for one in gone:
            one.cut = True
            if one is not flight or keep:
                self.requeue(one.job)
            else:
                self._ended(one.job)
        numbers = [one.number for one in gone if one.number]
        if numbers and self._worker is not None:
            for number in numbers:
                self._worker.forget(number)
            self._worker.drop(min(numbers), self._telling.uid)

    def _ended(self, job: Job) -> None:
        """Its turn is settled: repetitions of it may be judged."""
        self._queue.extendleft(self._judge.ended(job))

    def requeue(self, job: Job) -> None:
        """Put it before all others, as if it had not begun."""
        self._ended(job)
        if not job.answered:
            job.stage = Stage.QUEUED
            self._queue.appendleft(job)

    # --- commits ------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        if self._landing is not None:  # also one of settlements alone: a second would build on the book before it
            return
        while self._flights and self._flights[0].done is not None and self._flights[0].job.answered:
            if self._flights[0].silent:
                break
            self._cut(self._flights[0], keep=False)  # its deadline has passed, and it was called "not applied"
        draft = self._composer.draft()
        due: tuple[tenure_link.Due, ...] | None = None
        ready: list[Flight] = []
        while self._flights and (done := self._flights[0].done) is not None:
            flight = self._flights[0]
            if flight.job.answered and not flight.silent:
                break
            if (fault := self._composer.end_into(draft, flight, done)) is not None:
                self._unkept(flight, fault)
                continue
            ready.append(self._flights.popleft())
            due = done.due if done.due is not None else due
        stepping = self._step_into(draft)
        ready += self._asides_into(draft)
        settled = self._outgoing.settle_into(draft, writing=bool(ready) or stepping is not None)
        if not ready and not settled and stepping is None:
            return
        if due is not None:
            draft.due(wake_of(due))
        self._send_write(draft.turn(), ready, due, stepping)

    def _asides_into(self, draft: turns.Draft) -> list[Flight]:
        asides, self._asides = self._asides, []
        return [
            flight
            for flight in asides
            if not flight.job.answered
            and flight.done is not None
            and self._composer.end_into(draft, flight, flight.done) is None
        ]

    def _step_into(self, draft: turns.Draft) -> Flight | None:
        """What the first turn that has not ended has come to: all turns before it are in the draft."""
        flight = self._flights[0] if self._flights else None
        if flight is None or flight.progress is None or flight.done is not None:
            return None
        if flight.progress.entry is None and flight.job.answered:
            self._accepting = False
            self._cut(flight, keep=False)  # its deadline has passed, and it was called "not applied"
            return None
        self._composer.step_into(draft, flight, flight.progress)
        return flight

    def _unkept(self, flight: Flight, fault: tenure_link.Fault) -> None:
        """What the turn asks for cannot be kept."""
        job = flight.job
        self._cut(flight, keep=False)
        self._telling.failed(fault)
        if job.ends_in_letter:
            self._judge.begun(job)
            done = tenure_link.TurnDone(0, reply=b"")
            self._flights.appendleft(Flight(job, 0, done=done, letter=fault))
        else:
            job.refuse(fault.code, fault.message)

    def _send_write(
        self,
        turn: turns.Turn,
        ready: list[Flight],
        due: tuple[tenure_link.Due, ...] | None,
        stepping: Flight | None,
    ) -> None:
        """Raises RecordLost: nothing was sent."""
        began = boot_ns()
        try:
            written = self.ledger.write(turn)
        except RecordLost:
            self._flights.extendleft(reversed(ready))
            raise
        except RecordTooLarge as error:  # a narrower limit than ours: what was first is refused, the rest tried again
            self._flights.extendleft(reversed(ready))
            if ready:
                text = f"{self._telling.agent} {ready[0].job.label}: {error}"
                self._unkept(ready[0], tenure_link.Fault("StateInvalid", text))
            return
        self._writing = ready
        for flight in (*ready, *([] if stepping is None else [stepping])):
            flight.job.stage = Stage.WRITTEN
        self._landing = written
        written.add_done_callback(partial(self._landed, turn, due, began, stepping))

    def _landed(
        self,
        turn: turns.Turn,
        due: tuple[tenure_link.Due, ...] | None,
        began: int,
        stepping: Flight | None,
        written: asyncio.Future[None],
    ) -> None:
        self._landing = None
        if written.cancelled():
            return
        error = written.exception()
        if error is not None:
            self._record_lost(error)
            return
        flights, self._writing = self._writing, []
        self.ledger.landed(turn)
        self._site.metrics.commit_seconds.observe((boot_ns() - began) / 1e9)
        numbers = [flight.number for flight in flights if flight.number]
        if numbers and self._worker is not None:
            self._worker.commit(max(numbers), self._telling.uid)
        if stepping is not None:
            self._stepped(stepping)
        self._release(flights)
        self._outgoing.release(turn.book.boxes)
        self.owing.look()
        self.on_committed(due)
        self.pump()

    def _stepped(self, flight: Flight) -> None:
        """The acceptance, or the step, of a turn is durable: it goes on."""
        progress, flight.progress = flight.progress, None
        accepted = progress is not None and progress.entry is None
        if accepted:
            first = flight.job
            owed = self.owing.accepted(first)
            self._accepting = False
            self._ended(first)
            if flight.cut:  # its worker ended meanwhile: it is owed, and nothing else of it is to be run
                self.owing.suspended()
                if first in self.suspects:
                    self.suspects.remove(first)
                return
            if owed is not None:
                flight.job = owed
                self._judge.begun(owed)
                if not isinstance(first, CallJob):
                    first.released(b"")
        if self._worker is not None and not flight.cut:
            self._worker.progressed(flight.number, self._telling.uid)

    def _release(self, flights: list[Flight]) -> None:
        """Replies and signals leave, if the lease is held now: after the commit, before the release (protocol 1, host
        2).
        """
        held = self._site.lease.held
        for flight in flights:
            job, done = flight.job, flight.done
            self._ended(job)
            if done is not None and done.waits is not None:
                self.owing.suspended()
            if flight.silent or done is None:
                continue
            if not held:
                job.cut_off("Fenced", "the lease of this host lapsed before the reply could be released")
                continue
            job.released(done.reply or b"")
            self._telling.emitted(done.signals)

    def _record_lost(self, error: BaseException) -> None:
        for flight in (*self._writing, *self._flights):
            flight.cut = True
            if not flight.silent:
                flight.job.cut_off("Fenced", f"another holder has taken over: {error}")
        self._writing = []
        self._flights.clear()
        self._judge.lost = error
        self._end(error)

    # --- queries ------------------------------------------------------------------------------------------------------

    def _ask(self, job: CallJob) -> None:
        worker = self._worker
        if worker is None or worker.lost or (self._only is not None and self._only is not job):
            self._queries.wait(job)
        else:
            self._queries.ask(worker, job)


def wake_of(due: Iterable[tenure_link.Due]) -> turns.Wake:
    """The earliest of what is planned."""
    cluster = [one.at for one in due if not one.wall]
    wall = [one.at for one in due if one.wall]
    return turns.Wake(min(cluster, default=None), min(wall, default=None))
