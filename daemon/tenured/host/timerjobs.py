"""Runs that an agent's state plans, as jobs."""

from __future__ import annotations

from collections.abc import Callable

import tenure_link
from tenured.clocks import boot_ns, wall_s
from tenured.core import boxes, turns
from tenured.core.journals import Owed
from tenured.host.jobs import SIGNAL_TURN_S, OwnJob, dead_letter


class TimerJob(OwnJob):
    """A run that the agent's state plans."""

    ends_in_letter = True
    planned = True

    def __init__(self, due: tenure_link.Due, dropped: Callable[[], None] = lambda: None) -> None:
        """`dropped()` is called when it ends without a commit."""
        self.due = due
        self.label = due.name
        self.caller = "timer"
        self.key = f"timer/{due.name}"
        self._dropped = dropped

    def frame(self, number: int, uid: str, now: float) -> tenure_link.Turn:
        """See Job."""
        self.deadline_ns = boot_ns() + int(SIGNAL_TURN_S * 1e9)
        return tenure_link.Turn(
            turn=number,
            uid=uid,
            kind="timer",
            method=self.due.name,
            arguments=b"" if self.poisoned is None else b"skip",
            deadline_ns=self.deadline_ns,
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

    def cut_off(self, code: str, message: str) -> None:
        """See Job: the plan stands, and is run later, or by whoever holds the agent next."""
        if not self.over:
            super().cut_off(code, message)
            self._dropped()

    def letter(self, agent: str, fault: tenure_link.Fault) -> boxes.Letter:
        """What is left of it when it has failed for the last time."""
        return dead_letter(self, fault, what=f"timer {self.due.name}", source=agent, to=agent)
