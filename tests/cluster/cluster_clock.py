"""The agent of test_timers.py. Imported by the hosts' workers and by nothing else: it changes their cron.

There a cron that runs once an hour runs once a minute, at the second that its expression calls the minute. So a test
chooses when that is, and waits for seconds instead of for the next minute of the wall clock.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pydantic

import tenure
from tenure import schedule

FASTER = 60
HOURLY = re.compile(r"\d+ \* \* \* \*")
_next_after = schedule.Cron.next_after


def _faster(cron: schedule.Cron, moment: datetime) -> datetime:
    if not HOURLY.fullmatch(cron.expression):
        return _next_after(cron, moment)
    fast = _next_after(cron, datetime.fromtimestamp(moment.timestamp() * FASTER, UTC))
    return datetime.fromtimestamp(fast.timestamp() / FASTER, UTC)


schedule.Cron.next_after = _faster  # type: ignore[method-assign]


class ClockState(tenure.State):
    """What is kept."""

    rung: list[str] = pydantic.Field(default_factory=list[str])


class Clock(tenure.Agent[ClockState]):
    """Rings."""

    @tenure.action
    def ring(self, what: str) -> None:
        """Once more."""
        self.state.rung = [*self.state.rung, what]

    @tenure.action
    def plan(self, ctx: tenure.Context, seconds: list[float]) -> None:
        """One run for each."""
        for number, delay in enumerate(seconds):
            ctx.after(delay, Clock.ring(what=str(number)), name=f"ring-{number}")

    @tenure.action
    def daily(self, ctx: tenure.Context, times: str, missed: str) -> None:
        """Again and again."""
        policy: Any = missed
        ctx.cron("daily", times, Clock.ring(what=missed), missed=policy)

    @tenure.action
    def forget(self, ctx: tenure.Context, plan: str) -> None:
        """No run of that name."""
        ctx.cancel(plan)

    @tenure.query
    def rung(self) -> list[str]:
        """What has rung, in order."""
        return self.state.rung
