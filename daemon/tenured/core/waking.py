"""When agents that sleep are wanted: one order for all of them, on two clocks. No I/O.

Cluster time and wall time pass differently, and the wall clock is set now and then; so each has an order of its own,
and nothing is converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from operator import attrgetter

from tenured.core.turns import Wake

SLACK = 64
"""Entries of no meaning that may lie in an order, beside as many as mean something."""


class Plans:
    """uid -> when it is wanted. Of those that wait for nothing nothing is kept."""

    def __init__(self) -> None:
        self._wakes: dict[str, Wake] = {}
        self._cluster = _Order("cluster")
        self._wall = _Order("wall")

    def __len__(self) -> int:
        return len(self._wakes)

    def put(self, uid: str, wake: Wake) -> None:
        """It is wanted then, and not as was said before."""
        self._wakes.pop(uid, None)
        if wake.cluster is not None or wake.wall is not None:
            self._wakes[uid] = wake
            self._cluster.put(uid, self._wakes)
            self._wall.put(uid, self._wakes)

    def drop(self, uid: str) -> None:
        """It is not waited for any more."""
        self._wakes.pop(uid, None)

    def due(self, cluster: float, wall: float, most: int) -> list[str]:
        """Whose time has come by either clock, the earliest first; those are waited for no more."""
        found = self._cluster.due(cluster, self._wakes, most)
        found += self._wall.due(wall, self._wakes, most - len(found))
        return found

    def wait_s(self, cluster: float, wall: float) -> float | None:
        """Seconds until the next one is due, 0 if one is; None: nobody waits for anything."""
        ends = ((self._cluster.first(self._wakes), cluster), (self._wall.first(self._wakes), wall))
        return min((max(0.0, at - now) for at, now in ends if at is not None), default=None)


class _Order:
    """By one of the clocks. Entries that mean nothing any more stay, as long as they are not many."""

    def __init__(self, clock: str) -> None:
        self._at = attrgetter(clock)
        self._heap: list[tuple[float, str]] = []

    def put(self, uid: str, wakes: Mapping[str, Wake]) -> None:
        at: float | None = self._at(wakes[uid])
        if at is None:
            return
        heappush(self._heap, (at, uid))
        if len(self._heap) > 2 * len(wakes) + SLACK:
            self._heap = [(self._at(wake), uid) for uid, wake in wakes.items() if self._at(wake) is not None]
            heapify(self._heap)

    def first(self, wakes: Mapping[str, Wake]) -> float | None:
        while self._heap:
            at, uid = self._heap[0]
            if uid in wakes and self._at(wakes[uid]) == at:
                return at
            heappop(self._heap)
        return None

    def due(self, now: float, wakes: dict[str, Wake], most: int) -> list[str]:
        found: list[str] = []
        while len(found) < most and (at := self.first(wakes)) is not None and at <= now:
            _, uid = heappop(self._heap)
            del wakes[uid]
            found.append(uid)
        return found
