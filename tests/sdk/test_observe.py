"""Events, spans, traces, what they never show, and what happens when those who watch fail."""

import asyncio
import contextvars
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pydantic
import pytest

from tenure.errors import DefinitionError, UsageError
from tenure.observe import (
    HIDDEN,
    NOBODY,
    CronFired,
    Event,
    Failed,
    Hub,
    JsonLines,
    LogFields,
    ObserverFault,
    Position,
    QueueOverflow,
    Redactor,
    SignalRouted,
    Slow,
    Span,
    Started,
    Stopped,
    Who,
    current_span,
    forwarded,
)
from tenure.signals import Signal, Trace

COUNTER = Who("default/c1", "Counter", 3)


class Stopwatch:
    """Durations as a test wants them, in nanoseconds."""

    now = 0

    def __call__(self) -> int:
        return self.now


def observed(names: str = "**", **keywords: Any) -> tuple[Hub, list[Event], Stopwatch]:
    watch = Stopwatch()
    hub, events = Hub(clock_ns=watch, now=lambda: 1_700_000_000.0, **keywords), []
    hub.subscribe(events.append, names)
    return hub, events, watch


def names(events: list[Event]) -> list[str]:
    return [event.name for event in events]


class TestEvents:
    def test_a_turn_has_a_start_and_a_stop_that_say_whose_and_how_long(self) -> None:
        hub, events, watch = observed()
        span = hub.begin("tenure.turn", COUNTER, "increment", turn=7, parameters={"by": 2})
        watch.now = 1_000
        hub.end(span)
        start, stop = events
        assert isinstance(start, Started)
        assert isinstance(stop, Stopped)
        assert names(events) == ["tenure.turn.start", "tenure.turn.stop"]
        assert (start.agent_id, start.agent_class, start.epoch, start.method, start.turn) == (
            "default/c1",
            "Counter",
            3,
            "increment",
            7,
        )
        assert start.parameters == {"by": 2}
        assert (stop.duration_ns, stop.outcome) == (1_000, "ok")
        assert (start.trace_id, start.span_id) == (stop.trace_id, stop.span_id)
        assert len(start.trace_id) == 32
        assert start.parent_id == ""
        with pytest.raises(AttributeError):
            stop.turn = 8  # type: ignore[misc]

    def test_one_that_fails_ends_in_an_exception_event_instead(self) -> None:
        hub, events, _ = observed()
        hub.end(hub.begin("tenure.directive", COUNTER, attributes={"tenure.directive": "Emit"}), error=KeyError("x"))
        hub.end(hub.begin("tenure.turn", COUNTER), fault="DeadlineExceeded", message="too late")
        failed, late = (event for event in events if isinstance(event, Failed))
        assert (failed.name, failed.error_type, failed.outcome) == ("tenure.directive.exception", "KeyError", "error")
        assert (late.error_type, late.message, late.outcome) == ("DeadlineExceeded", "too late", "deadline")
        assert names(events).count("tenure.turn.stop") == 0

    def test_an_end_counts_once(self) -> None:
        hub, events, _ = observed("**.stop")
        span = hub.begin("tenure.turn", COUNTER)
        hub.end(span)
        hub.end(span)
        assert len(events) == 1

    def test_what_did_not_happen_ends_without_an_event(self) -> None:
        hub, events, _ = observed()
        hub.add_tracer(tracer := Recorder())
        hub.forget(span := hub.begin("tenure.turn", COUNTER))
        hub.end(span)
        assert (names(events), tracer.left, current_span()) == (["tenure.turn.start"], ["tenure.turn cancelled"], None)

    def test_patterns_choose_and_subscriptions_end(self) -> None:
        hub, events, _ = observed("tenure.turn.*")
        both: list[Event] = []
        with hub.subscribe(both.append, "**.stop"):
            hub.end(hub.begin("tenure.turn", COUNTER))
            hub.end(hub.begin("tenure.directive", COUNTER))
        hub.end(hub.begin("tenure.turn", COUNTER))
        assert names(both) == ["tenure.turn.stop", "tenure.directive.stop"]
        assert names(events) == ["tenure.turn.start", "tenure.turn.stop"] * 2
        with pytest.raises(DefinitionError, match="segment"):
            hub.subscribe(events.append, "tenure..turn")

    def test_a_hub_is_on_while_somebody_listens(self) -> None:
        hub = Hub()
        assert not hub.on
        with hub.subscribe(lambda _: None), hub.debug("default/c1"):
            assert hub.on
        assert not hub.on
        with hub.add_tracer(Recorder()):
            assert hub.on
        assert not hub.on

    def test_slow_ones_are_reported_by_their_thresholds(self) -> None:
        hub, events, watch = observed("**.slow", slow={"shop.charge": 1.0, "tenure.emit": None})
        for name, taken in [
            ("tenure.turn", 9_999_999),
            ("tenure.turn", 10_000_000),
            ("tenure.directive", 5_000_000),
            ("shop.charge", 999_999_999),
            ("tenure.emit", 10**12),
        ]:
            span = hub.begin(name, COUNTER)
            watch.now += taken
            hub.end(span)
        assert names(events) == ["tenure.turn.slow", "tenure.directive.slow"]
        assert isinstance(events[0], Slow)
        assert (events[0].duration_ns, events[0].threshold_ns) == (10_000_000, 10_000_000)

    def test_signals_queues_and_schedules(self) -> None:
        hub, events, _ = observed()
        signal = Signal.new("order.paid", source="shop/a").extended(Trace.root())
        hub.routed(COUNTER, signal, 0)
        hub.overflowed(COUNTER, "mailbox", 10_000)
        hub.cron_fired(COUNTER, "nightly", late_s=0.25, missed=2)
        routed, overflow, cron = events
        assert isinstance(routed, SignalRouted)
        assert isinstance(overflow, QueueOverflow)
        assert isinstance(cron, CronFired)
        assert (routed.signal_type, routed.targets, routed.trace_id) == (
            "order.paid",
            0,
            Position.of(signal).trace_id,  # type: ignore[union-attr]
        )
        assert routed.public()["tenure.signal.targets"] == 0
        assert (overflow.queue, overflow.limit, cron.job, cron.missed) == ("mailbox", 10_000, "nightly", 2)

    def test_a_span_of_ones_own_lies_within_the_turn(self) -> None:
        hub, events, _ = observed("**.start")
        turn = hub.begin("tenure.turn", COUNTER, "pay")
        with hub.span("shop.charge", {"order": 7}):
            pass
        with hub.span("shop.thank"):
            pass
        hub.end(turn)
        assert [event.parent_id for event in events] == ["", events[0].span_id, events[0].span_id]
        assert (events[1].agent_id, events[1].attributes) == ("default/c1", {"order": 7})
        with Hub().span("shop.charge") as nothing:
            assert nothing is None

    def test_what_a_span_learns_is_in_the_event_of_its_end(self) -> None:
        hub, events, _ = observed("**.exception")

        def charge() -> None:
            with hub.span("shop.charge") as span:
                assert span is not None
                span.set("order", 7)
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            charge()
        assert events[0].attributes == {"order": 7}
        assert events[0].public()["tenure.outcome"] == "cancelled"


class TestHygiene:
    def test_public_names_and_labels(self) -> None:
        hub, events, _ = observed()
        hub.end(hub.begin("tenure.turn", COUNTER, "increment", turn=7), fault="ActionFailed", message="no")
        public = events[1].public()
        assert public["tenure.agent.id"] == "default/c1"
        assert public["error.type"] == "ActionFailed"
        assert public["event.name"] == "tenure.turn.exception"
        # Labels: nothing that grows with agents, turns or callers.
        assert events[1].labels() == {
            "error.type": "ActionFailed",
            "tenure.agent.class": "Counter",
            "tenure.method": "increment",
            "tenure.outcome": "error",
        }

    def test_no_stack_trace_and_no_end_of_text(self) -> None:
        hub, events, _ = observed("**.exception")
        with pytest.raises(ValueError, match="x"), hub.span("shop.charge"):
            raise ValueError("x" * 100_000 + "\nTraceback (most recent call last):\n  secret.py")
        shown = json.dumps(events[0].public())
        assert "Traceback" not in shown
        assert len(shown) < 1_000

    def test_secrets_are_hidden_by_name(self) -> None:
        hub, events, _ = observed("**.start", redactor=Redactor(["iban"]))
        parameters = {
            "password": "hunter2",
            "accessToken": "abc",
            "nested": [{"API-Key": "k", "ok": 1}],
            "iban": "DE00",
            "max_tokens": 100,
            "card": pydantic.SecretStr("4111"),
            "login": Login(user="ann", password=pydantic.SecretStr("p")),
        }
        hub.end(hub.begin("tenure.turn", COUNTER, parameters=parameters, attributes={"auth_token": "t"}))
        start = events[0]
        assert isinstance(start, Started)
        assert start.parameters == {
            "password": HIDDEN,
            "accessToken": HIDDEN,
            "nested": [{"API-Key": HIDDEN, "ok": 1}],
            "iban": HIDDEN,
            "max_tokens": 100,
            "card": HIDDEN,
            "login": {"user": "ann", "password": HIDDEN},
        }
        assert start.attributes == {"auth_token": HIDDEN}
        assert parameters["password"] == "hunter2"

    @pytest.mark.parametrize(
        ("message", "shown"),
        [
            ("login failed: password=hunter2, user=ann", f"login failed: password={HIDDEN}, user=ann"),
            ('{"api_key": "k 1", "n": 2}', f'{{"api_key": {HIDDEN}, "n": 2}}'),
            ("postgres://ann:secret@db/x is down", f"postgres://ann:{HIDDEN}@db/x is down"),
            ("401 for Authorization header Bearer abc.def-ghi", f"401 for Authorization header Bearer {HIDDEN}"),
            ("order 7 is not open: state=paid", "order 7 is not open: state=paid"),
        ],
    )
    def test_secrets_in_messages(self, message: str, shown: str) -> None:
        assert Redactor().message(message) == shown

    def test_nothing_is_unbounded_and_no_code_of_a_value_runs(self) -> None:
        class Hostile:
            def __repr__(self) -> str:
                raise AssertionError("asked for its repr")

            __str__ = __repr__

        class HostileError(Exception):
            def __str__(self) -> str:
                raise AssertionError("asked for its message")

        deep: dict[str, object] = {}
        deep["deep"] = deep
        redactor = Redactor()
        shown = redactor.mapping(
            {"h": Hostile(), "deep": deep, "big": list(range(10**5)), "text": "x" * 10**6, "number": 10**5000}
        )
        assert shown["h"] == "<Hostile>"
        assert len(json.dumps(shown)) < 2_000
        assert len(redactor.mapping({f"k{n}": n for n in range(1_000)})) == 21
        assert redactor.error(HostileError()) == ("HostileError", "")
        assert redactor.mapping(HostileMapping()) == {"unreadable": "RuntimeError"}


class Login(pydantic.BaseModel):
    user: str
    password: pydantic.SecretStr


class HostileMapping(dict[str, object]):
    def items(self) -> Any:
        raise RuntimeError("no")


class TestWhoeverWatches:
    def test_a_handler_that_fails_hurts_nobody_and_is_detached_with_one_warning(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        hub, calls = Hub(), []

        def broken(event: Event) -> None:
            calls.append(event)
            raise RuntimeError("broken")

        hub.subscribe(broken, "**.stop")
        seen: list[Event] = []
        hub.subscribe(seen.append, "**.stop")
        for _ in range(20):
            hub.end(hub.begin("tenure.turn", COUNTER))
        assert (len(calls), len(seen)) == (5, 20)
        assert [record.levelname for record in caplog.records] == ["WARNING"]

    def test_only_failures_in_a_row_count(self) -> None:
        hub, calls = Hub(), []

        def flaky(event: Event) -> None:
            calls.append(event)
            if len(calls) % 5:
                raise RuntimeError("flaky")

        hub.subscribe(flaky, "**.stop")
        for _ in range(20):
            hub.end(hub.begin("tenure.turn", COUNTER))
        assert len(calls) == 20

    @pytest.mark.parametrize("fault", ["scope", "before", "never", "twice", "after"])
    def test_a_tracer_that_fails_does_not_break_what_it_goes_around(
        self, fault: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        hub = Hub()
        hub.add_tracer(Broken(fault))
        outer = Recorder()
        hub.add_tracer(outer)

        def work() -> int:
            with hub.span("shop.charge"):
                return 42

        assert [work() for _ in range(10)] == [42] * 10
        assert len(outer.left) == 10
        assert ["detached" in record.getMessage() for record in caplog.records] == [True]

    def test_only_failures_of_a_tracer_in_a_row_count(self) -> None:
        hub, count = Hub(), 0

        class Flaky:
            @contextmanager
            def scope(self, span: Span) -> Iterator[None]:
                nonlocal count
                count += 1
                yield
                if count % 5:
                    raise RuntimeError("flaky")

        hub.add_tracer(Flaky())
        for _ in range(20):
            hub.end(hub.begin("tenure.turn", COUNTER))
        assert count == 20

    @pytest.mark.parametrize("fault", ["scope", "before", "never", "twice", "after"])
    def test_a_strict_hub_says_so(self, fault: str) -> None:
        hub = Hub(strict=True)
        hub.add_tracer(Broken(fault))
        with pytest.raises(ObserverFault, match=r"around shop\.charge"), hub.span("shop.charge"):
            pass

    def test_a_strict_hub_raises_what_a_handler_raises(self) -> None:
        hub = Hub(strict=True)
        hub.subscribe(lambda _: 1 / 0, "**.stop")  # type: ignore[arg-type, return-value]
        span = hub.begin("tenure.turn", COUNTER)
        with pytest.raises(ObserverFault, match=r"tenure\.turn\.stop"):
            hub.end(span)
        assert current_span() is None

    def test_tracers_cannot_swallow_the_errors_of_the_code_inside(self) -> None:
        hub = Hub()

        class Swallower:
            def scope(self, span: Span) -> "Swallower":
                return self

            def __enter__(self) -> None: ...

            def __exit__(self, *_: object) -> bool:
                return True

        hub.add_tracer(Swallower())
        with pytest.raises(KeyError), hub.span("shop.charge"):
            raise KeyError

    def test_the_debug_buffer_keeps_the_last_events_of_one_agent(self) -> None:
        hub = Hub()
        buffer = hub.debug("default/c1", limit=3)
        assert hub.debug("default/c1") is buffer
        for turn in range(5):
            hub.end(hub.begin("tenure.turn", COUNTER, turn=turn))
            hub.end(hub.begin("tenure.turn", Who("default/c2", "Counter"), turn=turn))
        assert [(event.agent_id, event.turn) for event in buffer.events] == [("default/c1", turn) for turn in (3, 4, 4)]
        buffer.close()
        assert not hub.on
        again = hub.debug("default/c1")
        buffer.close()  # long closed: it ends nothing of the new one
        assert hub.debug("default/c1") is again

    def test_a_hundred_agents_at_a_time_can_be_debugged(self) -> None:
        hub = Hub()
        for n in range(100):
            hub.debug(f"default/c{n}")
        with pytest.raises(UsageError, match="close one"):
            hub.debug("default/one-more")


class Recorder:
    """A tracer that works."""

    def __init__(self) -> None:
        self.left: list[str] = []

    @contextmanager
    def scope(self, span: Span) -> Iterator[None]:
        yield
        self.left.append(f"{span.name} {span.outcome}")


class Broken:
    """A tracer that raises, never calls what it should go around, or does so twice."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def scope(self, span: Span) -> Any:
        if self.fault == "scope":
            raise RuntimeError("no scope")
        return self._scope()

    @contextmanager
    def _scope(self) -> Iterator[None]:
        if self.fault == "before":
            raise RuntimeError("crashed at its start")
        if self.fault == "never":
            return
        yield
        if self.fault == "twice":
            yield
        if self.fault == "after":
            raise RuntimeError("crashed at its end")


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


def test_nobody_is_an_agent_without_a_name() -> None:
    hub, events, _ = observed("**.start")
    hub.end(hub.begin("shop.import"))
    assert events[0].agent_id == NOBODY.agent_id == ""
