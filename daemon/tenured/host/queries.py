"""Queries of one agent: beside its turns, on what is committed."""

from __future__ import annotations

from collections.abc import Callable

import tenure_link
from tenured.host.jobs import CallJob, Job, Stage
from tenured.host.judging import Judge
from tenured.host.site import Site
from tenured.host.telling import Telling
from tenured.host.worker import Worker


class Queries:
    """Of one activation."""

    def __init__(self, site: Site, telling: Telling, judge: Judge, ended: Callable[[], None]) -> None:
        """`ended()` is called after each."""
        self._site = site
        self._telling = telling
        self._judge = judge
        self._ended = ended
        self._waiting: list[CallJob] = []
        self._asked: dict[int, CallJob] = {}
        """In the worker, by number."""

    @property
    def busy(self) -> bool:
        """Some are in the worker."""
        return bool(self._asked)

    @property
    def waiting(self) -> int:
        """How many wait for a worker."""
        return len(self._waiting)

    def wait(self, job: CallJob) -> None:
        """Keep it until there is a worker."""
        self._waiting.append(job)

    def waited(self) -> list[CallJob]:
        """What was kept."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def lost(self) -> list[Job]:
        """What was in the worker, and nobody has answered."""
        asked, self._asked = self._asked, {}
        return [job for job in asked.values() if not job.answered]

    def ask(self, worker: Worker, job: CallJob) -> None:
        """Raises WorkerLost."""
        if job.answered:
            return
        if not self._site.lease.held:
            job.refuse("Fenced", "the lease of this host has lapsed")
            return
        number = next(self._site.turns)
        job.stage, job.sent_as = Stage.RUNNING, number
        self._asked[number] = job
        self._judge.confirm(job)
        worker.ask(job.frame(number, self._telling.uid, self._site.lease.cluster_now), self, job)

    def ended(self, asked: CallJob, done: tenure_link.TurnDone) -> None:
        """See worker.Asker."""
        self._judge.guard.run(self._answered, asked, done)

    def progressed(self, asked: CallJob, progress: tenure_link.Progress) -> None:
        """See worker.Asker."""

    def _answered(self, job: CallJob, done: tenure_link.TurnDone) -> None:
        self._asked.pop(done.turn, None)
        if done.fault is not None:
            self._telling.failed(done.fault)
            job.refuse(done.fault.code, done.fault.message)
        else:
            self._judge.release_read(job, done.reply or b"")
        self._ended()
