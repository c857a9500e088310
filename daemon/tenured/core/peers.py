"""What the owner of a record knows of one server of the store, and when it asks that again."""

from __future__ import annotations

from dataclasses import dataclass

from tenured.core.frames import Sealed

RETRY_NS = 300_000_000
"""First pause before a request without an answer is repeated."""
RETRY_MAX_NS = 2_400_000_000
"""The pause doubles up to this."""


@dataclass(slots=True)
class Peer:
    """One server."""

    connected: bool = True
    seal: Sealed | None = None
    """Its answer to the seal, under the present view."""
    acked: int = -1
    """The highest seq of this chain that it said to hold, under the present view."""
    chained: bool = False
    """The next delta will find its base there, if nothing is lost."""
    whole: int = -1
    """Seq of the last whole record sent on this connection."""
    asked: int | None = None
    """When the oldest open request was (last) sent; None: nothing is open."""
    pause: int = RETRY_NS

    def answered(self) -> None:
        """Nothing is open any more, or what is open is new."""
        self.asked, self.pause = None, RETRY_NS

    def overdue(self, now: int) -> bool:
        """Whether what is open is to be sent now, for the first time or again; then the next pause is longer."""
        if self.asked is None:
            return True
        if now - self.asked < self.pause:
            return False
        self.pause = min(2 * self.pause, RETRY_MAX_NS)
        return True

    def reset(self) -> None:
        """Its answers do not count any more: the view is another [view]."""
        self.seal, self.acked, self.whole = None, -1, -1
        self.answered()
