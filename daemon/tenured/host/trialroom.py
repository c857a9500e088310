"""Which trials of one host may run at a time (protocol 3, poison [one_trial]).

A suspect may take the host with it, and then the try of each that ran beside it is counted too. So those that were
counted before are tried with nobody else; first tries share, since the one count that an innocent suspect may get there
does not blame it. Whoever comes first goes first.
"""

from __future__ import annotations

import asyncio
from collections import deque


class TrialRoom:
    """Of one host."""

    def __init__(self) -> None:
        self._inside = 0
        self._closed = False
        """Somebody in it wants to be alone."""
        self._waiting: deque[tuple[bool, asyncio.Future[None]]] = deque()

    async def enter(self, *, alone: bool) -> None:
        """Wait for one's turn. `leave` once for each time that this returned."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((alone, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            else:
                self._waiting = deque(one for one in self._waiting if one[1] is not turn)
                self._admit()
            raise

    def leave(self) -> None:
        """The trial is over."""
        self._inside -= 1
        self._closed = False
        self._admit()

    def _admit(self) -> None:
        while self._waiting and not self._closed:
            alone, turn = self._waiting[0]
            if alone and self._inside:
                return
            self._waiting.popleft()
            if not turn.cancelled():
                self._inside += 1
                self._closed = alone
                turn.set_result(None)
