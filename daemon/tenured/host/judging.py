"""What is to become of a job: whether it is new, whether it is tried again, how it ends (protocol 3)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

import tenure_link
from tenured.clocks import wall_s
from tenured.core import boxes, endings, journals, turns
from tenured.core.signals import Verdict
from tenured.host import confirming
from tenured.host.controls import ControlJob
from tenured.host.failures import not_applied, unknown
from tenured.host.guarding import Guard
from tenured.host.jobs import CallJob, Job, Stage
from tenured.host.ledger import Ledger
from tenured.host.owedjobs import AsideJob, InboxJob, OwedJob, inbox_key
from tenured.host.policy import Policy
from tenured.host.signaljobs import HeldJob, SignalJob
from tenured.host.site import Site
from tenured.host.telling import Telling
from tenured.host.timerjobs import TimerJob

TRIES = 3
"""Workers of its own that a signal may end before it is a dead letter."""
_TRIED_AGAIN = frozenset({"ActionFailed", "DeadlineExceeded", "Internal", "NotReady"})
"""What may go well the next time. A signal that does not fit its action never will."""


class Judge:
    """Of one activation."""

    def __init__(self, site: Site, telling: Telling, ledger: Ledger, policy: Policy) -> None:
        self.guard = Guard(telling.agent)
        self.lost: BaseException | None = None
        """Why nothing can be written any more."""
        self.policy = policy
        self._site = site
        self._telling = telling
        self._ledger = ledger
        self._under_way: dict[str, Job] = {}
        """Calls and signals whose turn has begun and is not settled, by key."""
        self._followers: dict[str, list[CallJob]] = {}
        """Repetitions of calls under way: they are judged when it is known what became of the first."""
        self._ahead: dict[str, deque[int]] = {}
        """Numbers of signals under way, by stream."""
        self._parked: dict[str, tuple[asyncio.TimerHandle, list[Job]]] = {}
        """Jobs to be tried again, and what their senders sent after them, by stream."""

    # --- before -------------------------------------------------------------------------------------------------------

    def is_new(self, job: Job) -> bool:
        """Whether to run it now; one that is not is answered, or kept for later."""
        if (ended := self._ledger.book.ended) is not None and not self._outlives(job, ended):
            self._turn_away(job, ended)
            return False
        return self._is_new(job)

    def _is_new(self, job: Job) -> bool:
        if isinstance(job, InboxJob):
            return self._is_next_of_inbox(job)
        if isinstance(job, HeldJob):
            self._suspect(job)
            known = job.key in self._under_way or job.stream in self._parked
            return self._ledger.book.boxes.held is not None and not known
        if isinstance(job, SignalJob):
            return self._is_new_signal(job)
        if isinstance(job, CallJob):
            return self._is_new_call(job)
        if isinstance(job, TimerJob) and (self._ledger.book.boxes.held is not None or job.key in self._under_way):
            job.cut_off("Paused", "its plan stands")  # [pause_refuse]
            return False
        self._suspect(job)
        return True

    def _outlives(self, job: Job, ended: endings.Ended) -> bool:
        """What is done although the agent has ended: what it had accepted or asked of itself before, what ends the wait
        of such a turn, and operations [end_kept].
        """
        if isinstance(job, SignalJob) and not isinstance(job, HeldJob | InboxJob):
            waited = self._ledger.book.journal.awaits(job.type, job.wanted.answer)
            return waited or endings.own(ended, self._telling.uid, job.signal)
        return isinstance(job, InboxJob | OwedJob | AsideJob | ControlJob)

    def _turn_away(self, job: Job, ended: endings.Ended) -> None:
        """The agent has ended: what was applied is said to be, all else is not, and never will be [end_committed]."""
        text, book = has_ended(self._telling.agent, ended), self._ledger.book
        if isinstance(job, CallJob) and job.changes_state:
            call = job.call
            verdict = turns.judge(book, call.client_id, call.key, call.born, self._site.lease.cluster_time)
            if not isinstance(verdict, turns.New):
                _answer(job, verdict)
                return
        if isinstance(job, SignalJob) and not isinstance(job, HeldJob):
            judged = boxes.judge(book.boxes, job.signal, max(self._site.lease.cluster_time, book.clock))
            if isinstance(judged, boxes.Duplicate):
                job.settle(judged.verdict)
            elif self._ledger.durable:
                job.settle(Verdict.NOT_APPLIED)
            else:
                job.cut_off("NotReady", text)  # its end may be lost with this host
            return
        job.refuse("NotFound", text)

    def _is_next_of_inbox(self, job: InboxJob) -> bool:
        """In the order of their coming, for each sender."""
        if self._ledger.book.journal.inbox.get(job.k) != job.signal or job.key in self._under_way:
            return False
        held = self._ledger.book.boxes.held
        if held is not None:  # the agent keeps its order [pause_refuse]
            job.cut_off("Paused", paused(self._telling.agent, held))
            return False
        if job.stream in self._parked:
            return self._behind(job)
        self._suspect(job)
        return True

    def _is_new_call(self, job: CallJob) -> bool:
        """Answers a call that was applied before, or whose fate is not known now (protocol 3, external clients)."""
        if job.key and job.key in self._under_way:
            job.stage = Stage.JOINED
            self._followers.setdefault(job.key, []).append(job)
            return False
        call = job.call
        verdict = turns.judge(self._ledger.book, call.client_id, call.key, call.born, self._site.lease.cluster_time)
        if isinstance(verdict, turns.New):
            held = self._ledger.book.boxes.held
            if held is not None and job.changes_state:
                job.refuse("Paused", paused(self._telling.agent, held))
                return False
            return True
        _answer(job, verdict)
        return False

    def _is_new_signal(self, job: SignalJob) -> bool:
        signal, book = job.signal, self._ledger.book
        first = self._under_way.get(job.key)
        if isinstance(first, SignalJob):
            first.join(job)
            return False
        job.begin_anew()
        ahead = self._ahead.get(job.stream)
        now = max(self._site.lease.cluster_time, book.clock)  # [state_clock]
        match boxes.judge(book.boxes, signal, now, ahead[-1] if ahead else None):
            case boxes.Take():
                if book.boxes.held is not None:  # [pause_refuse]
                    job.cut_off("Paused", paused(self._telling.agent, book.boxes.held))
                elif job.stream in self._parked:
                    return self._behind(job)
                elif not job.signal.void and (book.journal.owed is not None or self._overtakes(job)):
                    return self._meanwhile(job)
                else:
                    self._suspect(job)
                    return True
            case boxes.Duplicate(verdict):
                job.settle(verdict)
            case boxes.OutOfOrder():
                if job.stream in self._parked:
                    return self._behind(job)
                job.cut_off("OutOfOrder", f"signal {signal.prev} of {signal.source} is missing")
            case boxes.Crowded():
                job.cut_off("Busy", f"{self._telling.agent} has too many senders to tell apart; try later")
        return False

    def _overtakes(self, job: SignalJob) -> bool:
        """Nothing is owed any more, but what its sender sent before waits in the inbox, and has not begun: this host
        was without its lease when it should have [inbox_order].
        """
        inbox = self._ledger.book.journal.inbox
        return bool(inbox) and any(
            boxes.stream_of(one) == job.stream and inbox_key(boxes.name_of(one)) not in self._under_way
            for one in inbox.values()
        )

    def _meanwhile(self, job: SignalJob) -> bool:
        """A turn is owed: what it does not wait for is accepted for later, and its sender's stream goes on [inbox]."""
        if job.stays and len(self._ledger.book.journal.inbox) >= journals.MAX_INBOX:
            job.cut_off("Busy", f"{journals.MAX_INBOX} signals wait for the turn of {self._telling.agent} to end")
            return False
        job.wait_for_the_owed()
        return True

    def _behind(self, job: SignalJob) -> bool:
        self._parked[job.stream][1].append(job)
        return False

    def _suspect(self, job: Job) -> None:
        """One that was tried alone before is tried alone again, and not for ever [alone, count]."""
        if job.on_trial:
            return
        tries = self._ledger.book.boxes.tries.get(job.key, 0)
        job.alone = job.suspected or 0 < tries < TRIES
        if tries >= TRIES:
            job.needs_worker = job.planned
            job.poisoned = tenure_link.Fault(
                "WorkerCrashed", f"{job.label} ended {tries} worker processes in which it ran alone"
            )

    # --- while it runs ------------------------------------------------------------------------------------------------

    def begun(self, job: Job) -> None:
        """Its turn has begun."""
        if job.key:
            self._under_way[job.key] = job
        if isinstance(job, SignalJob) and job.in_stream:
            ahead = self._ahead.get(job.stream)
            if ahead is None:
                ahead = self._ahead[job.stream] = deque()
            ahead.append(job.signal.n)

    def ended(self, job: Job) -> list[Job]:
        """Its turn is committed, or did not happen. Repetitions of it that may be judged now."""
        if self._under_way.get(job.key) is job:
            del self._under_way[job.key]
        if isinstance(job, SignalJob) and job.in_stream and (ahead := self._ahead.get(job.stream)) is not None:
            if job.signal.n in ahead:
                ahead.remove(job.signal.n)
            if not ahead:
                del self._ahead[job.stream]
        if job.key not in self._followers:
            return []
        followers = self._followers.pop(job.key)
        for follower in followers:
            follower.stage = Stage.QUEUED
        return list(followers)

    # --- after a failure ----------------------------------------------------------------------------------------------

    def failed(self, job: Job, fault: tenure_link.Fault) -> float | None:
        """Seconds until it is tried again; None: it is over."""
        job.attempts += 1
        if isinstance(job, OwedJob) and self._site.lease.cluster_now >= job.owed.until:
            return None
        if (
            not (job.ends_in_letter and job.tried_again)
            or fault.code not in _TRIED_AGAIN
            or job.attempts >= self.policy.max_attempts
        ):
            return None
        return self.policy.pause_s(job.attempts, self._site.random())

    def park(self, job: Job, seconds: float, again: Callable[[Iterable[Job]], None]) -> None:
        """Try it again in a while; what its sender sent after it waits with it, all else goes on."""
        key = job.stream if isinstance(job, SignalJob) else job.key
        if key in self._parked:
            self._parked[key][1].insert(0, job)
            return

        def due() -> None:
            if key in self._parked:
                again(self._parked.pop(key)[1])

        self._parked[key] = (asyncio.get_running_loop().call_later(seconds, due), [job])

    @property
    def parked(self) -> int:
        """Jobs that wait to be tried again, or behind such a one."""
        return sum(len(jobs) for _, jobs in self._parked.values()) if self._parked else 0

    def take_parked(self) -> list[Job]:
        """All of them, and repetitions of calls: they wait no more."""
        jobs: list[Job] = [job for _, waiting in self._parked.values() for job in waiting]
        for handle, _ in self._parked.values():
            handle.cancel()
        self._parked.clear()
        jobs += [job for jobs in self._followers.values() for job in jobs]
        self._followers.clear()
        return jobs

    def pauses(self, job: Job) -> bool:
        """Whether its last failure pauses the agent."""
        if self._ledger.book.ended is not None:
            return False  # it takes nothing new: there is no order to keep
        asked = self.policy.on_exhausted == "Pause" or isinstance(job, HeldJob)
        of_a_signal = isinstance(job, SignalJob) or (isinstance(job, OwedJob) and job.of_a_signal)
        return asked and of_a_signal and job.tried_again

    def give_up(self, draft: turns.Draft, job: Job, fault: tenure_link.Fault, *, pauses: bool) -> None:
        """It has failed for the last time: its mark with a dead letter, or with the pause, in one write (protocol 3)
        [pause_mark]. The journal of an owed turn stays with the pause (protocol 9, rule 10) [pause_journal].
        """
        if isinstance(job, OwedJob) and pauses:
            draft.boxes.forget_tries(job.key)
            draft.boxes.hold(job.held(fault))
            return
        if isinstance(job, SignalJob) and pauses:
            if not isinstance(job, HeldJob):
                job.apply(draft, b"")
            draft.boxes.forget_tries(job.key)
            draft.boxes.hold(_held(job, fault))
            return
        if isinstance(job, OwedJob):
            job.give_up(draft, fault)
        else:
            job.apply(draft, b"")
        if isinstance(job, SignalJob | TimerJob | OwedJob):
            letter = job.letter(self._telling.agent, fault)
            if letter is not None:
                draft.boxes.add_letter(self._telling.name(), letter)

    def confirm(self, job: CallJob) -> None:
        """Of an agent with `reads: Quorum`: ask the store whether this epoch is still the last [check_after]."""
        if self.policy.quorum_reads and job.confirmed is None:
            job.confirmed = confirming.confirm(self._site.store, self._telling.uid, self._telling.epoch, job)

    def release_read(self, job: CallJob, reply: bytes) -> None:
        """A query's result leaves, if the lease is held now, after the read (protocol 1, host 2)."""
        if job.confirmed is not None:
            job.confirmed.add_done_callback(
                lambda done: confirming.when_confirmed(done, job, reply, self._site.lease.held)
            )
        elif self._site.lease.held:
            job.answer(reply)
        else:
            job.cut_off("Fenced", "the lease of this host lapsed before the reply could be released")


def has_ended(agent: str, ended: endings.Ended) -> str:
    """Why it takes nothing, and never will."""
    return f"{agent} has ended: {ended.reason}"


def paused(agent: str, held: boxes.Held) -> str:
    """Why it takes nothing."""
    return f"{agent} is paused: {held.what} of {held.source} failed {held.attempts} times: {held.message}"


def _held(job: SignalJob, fault: tenure_link.Fault) -> boxes.Held:
    return boxes.Held(
        source=job.signal.source,
        what=job.label,
        body=job.signal.body,
        born=job.signal.born,
        code=fault.code,
        message=fault.message,
        details=fault.details[:4096],
        attempts=job.attempts,
        at=wall_s(),
        sender=job.signal.sender,
        n=job.signal.n,
        epoch=job.signal.epoch,
    )


def _answer(job: CallJob, verdict: turns.Judgement) -> None:
    match verdict:
        case turns.Recorded(reply):
            job.answer(reply, recorded=True)
        case turns.AppliedReplyGone():
            text = "the call was applied earlier; its reply is no longer kept"
            job.fail(unknown("ReplyNotKept", text, next_step="Read the state."))
        case turns.TooOld():
            text = "the call id is older than marks are kept"
            job.fail(unknown("Expired", text, next_step="Read the state with a query."))
        case turns.FromTheFuture():
            text = f"the call id was born at {job.call.born:g} s of cluster time, which is far ahead"
            job.fail(
                not_applied("InvalidArguments", text, next_step="Send the cluster time of this cluster's answers.")
            )
        case _:
            job.fail(not_applied("Busy", "the agent has too many recent calls to tell apart; try later"))
