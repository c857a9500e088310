"""Logs of the daemon: to stderr, one line an event, as text or as JSON."""

from __future__ import annotations

import json
import logging
import sys
import time


class _Text(logging.Formatter):
    """`2026-01-02T03:04:05.678Z info  server-0 tenured.server: message`"""

    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        line = f"{stamp(record.created)} {record.levelname.lower():<8} {self._who} {record.name}: {record.getMessage()}"
        return line.replace("\n", "\\n") + self._trace(record)

    def _trace(self, record: logging.LogRecord) -> str:
        return f" | {self.formatException(record.exc_info)!r}" if record.exc_info else ""


class _Json(logging.Formatter):
    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": stamp(record.created),
            "level": record.levelname.lower(),
            "process": self._who,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event)


def stamp(seconds: float) -> str:
    """UTC, with milliseconds."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"


def set_up(who: str, log_format: str, level: int = logging.INFO) -> None:
    """Send every log line of this process to stderr. `who` is the process's name in each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(who) if log_format == "json" else _Text(who))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
