"""What an agent plans, waited for: one timer of the loop for each agent, for the earliest of its plans.

Delays are due on cluster time, extrapolated while the lease holds; cron on the wall clock (protocol 1, cluster time). A
plan leaves the state with the commit of the turn that it starts [timer_in_commit, cron_in_commit]: until then it is due
again for whoever holds the agent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import tenure_link
from tenured.clocks import wall_s
from tenured.core.turns import Wake
from tenured.host.guarding import Guard
from tenured.host.leasing import Lease
from tenured.host.timerjobs import TimerJob

LONGEST_S = 30.0
"""Between two looks: clocks are set, and leases renewed."""
LEAST_S = 0.001
"""What is left of a wait may be too little for the loop's clock to see."""
AGAIN_S = 0.25
"""Until a run that could not begin is tried again."""


class Alarms:
    """Of one activation."""

    def __init__(
        self, lease: Lease, fire: Callable[[TimerJob], None], paused: Callable[[], bool], guard: Guard
    ) -> None:
        """`paused()`: the agent keeps its order, and takes nothing now."""
        self.due: tuple[tenure_link.Due, ...] = ()
        """What is planned, as of the last commit."""
        self._lease = lease
        self._fire = fire
        self._paused = paused
        self._guard = guard
        self._fired: dict[tenure_link.Due, TimerJob] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._was_paused = False
        self._on = False

    def committed(self, due: tuple[tenure_link.Due, ...] | None) -> None:
        """The state plans this from now on; None: as before."""
        if due is None and not self._fired and not self._was_paused:
            return
        if due is not None:
            self.due = due
        self._fired = {one: job for one, job in self._fired.items() if one in self.due}
        self._guard(self._look)()

    def stop(self) -> None:
        """Wait for nothing, until `begin`."""
        self._on = False
        self._sleep()

    def begin(self) -> None:
        """Wait again, after `stop`."""
        self._on = True
        self._fired = {one: job for one, job in self._fired.items() if not job.over}  # those still wait to be run
        self._guard(self._look)()

    def _sleep(self, seconds: float | None = None) -> None:
        """Look again then; None: not at all."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._guard(self._look))

    def _look(self) -> None:
        """Fire what is due, wait for the rest."""
        self._sleep()
        if not (self.due and self._on):
            return
        now, wall, held = self._lease.cluster_now, wall_s(), self._lease.held
        self._was_paused = self._paused()  # the commit that ends the pause looks again
        earliest = LONGEST_S
        for one in self.due:
            wait = one.at - (wall if one.wall else now)
            job = self._fired.get(one)
            if job is not None and not job.over:
                continue
            if wait > 0:
                least = LEAST_S if held else AGAIN_S  # without a lease cluster time stands still
                earliest = min(earliest, max(least, wait))
            elif self._was_paused:
                self._fired.pop(one, None)
            elif not held or job is not None:  # `over`, and still planned: it could not be committed
                self._fired.pop(one, None)
                earliest = min(earliest, AGAIN_S)
            else:
                self._fired[one] = job = TimerJob(one, self._dropped)
                self._fire(job)
        self._sleep(earliest)

    def _dropped(self) -> None:
        """A run was dropped, and its plan stands."""
        soon = asyncio.get_running_loop().time() + AGAIN_S
        if self._on and (self._timer is None or self._timer.when() > soon):
            self._sleep(AGAIN_S)


def wake_of(due: Iterable[tenure_link.Due]) -> Wake:
    """The earliest of what is planned."""
    cluster = [one.at for one in due if not one.wall]
    wall = [one.at for one in due if one.wall]
    return Wake(min(cluster, default=None), min(wall, default=None))


def until(wake: Wake, lease: Lease) -> float | None:
    """Seconds until a sleeping agent is wanted; None: no plan of its own will wake it."""
    waits = [] if wake.cluster is None else [wake.cluster - lease.cluster_now]
    if wake.wall is not None:
        waits.append(wake.wall - wall_s())
    return min(waits, default=None)
