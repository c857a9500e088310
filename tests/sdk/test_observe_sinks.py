"""Where what a hub says goes: traces, logs, OpenTelemetry."""

import asyncio
import contextvars
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from sdk_observing import COUNTER, names, observed

from tenure.observe import (
    HIDDEN,
    Hub,
    JsonLines,
    LogFields,
    Position,
    Who,
    forwarded,
)
from tenure.signals import Signal, Trace


class TestTraces:
    def test_a_signal_from_outside_begins_a_trace_and_one_that_has_one_keeps_it(self) -> None:
        hub, events, _ = observed("**.stop")
        first = hub.incoming(Signal.new("order.paid", source="shop/a"))
        place = Position.of(first)
        assert place is not None
        assert (events[0].name, events[0].span_id) == ("tenure.ingress.stop", place.span_id)
        assert hub.incoming(first) is first

    def test_one_trace_along_a_chain_of_agents(self) -> None:
        hub, events, _ = observed("**.start")
        signal = hub.incoming(Signal.new("order.paid", source="shop/a"))
        for _ in range(3):
            span = hub.begin("tenure.turn", COUNTER, "on_signal", cause=signal)
            emitted = hub.outgoing(Signal.new("order.next", source="default/c1"))
            hub.end(span)
            signal = emitted
        assert len({event.trace_id for event in events}) == 1
        assert [event.parent_id for event in events[1:]] == [event.span_id for event in events[:-1]]
        assert Position.of(signal) == Position(events[-1].trace_id, events[-1].span_id)
        assert events[1].attributes["tenure.signal.type"] == events[1].labels()["tenure.signal.type"] == "order.paid"
        assert names(events) == ["tenure.ingress.start", *["tenure.turn.start", "tenure.emit.start"] * 3]

    def test_what_leaves_after_the_turn_is_a_child_of_it_all_the_same(self) -> None:
        hub, events, _ = observed("**.start")
        span = hub.begin("tenure.turn", COUNTER)
        hub.end(span)
        hub.outgoing(Signal.new("order.next", source="default/c1"), COUNTER, by=span)
        assert events[1].parent_id == events[0].span_id
        assert events[1].agent_id == "default/c1"

    def test_state_and_sampling_of_others_are_handed_on(self) -> None:
        hub, *_ = observed()
        theirs = Trace(traceparent=f"00-{'a' * 32}-{'b' * 16}-00", tracestate="vendor=1")
        span = hub.begin("tenure.turn", COUNTER, cause=Signal.new("a", source="x").extended(theirs))
        emitted = hub.outgoing(Signal.new("b", source="x")).extension(Trace)
        hub.end(span)
        assert emitted is not None
        assert (emitted.trace_id, emitted.sampled, emitted.tracestate) == ("a" * 32, False, "vendor=1")
        assert emitted.span_id not in {"b" * 16, span.position.span_id if span.position else ""}

    def test_a_state_without_a_trace_belongs_to_no_trace(self) -> None:
        hub, *_ = observed()
        sent = hub.outgoing(Signal.new("b", source="x", extensions={"tracestate": "vendor=1"}))
        assert sent.extension(Trace).tracestate is None  # type: ignore[union-attr]

    def test_a_trace_that_is_not_well_formed_is_begun_anew(self) -> None:
        hub, *_ = observed()
        signal = Signal.new("a", source="x", extensions={"traceparent": "nonsense"})
        span = hub.begin("tenure.turn", COUNTER, cause=signal)
        assert span.position is not None
        hub.end(span)
        assert Position.of(hub.incoming(signal)) is not None

    def test_who_records_nothing_hands_the_trace_on_as_it_came(self) -> None:
        cause = Signal.new("a", source="x").extended(Trace.root())
        plain, own = Signal.new("b", source="x"), Signal.new("b", source="x").extended(Trace.root())
        assert forwarded(cause, plain).extension(Trace) == cause.extension(Trace)
        assert forwarded(cause, own) is own
        assert forwarded(plain, plain) is plain

    async def test_tasks_are_within_the_span_that_made_them_until_it_has_ended(self) -> None:
        hub, events, _ = observed("**.start")
        turn = hub.begin("tenure.turn", COUNTER)
        go = asyncio.Event()

        async def inner(*, wait: bool) -> None:
            if wait:
                await go.wait()
            hub.end(hub.begin("shop.charge"))

        late = asyncio.create_task(inner(wait=True))
        await asyncio.create_task(inner(wait=False))
        hub.end(turn)
        go.set()
        await late
        assert [event.parent_id for event in events] == ["", events[0].span_id, ""]
        assert events[2].trace_id != events[0].trace_id

    def test_another_context_may_end_a_span(self) -> None:
        hub, events, _ = observed("**.stop")
        span = contextvars.copy_context().run(hub.begin, "tenure.turn", COUNTER)
        hub.end(span)
        assert len(events) == 1

    def test_forked_workers_do_not_share_ids(self) -> None:
        code = (
            "import os\nfrom tenure.observe import Hub\nhub = Hub()\nhub.subscribe(lambda e: None)\n"
            "child = os.fork()\nif child: os.waitpid(child, 0)\nprint(hub.begin('a').position.trace_id, flush=True)\n"
            "if not child: os._exit(0)"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert len(set(out.split())) == 2


class TestLogs:
    @pytest.fixture
    def lines(self) -> Iterator[list[dict[str, Any]]]:
        found: list[dict[str, Any]] = []

        class Sink(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                found.append(json.loads(self.format(record)))

        handler, logger = Sink(), logging.getLogger("shop")
        handler.addFilter(LogFields())
        handler.setFormatter(JsonLines(stacktraces=False))
        logger.addHandler(handler)
        yield found
        logger.removeHandler(handler)

    def test_a_line_of_a_turn_says_which(self, lines: list[dict[str, Any]]) -> None:
        hub, events, _ = observed("**.start")
        span = hub.begin("tenure.turn", COUNTER, "pay", turn=9)
        logging.getLogger("shop").warning("paid %d", 7, extra={"order": 7, "api_key": "k"})
        hub.end(span)
        line = lines[0]
        assert (line["agent"], line["epoch"], line["method"], line["turn"]) == ("default/c1", 3, "pay", 9)
        assert (line["trace_id"], line["span_id"]) == (events[0].trace_id, events[0].span_id)
        assert (line["message"], line["level"], line["order"], line["api_key"]) == ("paid 7", "warning", 7, HIDDEN)

    def test_a_line_outside_of_turns_has_none_of_it(self, lines: list[dict[str, Any]]) -> None:
        logging.getLogger("shop").error("oops", exc_info=RuntimeError("password=x"))
        assert lines[0].keys() == {"time", "level", "logger", "message", "error.type", "error.message"}
        assert lines[0]["error.message"] == f"password={HIDDEN}"

    async def test_the_agent_is_known_without_a_hub(self, lines: list[dict[str, Any]]) -> None:
        import tenure

        class Empty(tenure.State):
            pass

        class Talker(tenure.Agent[Empty]):
            @tenure.action
            def talk(self) -> None:
                logging.getLogger("shop").warning("hello")

        async with tenure.local() as rt:
            await (await rt.create(Talker, "t-1")).talk()
        assert (lines[0]["agent"], lines[0]["method"], lines[0]["turn"]) == ("default/t-1", "talk", 1)


class TestOpenTelemetry:
    @pytest.fixture
    def recorded(self) -> Iterator[tuple[Hub, Any, Any]]:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        from tenure.observe import otel

        exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
        provider, meters = TracerProvider(), MeterProvider(metric_readers=[reader])
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        hub = Hub()
        with otel.install(hub, tracer=provider.get_tracer("tenure"), meter=meters.get_meter("tenure")):
            yield hub, exporter, reader
        assert not hub.on
        provider.shutdown()
        meters.shutdown()

    def test_a_chain_is_one_trace_there_and_on_the_signals(self, recorded: tuple[Hub, Any, Any]) -> None:
        from opentelemetry.trace import SpanKind

        hub, exporter, _ = recorded
        signal = hub.incoming(Signal.new("order.paid", source="shop/a"))
        turn = hub.begin("tenure.turn", COUNTER, "on_paid", turn=4, cause=signal)
        emitted = hub.outgoing(Signal.new("parcel.sent", source="default/c1"))
        hub.end(turn)
        spans = {span.name: span for span in exporter.get_finished_spans()}
        ingress, process, emit = spans["tenure.ingress"], spans["Counter.on_paid"], spans["tenure.emit"]
        assert process.parent.span_id == ingress.context.span_id
        assert emit.parent.span_id == process.context.span_id
        assert Position.of(emitted) == Position(f"{emit.context.trace_id:032x}", f"{emit.context.span_id:016x}")
        assert (ingress.kind, process.kind, emit.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.PRODUCER)
        assert process.attributes["tenure.agent.id"] == "default/c1"
        assert process.attributes["tenure.turn"] == 4

    def test_spans_of_other_libraries_lie_where_they_belong(self, recorded: tuple[Hub, Any, Any]) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider

        hub, exporter, _ = recorded
        others = TracerProvider().get_tracer("web")
        with others.start_as_current_span("GET /pay") as request:
            turn = hub.begin("tenure.turn", COUNTER, "pay")
            with others.start_as_current_span("POST bank") as outside:
                hub.end(hub.begin("shop.inner"))
            hub.end(turn)
            assert trace.get_current_span() is request
        inner, pay = exporter.get_finished_spans()
        assert pay.parent.span_id == request.get_span_context().span_id
        assert outside.parent.span_id == pay.context.span_id  # type: ignore[attr-defined]
        assert inner.parent.span_id == outside.get_span_context().span_id

    async def test_what_a_turn_left_running_begins_traces_of_its_own(self, recorded: tuple[Hub, Any, Any]) -> None:
        hub, exporter, _ = recorded
        go = asyncio.Event()

        async def later() -> None:
            await go.wait()
            hub.end(hub.begin("tenure.turn", COUNTER, "tick"))

        turn = hub.begin("tenure.turn", COUNTER, "pay")
        task = asyncio.create_task(later())
        hub.end(turn)
        go.set()
        await task
        pay, tick = exporter.get_finished_spans()
        assert tick.parent is None
        assert tick.context.trace_id != pay.context.trace_id

    def test_errors_have_a_type_and_a_message_and_no_stack(self, recorded: tuple[Hub, Any, Any]) -> None:
        hub, exporter, _ = recorded
        with pytest.raises(KeyError), hub.span("shop.charge", {"api_key": "k", "lines": [1, {"a": 2}]}):
            raise KeyError("password=x")
        (span,) = exporter.get_finished_spans()
        assert not span.status.is_ok
        assert HIDDEN in span.status.description
        assert span.events == ()
        assert span.attributes["error.type"] == "KeyError"
        assert (span.attributes["api_key"], span.attributes["lines"]) == (HIDDEN, '[1, {"a": 2}]')

    def test_a_trace_that_others_do_not_sample_stays_so(self, recorded: tuple[Hub, Any, Any]) -> None:
        hub, exporter, _ = recorded
        theirs = Trace(traceparent=f"00-{'a' * 32}-{'b' * 16}-00", tracestate="vendor=1")
        span = hub.begin("tenure.turn", COUNTER, cause=Signal.new("a", source="x").extended(theirs))
        emitted = hub.outgoing(Signal.new("b", source="x")).extension(Trace)
        hub.end(span)
        assert exporter.get_finished_spans() == ()
        assert emitted is not None
        assert (emitted.trace_id, emitted.sampled, emitted.tracestate) == ("a" * 32, False, "vendor=1")

    def test_metrics_have_few_labels_whatever_callers_do(self, recorded: tuple[Hub, Any, Any]) -> None:
        hub, _, reader = recorded
        for n in range(1_100):
            hub.end(hub.begin("tenure.turn", Who(f"default/c{n}", "Counter", n), f"m{n}"))
        for n in range(3):
            hub.end(hub.begin("tenure.directive", COUNTER, attributes={"tenure.directive": "Emit", "n": n}))
        hub.overflowed(COUNTER, "mailbox", 10)
        hub.cron_fired(COUNTER, "nightly")
        hub.routed(COUNTER, Signal.new("a", source="x"), 1)
        found = {
            metric.name: metric
            for resource in reader.get_metrics_data().resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
        turns = found["tenure.turn.duration"]
        assert turns.unit == "s"
        assert len(turns.data.data_points) == 1_001
        assert sum(point.count for point in turns.data.data_points) == 1_100
        (emits,) = found["tenure.directive.duration"].data.data_points
        assert (emits.count, emits.attributes["tenure.directive"]) == (3, "Emit")
        assert {"tenure.queue.overflow", "tenure.cron.fired", "tenure.signal.routed"} <= found.keys()

    def test_without_an_sdk_the_trace_still_goes_on(self) -> None:
        from opentelemetry.metrics import NoOpMeter
        from opentelemetry.trace import NoOpTracer

        from tenure.observe import otel

        hub, events, _ = observed("**.start")
        with otel.install(hub, tracer=NoOpTracer(), meter=NoOpMeter("none")):
            signal = hub.incoming(Signal.new("a", source="x"))
            hub.end(hub.begin("tenure.turn", COUNTER, cause=signal))
        assert events[1].parent_id == events[0].span_id
        assert events[1].span_id != events[0].span_id
        assert events[1].trace_id == events[0].trace_id

    def test_nothing_else_imports_it(self) -> None:
        code = "import sys, tenure.observe, tenure._local; print('opentelemetry' in sys.modules)"
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert out.strip() == "False"
