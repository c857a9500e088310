"""Events, spans, traces, what they never show, and what happens when those who watch fail."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pydantic
import pytest
from sdk_observing import COUNTER, names, observed

from tenure.errors import DefinitionError, UsageError
from tenure.observe import (
    HIDDEN,
    NOBODY,
    CronFired,
    Event,
    Failed,
    Hub,
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
)
from tenure.signals import Signal, Trace


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


def test_nobody_is_an_agent_without_a_name() -> None:
    hub, events, _ = observed("**.start")
    hub.end(hub.begin("shop.import"))
    assert events[0].agent_id == NOBODY.agent_id == ""
