"""Suspects: what was running when a worker ended, tried once more with nobody else in the process (protocol 3, poison).

Others may have ended the process: only an end in a worker of its own counts [alone]. The try of a signal is written
down before it, since it may take the host with it [count, count_first]; one suspect of an agent at a time [one_trial].
"""

from __future__ import annotations

import logging

from tenure_api.reasons import Reason
from tenured.core import turns
from tenured.host.committing import NO_ROOM_S
from tenured.host.jobs import CallJob, Job
from tenured.host.judging import TRIES
from tenured.host.leasing import Lease
from tenured.host.ledger import Ledger
from tenured.host.stores import RecordTooLarge
from tenured.host.turning import Turns

log = logging.getLogger("tenured.host.trials")


class Trials:
    """Of one activation."""

    def __init__(self, runner: Turns, ledger: Ledger, lease: Lease) -> None:
        self._runner = runner
        self._ledger = ledger
        self._lease = lease

    async def next(self) -> Job | None:
        """The next suspect, its try written down; None: there is none. Raises RecordLost."""
        suspects = self._runner.suspects
        while suspects:
            job = suspects.popleft()
            if job.answered:
                continue
            if not isinstance(job, CallJob) and not job.try_noted:
                if self._ledger.book.boxes.tries.get(job.key, 0) >= TRIES:
                    self._runner.requeue(job)  # it is judged there, and is a dead letter
                    continue
                if not await self._note(job):
                    continue
            job.alone = job.on_trial = True
            return job
        return None

    async def _note(self, job: Job) -> bool:
        """Write the try down; whether there was room. Raises RecordLost."""
        draft = turns.Draft(self._ledger.book, self._lease.cluster_time)
        draft.boxes.count_try(job.key)
        try:
            await self._ledger.commit(draft.turn())
        except RecordTooLarge as error:  # a try that is not written down must not be made [count_first]
            self._runner.park(job, NO_ROOM_S)
            log.warning("%s waits: its try cannot be noted: %s", job.label, error)
            return False
        job.try_noted = True
        return True

    def over(self, job: Job) -> None:
        """It has ended without ending its worker: it is no suspect any more."""
        job.alone = job.on_trial = job.try_noted = False

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
            self._runner.requeue(job)  # tried again, until its tries are used up
        return Reason.CRASH_LOOP, text
