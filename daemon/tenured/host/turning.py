"""The turns of one agent, from its queue to their ends: the first half of the order of duties of docs/architecture.md,
"The path of one call". `committing` is the other half.

    lease held? -> judge the id -> Turn -> TurnDone -> ...

Turns run ahead of their commits, each on the draft that the one before left; what has ended while a write was under way
is the next write (protocol 3, several turns in one write). A turn that is to be tried again, or cannot be kept, takes
along those that ran on its draft: they are run again. One that has failed for good is undone in the worker to the draft
before it; those that ran later never saw it, and stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import tenure_link
from tenured.clocks import boot_ns
from tenured.core import endings
from tenured.host.committing import Commits
from tenured.host.flights import Flight
from tenured.host.jobs import CallJob, Job, Stage, enqueue
from tenured.host.judging import Judge
from tenured.host.ledger import Ledger
from tenured.host.lineup import Lineup
from tenured.host.outgoing import Outgoing
from tenured.host.owing import Owing
from tenured.host.queries import Queries
from tenured.host.retrying import Retries
from tenured.host.site import Site
from tenured.host.stores import RecordLost
from tenured.host.stuck import Watchdog
from tenured.host.suspects import Suspects
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
        self.lineup = Lineup(telling.uid, judge)
        self.suspects = Suspects()
        self.retries = Retries(telling, judge, self.lineup, self._take_first)
        self.on_committed: Callable[[tuple[tenure_link.Due, ...] | None], None] = lambda _: None
        self.owing = Owing(site.lease, telling, lambda: ledger.book, self._take_first, judge.guard)
        self._site = site
        self._telling = telling
        self._judge = judge
        self._guard = judge.guard
        self._guard.on_defect = self.lost
        self._commits = Commits(site, telling, ledger, judge, outgoing, self.owing, self)
        self._queries = Queries(site, telling, judge, self.pump)
        self._watchdog = Watchdog(self.lineup.running, self._kill, self._guard)
        self._over: asyncio.Future[None] | None = None
        self._only: Job | None = None
        self._pumping = self._stopping = self._closing = self._lingers = False

    # --- what is asked ------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Jobs whose turns have not ended."""
        asides = len(self._commits.asides)
        lined_up = len(self.lineup.queue) + len(self.lineup.flights)
        return lined_up + asides + self._judge.parked + self.owing.waiting

    @property
    def busy(self) -> bool:
        """Something is under way."""
        under_way = self.lineup.flights or self._commits.asides or self._commits.landing is not None
        return bool(under_way or self._queries.busy)

    @property
    def idle(self) -> bool:
        """Nothing is asked, nothing under way, and nothing owed: neither the end of a turn nor the run of a signal."""
        return not (self.busy or self.lineup.queue or self._judge.parked or self.suspects or self.owing.owes)

    @property
    def accepting(self) -> bool:
        """A turn has come to its first step: nothing begins until it is known to be owed. It is the last one."""
        flights = self.lineup.flights
        return self._commits.accepting or (bool(flights) and flights[-1].accepts)

    @property
    def has_ended(self) -> bool:
        """The agent has ended by itself, and nothing that it had accepted is left to run (protocol 3, ends)."""
        book = self.ledger.book
        ended = book.ended
        return ended is not None and not endings.runs_on(ended, self._telling.uid, book.boxes, book.journal)

    @property
    def may_rest(self) -> bool:
        """Nothing is asked and nothing under way; a turn that is owed waits."""
        asked = self.lineup.queue or self._queries.waiting or self._judge.parked or self.suspects or self.owing.waiting
        return not (self.busy or asked or self.owing.runs)

    def rest(self) -> None:
        """End `serve`, if it may."""
        if self.may_rest:
            self._end()

    def add(self, job: Job, *, first: bool = False) -> None:
        """Queue a job; `first`: before all others. Raises nothing."""
        self.used_ns = boot_ns()
        if isinstance(job, CallJob) and job.kind == "query" and self.ledger.book.ended is None:
            self._guard.run(self._ask, job)
            return
        if first:
            self.lineup.queue.appendleft(job)
        else:
            enqueue(self.lineup.queue, job)
        self._site.gathering.ask(self._look)

    def refuse_all(self, code: str, message: str, *, queued_only: bool = False) -> None:
        """Answer everything that has not begun; unless `queued_only`, also what has."""
        lineup = self.lineup
        jobs: list[Job] = [*lineup.queue, *self._judge.take_parked(), *self._queries.waited(), *self.owing.stop()]
        lineup.queue.clear()
        if not queued_only:
            jobs += [flight.job for flight in (*self._commits.writing, *lineup.flights, *self._commits.asides)]
            jobs += [*self._queries.lost(), *self.suspects]
            lineup.flights.clear()
            self._commits.asides.clear()
            self.suspects.clear()
        for job in jobs:
            job.cut_off(code, message)

    def dissolve(self) -> None:
        """See Parts."""
        self._guard.on_defect = _nothing
        del self.owing, self.retries, self._commits, self._queries, self._watchdog

    # --- a time in a worker's memory -------------------------------------------------------------------------------

    async def serve(self, worker: Worker, only: Job | None = None) -> None:
        """Run jobs until `stop_serving`, or, with `only`, until that one has ended, or until there are suspects.

        Raises WorkerLost as soon as the worker is lost, idle or not; RecordLost; what a defect raised.
        """
        if self._judge.lost is not None:
            raise self._judge.lost
        over = self._over = asyncio.get_running_loop().create_future()
        self.lineup.worker, self._only = worker, only
        worker.on_lost[self._lost] = None
        try:
            if worker.lost:
                raise WorkerLost(f"worker {worker.pid} is gone")
            self._commits.first_due = False
            self.ask_waiting()
            if only is not None:
                self.add(only, first=True)
            else:
                self.owing.look()
            self._look()
            await over
        finally:
            self._watchdog.stop()
            worker.on_lost.pop(self._lost, None)
            self.lineup.worker = self._only = self._over = None

    async def close_down(self, linger_s: float) -> None:
        """Of an agent that `has_ended`: until nothing is left that anybody may want, and for so many seconds at least.
        What comes meanwhile is turned away; no worker is needed [box_first].

        Raises RecordLost; what a defect raised.
        """
        if self._judge.lost is not None:
            raise self._judge.lost
        loop = asyncio.get_running_loop()
        over = self._over = loop.create_future()
        self._closing, self._lingers = True, linger_s > 0
        timer = loop.call_later(linger_s, self._guard(self._lingered))
        for job in (*self.suspects, *self._queries.waited(), *self._judge.take_parked()):
            self.lineup.queue.append(job)
        self.suspects.clear()
        self._look()
        try:
            await over
        finally:
            timer.cancel()
            self._closing, self._over = False, None

    def _lingered(self) -> None:
        self._lingers = False
        self.pump()

    def stop_serving(self) -> None:
        """Begin nothing more, and end `serve` once what runs has ended and is written."""
        self._stopping = True
        running = next((flight for flight in self.lineup.flights if flight.done is None), None)
        if running is not None:
            self.lineup.cut_behind(running)
        self._look()

    async def settled(self) -> None:
        """Until no write is under way: what is committed is known. Raises RecordLost, and what a defect raised."""
        while (landing := self._commits.landing) is not None:
            await asyncio.wait({landing})
            await asyncio.sleep(0)
        if (error := self._judge.lost) is not None:
            raise error

    @property
    def _serves(self) -> bool:
        """The worker is there, or none is needed, and `serve` has not ended: what is asked now is for it."""
        over = self._over is None or self._over.done()
        worker = self.lineup.worker
        return (self._closing or (worker is not None and not worker.lost)) and not over

    def _end(self, error: BaseException | None = None) -> None:
        if self._over is not None and not self._over.done():
            if error is None:
                self._over.set_result(None)
            else:
                self._over.set_exception(error)

    def _lost(self) -> None:
        """The worker is gone, with every draft: what was sent first is a suspect, the rest begins anew."""
        worker = self.lineup.worker
        doubted, again = self.lineup.undrafted()
        inbox = self.suspects.take_inbox() if again else []  # what was accepted first runs first [inbox_order]
        self.lineup.requeue(*again, *inbox)
        self.suspects.doubt(doubted, self._queries.lost())
        self._end(WorkerLost(f"worker {worker.pid if worker is not None else 0} is gone"))

    def acquit(self, begun: frozenset[int] | None) -> None:
        """The worker is dead, and this had begun there, as far as is known: what had not begins anew, as if it had not
        been sent (protocol 3, poison [note_first]).
        """
        for job in self.suspects.acquit(begun):
            if isinstance(job, CallJob) and job.kind == "query":
                job.stage = Stage.QUEUED
                self._queries.wait(job)
            else:
                self.lineup.requeue(job)

    def lost(self, error: BaseException) -> None:
        """Nothing can be written any more: another holder has taken over, or a defect of ours."""
        fenced = isinstance(error, RecordLost)
        code = "Fenced" if fenced else "Internal"
        why = f"another holder has taken over: {error}" if fenced else "a defect of the host ended the activation"
        for flight in (*self._commits.writing, *self.lineup.flights):
            flight.cut = True
            if not flight.silent:
                flight.job.cut_off(code, why)
        self._commits.writing = []
        self.lineup.flights.clear()
        self._judge.lost = self._judge.lost or error
        self._end(error)

    # --- the pump -----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """`pump`, raising nothing."""
        self._guard.run(self.pump)

    def pump(self) -> None:
        """Begin what can begin, write what can be written."""
        if self._pumping or not self._serves or self._judge.lost is not None:
            return
        self._pumping = True
        try:
            while True:
                if not self._stopping:
                    self._feed()
                if not self._commits.write():
                    break
                if not self._serves:
                    return  # what was committed has ended it
            if not self._stopping:
                self._feed()  # what a write has taken back
            if not (self.lineup.flights or self._commits.asides or self._commits.landing) and self._has_ended():
                self._end()
        except RecordLost as error:
            self.lost(error)
        finally:
            self._pumping = False

    def _has_ended(self) -> bool:
        """Whether `serve` is over, now that nothing is under way."""
        if self._queries.busy:
            return False
        if self._only is not None:
            return self._only not in self.lineup.queue
        if self._closing:
            return self._stopping or (not self._lingers and endings.settled(self.ledger.book.boxes))
        return bool(self.suspects) or self._stopping or self.has_ended

    def _feed(self) -> None:
        queue, flights = self.lineup.queue, self.lineup.flights
        if not queue or self.accepting:
            return
        while queue and len(flights) + len(self._commits.writing) < AHEAD:
            if self._commits.closing or (flights and flights[-1].closes):
                return
            if self.suspects and self._only is None:
                return  # first what is under way ends, then they are tried
            job = queue.popleft()
            if self._only is not None and job is not self._only:
                queue.appendleft(job)
                return
            try:
                self._try(job)
            except Exception:
                job.cut_off("Internal", "a defect of the host ended the activation")
                raise

    def _try(self, job: Job) -> None:
        if job.answered:
            return
        if not self._site.lease.held:
            job.refuse("Fenced", "the lease of this host has lapsed")
            self.owing.again()
        elif not self.owing.defers(job) and self._judge.is_new(job):
            self._begin(job)

    def _begin(self, job: Job) -> None:
        if job.alone and job.needs_worker and self._only is not job:
            self.suspects.append(job)
            return
        if not job.needs_worker:
            aside = self.ledger.book.journal.owed is not None
            flight = Flight(job, 0, done=tenure_link.TurnDone(0, reply=b""), letter=job.poisoned, aside=aside)
            flight.pauses = job.poisoned is not None and self._judge.pauses(job)
            (self._commits.asides if aside else self.lineup.flights).append(flight)
        elif (worker := self.lineup.worker) is None:
            job.cut_off("NotReady", "the agent is in no worker")
            return
        else:
            number = next(self._site.turns)
            job.sent_as = number
            flight = Flight(job, number, boot_ns(), letter=job.poisoned)
            frame = job.frame(number, self._telling.uid, self._site.lease.cluster_now)
            worker.ask(frame, self, flight)
            self.lineup.flights.append(flight)
        self._judge.begun(job)
        job.stage = Stage.RUNNING
        if job.needs_worker:
            self._watchdog.watch()

    def _kill(self, why: str) -> None:
        if (worker := self.lineup.worker) is not None:
            self._site.pool.kill(worker, f"{self._telling.agent} {why}")

    # --- ends ---------------------------------------------------------------------------------------------------------

    def ended(self, asked: Flight, done: tenure_link.TurnDone) -> None:
        """See worker.Asker."""
        self._guard.run(self._done, asked, done)

    def progressed(self, asked: Flight, progress: tenure_link.Progress) -> None:
        """See worker.Asker."""
        self._guard.run(self._progress, asked, progress)

    def _done(self, flight: Flight, done: tenure_link.TurnDone) -> None:
        if flight.cut:
            return
        if flight.accepts and flight.job.stage is Stage.WRITTEN:
            # Its caller's time was over while its acceptance was being written. It has done nothing, is owed by then,
            # with a time of its own, and begins anew (protocol 9, rule 1 [accept_runs]).
            flight.cut = True
            self.lineup.flights.remove(flight)
            return
        flight.done = done
        self._site.metrics.turn_seconds.observe((boot_ns() - flight.began_ns) / 1e9)
        if done.fault is not None:
            self.retries.failed(flight, done, done.fault)
        if flight.closes and flight in self.lineup.flights:
            self.lineup.cut_behind(flight)  # it takes none along: they are judged once it is committed
        self._site.gathering.ask(self._look)

    def _progress(self, flight: Flight, progress: tenure_link.Progress) -> None:
        """The turn waits until its acceptance, or its step, is durable (protocol 9, rules 1 and 2)."""
        if flight.cut:
            return
        flight.progress = progress
        if flight.accepts:
            self.lineup.cut_behind(flight)
        self._site.gathering.ask(self._look)

    def _take_first(self, jobs: Iterable[Job]) -> None:
        """In this order, before all others."""
        self.lineup.put_first(list(jobs))
        self.pump()

    # --- queries ------------------------------------------------------------------------------------------------------

    def write_first(self) -> None:
        """Write the first state now, if no write carries it yet: nobody has asked for a turn, or somebody reads."""
        self._commits.first_due = True
        self._look()

    def ask_waiting(self) -> None:
        """Ask what waited for a worker, or for the first state to be durable."""
        for query in self._queries.waited():
            self._ask(query)

    def _ask(self, job: CallJob) -> None:
        worker = self.lineup.worker
        if self.ledger.first is not None:
            self._queries.wait(job)
            self.write_first()
        elif worker is None or not self._serves or (self._only is not None and self._only is not job):
            self._queries.wait(job)
        else:
            self._queries.ask(worker, job)


def _nothing(_: Exception) -> None: ...
