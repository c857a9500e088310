"""Sensors: definitions, effects, the shell around them, those that come along, and who owns them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

import pydantic
import pytest

import tenure
from tenure import signals
from tenure._clock import VirtualClock
from tenure.errors import Busy, DefinitionError, NotFound, UsageError
from tenure.sensors import (
    ENDED,
    FAILED,
    After,
    Bus,
    Cancel,
    Cron,
    Deliver,
    Ending,
    Finish,
    Heartbeat,
    HeartbeatConfig,
    Policy,
    Report,
    Sensor,
    SensorConfig,
    SensorEffect,
    SensorRunner,
    SensorRunning,
    Sensors,
    describe,
)
from tenure.signals import Signal, SignalData, Trace
from tenure.testing import FakeSensor, Pause, Probe, scripted

C = TypeVar("C", bound=SensorConfig)


class DoorConfig(SensorConfig):
    pin: int = pydantic.Field(default=1, ge=0)
    patience: float = 5.0


class Openings(pydantic.BaseModel):
    count: int = 0
    log: list[str] = []


class Door(Sensor[DoorConfig], category="house", tags=["io"], signals=["door.opened", "door.left.*"]):
    """Watches a door."""

    state: Openings = Openings()

    def begin(self) -> Iterable[SensorEffect]:
        return []

    def on_event(self, event: Any) -> Iterable[SensorEffect]:
        self.state.log.append(str(event))
        if event == "open":
            self.state.count += 1
            yield Report("door.opened", {"pin": self.config.pin, "count": self.state.count})
            yield After(self.config.patience, "late", "patience")
        elif event == "closed":
            yield Cancel("patience")
        elif event == "late":
            yield Report("door.left.open", subject=f"door/{self.config.pin}")
        elif event == "removed":
            yield Finish("no door")
            yield Report("door.opened")
        elif event == "fire":
            self.state.count = 1_000
            yield Report("door.opened")
            raise RuntimeError("password=x: the door burns")
        elif event == "cat":
            yield Report("cat.entered")


def data(probe: Probe) -> list[object]:
    return [signal.data for signal in probe.delivered]


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


class TestSources:
    async def test_events_come_from_the_source_as_time_passes(self) -> None:
        async with Probe(scripted(Door(), ["open", Pause(3), "closed", Pause(60), "open"])) as probe:
            assert probe.types() == ["door.opened"]
            await probe.advance(62)
            assert probe.types() == ["door.opened"]
            await probe.advance(1)
            assert probe.types() == ["door.opened", "door.opened"]
            await probe.inject("fire")  # the source is done: events from elsewhere go on
            assert probe.types()[-1] == FAILED

    async def test_a_source_that_fails_is_started_again_later_and_later(self) -> None:
        door = scripted(Door(), ["open", OSError("gone"), OSError("gone"), "closed", OSError("gone"), "open"])
        async with Probe(door) as probe:
            assert probe.types() == ["door.opened", FAILED]
            await probe.advance(0.9)
            assert len(probe.delivered) == 2
            await probe.advance(0.1)
            assert len(probe.delivered) == 3
            await probe.advance(1.9)
            assert "closed" not in door.state.log
            await probe.advance(0.1)
            assert "closed" in door.state.log
            await probe.advance(4)
            assert probe.types() == ["door.opened", FAILED, FAILED, FAILED, "door.opened"]
            assert [signal.data["failures"] for signal in probe.delivered if signal.type == FAILED] == [1, 2, 3]  # type: ignore[index]
            assert probe.ending is None

    async def test_and_ends_the_sensor_when_it_does_so_too_often(self) -> None:
        async with Probe(scripted(Door(), [OSError("gone")] * 9), policy=Policy(restarts=2)) as probe:
            await probe.advance(3600)
        assert probe.types() == [FAILED, FAILED, FAILED, ENDED]
        assert probe.ending == Ending("failed", "its events ended 3 times: OSError: gone")

    async def test_a_long_peace_gives_the_restarts_back(self) -> None:
        script = [Pause(700), OSError("gone")] * 9
        async with Probe(scripted(Door(), script), policy=Policy(restarts=1)) as probe:
            await probe.advance(7000)
            assert probe.ending is None

    async def test_a_source_that_cancels_itself_is_a_failure(self) -> None:
        async with Probe(scripted(Door(), [asyncio.CancelledError()])) as probe:
            assert probe.types() == [FAILED]

    async def test_a_source_waits_for_a_full_queue(self) -> None:
        made: list[int] = []

        class Flood(Sensor[DoorConfig]):
            async def events(self) -> AsyncIterator[int]:
                for n in range(1_000):
                    made.append(n)
                    yield n

            def on_event(self, event: int) -> Iterable[SensorEffect]:
                assert len(made) <= event + 12
                return [Report("flood.seen", event)]

        async with Probe(Flood(), policy=Policy(queue=10)) as probe:
            pass
        assert data(probe) == list(range(1_000))

    async def test_stopping_cleans_up_the_source(self) -> None:
        closed = asyncio.Event()

        class Open(Sensor[DoorConfig]):
            async def events(self) -> AsyncIterator[int]:
                try:
                    yield 1
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0)
                    closed.set()

            def on_event(self, event: Any) -> Iterable[SensorEffect]:
                return [Report("door.opened")]

        async with Probe(Open()) as probe:
            probe.runner.stop("enough")
            assert await probe.runner.wait_closed()
        assert closed.is_set()
        assert probe.ending == Ending("stopped", "enough")
        assert probe.types() == ["door.opened"]  # somebody asked for the end: nothing is reported

    async def test_a_sensor_does_not_run_within_the_turn_that_started_it(self) -> None:
        from tenure._context import current_scope

        seen: list[object] = []

        class Nosy(Sensor[DoorConfig]):
            def begin(self) -> Iterable[SensorEffect]:
                seen.append(current_scope.get())
                return []

            def on_event(self, event: Any) -> Iterable[SensorEffect]:
                return []

            async def events(self) -> AsyncIterator[int]:
                seen.append(current_scope.get())
                yield 1

        class Empty(tenure.State):
            pass

        class Starter(tenure.Agent[Empty]):
            @tenure.action
            async def go(self) -> None:
                async with Probe(Nosy()):
                    pass

        async with tenure.local() as rt:
            await (await rt.create(Starter, "s-1")).go()
        assert seen == [None, None]

    async def test_a_runner_starts_once(self) -> None:
        async with Probe(Door()) as probe:
            with pytest.raises(UsageError, match="started before"):
                probe.runner.start()
        with pytest.raises(UsageError, match="does not run"):
            SensorRunner(Door(), clock=VirtualClock(), deliver=lambda _: None).inject("open")


class TestBuiltIn:
    async def test_a_heartbeat_keeps_its_pace(self) -> None:
        async with Probe(Heartbeat(interval=2.5)) as probe:
            await probe.advance(2.4)
            assert probe.delivered == []
            await probe.advance(7.7)
            assert data(probe) == [{"beat": n, "interval": 2.5} for n in (1, 2, 3, 4)]
            assert {signal.type for signal in probe.delivered} == {"tenure.heartbeat"}

    async def test_a_heartbeat_leaves_out_what_it_slept_through(self) -> None:
        heart = Heartbeat(interval=1, type="pulse")
        async with Probe(heart) as probe:
            start = probe.clock.now()
            probe.clock._now = start + 100  # the machine was suspended
            await probe.advance(2)
        assert len(probe.delivered) == 3

    def test_a_heartbeat_has_an_interval(self) -> None:
        with pytest.raises(UsageError, match="`interval`"):
            Heartbeat(interval=0)
        with pytest.raises(UsageError, match="`type`"):
            Heartbeat(interval=1, type="no type!")

    async def test_cron_in_a_time_zone(self) -> None:
        clock = VirtualClock(datetime(2026, 1, 2, 7, 30, tzinfo=UTC).timestamp())
        cron = Cron(expression="0 9 * * MON-FRI", timezone="Europe/Berlin", data={"job": "report"})
        async with Probe(cron, clock=clock) as probe:
            await probe.advance(30 * 60 - 1)
            assert probe.delivered == []
            await probe.advance(1)
            await probe.advance(3 * 86_400)
        assert data(probe) == [
            {"due": "2026-01-02T08:00:00+00:00", "missed": 0, "data": {"job": "report"}},
            {"due": "2026-01-05T08:00:00+00:00", "missed": 0, "data": {"job": "report"}},
        ]

    async def test_cron_reports_what_it_slept_through_once(self) -> None:
        clock = VirtualClock(datetime(2026, 1, 2, 7, 59, tzinfo=UTC).timestamp())
        async with Probe(Cron(expression="@hourly"), clock=clock) as probe:
            clock._now += 3 * 3600
            await probe.advance(60)
        assert data(probe) == [
            {"due": "2026-01-02T08:00:00+00:00", "missed": 2, "data": None},
            {"due": "2026-01-02T11:00:00+00:00", "missed": 0, "data": None},
        ]

    async def test_cron_notices_within_a_minute_that_the_clock_was_set(self) -> None:
        class Set(VirtualClock):
            """As the machine's: what waits does so by the time that passes, not by the time that is shown."""

            ahead = 0.0

            def now(self) -> float:
                return super().now() + self.ahead

            def call_at(self, when: float, callback: Callable[[], None]) -> Any:
                return super().call_at(when - self.ahead, callback)

            def step(self, until: float) -> bool:
                return super().step(until - self.ahead)

        clock = Set(datetime(2026, 1, 2, 1, 0, tzinfo=UTC).timestamp())
        async with Probe(Cron(expression="0 9 * * *"), clock=clock) as probe:
            await probe.advance(60)
            clock.ahead = 8 * 3600 - 30
            await probe.advance(60)
        assert [signal.data["due"] for signal in probe.delivered] == ["2026-01-02T09:00:00+00:00"]  # type: ignore[index]

    def test_cron_that_cannot_be(self) -> None:
        with pytest.raises(UsageError, match="minute"):
            Cron(expression="61 * * * *")
        with pytest.raises(UsageError, match="time zone"):
            Cron(expression="@daily", timezone="Mars/Olympus")

    async def test_a_bus_is_handed_on_by_pattern_but_not_ones_own_signals(self) -> None:
        bus = signals.Bus()
        async with Probe(Bus(bus, pattern="order.*", exclude_source="test/agent")) as probe:
            paid = Signal.new("order.paid", 7, source="shop/a")
            own = Signal.new("order.sent", source="test/agent")
            await bus.publish(paid, Signal.new("parcel.sent", source="shop/a"), own)
            await probe.settle()
            assert probe.delivered == [paid]
        await bus.publish(paid)
        await asyncio.sleep(0)
        assert len(probe.delivered) == 1
        with pytest.raises(UsageError, match="`pattern`"):
            Bus(bus, pattern="order..paid")

    async def test_a_bus_that_was_too_fast_is_read_again_without_a_gap(self) -> None:
        bus = signals.Bus()
        many = [Signal.new("order.paid", n, source="shop/a") for n in range(20)]
        async with Probe(Bus(bus, pattern="order.*", limit=5)) as probe:
            await bus.publish(*many[:15])
            await probe.settle()
            assert probe.types().count(FAILED) == 1
            await bus.publish(*many[15:18])
            await probe.advance(1)
            await bus.publish(*many[18:])
            await probe.settle()
        assert [signal for signal in probe.delivered if signal.type != FAILED] == many


class TestOwners:
    def made(self, **keywords: Any) -> tuple[Sensors, list[Signal]]:
        return Sensors(VirtualClock(), **keywords), []

    async def test_sensors_are_known_by_agent_and_tag(self) -> None:
        group, got = self.made()
        for agent in ("default/a", "default/b"):
            group.start(agent, "front", Door(), got.append)
            group.start(agent, "", Door(), got.append)
        await asyncio.sleep(0)
        assert group.of("default/a").keys() == {"front", "Door"}
        group.inject("default/a", "front", "open")
        await asyncio.sleep(0)
        assert [signal.source for signal in got] == ["default/a/sensors/front"]
        assert group.stop("default/a", "front")
        assert not group.stop("default/a", "front")
        assert group.stop_all("default/b") == 2
        assert (group.of("default/a").keys(), group.of("default/b")) == ({"Door"}, {})
        with pytest.raises(NotFound, match="no sensor front"):
            group.inject("default/a", "front", "open")
        await group.close()
        assert got[1:] == []  # all of it was asked for

    async def test_a_namesake_is_replaced_unless_it_must_not_be(self) -> None:
        group, got = self.made()
        endings: list[Ending] = []
        first = group.start("default/a", "front", Door(pin=1), got.append, on_end=endings.append)
        second = group.start("default/a", "front", Door(pin=2), got.append)
        await asyncio.sleep(0)
        assert endings == [Ending("stopped", "replaced")]
        assert group.of("default/a") == {"front": second}
        with pytest.raises(SensorRunning, match="has a sensor front"):
            group.start("default/a", "front", Door(pin=3), got.append, replace=False)
        group.inject("default/a", "front", "open")
        await asyncio.sleep(0)
        assert [signal.data["pin"] for signal in got] == [2]  # type: ignore[index]
        assert first.ending is not None
        await group.close()

    async def test_the_last_one_started_runs_also_if_an_end_leads_to_another_start(self) -> None:
        group, got = self.made()
        started: list[SensorRunner] = []

        def again(ending: Ending) -> None:
            started.append(group.start("default/a", "front", Door(pin=3), got.append))

        group.start("default/a", "front", Door(pin=1), got.append, on_end=again)
        group.start("default/a", "front", Door(pin=2), got.append)
        assert group.of("default/a") == {"front": started[0]}
        group.inject("default/a", "front", "open")
        await group.settle()
        assert [signal.data["pin"] for signal in got] == [3]  # type: ignore[index]
        await group.close()

    @pytest.mark.parametrize("link", [False, True])
    async def test_an_end_that_nobody_asked_for_is_a_signal_and_fails_a_linked_owner(self, link: bool) -> None:
        failed: list[tuple[str, Ending]] = []
        group, got = self.made(
            fail_owner=lambda agent, ending: failed.append((agent, ending)), policy=Policy(on_error="end")
        )
        group.start("default/a", "front", Door(), got.append, link=link)
        group.inject("default/a", "front", "fire")
        await asyncio.sleep(0)
        assert [signal.type for signal in got] == [FAILED, ENDED]
        assert [agent for agent, _ in failed] == ["default/a"] * link
        assert group.of("default/a") == {}
        group.start("default/a", "front", Door(), got.append, link=link)
        group.stop("default/a", "front")
        assert len(failed) == link
        await group.close()

    async def test_a_webhook_and_a_heartbeat_add_up_in_an_agent(self) -> None:
        class Tally(tenure.State):
            seen: dict[str, int] = pydantic.Field(default_factory=dict)

        class Counter(tenure.Agent[Tally]):
            @tenure.action
            def take(self, type: str) -> None:  # noqa: A002
                self.state.seen[type] = self.state.seen.get(type, 0) + 1

        clock, got = VirtualClock(), list[Signal]()
        group = Sensors(clock)
        group.start("default/c", "pulse", Heartbeat(interval=1), got.append)
        group.start("default/c", "hook", FakeSensor(), got.append)
        await asyncio.sleep(0)
        for _ in range(3):
            clock.step(clock.now() + 1)
            group.inject("default/c", "hook", Report("web.hook"))
            await group.settle()
        await group.close()
        agent = Counter.new()
        for signal in got:
            agent, _ = Counter.cmd(agent, Counter.take(type=signal.type))
        assert agent.state.seen == {"tenure.heartbeat": 3, "web.hook": 3}

    async def test_an_agent_has_a_hundred_at_most_and_tags_are_words(self) -> None:
        group, got = self.made()
        for n in range(100):
            group.start("default/a", f"s{n}", Door(), got.append)
        with pytest.raises(UsageError, match="100 sensors"):
            group.start("default/a", "one-more", Door(), got.append)
        with pytest.raises(UsageError, match="a tag is"):
            group.start("default/b", "no tag!", Door(), got.append)
        await group.close()

    async def test_the_end_of_the_runtime_waits_for_sources(self) -> None:
        closed: list[str] = []

        class Open(Sensor[DoorConfig]):
            async def events(self) -> AsyncIterator[int]:
                try:
                    await asyncio.Event().wait()
                    yield 1
                finally:
                    await asyncio.sleep(0)
                    closed.append("closed")

            def on_event(self, event: Any) -> Iterable[SensorEffect]:
                return []

        group, got = self.made()
        group.start("default/a", "one", Open(), got.append)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        group.start("default/a", "one", Open(), got.append)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await group.close()
        assert closed == ["closed", "closed"]

    async def test_what_on_end_raises_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        def broken(ending: Ending) -> None:
            raise RuntimeError("broken")

        with caplog.at_level(logging.ERROR):
            runner = SensorRunner(Door(), clock=VirtualClock(), deliver=lambda _: None, on_end=broken)
            runner.start()
            runner.stop()
            runner.stop()
        assert len(caplog.records) == 1


async def test_a_fake_sensor_plays_its_script() -> None:
    fake = FakeSensor([Report("node.load", 0.5), Pause(10), "other", Report("node.load", 0.9)])
    async with Probe(fake) as probe:
        await probe.advance(9)
        assert data(probe) == [0.5]
        await probe.advance(1)
        assert data(probe) == [0.5, 0.9]
    assert fake.seen == ["other"]
    assert fake.ending == Ending("stopped", "stopped")
