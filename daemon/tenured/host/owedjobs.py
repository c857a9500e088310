"""Jobs of a turn that is owed: the turn itself, what was accepted meanwhile, and the end of a wait by time (protocol
9).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

import tenure_link
from tenured.clocks import boot_ns, wall_s
from tenured.core import boxes, turns
from tenured.core.journals import Owed
from tenured.core.signals import Signal, Verdict
from tenured.host.failures import unknown
from tenured.host.jobs import CallJob, OwnJob, Stage, dead_letter
from tenured.host.signaljobs import SignalJob, answer_to

NOTHING = msgspec.msgpack.encode(None)
"""Result of a sleep, and of a wait whose time was over."""


class OwedJob(OwnJob):
    """The owed turn, once more from its beginning, with what its journal holds."""

    key = "owed"

    def __init__(self, owed: Owed, book: Callable[[], turns.Book]) -> None:
        self.owed = owed
        self.label = owed.label
        self.caller = owed.caller
        self.ends_in_letter = True
        self.tried_again = owed.kind != "action" and not owed.reply
        """A caller is told of a failure; a signal or a timer is run again."""
        self.planned = owed.kind == "timer"
        self.of_a_signal = owed.kind == "work"
        self.callers: list[CallJob] = []
        self.fault: tenure_link.Fault | None = None
        self._book = book

    def tell(self, caller: CallJob) -> None:
        """He waits for its end too; until then he may not be told that nothing of it is applied [deadline_drop]."""
        caller.stage = Stage.JOINED
        self.callers.append(caller)

    def runs(self, now: float) -> None:
        """From now on, in cluster seconds, it has the time that is left of its own (rule 7)."""
        self.deadline_ns = boot_ns() + int(max(0.0, self.owed.until - now) * 1e9)

    def frame(self, number: int, uid: str, now: float) -> tenure_link.Turn:
        """See Job."""
        owed = self.owed
        self.runs(now)
        return tenure_link.Turn(
            turn=number,
            uid=uid,
            kind=owed.kind,  # type: ignore[arg-type] # as it was told
            method=owed.method,
            arguments=owed.arguments if self.poisoned is None or owed.kind != "timer" else b"skip",
            deadline_ns=self.deadline_ns,
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
        return dead_letter(
            self,
            fault,
            what=self.label,
            source=self.owed.source or agent,
            to=agent,
            verdict=Verdict.UNKNOWN if steps else Verdict.NOT_APPLIED,
            steps=f"finished steps: {steps or 'none'}\n",
            body=self.owed.arguments if self.owed.kind == "work" else b"",
            born=self.owed.born,
        )

    def held(self, fault: tenure_link.Fault) -> boxes.Held:
        """What its agent is paused at."""
        return boxes.Held(
            source=self.owed.source,
            what=self.label,
            body=self.owed.arguments,
            born=self.owed.born,
            code=fault.code,
            message=fault.message,
            details=fault.details[:4096],
            attempts=self.attempts,
            at=wall_s(),
            sender=self.owed.sender,
        )

    def answer_entry(self, reply: bytes, fault: tenure_link.Fault | None, now: float) -> boxes.Entry | None:
        """See Job."""
        owed = self.owed
        return answer_to(owed.sender, owed.source, owed.reply, reply, fault, now) if owed.reply else None

    def accept(self, draft: turns.Draft, uid: str, until: float) -> None:
        """Nothing: it is accepted already."""

    def released(self, reply: bytes) -> None:
        """See Job."""
        super().released(reply)
        for caller in self.callers:
            if self.fault is None:
                caller.answer(reply)
            else:
                caller.fail(unknown(self.fault.code, self.fault.message))

    def cut_off(self, code: str, message: str) -> None:
        """See Job: it is owed by whoever holds the agent next."""
        super().cut_off(code, message)
        for caller in self.callers:
            caller.fail(unknown(code, f"{message}; the turn was accepted, and goes on"))


class InboxJob(SignalJob):
    """A signal that was accepted while a turn was owed."""

    exclusive = True
    in_stream = False

    def __init__(self, k: int, signal: Signal) -> None:
        super().__init__(signal)
        self.k = k
        self.key = inbox_key(self.name)

    def consume(self, draft: turns.Draft) -> None:
        """Its mark is in the record since it was accepted [inbox_in_commit]."""
        draft.boxes.forget_tries(self.key)
        draft.journal.drop(self.k)


def inbox_key(name: str) -> str:
    """Of the job that runs the signal of that name."""
    return f"inbox/{name}"


class AsideJob(OwnJob):
    """A write while a turn is owed. It has no turn of its own."""

    needs_worker = False

    def frame(self, number: int, uid: str, now: float) -> tenure_link.Turn:  # noqa: ARG002 - it is never asked for
        """No worker is needed."""
        raise AssertionError(f"{self.label} has no turn")

    def accept(self, draft: turns.Draft, uid: str, until: float) -> None:  # noqa: ARG002 - as above
        """No worker is needed."""
        raise AssertionError(f"{self.label} has no turn")


class TimeJob(AsideJob):
    """The time of a wait is over."""

    label = "the end of a wait"

    def __init__(self, position: int) -> None:
        self.position = position

    def apply(self, draft: turns.Draft, reply: bytes) -> None:  # noqa: ARG002 - nobody waits for it
        """The first that ends a wait counts."""
        waiting = draft.journal.owed.waiting if draft.journal.owed is not None else None
        if waiting is not None and waiting.position == self.position:
            draft.journal.wake(NOTHING)
