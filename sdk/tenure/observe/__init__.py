"""What agents do, told to whoever asks: events, spans, log fields. Nothing is done while nobody asks.

    hub = observe.Hub()
    hub.subscribe(print, "tenure.turn.*")          # events: typed, frozen, secrets hidden
    observe.otel.install(hub)                      # OpenTelemetry; needs tenure[otel]
    handler.addFilter(observe.LogFields())         # agent, epoch, turn and trace in each line of a log

docs/sdk/observe.md lists the events and their attributes.
"""

from tenure.observe._debug import DebugBuffer
from tenure.observe._events import (
    LABELS,
    NOBODY,
    CronFired,
    Event,
    Failed,
    Outcome,
    QueueOverflow,
    SignalRouted,
    Slow,
    Started,
    Stopped,
    Who,
)
from tenure.observe._hub import SLOW_S, Hub, default
from tenure.observe._listeners import FAILURES, Handler, ObserverFault
from tenure.observe._logs import JsonLines, LogFields
from tenure.observe._redact import HIDDEN, SECRET_NAMES, Redactor
from tenure.observe._span import Kind, Span, Tracer, current_span
from tenure.observe._trace import Position, forwarded

__all__ = [
    "FAILURES",
    "HIDDEN",
    "LABELS",
    "NOBODY",
    "SECRET_NAMES",
    "SLOW_S",
    "CronFired",
    "DebugBuffer",
    "Event",
    "Failed",
    "Handler",
    "Hub",
    "JsonLines",
    "Kind",
    "LogFields",
    "ObserverFault",
    "Outcome",
    "Position",
    "QueueOverflow",
    "Redactor",
    "SignalRouted",
    "Slow",
    "Span",
    "Started",
    "Stopped",
    "Tracer",
    "Who",
    "current_span",
    "default",
    "forwarded",
]
