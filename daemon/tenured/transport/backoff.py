"""Pauses between attempts to reach a peer: 50 ms, doubling to 200 ms, the same for every link of the daemon."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from tenured.transport.tls import RECONNECT_MAX_S, RECONNECT_MIN_S

LASTING = 25
"""Failed attempts, some 5 s of them, after which it is no longer a peer that is starting."""
REASONS = 8
"""Of failed attempts that a link has told last: they may take turns, as those of two addresses do."""


class Reconnect:
    """Counts failed attempts of one link."""

    def __init__(self) -> None:
        self._next_s = RECONNECT_MIN_S
        self._failures = 0
        self._said: deque[tuple[str, bool]] = deque(maxlen=REASONS)

    def succeeded(self) -> None:
        """Start over with the shortest pause."""
        self._next_s = RECONNECT_MIN_S
        self._failures = 0
        self._said.clear()

    def failed(self, logger: logging.Logger, link: str, error: str) -> None:
        """Log why an attempt failed, once for each reason: as information at first, since the peer may be starting as
        well, and as a warning when it lasts.
        """
        self._failures += 1
        lasts = self._failures > LASTING
        if (error, lasts) not in self._said:
            logger.log(logging.WARNING if lasts else logging.INFO, "%s: %s", link, error)
            self._said.append((error, lasts))

    async def pause(self) -> None:
        """Wait before the next attempt."""
        now_s, self._next_s = self._next_s, min(self._next_s * 2, RECONNECT_MAX_S)
        await asyncio.sleep(now_s)
