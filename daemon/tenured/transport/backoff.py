"""Pauses between attempts to reach a peer: 50 ms, doubling to 200 ms, the same for every link of the daemon."""

from __future__ import annotations

import asyncio

from tenured.transport.tls import RECONNECT_MAX_S, RECONNECT_MIN_S


class Reconnect:
    """Counts failed attempts of one link."""

    def __init__(self) -> None:
        self._next_s = RECONNECT_MIN_S

    def succeeded(self) -> None:
        """Start over with the shortest pause."""
        self._next_s = RECONNECT_MIN_S

    async def pause(self) -> None:
        """Wait before the next attempt."""
        now_s, self._next_s = self._next_s, min(self._next_s * 2, RECONNECT_MAX_S)
        await asyncio.sleep(now_s)
