"""Runs that an agent's state plans, as jobs."""

from __future__ import annotations

from collections.abc import Callable

import tenure_link
from tenured.clocks import boot_ns, wall_s
from tenured.core import boxes, turns
from tenured.core.journals import Owed
from tenured.core.signals import Verdict
from tenured.host.jobs import SIGNAL_TURN_S, Job


class TimerJob(Job):
    """A run that the agent's state plans."""

    ends_in_letter = True
    planned = True

    def __init__(self, due: tenure_link.Due, dropped: Callable[[], None] = lambda: None) -> None:
        """`dropped()` is called when it ends without a commit."""
        self.due = due
        self.label = due.name
        self.caller = "timer"
        self.key = f"timer/{due.name}"
        self.over = False
        self._dropped = dropped
        self._deadline_ns = 0

    @property
    def answered(self) -> bool:
        """See Job."""
        return self.over

    @property
    def deadline_ns(self) -> int:
        """Of the turn that runs."""
        return self._deadline_ns

    def frame(self, number: int, uid: str, now: float) -> tenure_link.Turn:
        """See Job."""
        self._deadline_ns = boot_ns() + int(SIGNAL_TURN_S * 1e9)
        return tenure_link.Turn(
            turn=number,
            uid=uid,
            kind="timer",
            method=self.due.name,
            arguments=b"" if self.poisoned is None else b"skip",
            deadline_ns=self._deadline_ns,
            caller=f"timer {self.due.name}",
            at=self.due.at,
            now=now,
            wall=wall_s(),
            key=self.turn_key(uid),
        )

    def accept(self, draft: turns.Draft, uid: str, until: float) -> None:
        """See Job. The plan stays in the state until the turn has ended."""
        owed = Owed(
            kind="timer",
            method=self.due.name,
            arguments=b"",
            caller=f"timer {self.due.name}",
            key=self.turn_key(uid),
            label=self.label,
            until=until,
            at=self.due.at,
        )
        draft.journal.accept(owed)

    def turn_key(self, uid: str) -> str:
        """Of the turn, the same in every attempt [stable_key]."""
        return f"{uid}/{self.key}/{self.due.at}"

    def apply(self, draft: turns.Draft, reply: bytes) -> None:  # noqa: ARG002 - nobody waits for it
        """Its plan is in the state: taken off, or moved on, by the turn itself [timer_in_commit, cron_in_commit]."""
        draft.boxes.forget_tries(self.key)

    def released(self, reply: bytes) -> None:  # noqa: ARG002 - as above
        """See Job."""
        self.over = True

    def cut_off(self, code: str, message: str) -> None:  # noqa: ARG002 - as above
        """See Job: the plan stands, and is run later, or by whoever holds the agent next."""
        if not self.over:
            self.over = True
            self._dropped()

    def letter(self, agent: str, fault: tenure_link.Fault) -> boxes.Letter:
        """What is left of it when it has failed for the last time."""
        return boxes.Letter(
            at=wall_s(),
            side=boxes.Side.RECEIVER,
            verdict=str(Verdict.NOT_APPLIED),
            what=f"timer {self.due.name}",
            source=agent,
            to=agent,
            code=fault.code,
            message=fault.message,
            details=fault.details[:4096],
            attempts=self.attempts,
        )
