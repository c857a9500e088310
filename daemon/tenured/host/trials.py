"""Suspects: what was running when a worker ended, tried once more with nobody else in the process (protocol 3, poison).

Others may have ended the process: only an end in a worker of its own counts [alone]. The try of a signal is written
down before it, since it may take the host with it [count, count_first]; one suspect of an agent at a time, and one of
the host once its tries are counted [one_trial].
"""

from __future__ import annotations

import logging

from tenure_api.reasons import Reason
from tenured.core import turns
from tenured.host.jobs import CallJob, Job
from tenured.host.judging import TRIES
from tenured.host.leasing import Lease
from tenured.host.ledger import Ledger
from tenured.host.stores import RecordTooLarge
from tenured.host.trialroom import TrialRoom
from tenured.host.turning import Turns

log = logging.getLogger("tenured.host.trials")


class Trials:
    """Of one activation."""

    def __init__(self, runner: Turns, ledger: Ledger, lease: Lease, room: TrialRoom) -> None:
        self._room = room
        self._inside = False
        self._runner = runner
        self._ledger = ledger
        self._lease = lease

    async def next(self) -> Job | None:
        """The next suspect, its try written down; None: there is none. Raises RecordLost."""
        suspects = self._runner.suspects
        while suspects:
            job = suspects[0]  # it stays there while it waits for its turn: whoever ends the activation answers it
            if job.answered:
                suspects.popleft()
                continue
            tries = self._tries(job)
            if tries >= TRIES:
                self._runner.lineup.requeue(suspects.popleft())  # it is judged there, and is a dead letter
                continue
            await self._room.enter(alone=tries > 0)  # before its try is counted [count_first]
            self._inside = True
            if job.answered or not suspects or suspects[0] is not job:
                self.leave()
                continue
            suspects.popleft()
            if not isinstance(job, CallJob) and not job.try_noted and not await self._note(job):
                self.leave()
                continue
            job.alone = job.on_trial = True
            return job
        return None

    def leave(self) -> None:
        """The trial is over, if there was one: others may be tried."""
        if self._inside:
            self._inside = False
            self._room.leave()

    def _tries(self, job: Job) -> int:
        """Those that are counted; one that is written down and did not come about is none."""
        return 0 if isinstance(job, CallJob) else self._ledger.book.boxes.tries.get(job.key, 0) - job.try_noted

    async def _note(self, job: Job) -> bool:
        """Write the try down; whether there was room. Raises RecordLost."""
        draft = turns.Draft(self._ledger.book, self._lease.cluster_time)
        draft.boxes.count_try(job.key)
        try:
            await self._ledger.commit(draft.turn())
        except RecordTooLarge as error:  # a try that is not written down must not be made [count_first]
            self._runner.retries.without_room(job)
            log.warning("%s waits: its try cannot be noted: %s", job.label, error)
            return False
        job.try_noted = True
        return True

    def over(self, job: Job) -> None:
        """It has ended without ending its worker: it is no suspect any more."""
        job.alone = job.suspected = job.on_trial = job.try_noted = False

    def ended_its_worker(self, job: Job, how: str, *, blamed: bool) -> tuple[str, str] | None:
        """The worker is lost in which it was on trial; not `blamed`: for something else, and it is to be tried again.
        (reason, message) of what asks for a pause.
        """
        job.on_trial = False
        if job in self._runner.suspects:
            self._runner.suspects.remove(job)
        if not blamed:
            self._runner.suspects.appendleft(job)
            return None
        job.try_noted = False
        text = f"{job.label} ended its worker process, also alone: {how}"
        if isinstance(job, CallJob):
            job.cut_off("WorkerCrashed", text)
        else:
            self._runner.lineup.requeue(job)  # tried again, until its tries are used up
        return Reason.CRASH_LOOP, text
