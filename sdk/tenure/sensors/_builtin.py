"""Sensors that come along: a pulse, a schedule, a bus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import pydantic

from tenure import schedule, signals
from tenure.errors import DefinitionError
from tenure.sensors._effects import After, Deliver, Report, SensorEffect
from tenure.sensors._sensor import Sensor, SensorConfig
from tenure.signals import Signal

_LOOK_AGAIN_S = 60.0
"""A schedule waits in steps of this, since the clock of the machine may be set meanwhile."""


@dataclass(frozen=True, slots=True)
class _Due:
    at: float


def _is_type(value: str) -> str:
    signals.Signal.new(value, source="check")  # raises SignalInvalid, a ValueError
    return value


SignalType = Annotated[str, pydantic.AfterValidator(_is_type)]


class HeartbeatConfig(SensorConfig):
    """Of Heartbeat."""

    interval: float = pydantic.Field(gt=0)
    """Seconds between two beats; the first comes after one interval."""
    type: SignalType = "tenure.heartbeat"


class Beats(pydantic.BaseModel):
    """State of Heartbeat."""

    count: int = 0


class Heartbeat(Sensor[HeartbeatConfig]):
    """Reports `tenure.heartbeat` at a steady pace, and how many it has been. Beats slept through are left out."""

    state: Beats = Beats()

    def begin(self) -> Iterable[SensorEffect]:
        return [After(self.config.interval, _Due(self.now + self.config.interval), "next")]

    def on_event(self, event: Any) -> Iterable[SensorEffect]:
        interval = self.config.interval
        self.state.count += 1
        due = event.at + interval if isinstance(event, _Due) else 0.0
        following = due if due > self.now else self.now + interval
        return [
            Report(self.config.type, {"beat": self.state.count, "interval": interval}),
            After(following - self.now, _Due(following), "next"),
        ]


class CronConfig(SensorConfig):
    """Of Cron."""

    expression: str
    """As of `tenure.schedule.Cron`."""
    timezone: str = "UTC"
    type: SignalType = "tenure.cron"
    data: Any = None
    """Goes with each signal."""

    @pydantic.model_validator(mode="after")
    def _can_be(self) -> CronConfig:
        try:
            self.schedule()
        except DefinitionError as error:
            raise ValueError(str(error)) from error
        return self

    def schedule(self) -> schedule.Cron:
        """The schedule itself."""
        return schedule.Cron(self.expression, self.timezone)


class Cron(Sensor[CronConfig]):
    """Reports `tenure.cron` when a schedule comes due; times that were slept through are reported once, and counted.

    It lives in memory, with its agent. A schedule that must survive belongs to the agent.
    """

    def begin(self) -> Iterable[SensorEffect]:
        return [self._wait(self._next())]

    def on_event(self, event: Any) -> Iterable[SensorEffect]:
        if not isinstance(event, _Due):
            return []
        if event.at > self.now:
            return [self._wait(event.at)]
        due = datetime.fromtimestamp(event.at, UTC)
        missed = len(self.config.schedule().missed(due, datetime.fromtimestamp(self.now, UTC)))
        told = {"due": due.isoformat(), "missed": missed, "data": self.config.data}
        return [Report(self.config.type, told), self._wait(self._next())]

    def _next(self) -> float:
        return self.config.schedule().next_after(datetime.fromtimestamp(self.now, UTC)).timestamp()

    def _wait(self, at: float) -> After:
        return After(min(at - self.now, _LOOK_AGAIN_S), _Due(at), "next")


class BusConfig(SensorConfig):
    """Of Bus."""

    pattern: str
    """Types of signals to be handed on."""
    exclude_source: str = ""
    """Signals of this source are not. An agent that publishes on the same bus names itself, or it hears itself."""
    limit: int = pydantic.Field(default=1_000, gt=0)
    """Signals that may wait; what is missed beyond is read from the log of the bus."""

    @pydantic.field_validator("pattern")
    @classmethod
    def _is_pattern(cls, pattern: str) -> str:
        try:
            signals.matches(pattern, "x")
        except DefinitionError as error:
            raise ValueError(str(error)) from error
        return pattern


class Bus(Sensor[BusConfig]):
    """Hands on what crosses a bus of this process, as it is: `Bus(bus, pattern="order.*")`."""

    def __init__(self, bus: signals.Bus, config: BusConfig | None = None, /, **values: Any) -> None:
        """Raises UsageError, naming the field, when the values do not fit."""
        super().__init__(config, **values)
        self._bus = bus
        self._last = ""

    def on_event(self, event: Any) -> Iterable[SensorEffect]:
        if not isinstance(event, Signal) or (event.source and event.source == self.config.exclude_source):
            return []
        return [Deliver(event)]

    async def events(self) -> AsyncIterator[Signal]:
        """From now on; after a restart, from where it was cut off."""
        with self._bus.stream(self.config.pattern, limit=self.config.limit) as stream:
            missed = list(self._bus.replay(self.config.pattern, after=self._last)) if self._last else []
            for signal in missed:
                self._last = signal.id
                yield signal
            async for signal in stream:
                self._last = signal.id
                yield signal
