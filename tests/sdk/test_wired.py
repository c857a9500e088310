"""What runtimes tell their hub, and sensors where time stands still."""

import pytest

import tenure
from tenure._clock import VirtualClock
from tenure._local.runtime import LocalRuntime
from tenure.observe import Event, Hub
from tenure.sensors import Heartbeat


class Seen(tenure.State):
    beats: int = 0


class Watch(tenure.Agent[Seen]):
    @tenure.action
    def begin(self, ctx: tenure.Context) -> None:
        ctx.start_sensor("pulse", Heartbeat(interval=1))

    @tenure.on("tenure.heartbeat")
    @tenure.action
    def beat(self, ctx: tenure.Context) -> None:
        self.state.beats += 1
        ctx.emit("watch.beat", {}, to="bell")


class Bell(tenure.Agent[Seen]):
    @tenure.on("watch.beat")
    @tenure.action
    async def ring(self) -> None:
        if self.state.beats == 1:
            raise KeyError("password=x")
        self.state.beats += 1


class Asked(tenure.Agent[Seen]):
    @tenure.query
    def beats(self) -> int:
        return self.state.beats

    @tenure.query
    def fails(self) -> int:
        raise KeyError("no such beat")


async def test_queries_have_spans_of_their_own() -> None:
    hub, events = Hub(), list[Event]()
    hub.subscribe(events.append)
    async with LocalRuntime(clock=VirtualClock(), hub=hub) as rt:
        asked = await rt.create(Asked, "a")
        assert await asked.beats() == 0
        with pytest.raises(tenure.errors.ActionFailed):
            await asked.fails()
    said = [(event.name, event.public().get("tenure.method")) for event in events]
    assert said == [
        ("tenure.query.start", "beats"),
        ("tenure.query.stop", "beats"),
        ("tenure.query.start", "fails"),
        ("tenure.query.exception", "fails"),
    ]


async def test_a_sensor_ticks_in_virtual_time_and_its_trace_reaches_the_last_agent() -> None:
    hub, events = Hub(), list[Event]()
    hub.subscribe(events.append)
    async with LocalRuntime(clock=VirtualClock(), hub=hub) as rt:
        watch, bell = await rt.create(Watch, "watch"), await rt.create(Bell, "bell")
        await watch.begin()
        await rt.advance(2)
        assert (rt.state(watch).beats, rt.state(bell).beats) == (2, 1)
        await rt.stop(watch)
        await rt.advance(5)
    beats = [event for event in events if event.name == "tenure.ingress.start"]
    assert len({beat.trace_id for beat in beats}) == len(beats) == 2
    chain = [event for event in events if event.trace_id == beats[0].trace_id and event.name.endswith(".start")]
    assert [event.name for event in chain] == [
        "tenure.ingress.start",
        "tenure.turn.start",
        "tenure.directive.start",
        "tenure.emit.start",
        "tenure.turn.start",
    ]
    assert [event.parent_id for event in chain[1:]] == [event.span_id for event in chain[:-1]]
    (failed,) = (event for event in events if event.name == "tenure.turn.exception")
    assert (failed.agent_id, failed.public()["error.type"]) == ("default/bell", "ActionFailed")
