"""Turns that an agent owes: accepted before their first step, and run until they have ended (protocol 9).

While one is owed nothing else that changes the state runs: calls and timers wait, signals are accepted into the inbox
[inbox], or end the wait [wake_in_commit]. Nothing of it is in memory only: the journal says where it stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import tenure_link
from tenured.core import turns
from tenured.core.journals import Journal, Owed
from tenured.host.guarding import Guard
from tenured.host.jobs import CallJob, Job, Stage
from tenured.host.leasing import Lease
from tenured.host.owedjobs import AsideJob, InboxJob, OwedJob, TimeJob
from tenured.host.probing import Probes
from tenured.host.telling import Telling
from tenured.host.timerjobs import TimerJob

LOOK_S = 30.0
LEAST_S = 0.001
"""What is left of a wait may be too little for the loop's clock to see."""
AGAIN_S = 0.25
"""Until what could not begin is tried again."""


class Owing:
    """Of one activation."""

    def __init__(
        self,
        lease: Lease,
        telling: Telling,
        book: Callable[[], turns.Book],
        add: Callable[[list[Job]], None],
        guard: Guard,
    ) -> None:
        """`add`: puts jobs before all others, in their order."""
        self.job: OwedJob | None = None
        """The owed turn, from its acceptance to its end, running or not."""
        self._lease = lease
        self._book = book
        self._add = add
        self._guard = guard
        self._later: list[Job] = []
        self._queued = False
        """The job is in the queue, or in a worker."""
        self._inbox: dict[int, InboxJob] = {}
        """What was put into the queue."""
        self._ender: TimeJob | None = None
        self._probes = Probes(telling, book, lambda job: add([job]), guard)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Jobs that wait for the end of the turn."""
        return len(self._later)

    @property
    def owes(self) -> bool:
        """The end of a turn, or the run of what was accepted meanwhile."""
        journal = self._book().journal
        return journal.owed is not None or bool(journal.inbox)

    @property
    def _paused(self) -> bool:
        return self._book().boxes.held is not None

    @property
    def runs(self) -> bool:
        """A turn is owed that does not wait, or whose caller waits here, or whose wait is to be asked about; or signals
        that were accepted meanwhile are to be run.
        """
        journal = self._book().journal
        if journal.owed is None:
            return bool(journal.inbox)
        called = self.job is not None and any(not caller.answered for caller in self.job.callers)
        return journal.owed.waiting is None or called or self._probes.due

    def defers(self, job: Job) -> bool:
        """Whether it has to wait until the owed turn has ended; then it is kept."""
        owed = self._book().journal.owed
        if owed is None or self._paused or isinstance(job, OwedJob | AsideJob) or not job.exclusive:
            return False
        if isinstance(job, CallJob) and self.job is not None and _asked_again(job, owed):
            self.job.tell(job)
        elif not (isinstance(job, TimerJob) and owed.kind == "timer" and _planned_as(job, owed)):
            self._later.append(job)
        return True

    def accepted(self, first: Job) -> OwedJob | None:
        """The acceptance of its turn is committed: the job that it is from now on."""
        owed = self._book().journal.owed
        if owed is None:
            return None
        self.job = OwedJob(owed, self._book)
        self.job.runs(self._lease.cluster_now)  # it goes on where it is
        self._queued = True
        if isinstance(first, CallJob):
            self.job.tell(first)
        return self.job

    def look(self) -> None:
        """After a commit, or at the beginning: run what can be run now."""
        journal = self._book().journal
        self._probes.look()
        if journal.owed is None:
            self._ended(journal)
            return
        if self._paused:  # until somebody says what is to become of the turn [pause_journal]
            self._keep_still()
            return
        if self.job is None or self.job.over:
            self.job, self._queued = OwedJob(journal.owed, self._book), False
        self.job.owed = journal.owed
        if journal.owed.waiting is None and not self._queued:
            self._queued = True
            late = self._lease.held and self._lease.cluster_now >= journal.owed.until
            self._wait(journal.owed)
            if late:
                self._give_up(self.job, journal.owed)
            else:
                self._add([self.job])
            return
        self._wait(journal.owed)

    def again(self) -> None:
        """Something was refused that nobody asks for again: look in a moment."""
        if self._book().journal.owed is not None or self._inbox:
            self._sleep(AGAIN_S)

    def suspended(self) -> None:
        """Its run has ended with a wait."""
        self._queued = False

    def stop(self) -> list[Job]:
        """Wait for nothing, until the next look. What was kept."""
        self._sleep(None)
        self._probes.stop()
        later, self._later = self._later, []
        self._inbox = {}
        return [*later, *([self.job] if self.job is not None else [])]

    def _keep_still(self) -> None:
        """The agent is paused at the turn: it is not run, and whoever waits for its end is told so."""
        self.job, self._queued, self._ender = None, False, None
        self._sleep(None)
        later, self._later = self._later, []
        if later:
            self._add(later)

    def _ended(self, journal: Journal) -> None:
        """Nothing is owed: what was accepted meanwhile, in the order of its coming, then what has waited."""
        self.job, self._queued, self._ender = None, False, None
        self._sleep(None)
        later, self._later = self._later, []
        inbox = {} if self._book().boxes.held is not None else journal.inbox
        kept = {
            k: job
            for k, job in self._inbox.items()
            if not job.answered and job not in later and inbox.get(k) == job.signal
        }
        if len(kept) < len(inbox):  # those that have not begun are queued anew, so that none overtakes another
            for k in [k for k, job in kept.items() if job.stage is Stage.QUEUED]:
                kept.pop(k).cut_off("NotReady", "it is run in its order")
        fresh = {k: InboxJob(k, signal) for k, signal in inbox.items() if k not in kept}
        for k, job in fresh.items():
            before = self._inbox.get(k)
            job.attempts = before.attempts if before is not None and before.signal == job.signal else 0
        self._inbox = kept | fresh
        rest = [job for job in later if not isinstance(job, InboxJob)]
        if fresh or rest:
            self._add([*fresh.values(), *rest])

    def _wait(self, owed: Owed) -> None:
        """For the end of the wait by time, and for that of the turn."""
        waiting, now = owed.waiting, self._lease.cluster_now
        ends = [owed.until] if waiting is None or not waiting.until else [owed.until, waiting.until]
        wait = min(ends) - now
        if wait > 0:
            least = LEAST_S if self._lease.held else AGAIN_S  # without a lease cluster time stands still
            self._sleep(max(least, min(wait, LOOK_S)))
            return
        self._sleep(AGAIN_S)  # what is added now may be refused
        if not self._lease.held:
            return
        if waiting is not None and waiting.until and waiting.until <= min(now, owed.until):
            self._end_wait(waiting.position)
        elif waiting is not None and self.job is not None and not self._queued:
            self._give_up(self.job, owed)

    def _end_wait(self, position: int) -> None:
        if self._ender is None or self._ender.answered or self._ender.position != position:
            self._ender = TimeJob(position)
            self._add([self._ender])

    def _give_up(self, job: OwedJob, owed: Owed) -> None:
        """Its time is over (rule 7). One that runs is told so by its deadline."""
        steps = ", ".join(step.name for step in self._book().journal.steps)
        text = f"the turn of {owed.label} did not end in its time; its finished steps: {steps or 'none'}"
        job.poisoned = tenure_link.Fault("DeadlineExceeded", text)
        job.needs_worker = job.planned
        self._queued = True
        self._add([job])

    def _sleep(self, seconds: float | None) -> None:
        """Look again then; None: not by time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._guard(self.look))


def _asked_again(job: CallJob, owed: Owed) -> bool:
    return bool(owed.client) and (owed.client, owed.call) == job.call_id


def _planned_as(job: TimerJob, owed: Owed) -> bool:
    return (job.due.name, job.due.at) == (owed.method, owed.at)
