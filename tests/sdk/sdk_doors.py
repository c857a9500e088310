"""A sensor of doors."""

from collections.abc import Iterable
from typing import Any

import pydantic

from tenure.sensors import (
    After,
    Cancel,
    Finish,
    Report,
    Sensor,
    SensorConfig,
    SensorEffect,
)
from tenure.testing import Probe


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
