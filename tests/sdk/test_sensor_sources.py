"""Sensors that run: their sources, the built-in ones, and who owns them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pydantic
import pytest
from sdk_doors import Door, DoorConfig, data

import tenure
from tenure import signals
from tenure._clock import VirtualClock
from tenure.errors import NotFound, UsageError
from tenure.sensors import (
    ENDED,
    FAILED,
    Bus,
    Cron,
    Ending,
    Heartbeat,
    Policy,
    Report,
    Sensor,
    SensorEffect,
    SensorRunner,
    SensorRunning,
    Sensors,
)
from tenure.signals import Signal
from tenure.testing import FakeSensor, Pause, Probe, scripted


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
        from tenure._scope import current_scope

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
