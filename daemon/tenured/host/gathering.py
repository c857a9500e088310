"""What comes at once is looked at once: of a frame with many signals, or a read with the ends of many turns, each
activation first takes all that is its own, and then begins and writes what it can.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType


class Gathering:
    """Of one host. `with` it while things of one kind are handed on; it may be entered again meanwhile."""

    __slots__ = ("_asked", "_depth")

    def __init__(self) -> None:
        self._depth = 0
        self._asked: dict[Callable[[], None], None] = {}

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth and self._asked:
            asked, self._asked = self._asked, {}
            for look in asked:
                look()

    def ask(self, look: Callable[[], None]) -> None:
        """Call it, which raises nothing, once all is handed on: once, however often it is asked for; else now."""
        if self._depth:
            self._asked[look] = None
        else:
            look()
