"""A level-triggered queue of keys: each is handled by one worker at a time, again if it was added meanwhile, and again
after a growing pause when handling failed.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Generic, TypeVar

FIRST_RETRY_S = 0.5
LAST_RETRY_S = 60.0

Key = TypeVar("Key")
log = logging.getLogger(__name__)


class WorkQueue(Generic[Key]):
    """Keys to handle. Not thread-safe: it lives on one event loop."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._busy: set[Key] = set()
        self._again: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._order = count()
        self._wake = asyncio.Event()
        self.handled = 0
        self.failed = 0

    def __len__(self) -> int:
        return len(self._due)

    @property
    def idle(self) -> bool:
        """Nothing is due now and nothing is being handled."""
        now = asyncio.get_running_loop().time()
        return not self._busy and all(due > now for due in self._due.values())

    def add(self, key: Key, delay_s: float = 0.0) -> None:
        """Handle the key in `delay_s`, or earlier if it is due earlier already."""
        due = asyncio.get_running_loop().time() + delay_s
        if key in self._busy:
            self._again[key] = min(due, self._again.get(key, due))
            return
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._wake.set()

    async def work(self, handle: Callable[[Key], Awaitable[None]]) -> None:
        """Handle keys until cancelled. Several may run side by side."""
        while True:
            key = await self._take()
            try:
                await handle(key)
            except Exception as error:  # noqa: BLE001 - one key's trouble is retried, and holds no other key up
                self._retry(key, error)
            else:
                self._failures.pop(key, None)
            finally:
                self.handled += 1
                self._busy.discard(key)
                if key in self._again:
                    delay = self._again.pop(key) - asyncio.get_running_loop().time()
                    self.add(key, max(0.0, delay))

    def _retry(self, key: Key, error: Exception) -> None:
        self.failed += 1
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(failures - 1, 10))
        log.warning("%s failed (attempt %d), again in %.1f s", key, failures, delay, exc_info=error)
        now = asyncio.get_running_loop().time()
        self._again[key] = now + delay

    async def _take(self) -> Key:
        loop = asyncio.get_running_loop()
        while True:
            while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
                heapq.heappop(self._heap)  # it was handled, or moved forward
            if self._heap and self._heap[0][0] <= loop.time():
                key = heapq.heappop(self._heap)[2]
                del self._due[key]
                self._busy.add(key)
                return key
            timeout = self._heap[0][0] - loop.time() if self._heap else None
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                continue


class Pace:
    """At most so many steps a second, evenly spaced, with a short burst allowed."""

    def __init__(self, per_s: float, burst: float = 20.0) -> None:
        self._interval = 1.0 / per_s
        self._slack = burst * self._interval
        self._next = 0.0

    async def step(self) -> None:
        """Wait for one's turn."""
        now = asyncio.get_running_loop().time()
        self._next = max(self._next, now - self._slack) + self._interval
        if self._next > now:
            await asyncio.sleep(self._next - now)
