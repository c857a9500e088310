"""Sensors in tests: time that stands still, events by script."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar, get_args

from tenure._clock import VirtualClock
from tenure.sensors._effects import Ending, SensorEffect
from tenure.sensors._runner import DEFAULT_POLICY, Policy, SensorRunner, settled
from tenure.sensors._sensor import Sensor, SensorConfig
from tenure.signals import Signal

S = TypeVar("S", bound=Sensor[Any])


@dataclass(frozen=True, slots=True)
class Pause:
    """In a script: so many seconds pass."""

    seconds: float


def scripted(sensor: S, script: Iterable[object]) -> S:
    """The sensor with this as its source: events, a `Pause`, exceptions to be raised (it is restarted then)."""
    steps = iter(script)

    async def events() -> AsyncIterator[object]:
        for step in steps:
            if isinstance(step, Pause):
                await sensor.pause(step.seconds)
            elif isinstance(step, BaseException):
                raise step
            else:
                yield step

    vars(sensor)["events"] = events
    return sensor


class NoConfig(SensorConfig):
    """Nothing to be configured."""


class FakeSensor(Sensor[NoConfig]):
    """Stands for any sensor in the test of an agent: of its script (as of `scripted`) it carries out what is an effect.

    `seen` has the other events.
    """

    def __init__(self, script: Iterable[object] = ()) -> None:
        super().__init__()
        self.seen: list[object] = []
        self.ending: Ending | None = None
        scripted(self, script)

    def on_event(self, event: Any) -> Iterable[SensorEffect]:
        if isinstance(event, get_args(SensorEffect)):
            return [event]
        self.seen.append(event)
        return []

    def end(self, ending: Ending) -> None:
        self.ending = ending


class Probe:
    """Runs a sensor in time that stands still: `async with Probe(Door(pin=4)) as probe: await probe.advance(60)`."""

    def __init__(
        self, sensor: Sensor[Any], *, clock: VirtualClock | None = None, policy: Policy = DEFAULT_POLICY
    ) -> None:
        self.clock = clock or VirtualClock()
        self.delivered: list[Signal] = []
        """Its signals, in order."""
        self.runner = SensorRunner(
            sensor, clock=self.clock, deliver=self.delivered.append, source="test/agent/sensors/probe", policy=policy
        )

    @property
    def ending(self) -> Ending | None:
        """How it ended; None: it has not."""
        return self.runner.ending

    def types(self) -> list[str]:
        """Of the signals, in order."""
        return [signal.type for signal in self.delivered]

    async def inject(self, event: object) -> None:
        """Let it handle an event. Raises what SensorRunner.inject raises."""
        self.runner.inject(event)
        await self.settle()

    async def advance(self, seconds: float) -> None:
        """Let time pass; what is due happens in order, each at its time."""
        until = self.clock.now() + seconds
        await self.settle()
        while self.clock.step(until):
            await self.settle()

    async def settle(self) -> None:
        """Wait until it has handled what there is, without a step of the clock."""
        await settled(lambda: [self.runner])

    async def __aenter__(self) -> Self:
        self.runner.start()
        await self.settle()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.runner.stop()
        await self.runner.wait_closed()
