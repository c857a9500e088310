"""What it costs to be watched: the calls of `tenure.observe` that a turn makes, in processor time.

    python -m bench.observe [--json] [--runs N]

The peer is OpenTelemetry's own SDK, in the same run: a span with the same attributes, begun, made current and ended,
with a processor that drops it, and its duration in a histogram. Nothing is exported on either side.
"""

import time
from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from bench.harness import Line, arguments, emit, percentile
from tenure.observe import Event, Hub, Who, otel
from tenure.signals import Signal

TURNS = 20_000
WHO = Who("default/counter-1", "Counter", 3)
SIGNAL = Signal.new("order.paid", {"order": 7}, source="shop/orders")
PARAMETERS = {"by": 2, "note": "hello"}
PEER = "opentelemetry-sdk alone"


def turns(hub: Hub) -> Callable[[], None]:
    """What the engine does around a turn."""

    def turn() -> None:
        span = hub.begin("tenure.turn", WHO, "increment", turn=5, parameters=PARAMETERS) if hub.on else None
        if span is not None:
            hub.end(span)

    return turn


def emissions(hub: Hub) -> Callable[[], None]:
    """What the engine does with a signal that an agent emits."""

    def emission() -> None:
        if hub.on:
            hub.outgoing(SIGNAL, WHO)

    return emission


def heard(_event: Event) -> None:
    """A handler that does nothing."""


def theirs() -> Callable[[], None]:
    """The peer."""
    provider = TracerProvider()
    provider.add_span_processor(SpanProcessor())
    tracer = provider.get_tracer("bench")
    attributes: dict[str, Any] = {
        "agent.id": "default/counter-1",
        "agent.class": "Counter",
        "epoch": 3,
        "method": "increment",
        "turn": 5,
    }
    durations = MeterProvider().get_meter("bench").create_histogram("duration", "s")
    labels = {"agent.class": "Counter", "method": "increment", "outcome": "ok"}

    def span() -> None:
        began = time.perf_counter_ns()
        with tracer.start_as_current_span("Counter.increment", attributes=attributes):
            pass
        durations.record((time.perf_counter_ns() - began) / 1e9, labels)

    return span


def listening(names: str) -> Hub:
    hub = Hub()
    hub.subscribe(heard, names)
    return hub


def bridged() -> Hub:
    hub, provider = Hub(), TracerProvider()
    provider.add_span_processor(SpanProcessor())
    otel.install(hub, tracer=provider.get_tracer("bench"), meter=MeterProvider().get_meter("bench"))
    return hub


def took(body: Callable[[], None], count: int) -> float:
    """Nanoseconds of processor time each, less those of an empty loop."""

    def measured(what: Callable[[], None]) -> float:
        began = time.process_time_ns()
        for _ in range(count):
            what()
        return (time.process_time_ns() - began) / count

    return max(0.0, measured(body) - measured(_nothing))


def _nothing() -> None:
    pass


def main() -> None:
    given: Any = arguments(__doc__ or "", 7)
    off, peer = Hub(), theirs()
    bodies: dict[str, tuple[Callable[[], None], int]] = {
        "a turn, nobody listens": (turns(off), 50 * TURNS),
        "a turn, somebody listens to something else": (turns(listening("tenure.cron.*")), TURNS),
        "a turn, its end is listened to": (turns(listening("tenure.turn.stop")), TURNS),
        "a turn, everything is listened to": (turns(listening("**")), TURNS),
        "a turn, OpenTelemetry spans and metrics": (turns(bridged()), TURNS // 4),
        "an emitted signal, nobody listens": (emissions(off), 50 * TURNS),
        "an emitted signal gets a trace, its end is listened to": (emissions(listening("**.stop")), TURNS),
    }
    values: dict[str, list[float]] = {name: [] for name in bodies}
    others: list[float] = []
    for _ in range(given.runs):
        for name, (body, count) in bodies.items():
            values[name].append(took(body, count) / 1e3)
        others.append(took(peer, TURNS // 4) / 1e3)
    peers = {"a turn, OpenTelemetry spans and metrics": (PEER, percentile(others, 0.5))}
    lines = [
        Line(f"{name}, p50", percentile(runs, 0.5), "us", runs, *peers.get(name, ())) for name, runs in values.items()
    ]
    emit(lines, as_json=given.json)


if __name__ == "__main__":
    main()
