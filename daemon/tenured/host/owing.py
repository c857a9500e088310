"""Turns that an agent owes: accepted before their first step, and run until they have ended (protocol 9).

While one is owed nothing else that changes the state runs: calls and timers wait, signals are accepted into the inbox
[inbox], or end the wait [wake_in_commit]. Nothing of it is in memory only: the journal says where it stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

import tenure_link
from tenured.clocks import boot_ns, wall_s
from tenured.core import boxes, journals, turns
from tenured.core.journals import Owed
from tenured.core.signals import Signal
from tenured.host.failures import unknown
from tenured.host.jobs import CallJob, Job
from tenured.host.leasing import Lease
from tenured.host.signaljobs import SignalJob, answer_to
from tenured.host.timerjobs import TimerJob

NOTHING = msgspec.msgpack.encode(None)
"""Result of a sleep, and of a wait whose time was over."""
LOOK_S = 30.0


class OwedJob(Job):
    """The owed turn, once more from its beginning, with what its journal holds."""

    key = "owed"

    def __init__(self, owed: Owed, book: Callable[[], turns.Book]) -> None:
        self.owed = owed
        self.label = owed.label
        self.caller = owed.caller
        self.ends_in_letter = True
        self.tried_again = not (owed.client or owed.reply)
        """A caller is told of a failure; a signal or a timer is run again."""
        self.callers: list[CallJob] = []
        self.fault: tenure_link.Fault | None = None
        self.over = False
        self._book = book
        self._deadline_ns = 0

    @property
    def answered(self) -> bool:
        """See Job."""
        return self.over

    @property
    def deadline_ns(self) -> int:
        """Of the turn, on the boot clock."""
        return self._deadline_ns

    def frame(self, number: int, uid: str, now: float) -> tenure_link.Turn:
        """See Job."""
        owed = self.owed
        self._deadline_ns = boot_ns() + int(max(0.0, owed.until - now) * 1e9)
        return tenure_link.Turn(
            turn=number,
            uid=uid,
            kind=owed.kind,  # type: ignore[arg-type] # as it was told
            method=owed.method,
            arguments=owed.arguments if self.poisoned is None or owed.kind != "timer" else b"skip",
            deadline_ns=self._deadline_ns,
            caller=owed.caller,
            call_id=f"{owed.client}/{owed.call}" if owed.client else "",
            at=owed.at,
            now=now,
            wall=wall_s(),
            accepted=True,
            journal=tuple(tenure_link.Entry(step.name, step.result) for step in self._book().journal.steps),
            key=owed.key,
        )

    def apply(self, draft: turns.Draft, reply: bytes) -> None:
        """The end is one commit: state, outbox, reply, and the journal goes [end_in_commit]."""
        draft.saw(self.owed.born)
        draft.boxes.forget_tries(self.key)
        draft.journal.end()
        if self.owed.client:
            draft.call((self.owed.client, self.owed.call), self.owed.born, reply)

    def give_up(self, draft: turns.Draft, fault: tenure_link.Fault) -> None:
        """It has failed for the last time. What its steps did is said, and stays done (rule 4, rule 7)."""
        self.fault = fault
        draft.saw(self.owed.born)
        draft.boxes.forget_tries(self.key)
        draft.journal.end()
        draft.call_without_reply((self.owed.client, self.owed.call), self.owed.born)

    def letter(self, agent: str, fault: tenure_link.Fault) -> boxes.Letter | None:
        """What is left of it; None: somebody else is told."""
        if not self.tried_again:
            return None
        steps = ", ".join(step.name for step in self._book().journal.steps)
        return boxes.Letter(
            at=wall_s(),
            side=boxes.Side.RECEIVER,
            verdict="unknown" if steps else "not applied",
            what=self.label,
            source=self.owed.source or agent,
            to=agent,
            code=fault.code,
            message=fault.message,
            details=f"finished steps: {steps or 'none'}\n{fault.details}"[:4096],
            attempts=self.attempts,
            body=self.owed.arguments if self.owed.kind == "work" else b"",
            born=self.owed.born,
        )

    def answer_entry(self, reply: bytes, fault: tenure_link.Fault | None, now: float) -> boxes.Entry | None:
        """See Job."""
        owed = self.owed
        return answer_to(owed.sender, owed.source, owed.reply, reply, fault, now) if owed.reply else None

    def released(self, reply: bytes) -> None:
        """See Job."""
        self.over = True
        for caller in self.callers:
            if self.fault is None:
                caller.answer(reply)
            else:
                caller.fail(unknown(self.fault.code, self.fault.message))

    def cut_off(self, code: str, message: str) -> None:
        """See Job: it is owed by whoever holds the agent next."""
        self.over = True
        for caller in self.callers:
            caller.fail(unknown(code, f"{message}; the turn was accepted, and goes on"))


class InboxJob(SignalJob):
    """A signal that was accepted while a turn was owed."""

    exclusive = True

    def __init__(self, k: int, signal: Signal) -> None:
        super().__init__(signal)
        self.k = k
        self.key = f"inbox/{k}"

    def consume(self, draft: turns.Draft) -> None:
        """Its mark is in the record since it was accepted [inbox_in_commit]."""
        draft.boxes.forget_tries(self.key)
        draft.journal.drop(self.k)


class TimeJob(Job):
    """The time of a wait is over."""

    needs_worker = False
    label = "the end of a wait"

    def __init__(self, position: int) -> None:
        self._position = position
        self._over = False

    @property
    def answered(self) -> bool:
        """See Job."""
        return self._over

    def apply(self, draft: turns.Draft, reply: bytes) -> None:  # noqa: ARG002 - nobody waits for it
        """The first that ends a wait counts."""
        waiting = draft.journal.owed.waiting if draft.journal.owed is not None else None
        if waiting is not None and waiting.position == self._position:
            draft.journal.wake(NOTHING)

    def released(self, reply: bytes) -> None:  # noqa: ARG002 - as above
        """See Job."""
        self._over = True

    def cut_off(self, code: str, message: str) -> None:  # noqa: ARG002 - as above
        """See Job."""
        self._over = True


class Owing:
    """Of one activation."""

    def __init__(self, lease: Lease, book: Callable[[], turns.Book], add: Callable[[Job], None]) -> None:
        """`add`: puts a job before all others."""
        self.job: OwedJob | None = None
        """The owed turn, from its acceptance to its end, running or not."""
        self._lease = lease
        self._book = book
        self._add = add
        self._later: list[Job] = []
        self._queued = False
        """The job is in the queue, or in a worker."""
        self._inbox: set[int] = set()
        """What was put into the queue."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Jobs that wait for the end of the turn."""
        return len(self._later)

    def defers(self, job: Job) -> bool:
        """Whether it has to wait until the owed turn has ended; then it is kept."""
        owed = self._book().journal.owed
        if owed is None or isinstance(job, OwedJob | TimeJob) or not job.exclusive:
            return False
        if isinstance(job, CallJob) and self.job is not None and _asked_again(job, owed):
            self.job.callers.append(job)
        elif not (isinstance(job, TimerJob) and (job.due.name, job.due.at) == (owed.method, owed.at)):
            self._later.append(job)
        return True

    def accepted(self, first: Job) -> OwedJob | None:
        """The acceptance of its turn is committed: the job that it is from now on."""
        owed = self._book().journal.owed
        if owed is None:
            return None
        self.job = OwedJob(owed, self._book)
        self._queued = True
        if isinstance(first, CallJob):
            self.job.callers.append(first)
        return self.job

    def look(self) -> None:
        """After a commit, or at the beginning: run what can be run now."""
        journal = self._book().journal
        if journal.owed is None:
            self._ended(journal)
            return
        if self.job is None or self.job.over:
            self.job, self._queued = OwedJob(journal.owed, self._book), False
        self.job.owed = journal.owed
        if journal.owed.waiting is None and not self._queued:
            self._queued = True
            self._add(self.job)
        self._wait(journal.owed)

    def suspended(self) -> None:
        """Its run has ended with a wait."""
        self._queued = False

    def stop(self) -> list[Job]:
        """Wait for nothing more. What was kept."""
        if self._timer is not None:
            self._timer.cancel()
        later, self._later = self._later, []
        return [*later, *([self.job] if self.job is not None else [])]

    def _ended(self, journal: journals.Journal) -> None:
        self.job, self._queued = None, False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        later, self._later = self._later, []
        fresh = [InboxJob(k, signal) for k, signal in journal.inbox.items() if k not in self._inbox]
        self._inbox = set(journal.inbox)
        for job in reversed([*fresh, *later]):
            self._add(job)

    def _wait(self, owed: Owed) -> None:
        """For the end of the wait by time, and for that of the turn."""
        if self._timer is not None:
            self._timer.cancel()
        waiting, now = owed.waiting, self._lease.cluster_now
        ends = [owed.until] if waiting is None or not waiting.until else [owed.until, waiting.until]
        wait = min(ends) - now
        if wait > 0:
            self._timer = asyncio.get_running_loop().call_later(min(wait, LOOK_S), self.look)
        elif not self._lease.held:
            self._timer = asyncio.get_running_loop().call_later(0.25, self.look)
        elif waiting is not None and waiting.until and waiting.until <= min(now, owed.until):
            self._add(TimeJob(waiting.position))
        elif self.job is not None and self.job.poisoned is None and not (self._queued and waiting is None):
            steps = ", ".join(step.name for step in self._book().journal.steps)
            text = f"the turn of {owed.label} did not end in its time; its finished steps: {steps or 'none'}"
            self.job.poisoned = tenure_link.Fault("DeadlineExceeded", text)
            self.job.needs_worker = owed.kind == "timer"
            self._queued = True
            self._add(self.job)


def _asked_again(job: CallJob, owed: Owed) -> bool:
    return bool(owed.client) and (owed.client, owed.call) == job.call_id
