"""Turns that run on after their deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tenured.clocks import boot_ns
from tenured.host.flights import Flight
from tenured.host.guarding import Guard

LOOK_S = 5.0
"""Between two looks for turns that run too long."""
STUCK_LIMIT_S = 10.0
"""A turn that runs on so long after its deadline blocks its agent for good: its worker is killed."""


class Watchdog:
    """The worker keeps deadlines too, and cancels what can be cancelled. What cannot is waited for: for a while."""

    def __init__(self, running: Callable[[], Flight | None], kill: Callable[[str], None], guard: Guard) -> None:
        """`running()`: the turn that runs now. `kill(why)`: ends the worker, `why` of the turn."""
        self._running = running
        self._kill = kill
        self._guard = guard
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """A turn has begun."""
        if self._timer is None:
            self._look()

    def stop(self) -> None:
        """No turn runs any more. A timer that is left would keep all of an activation in memory."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        flight = self._running()
        if flight is None:
            return
        late_s = (boot_ns() - flight.job.deadline_ns) / 1e9
        if late_s >= STUCK_LIMIT_S:
            self._kill(f"{flight.job.label} ran on for {STUCK_LIMIT_S:g} s after its deadline")
            return
        if late_s >= 0:
            flight.job.out_of_time()
        wait_s = -late_s if late_s < 0 else STUCK_LIMIT_S - late_s
        self._timer = asyncio.get_running_loop().call_later(min(wait_s, LOOK_S), self._guard(self._look))
