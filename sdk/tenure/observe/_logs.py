"""Logs that say which agent, turn and trace a line belongs to. For the standard library's logging."""

from __future__ import annotations

import json
import logging
import time

from tenure._scope import current_scope
from tenure.observe._redact import Redactor
from tenure.observe._span import current_span

FIELDS = ("agent", "epoch", "method", "turn", "trace_id", "span_id")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", *FIELDS}


class LogFields(logging.Filter):
    """Adds `agent`, `epoch`, `method`, `turn`, `trace_id` and `span_id` to each record; lets all of them pass.

    Add it to a handler: `handler.addFilter(LogFields())`. Outside of a turn they are empty or 0; what a record has
    already (of `ctx.log`) stays. The trace is known while a hub is on.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        span, scope = current_span(), current_scope.get()
        position = span.position if span is not None else None
        agent = (span.who.agent_id if span is not None else "") or (scope.agent_id if scope is not None else "")
        epoch = (span.who.epoch if span is not None else 0) or (scope.epoch if scope is not None else 0)
        method = (span.method if span is not None else "") or (scope.method if scope is not None else "")
        known = (
            agent,
            epoch,
            method,
            (span.turn if span is not None else 0) or (scope.turn if scope is not None else 0),
            position.trace_id if position is not None else "",
            position.span_id if position is not None else "",
        )
        for name, value in zip(FIELDS, known, strict=True):
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields of LogFields that are known, then `extra=`.

    Secrets among `extra` are hidden by name. `stacktraces`: tracebacks go in `exception`; else only type and message.
    """

    def __init__(self, *, redactor: Redactor | None = None, stacktraces: bool = True) -> None:
        super().__init__()
        self._redactor = redactor or Redactor()
        self._stacktraces = stacktraces

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _stamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: value for name in FIELDS if (value := getattr(record, name, None))})
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        line.update({name: value for name, value in self._redactor.mapping(extra).items() if name not in line})
        if record.exc_info and (error := record.exc_info[1]) is not None:
            line["error.type"], line["error.message"] = self._redactor.error(error)
            if self._stacktraces:
                line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _stamp(seconds: float) -> str:
    """UTC, with milliseconds."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"
