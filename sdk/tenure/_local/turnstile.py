"""One turn at a time: who waits is let in by priority, then in the order of coming."""

from __future__ import annotations

import asyncio
from collections import deque

_Waiter = tuple["asyncio.Future[None]", int, str]
"""Done when it is let in; priority; sender."""


class Turnstile:
    """A lock. What one sender asks for stays in its order, whatever its priorities are (as on a cluster, where
    `tenured.host.jobs.enqueue` has the same rule).
    """

    __slots__ = ("_waiting", "locked")

    def __init__(self) -> None:
        self.locked = False
        """Whether somebody is in."""
        self._waiting: deque[_Waiter] = deque()

    async def acquire(self, priority: int = 0, sender: str = "") -> None:
        """Wait until one is let in. `sender`: whose order counts; empty: nobody's."""
        if not self.locked:
            self.locked = True
            return
        let_in = asyncio.get_running_loop().create_future()
        waiter = (let_in, priority, sender)
        self._queue(waiter)
        try:
            await let_in
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not let_in.cancelled():
                self.release()  # it was let in, and goes at once
            raise

    def release(self) -> None:
        """Let the next one in."""
        while self._waiting:
            let_in, _, _ = self._waiting.popleft()
            if not let_in.done():
                let_in.set_result(None)
                return
        self.locked = False

    def _queue(self, waiter: _Waiter) -> None:
        _, priority, sender = waiter
        behind = 0
        for _, other, its_sender in reversed(self._waiting):
            if other >= priority or (sender and its_sender == sender):
                break
            behind += 1
        self._waiting.insert(len(self._waiting) - behind, waiter)
