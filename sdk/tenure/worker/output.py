"""What user code prints and logs: to the container's stderr, and to the daemon with the agent that it belongs to."""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Callable

from tenure._scope import current_scope
from tenure_link import LogLine

LINE_LIMIT = 8_000
"""Characters of a line; the rest of a longer one is cut off."""
Sink = Callable[[LogLine], None]


def capture(sink: Sink) -> None:
    """Route stdout, stderr and the root logger of this process through `sink`."""
    real = sys.stderr
    sys.stdout = _Lines(real, "info", sink)
    sys.stderr = _Lines(real, "error", sink)
    root = logging.getLogger()
    root.addHandler(_Handler(real, sink))
    if root.level in {logging.NOTSET, logging.WARNING}:
        root.setLevel(logging.INFO)


def line(level: str, text: str) -> LogLine:
    """A line of the turn that is running."""
    scope = current_scope.get()
    return LogLine(scope.uid if scope else "", level, text[:LINE_LIMIT], time.time())


class _Lines(io.TextIOBase):
    """A text stream that hands on whole lines; what two turns print at the same time does not mix within a line."""

    def __init__(self, real: io.TextIOBase | object, level: str, sink: Sink) -> None:
        self._real = real
        self._level = level
        self._sink = sink
        self._parts: dict[str, str] = {}

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        scope = current_scope.get()
        key = scope.uid if scope else ""
        *whole, rest = (self._parts.pop(key, "") + text).split("\n")
        if rest:
            self._parts[key] = rest[:LINE_LIMIT]
        for one in whole:
            _print(self._real, one)
            self._sink(line(self._level, one))
        return len(text)

    def fileno(self) -> int:
        """For faulthandler and the like."""
        return 2

    def flush(self) -> None:
        """Lines are handed on when they end."""


class _Handler(logging.Handler):
    def __init__(self, real: object, sink: Sink) -> None:
        super().__init__()
        self._real = real
        self._sink = sink
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        _print(self._real, f"{record.levelname.lower()} {text}")
        self._sink(line(record.levelname.lower(), text))


def _print(real: object, text: str) -> None:
    print(text, file=real, flush=True)  # type: ignore[call-overload]
