"""From turns that have ended to what is released: one write at a time, each on what the one before left.

    TurnDone -> compose -> write to a majority -> Commit to the worker -> lease held? -> release

What is known of a call that fails: before its store write was sent, *not applied*; after it *unknown*, unless the
write's fate is known (protocol additions 11).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

import tenure_link
from tenured.clocks import boot_ns
from tenured.host.alarms import wake_of
from tenured.host.composing import Composer
from tenured.host.flights import Flight, Write
from tenured.host.jobs import CallJob, Stage
from tenured.host.judging import Judge
from tenured.host.ledger import Ledger
from tenured.host.lineup import Lineup
from tenured.host.outgoing import Outgoing
from tenured.host.owing import Owing
from tenured.host.retrying import Retries
from tenured.host.site import Site
from tenured.host.stores import RecordLost, RecordTooLarge
from tenured.host.suspects import Suspects
from tenured.host.telling import Telling

ALL = 1_000_000


class Runner(Protocol):
    """Who runs the turns."""

    lineup: Lineup
    suspects: Suspects
    retries: Retries
    on_committed: Callable[[tuple[tenure_link.Due, ...] | None], None]

    def ask_waiting(self) -> None:
        """Queries that waited for the first state to be durable."""
        ...

    def pump(self) -> None:
        """Begin what can begin, write what can be written."""
        ...

    def lost(self, error: BaseException) -> None:
        """Nothing can be written any more."""
        ...


class Commits:
    """Of one activation. Everything happens in callbacks."""

    def __init__(
        self,
        site: Site,
        telling: Telling,
        ledger: Ledger,
        judge: Judge,
        outgoing: Outgoing,
        owing: Owing,
        runner: Runner,
    ) -> None:
        self.writing: list[Flight] = []
        self.landing: asyncio.Future[None] | None = None
        """The write under way."""
        self.accepting = False
        """The write under way carries the acceptance of a turn."""
        self.closing = False
        """The write under way pauses the agent, or ends it."""
        self.first_due = False
        """The first state is to be written now, with a turn or by itself."""
        self.asides: list[Flight] = []
        """Of jobs that are no turns, while a turn is owed: they wait for no draft."""
        self._site = site
        self._telling = telling
        self._ledger = ledger
        self._judge = judge
        self._outgoing = outgoing
        self._owing = owing
        self._runner = runner
        self._lineup = runner.lineup
        self._composer = Composer(site, telling, ledger, judge, outgoing)

    # --- composing ----------------------------------------------------------------------------------------------------

    def write(self) -> bool:
        """Write what has ended, if no write is under way: each is made of what the one before has left. Whether that
        is committed already, so that there may be more.

        Raises RecordLost: nothing was sent.
        """
        limit = ALL
        while self.landing is None:
            write = self._compose(limit)
            if write is None:
                return False
            error = self._send(write)
            if error is None:
                return self.landing is None
            if len(write.ready) > 1:
                limit = 1  # each by itself: only what does not fit is refused
            elif not self._refused(write, error):
                return False
        return False

    def _compose(self, limit: int) -> Write | None:
        flights = self._lineup.flights
        while flights and flights[0].done is not None and flights[0].job.answered and not flights[0].silent:
            self._lineup.cut(flights[0], keep=False)  # its deadline has passed, and it was called "not applied"
        if not (self._something_to_write or self.asides or self.first_due or self._outgoing.ripe):
            return None
        write = Write(self._composer.draft())
        try:
            self._endings_into(write, limit)
            if len(write.ready) < limit:
                self._step_into(write)
                self._asides_into(write, limit if write.stepping is None else limit - 1)
        except Exception:
            self._take_back(write)  # whoever answers for them finds them there
            raise
        first = self.first_due and self._ledger.first is not None
        some = bool(write.ready) or write.stepping is not None or first
        write.settled = limit > 1 and self._outgoing.settle_into(write.draft, writing=some)
        if not some and not write.settled:
            return None
        return write

    @property
    def _something_to_write(self) -> bool:
        """The first turn has ended, or come to something. Else a draft, a copy of the book, would be in vain."""
        flights = self._lineup.flights
        return bool(flights) and (flights[0].done is not None or flights[0].progress is not None)

    def _endings_into(self, write: Write, limit: int) -> None:
        flights = self._lineup.flights
        while flights and (done := flights[0].done) is not None and len(write.ready) < limit:
            flight = flights[0]
            if flight.job.answered and not flight.silent:
                break
            fault = self._composer.end_into(write.draft, flight, done)
            if fault is not None:
                self._unkept(flight, fault)
                continue
            write.ready.append(flights.popleft())
            write.due = done.due if done.due is not None else write.due

    def _step_into(self, write: Write) -> None:
        """What the first turn that has not ended has come to: all turns before it are in the draft."""
        flight = self._lineup.flights[0] if self._lineup.flights else None
        if flight is None or flight.progress is None or flight.done is not None:
            return
        if flight.progress.entry is None and flight.job.answered:
            self._lineup.cut(flight, keep=False)  # its deadline has passed, and it was called "not applied"
            return
        self._composer.step_into(write.draft, flight, flight.progress)
        write.stepping = flight

    def _asides_into(self, write: Write, limit: int) -> None:
        asides, self.asides = self.asides, []
        for at, flight in enumerate(asides):
            if len(write.ready) >= limit:
                self.asides += asides[at:]
                return
            if flight.job.answered or flight.done is None:
                self._lineup.ended(flight.job)
                continue
            fault = self._composer.end_into(write.draft, flight, flight.done)
            if fault is None:
                write.ready.append(flight)
            else:
                self._lineup.ended(flight.job)
                flight.job.refuse("Busy", fault.message)

    def _unkept(self, flight: Flight, fault: tenure_link.Fault) -> None:
        """What the turn asks for cannot be kept."""
        job = flight.job
        self._telling.failed(fault)
        self._lineup.cut(flight, keep=False)
        if not job.ends_in_letter:
            job.refuse(fault.code, fault.message)
        elif flight.letter is not None:  # not even its dead letter can
            self._runner.retries.without_room(job)
        elif job.planned:
            job.poisoned, job.needs_worker = fault, True
            self._lineup.requeue(job)
        else:
            self._judge.begun(job)
            done, pauses = tenure_link.TurnDone(0, reply=b""), self._judge.pauses(job)
            self._lineup.flights.appendleft(Flight(job, 0, done=done, letter=fault, pauses=pauses))

    def _refused(self, write: Write, error: RecordTooLarge) -> bool:
        """The store takes no record of that size. Whether there may be something else to write."""
        flight = write.ready[0] if write.ready else write.stepping
        if flight is None:
            return False  # only settlements: they are tried again
        fault = tenure_link.Fault("StateInvalid", f"{self._telling.agent} {flight.job.label}: {error}")
        if flight in self.asides:
            self.asides.remove(flight)
            self._lineup.ended(flight.job)
            flight.job.refuse("Busy", fault.message)
        else:
            self._unkept(flight, fault)
        return True

    # --- writing ------------------------------------------------------------------------------------------------------

    def _send(self, write: Write) -> RecordTooLarge | None:
        """Raises RecordLost. After either error nothing was sent, and everything is where it was."""
        if write.draft.ended is not None:
            write.due = ()  # it plans nothing any more
        if write.due is not None:
            write.draft.due(wake_of(write.due))
        write.turn, write.began_ns = write.draft.turn(), boot_ns()
        try:
            landing = self.landing = self._ledger.write(write.turn)
        except (RecordLost, RecordTooLarge) as error:
            self._take_back(write)
            if isinstance(error, RecordLost):
                raise
            return error
        self.writing = write.ready
        self.accepting = write.stepping is not None and write.stepping.accepts
        self.closing = any(flight.closes for flight in write.ready)
        for flight in (*write.ready, *([] if write.stepping is None else [write.stepping])):
            flight.job.stage = Stage.WRITTEN
        if landing is None:
            self._kept(write)
        else:
            landing.add_done_callback(partial(self._judge.guard(self._landed), write))
        return None

    def _take_back(self, write: Write) -> None:
        """Turns to the flights, asides to the asides, settlements to be settled."""
        self._lineup.flights.extendleft(reversed([one for one in write.ready if not one.aside]))
        self.asides = [one for one in write.ready if one.aside] + self.asides
        self._outgoing.not_sent()

    def _landed(self, write: Write, written: asyncio.Future[None]) -> None:
        self.landing = None
        if written.cancelled():
            self.accepting = self.closing = False
        elif (error := written.exception()) is not None:
            self.accepting = self.closing = False
            self._runner.lost(error)
        else:
            self._kept(write)

    def _kept(self, write: Write) -> None:
        """It is committed."""
        self.accepting = self.closing = False
        runner = self._runner
        flights, self.writing = self.writing, []
        self._ledger.landed(write.turn)
        self._site.metrics.commit_seconds.observe((boot_ns() - write.began_ns) / 1e9)
        numbers = [flight.number for flight in flights if flight.number]
        if numbers and (worker := self._lineup.worker) is not None:
            worker.commit(max(numbers), self._telling.uid)
        if write.stepping is not None:
            self._stepped(write.stepping)
        self._release(flights)
        self._outgoing.release(write.turn.book.boxes, write.draft.boxes.touched)
        if self._ledger.book.journal.owed is None:
            self._no_asides()
        self._owing.look()
        runner.on_committed(write.due)
        runner.ask_waiting()
        runner.pump()

    def _no_asides(self) -> None:
        """Nothing is owed any more: what came meanwhile, and is not written, is run in its place, after the inbox."""
        asides, self.asides = self.asides, []
        for flight in asides:
            self._lineup.ended(flight.job)
        self._lineup.requeue(*(flight.job for flight in asides))

    def _stepped(self, flight: Flight) -> None:
        """The acceptance, or the step, of a turn is durable: it goes on."""
        runner = self._runner
        progress, flight.progress = flight.progress, None
        if progress is not None and progress.entry is None:
            first = flight.job
            owed = self._owing.accepted(first)
            self._lineup.ended(first)
            if owed is not None and not isinstance(first, CallJob):
                first.released(b"")
            if flight.cut:  # it ended meanwhile, or its worker did: it is owed, and nothing else of it is to be run
                self._owing.suspended()
                if first in runner.suspects:
                    runner.suspects.remove(first)
                return
            if owed is not None:
                flight.job = owed
                self._judge.begun(owed)
        if (worker := self._lineup.worker) is not None and not flight.cut:
            worker.progressed(flight.number, self._telling.uid)

    def _release(self, flights: list[Flight]) -> None:
        """Replies and signals leave, if the lease is held now: after the commit, before the release (protocol 1, host
        2).
        """
        held = self._site.lease.held
        for flight in flights:
            job, done = flight.job, flight.done
            self._lineup.ended(job)
            if done is not None and done.waits is not None:
                self._owing.suspended()
            if flight.silent or done is None:
                continue
            if not held:
                job.cut_off("Fenced", "the lease of this host lapsed before the reply could be released")
                continue
            job.released(done.reply or b"")
            if done.signals:
                self._telling.emitted(done.signals)
