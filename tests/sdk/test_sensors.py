"""Sensors: definitions, effects, the shell around them, those that come along, and who owns them."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest
from sdk_doors import Door, DoorConfig, data

from tenure._clock import VirtualClock
from tenure.errors import Busy, DefinitionError, UsageError
from tenure.sensors import (
    ENDED,
    FAILED,
    After,
    Deliver,
    Ending,
    Heartbeat,
    HeartbeatConfig,
    Policy,
    Report,
    Sensor,
    SensorConfig,
    SensorEffect,
    SensorRunner,
    describe,
)
from tenure.signals import Signal, SignalData, Trace
from tenure.testing import FakeSensor, Pause, Probe

C = TypeVar("C", bound=SensorConfig)


class TestDefinition:
    @pytest.mark.parametrize(
        ("define", "words"),
        [
            (lambda: type("X", (Sensor,), {}), "names no config"),
            (lambda: _defined(Sensor[int], {}), "takes a pydantic model"),  # type: ignore[type-var]
            (lambda: _defined(Sensor[DoorConfig], {}), "has no on_event"),
            (lambda: _defined(Sensor[DoorConfig], {"on_event": _event}, name="my door"), "'my door'"),
            (lambda: _defined(Sensor[DoorConfig], {"on_event": _event}, tags="io"), "list of words"),
            (lambda: _defined(Sensor[DoorConfig], {"on_event": _event}, signals=["a..b"]), "segment"),
            (lambda: _defined(Sensor[DoorConfig], {"on_event": _event, "state": 1}), "pydantic model or None"),
            (lambda: _defined(Sensor[DoorConfig], {"on_event": _wait}), "on_event is pure and cannot be async"),
            (lambda: _defined(Sensor[DoorConfig], {"on_event": lambda self: []}), "takes self and one more"),
            (lambda: _defined(Sensor[DoorConfig], {"on_event": _event, "begin": _event}), "takes self"),
            (lambda: _defined(Sensor[DoorConfig], {"on_event": _event, "events": _wait}), "async generator"),
            (lambda: _defined(Sensor[DoorConfig], {"on_event": 7}), "is no method"),
        ],
    )
    def test_what_cannot_be_is_refused_when_it_is_written(self, define: Callable[[], object], words: str) -> None:
        with pytest.raises(DefinitionError, match=words):
            define()

    def test_a_config_that_does_not_fit_names_the_field(self) -> None:
        with pytest.raises(UsageError, match="`pin`"):
            Door(pin=-1)
        with pytest.raises(UsageError, match="`door` is not known"):
            Door(door=1)
        with pytest.raises(UsageError, match="takes a DoorConfig"):
            Door(HeartbeatConfig(interval=1))  # type: ignore[arg-type]
        assert Door(DoorConfig(pin=3)).config == Door(pin=3).config

    def test_instances_share_no_state(self) -> None:
        one, other = Door(), Door()
        list(one.on_event("open"))
        assert (one.state.count, other.state.count, Door.state.count) == (1, 0, 0)

    def test_a_base_without_a_config_is_for_others(self) -> None:
        class Base(Sensor[C]):
            def on_event(self, event: Any) -> Iterable[SensorEffect]:
                return [Report("based.on", self.config.model_dump())]

        class Concrete(Base[DoorConfig]):
            pass

        assert list(Concrete(pin=2).on_event(None)) == [Report("based.on", {"pin": 2, "patience": 5.0})]
        with pytest.raises(DefinitionError, match="names no config"):
            Base()

    def test_a_catalogue_can_tell(self) -> None:
        info = describe(Door)
        assert (info.name, info.description, info.category, info.tags) == ("Door", "Watches a door.", "house", ("io",))
        assert info.signals == ("door.opened", "door.left.*")
        assert info.config_schema["properties"]["pin"]["minimum"] == 0


def _defined(base: Any, namespace: dict[str, Any], **keywords: Any) -> object:
    import types

    return types.new_class("X", (base,), keywords, lambda body: body.update(namespace))


def _event(self: object, event: object) -> Iterable[SensorEffect]:
    return []


async def _wait(self: object, event: object = None) -> None: ...


class TestEffects:
    async def test_reports_are_signals_with_source_time_and_subject(self) -> None:
        async with Probe(Door(pin=4)) as probe:
            await probe.inject("open")
            await probe.advance(5)
        opened, left = probe.delivered
        assert (opened.type, opened.data) == ("door.opened", {"pin": 4, "count": 1})
        assert opened.source == "test/agent/sensors/probe"
        assert (left.type, left.subject) == ("door.left.open", "door/4")
        assert opened.time is not None
        assert left.time is not None
        assert (left.time - opened.time).total_seconds() == 5

    async def test_a_timer_can_be_cancelled_and_takes_the_place_of_its_namesake(self) -> None:
        async with Probe(Door()) as probe:
            await probe.inject("open")
            await probe.inject("closed")
            await probe.advance(10)
            assert probe.types() == ["door.opened"]
            await probe.inject("open")
            await probe.advance(4)
            await probe.inject("open")
            await probe.advance(4)
            assert "door.left.open" not in probe.types()
            await probe.advance(1)
            assert probe.types()[-1] == "door.left.open"

    async def test_a_sensor_that_finishes_does_nothing_more(self) -> None:
        async with Probe(Door()) as probe:
            await probe.inject("open")
            await probe.inject("removed")
            assert probe.ending == Ending("finished", "no door")
            await probe.advance(60)
            assert probe.types() == ["door.opened", ENDED]
            assert probe.delivered[-1].data == {
                "sensor": "Door",
                "tag": "Door",
                "kind": "finished",
                "reason": "no door",
            }
            with pytest.raises(UsageError, match="no door"):
                probe.runner.inject("open")

    async def test_what_it_waited_for_is_forgotten_at_its_end(self) -> None:
        door = Door()
        async with Probe(door) as probe:
            await probe.inject("open")
            probe.runner.stop()
            await probe.advance(60)
        assert door.state.log == ["open"]

    async def test_typed_reports_and_signals_handed_on(self) -> None:
        class OrderPaid(SignalData, type="order.paid", dataschema="https://example.org/order"):
            order: int

        trace, given = Trace.root(), Signal.new("a.b", source="elsewhere")
        async with Probe(FakeSensor()) as probe:
            await probe.inject(Report.of(OrderPaid(order=7), trace, subject="o/7"))
            await probe.inject(Deliver(given))
        assert OrderPaid.of(probe.delivered[0]).order == 7
        assert probe.delivered[0].extension(Trace) == trace
        assert probe.delivered[0].dataschema == "https://example.org/order"
        assert probe.delivered[1] is given


class TestFailures:
    async def test_an_event_that_fails_changes_nothing_and_is_reported(self, caplog: pytest.LogCaptureFixture) -> None:
        door = Door()
        async with Probe(door) as probe:
            await probe.inject("open")
            await probe.inject("fire")
            await probe.inject("open")
        assert probe.types() == ["door.opened", FAILED, "door.opened"]
        assert (door.state.count, door.state.log) == (2, ["open", "open"])
        assert probe.delivered[1].data == {
            "sensor": "Door",
            "tag": "Door",
            "during": "on_event",
            "error_type": "RuntimeError",
            "message": "password=[hidden] the door burns",
            "failures": 1,
        }
        assert "the sensor Door failed in on_event" in caplog.text

    async def test_a_sensor_that_always_fails_ends(self) -> None:
        async with Probe(Door(), policy=Policy(max_failures=3)) as probe:
            for _ in range(2):
                await probe.inject("fire")
            await probe.inject("open")
            assert probe.ending is None
            for _ in range(3):
                await probe.inject("fire")
        assert probe.ending is not None
        assert probe.ending.kind == "failed"
        assert probe.types() == [FAILED, FAILED, "door.opened", FAILED, FAILED, FAILED, ENDED]

    async def test_or_at_once_where_that_is_the_policy(self) -> None:
        async with Probe(Door(), policy=Policy(on_error="end")) as probe:
            await probe.inject("fire")
        assert probe.types() == [FAILED, ENDED]

    async def test_what_it_did_not_announce_it_cannot_report(self) -> None:
        async with Probe(Door()) as probe:
            await probe.inject("cat")
        assert "not 'cat.entered'" in str(data(probe)[0])

    @pytest.mark.parametrize(
        "effect",
        [Report("no type!"), After(float("nan"), 1), After(-1, 1), "door.opened"],
    )
    async def test_effects_that_cannot_be_are_failures(self, effect: object) -> None:
        class Bad(Sensor[DoorConfig]):
            def on_event(self, event: Any) -> Any:
                return [Report("good.one"), event]

        async with Probe(Bad()) as probe:
            await probe.inject(effect)
        assert probe.types() == [FAILED]

    async def test_nothing_is_an_empty_list(self) -> None:
        class Forgetful(Sensor[DoorConfig]):
            def on_event(self, event: Any) -> Any: ...

        async with Probe(Forgetful()) as probe:
            await probe.inject(1)
        assert "empty list" in str(data(probe)[0])

    async def test_one_that_cannot_begin_ends(self) -> None:
        class Stillborn(Sensor[DoorConfig]):
            def begin(self) -> Iterable[SensorEffect]:
                raise OSError("no such pin")

            def on_event(self, event: Any) -> Iterable[SensorEffect]:
                return []

            def end(self, ending: Ending) -> None:
                raise RuntimeError("and not end either")

        async with Probe(Stillborn()) as probe:
            assert probe.ending == Ending("failed", "OSError: no such pin")
        assert probe.types() == [FAILED, ENDED]

    async def test_an_agent_that_takes_no_signal_does_not_stop_the_sensor(self) -> None:
        taken: list[Signal] = []

        def deliver(signal: Signal) -> None:
            if not taken:
                taken.append(signal)
                raise Busy("the mailbox is full")
            taken.append(signal)

        runner = SensorRunner(Heartbeat(interval=1), clock=(clock := VirtualClock()), deliver=deliver)
        runner.start()
        for _ in range(3):
            await asyncio.sleep(0)
            clock.step(clock.now() + 1)
            await asyncio.sleep(0)
        assert (runner.refused, runner.delivered, runner.ending) == (1, 2, None)
        runner.stop()

    async def test_too_many_events_are_refused_and_timers_are_bounded(self) -> None:
        class Greedy(Sensor[DoorConfig]):
            def on_event(self, event: Any) -> Iterable[SensorEffect]:
                return [After(60, None)]

        async with Probe(Greedy(), policy=Policy(queue=600)) as probe:
            for _ in range(600):
                probe.runner.inject(1)
            with pytest.raises(Busy, match="600 events wait for the sensor Greedy"):
                probe.runner.inject(1)
            await probe.settle()
            for _ in range(500):
                probe.runner.inject(1)
            await probe.settle()
        assert "1000 things" in str(data(probe)[0])
        assert probe.ending is not None
        assert probe.ending.kind == "failed"


async def test_a_fake_sensor_plays_its_script() -> None:
    fake = FakeSensor([Report("node.load", 0.5), Pause(10), "other", Report("node.load", 0.9)])
    async with Probe(fake) as probe:
        await probe.advance(9)
        assert data(probe) == [0.5]
        await probe.advance(1)
        assert data(probe) == [0.5, 0.9]
    assert fake.seen == ["other"]
    assert fake.ending == Ending("stopped", "stopped")
