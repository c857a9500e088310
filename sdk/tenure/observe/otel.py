"""Spans and metrics for OpenTelemetry: `otel.install(hub)`. Needs `tenure[otel]`; nothing else of Tenure imports it.

Span ids in events and on signals are then those of OpenTelemetry, so that what agents emit continues the trace that a
collector sees, and what came from elsewhere (a web framework's span, a signal's `traceparent`) is the parent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from tenure.observe._events import CronFired, Event, Failed, QueueOverflow, SignalRouted, Slow, Stopped
from tenure.observe._hub import Hub
from tenure.observe._redact import Redactor
from tenure.observe._span import Span
from tenure.observe._trace import Position
from tenure.signals import Subscription

try:
    from opentelemetry import context as contexts
    from opentelemetry import metrics, trace
except ImportError as error:
    raise ImportError("tenure.observe.otel needs OpenTelemetry: pip install 'tenure[otel]'") from error

SERIES = 1_000
"""Sets of labels of one metric; what is beyond is counted together, with `otel.metric.overflow`."""
SECONDS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Boundaries of the buckets of durations."""
_MEASURED = (
    "tenure.**.stop",
    "tenure.**.exception",
    "tenure.**.slow",
    "tenure.signal.routed",
    "tenure.queue.overflow",
    "tenure.cron.fired",
)
_KINDS = {
    "internal": trace.SpanKind.INTERNAL,
    "server": trace.SpanKind.SERVER,
    "consumer": trace.SpanKind.CONSUMER,
    "producer": trace.SpanKind.PRODUCER,
}


def install(hub: Hub, *, tracer: trace.Tracer | None = None, meter: metrics.Meter | None = None) -> Subscription:
    """Record each span and each measure of a hub, until the subscription is closed.

    `tracer`, `meter`: those of the global providers where none is given.
    """
    tracing = hub.add_tracer(_Spans(tracer or trace.get_tracer("tenure"), hub.redactor))
    measures = _Measures(meter or metrics.get_meter("tenure"))
    measuring = [hub.subscribe(measures, names) for names in _MEASURED]

    def close() -> None:
        tracing.close()
        for subscription in measuring:
            subscription.close()

    return Subscription(close)


class _Spans:
    """The tracer of a hub that records with OpenTelemetry. No exception event: it would hold the stack."""

    def __init__(self, tracer: trace.Tracer, redactor: Redactor) -> None:
        self._tracer = tracer
        self._redactor = redactor

    @contextmanager
    def scope(self, span: Span) -> Generator[None]:
        given = span.attributes
        started = self._tracer.start_span(
            f"{span.who.agent_class}.{span.method}" if span.method else span.name,
            context=_parent(span),
            kind=_KINDS[span.kind],
            attributes={**_whose(span), **self._shown(given)},
        )
        own = started.get_span_context()
        # A tracer that records nothing hands out the parent's own place.
        if own.is_valid and (span.parent is None or f"{own.span_id:016x}" != span.parent.span_id):
            span.adopt(_position(own))
        token = contexts.attach(trace.set_span_in_context(started))
        try:
            yield
        finally:
            contexts.detach(token)
            if span.attributes is not given:
                started.set_attributes(self._shown(span.attributes))
            _finish(started, span)

    def _shown(self, attributes: Mapping[str, object]) -> dict[str, str | bool | int | float]:
        if not attributes:
            return {}
        shown = self._redactor.mapping(attributes)
        return {
            name: value if isinstance(value, str | int | float) else json.dumps(value) for name, value in shown.items()
        }


def _finish(started: trace.Span, span: Span) -> None:
    started.set_attribute("tenure.outcome", span.outcome)
    if span.error_type:
        started.set_attribute("error.type", span.error_type)
        started.set_status(trace.Status(trace.StatusCode.ERROR, span.message))
    started.end()


class _Measures:
    """A handler that counts. Names of metrics are those of the events; labels are `Event.labels`."""

    def __init__(self, meter: metrics.Meter) -> None:
        self._meter = meter
        self._durations: dict[str, metrics.Histogram] = {}
        self._slow: dict[str, metrics.Counter] = {}
        self._series: dict[str, set[tuple[tuple[str, str], ...]]] = {}
        self._routed = meter.create_counter("tenure.signal.routed", "{signal}", "Signals matched with actions")
        self._overflow = meter.create_counter("tenure.queue.overflow", "{refusal}", "What a full queue refused")
        self._cron = meter.create_counter("tenure.cron.fired", "{firing}", "Schedules that came due")

    def __call__(self, event: Event) -> None:
        match event:
            case Stopped() | Failed():
                name = f"{event.name.rpartition('.')[0]}.duration"
                self._duration(name).record(event.duration_ns / 1e9, self._labels(name, event))
            case Slow():
                counter = self._counted(event.name)
                counter.add(1, self._labels(event.name, event))
            case SignalRouted():
                self._routed.add(1, self._labels(event.name, event))
            case QueueOverflow():
                self._overflow.add(1, self._labels(event.name, event))
            case CronFired():
                self._cron.add(1, self._labels(event.name, event))
            case _:
                pass

    def _duration(self, name: str) -> metrics.Histogram:
        return _kept(
            self._durations,
            name,
            lambda: self._meter.create_histogram(name, "s", explicit_bucket_boundaries_advisory=SECONDS),
        )

    def _counted(self, name: str) -> metrics.Counter:
        return _kept(self._slow, name, lambda: self._meter.create_counter(name, "{span}", "Slower than the threshold"))

    def _labels(self, metric: str, event: Event) -> Mapping[str, str | bool]:
        labels = event.labels()
        known = self._series.setdefault(metric, set())
        key = tuple(labels.items())
        if key not in known:
            if len(known) >= SERIES:
                return {"otel.metric.overflow": True}
            known.add(key)
        return labels


T = TypeVar("T")


def _kept(known: dict[str, T], name: str, make: Callable[[], T]) -> T:
    found = known.get(name)
    if found is None:
        found = known[name] = make()
    return found


def _parent(span: Span) -> contexts.Context | None:
    """Where OpenTelemetry is to put the span: None, below whatever is current for it."""
    around = trace.get_current_span()
    # Tasks and timers keep the context that they were made in: a span that has ended since is nobody's parent.
    alive = around.get_span_context().is_valid and (around.is_recording() or isinstance(around, trace.NonRecordingSpan))
    if span.parent is not None and (span.parent_is_given or not alive):
        return trace.set_span_in_context(trace.NonRecordingSpan(_far(span.parent)))
    return None if alive else contexts.Context()


def _far(position: Position) -> trace.SpanContext:
    return trace.SpanContext(
        int(position.trace_id, 16),
        int(position.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(position.sampled)),
        trace_state=trace.TraceState.from_header([position.state]) if position.state else None,
    )


def _position(own: trace.SpanContext) -> Position:
    return Position(f"{own.trace_id:032x}", f"{own.span_id:016x}", own.trace_flags.sampled, own.trace_state.to_header())


def _whose(span: Span) -> dict[str, str | int]:
    who = span.who
    known: dict[str, str | int] = {
        "tenure.agent.id": who.agent_id,
        "tenure.agent.class": who.agent_class,
        "tenure.agent.epoch": who.epoch,
        "tenure.method": span.method,
        "tenure.turn": span.turn,
    }
    return {name: value for name, value in known.items() if value}
