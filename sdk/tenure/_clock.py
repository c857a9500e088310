"""Time as runtimes see it: handed in, so that tests can let it stand still."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol


class Handle(Protocol):
    """A callback that waits for its time."""

    def cancel(self) -> None:
        """Forget it. Nothing happens if it has run."""
        ...


class Clock(Protocol):
    """Wall time and what waits for it. Wall time, since delays and cron outlive a process."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Handle:
        """Call back on the event loop when `now()` has reached `when`; what is past, soon."""
        ...


class SystemClock:
    """The machine's clock. To be used on a running event loop."""

    def now(self) -> float:
        return time.time()

    def call_at(self, when: float, callback: Callable[[], None]) -> Handle:
        import asyncio  # noqa: PLC0415 - a tenth of the time of `import tenure`, and only needed by what runs agents

        return asyncio.get_running_loop().call_later(max(0.0, when - self.now()), callback)


class VirtualClock:
    """Time that moves only when it is told to."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, _Waiting]] = []

    def now(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> Handle:
        waiting = _Waiting(callback)
        heapq.heappush(self._waiting, (when, next(self._numbers), waiting))
        return waiting

    def next_at(self) -> float | None:
        """When the next callback is due; None: nothing waits."""
        while self._waiting and self._waiting[0][2].cancelled:
            heapq.heappop(self._waiting)
        return self._waiting[0][0] if self._waiting else None

    def step(self, until: float) -> bool:
        """Go to the next callback that is due by `until` and run it. False: none is, and it is `until` now."""
        due = self.next_at()
        if due is None or due > until:
            self._now = max(self._now, until)
            return False
        _, _, waiting = heapq.heappop(self._waiting)
        self._now = max(self._now, due)
        waiting.callback()
        return True


class _Waiting:
    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
