"""Pauses between attempts: 1 s, doubling to 5 min, forgotten after 10 min of peace."""

from __future__ import annotations

import msgspec

from tenured.core.profile import NS

FIRST_NS = 1 * NS
MAX_NS = 300 * NS
PEACE_NS = 600 * NS
"""Without a failure for so long, the next failure counts as the first."""


class Backoff(msgspec.Struct, frozen=True):
    """Failures in a row."""

    attempt: int = 0
    """Failed attempts; 0: none."""
    failed_ns: int = 0
    """When the last one failed."""

    @property
    def delay_ns(self) -> int:
        """The pause after the last failure."""
        if self.attempt == 0:
            return 0
        return min(FIRST_NS << min(self.attempt - 1, 16), MAX_NS)

    @property
    def until_ns(self) -> int:
        """When the next attempt is due."""
        return self.failed_ns + self.delay_ns

    def failed(self, now: int) -> Backoff:
        """Count a failure. Peace is counted from the end of the last pause: waiting is not running well."""
        calm = self.attempt == 0 or now - self.until_ns >= PEACE_NS
        return Backoff(1 if calm else self.attempt + 1, now)

    def due(self, now: int) -> bool:
        """Tell whether the next attempt may start."""
        return now >= self.until_ns


NO_FAILURE = Backoff()
"""One for all."""
