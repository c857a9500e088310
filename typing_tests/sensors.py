"""What users' type checkers see of sensors and of events. Checked as surface.py is."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from collections.abc import AsyncIterator, Iterable
from typing import assert_type

import pydantic

from tenure import sensors
from tenure.observe import Event, Failed, Hub, Outcome, Started, Stopped
from tenure.testing import Probe, scripted


class DoorConfig(sensors.SensorConfig):
    pin: int = 1


class Openings(pydantic.BaseModel):
    count: int = 0


class Door(sensors.Sensor[DoorConfig], signals=["door.opened"]):
    state: Openings = Openings()

    async def events(self) -> AsyncIterator[bool]:
        await self.pause(self.config.pin)
        yield True

    def on_event(self, event: bool) -> Iterable[sensors.SensorEffect]:
        self.state.count += event
        return [sensors.Report("door.opened", self.state.count)]

    def begin(self) -> Iterable[sensors.SensorEffect]:
        yield "door.opened"  # type: ignore[misc]


def check(hub: Hub) -> None:
    door = Door(pin=4)
    assert_type(door.config, DoorConfig)
    assert_type(door.state, Openings)
    assert_type(scripted(door, [True]), Door)
    Probe(door)
    Door(Openings())  # type: ignore[arg-type]
    hub.subscribe(handle, "tenure.turn.*")


def handle(event: Event) -> None:
    match event:
        case Started():
            assert_type(event.method, str)
        case Stopped() | Failed():
            assert_type(event.duration_ns, int)
            assert_type(event.outcome, Outcome)
        case _:
            event.turn = 1  # type: ignore[misc]
