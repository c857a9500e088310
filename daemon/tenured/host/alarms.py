"""What an agent plans, waited for: one timer of the loop for each agent, for the earliest of its plans.

Delays are due on cluster time, extrapolated while the lease holds; cron on the wall clock (protocol 1, cluster time). A
plan leaves the state with the commit of the turn that it starts [timer_in_commit, cron_in_commit]: until then it is due
again for whoever holds the agent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import tenure_link
from tenured.clocks import wall_s
from tenured.core.turns import Wake
from tenured.host.leasing import Lease
from tenured.host.timerjobs import TimerJob

LONGEST_S = 30.0
"""Between two looks: clocks are set, and leases renewed."""
AGAIN_S = 0.25
"""Until a run that could not begin is tried again."""


class Alarms:
    """Of one activation."""

    def __init__(self, lease: Lease, fire: Callable[[TimerJob], None]) -> None:
        self.due: tuple[tenure_link.Due, ...] = ()
        """What is planned, as of the last commit."""
        self._lease = lease
        self._fire = fire
        self._fired: dict[tenure_link.Due, TimerJob] = {}
        self._timer: asyncio.TimerHandle | None = None

    def committed(self, due: tuple[tenure_link.Due, ...] | None) -> None:
        """The state plans this from now on; None: as before."""
        if due is None and not self._fired:
            return
        if due is not None:
            self.due = due
        self._fired = {one: job for one, job in self._fired.items() if one in self.due}
        self._look()

    def stop(self) -> None:
        """Wait for nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def begin(self) -> None:
        """Wait again, after `stop`."""
        self._fired.clear()
        self._look()

    def _look(self) -> None:
        """Fire what is due, wait for the rest."""
        self.stop()
        if not self.due:
            return
        now, wall, held = self._lease.cluster_now, wall_s(), self._lease.held
        earliest = LONGEST_S
        for one in self.due:
            wait = one.at - (wall if one.wall else now)
            job = self._fired.get(one)
            if job is not None and not job.over:
                continue
            if wait > 0:
                earliest = min(earliest, wait)
            elif not held or job is not None:  # `over`, and still planned: it could not be committed
                self._fired.pop(one, None)
                earliest = min(earliest, AGAIN_S)
            else:
                self._fired[one] = job = TimerJob(one)
                self._fire(job)
        self._timer = asyncio.get_running_loop().call_later(earliest, self._look)


def until(wake: Wake, lease: Lease) -> float | None:
    """Seconds until a sleeping agent is wanted; None: no plan of its own will wake it."""
    waits = [] if wake.cluster is None else [wake.cluster - lease.cluster_now]
    if wake.wall is not None:
        waits.append(wake.wall - wall_s())
    return min(waits, default=None)
