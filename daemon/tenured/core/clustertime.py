"""Cluster time as one host goes by it between two acknowledgements (protocol 1, cluster time). Pure: readings in.

An acknowledgement says what cluster time was when its tick was applied, and is some milliseconds old when it comes: how
many differs from one to the next, with the disks and processors of the servers. So of two readings the one that is
ahead, each carried on by the own clock, is nearer to the truth. To go by the last one instead would make timers late by
whatever the last acknowledgement took longer than the one by which they were planned.
"""

from __future__ import annotations

STOOD_STILL_S = 0.05
"""A reading that is behind by more is not only late: time has stood still, without a leader (protocol 1 [first_zero,
step_cap]). One that was late by so much after all is put right by the next.
"""
FOLLOW = 1 / 64
"""Share of what a reading is behind that is given up for it: clocks of two machines run at different rates."""


class ClusterClock:
    """See the module. Cluster time in seconds; the own boot clock in ns."""

    def __init__(self) -> None:
        self.read = 0.0
        """As it was last read: never extrapolated."""
        self._ahead_s = 0.0
        """Of the own clock, so much; negative: behind."""
        self._some = False

    def heard(self, cluster_time: float, now_ns: int) -> None:
        """An acknowledgement came. One that is no news changes nothing."""
        if cluster_time <= self.read:
            return
        self.read = cluster_time
        ahead_s = cluster_time - now_ns / 1e9
        behind_s = self._ahead_s - ahead_s
        if not self._some or not 0.0 < behind_s <= STOOD_STILL_S:
            self._ahead_s = ahead_s
        else:
            self._ahead_s -= behind_s * FOLLOW
        self._some = True

    def at(self, now_ns: int) -> float:
        """Extrapolated; 0 before the first reading, never less than the last one."""
        return max(self.read, now_ns / 1e9 + self._ahead_s) if self._some else self.read
