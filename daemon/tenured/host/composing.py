"""What one write carries: turns that have ended, in their order, on one draft of the record (protocol 3, several turns
in one write).
"""

from __future__ import annotations

from collections.abc import Sequence

import tenure_link
from tenured.clocks import wall_s
from tenured.core import boxdraft, boxes, turns
from tenured.core.journals import Step, Waiting
from tenured.host.flights import Flight
from tenured.host.judging import Judge
from tenured.host.ledger import Ledger, TooLarge
from tenured.host.outgoing import Outgoing
from tenured.host.owedjobs import InboxJob
from tenured.host.site import Site
from tenured.host.telling import Telling


class Composer:
    """Of one activation. Each turn gets into the draft whole, or not at all."""

    def __init__(self, site: Site, telling: Telling, ledger: Ledger, judge: Judge, outgoing: Outgoing) -> None:
        self._site = site
        self._telling = telling
        self._ledger = ledger
        self._judge = judge
        self._outgoing = outgoing

    def draft(self) -> turns.Draft:
        """On what is committed, while nothing is being written."""
        return self._ledger.draft(self._site.lease.cluster_time)

    def end_into(self, draft: turns.Draft, flight: Flight, done: tenure_link.TurnDone) -> tenure_link.Fault | None:
        """The end of a turn; why it cannot be kept."""
        if done.waits is not None:
            return self._suspend_into(draft, flight, done.waits)
        job = flight.job
        entries = self._outgoing.entries_of(done.sends, draft) if done.sends else []
        answer = None if flight.silent else job.answer_entry(done.reply or b"", flight.letter, draft.now)
        entries += [] if answer is None else [answer]
        more = len(done.state or b"") + len(done.reply or b"") + job.adds
        if (fault := self._no_room(draft, flight, entries, more)) is not None:
            return fault
        draft.state(done.state)
        if flight.letter is not None:
            self._judge.give_up(draft, job, flight.letter, pauses=flight.pauses)
        elif not flight.silent:
            job.apply(draft, done.reply or b"")
        for entry in entries:
            draft.boxes.send(entry)
        if done.stop is not None:
            draft.end(done.stop, wall_s())
        return None

    def _no_room(
        self, draft: turns.Draft, flight: Flight, entries: Sequence[boxes.Entry], more: int
    ) -> tenure_link.Fault | None:
        try:
            for entry in entries:
                more += len(entry.body)
            self._ledger.check_room(draft, more)
            if entries:
                draft.boxes.check_room(entries)
        except TooLarge as error:
            return tenure_link.Fault("StateInvalid", f"{self._telling.agent} {flight.job.label}: {error}")
        except boxdraft.OutboxFull as error:
            return tenure_link.Fault("OutboxFull", str(error))
        return None

    def step_into(self, draft: turns.Draft, flight: Flight, progress: tenure_link.Progress) -> None:
        """What a running turn has come to: its acceptance, or a finished step."""
        if progress.entry is None:
            flight.job.accept(draft, self._telling.uid, self._site.lease.cluster_now + progress.lasts)
        else:
            draft.journal.finish_step(progress.position, Step(progress.entry.name, progress.entry.result))
            draft.boxes.forget_tries(flight.job.key)  # it got further than the try that was counted [count]

    def _suspend_into(self, draft: turns.Draft, flight: Flight, waits: tenure_link.Wait) -> tenure_link.Fault | None:
        """The turn waits; what has come already ends the wait at once [inbox_seen]."""
        entries = self._outgoing.entries_of(waits.sends, draft, reply=waits.key)
        if (fault := self._no_room(draft, flight, entries, 0)) is not None:
            return fault
        waiting = Waiting(
            position=waits.position,
            name=waits.name,
            until=waits.until,
            types=waits.types,
            key=waits.key,
            to=entries[0].to if waits.key and entries else "",
        )
        draft.journal.suspend(waiting)
        draft.boxes.forget_tries(flight.job.key)  # as with a step
        for k, signal in draft.journal.inbox.items():
            job = InboxJob(k, signal)
            if job.wanted.signal and draft.journal.journal().awaits(job.type, ""):
                draft.journal.wake(job.wanted.signal)
                draft.journal.drop(k)
                break
        for entry in entries:
            draft.boxes.send(entry)
        flight.silent = True
        return None
