"""The shell around one sensor: its queue, its timers, the task of its source, and what failures lead to."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

import pydantic

from tenure._clock import Clock, Handle
from tenure.errors import Busy, UsageError
from tenure.observe import Redactor
from tenure.sensors._effects import After, Cancel, Deliver, Ending, Finish, Report, SensorEffect
from tenure.sensors._sensor import Sensor
from tenure.signals import Signal

FAILED = "tenure.sensor.failed"
"""Type of the signal that reports a failure: sensor, tag, during, error_type, message, failures."""
ENDED = "tenure.sensor.ended"
"""Type of the signal that reports an end that nobody asked for: sensor, tag, kind, reason."""
TIMERS = 1_000
"""What a sensor may wait for at a time."""
_BATCH = 100
"""Events that are handled before others get their turn on the event loop."""
_QUIET = 10
"""Steps of the event loop without a sign of life, after which a sensor is taken to wait."""
_logger = logging.getLogger("tenure.sensors")
_redactor = Redactor()


@dataclass(frozen=True, slots=True)
class Policy:
    """What failures lead to. Times in seconds."""

    on_error: Literal["continue", "end"] = "continue"
    """After an `on_event` that raised."""
    max_failures: int = 10
    """Of `on_event` in a row; then it ends all the same."""
    restarts: int = 5
    """Of `events`; then the sensor ends."""
    backoff: float = 1.0
    """Before the first restart; it doubles with each."""
    backoff_max: float = 60.0
    peace: float = 600.0
    """An `events` that ran for so long has its restarts back."""
    queue: int = 1_000
    """Events that may wait. `inject` is refused then, and `events` waits."""


DEFAULT_POLICY = Policy()


class _Begin:
    """The first item of the queue."""


class SensorRunner:
    """Runs one sensor on the running event loop, from `start` to `stop` or its own end.

    `deliver` gets its signals: what it raises is logged, and that signal is lost. `on_end` is told once how it ended.
    `source` is that of its signals. Nothing is delivered after the end. Not for use from other threads.
    """

    def __init__(
        self,
        sensor: Sensor[Any],
        *,
        clock: Clock,
        deliver: Callable[[Signal], None],
        on_end: Callable[[Ending], None] = lambda _: None,
        source: str = "sensor",
        tag: str = "",
        policy: Policy = DEFAULT_POLICY,
    ) -> None:
        self.sensor = sensor
        self.tag = tag or sensor.name
        self.ending: Ending | None = None
        """How it ended; None: it has not."""
        self.handled = 0
        """Events, `begin` included."""
        self.delivered = 0
        self.refused = 0
        """Signals that `deliver` did not take."""
        self.failures = 0
        """Of `on_event`, in a row."""
        self._clock = clock
        self._deliver = deliver
        self._on_end = on_end
        self._source = Signal.new(FAILED, source=source).source  # raises SignalInvalid now rather than later
        self._policy = policy
        self._queue: deque[object] = deque()
        self._space = asyncio.Event()
        self._timers: dict[str | int, Handle] = {}
        self._numbers = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether events wait to be handled."""
        return bool(self._queue)

    @property
    def closed(self) -> bool:
        """Whether it has ended and its source is gone."""
        return self.ending is not None and (self._task is None or self._task.done())

    def start(self) -> None:
        """Begin, in the next step of the event loop. Raises UsageError the second time."""
        if self._loop is not None or self.ending is not None:
            raise UsageError(f"{self.tag} was started before: make another runner")
        self._loop = asyncio.get_running_loop()
        self.sensor.pauses = self._pause
        self._put(_Begin())

    def inject(self, event: object) -> None:
        """Let the sensor handle an event from elsewhere. Raises Busy when too many wait, UsageError if it has ended."""
        if self._loop is None or self.ending is not None:
            raise UsageError(f"the sensor {self.tag} does not run" + (f": {self.ending.reason}" if self.ending else ""))
        if len(self._queue) >= self._policy.queue:
            raise Busy(f"{self._policy.queue} events wait for the sensor {self.tag} of {self._source}")
        self._put(event)

    def stop(self, reason: str = "stopped") -> None:
        """End it now; what waits is forgotten. Its source may take a while to clean up: see `wait_closed`."""
        self._end(Ending("stopped", reason))

    async def wait_closed(self, timeout: float = 5.0) -> bool:  # noqa: ASYNC109 - in seconds, as everywhere in the SDK
        """Wait until the source of a sensor that has ended is gone; False: it is not, after so many seconds."""
        if self._task is None:
            return True
        done, _ = await asyncio.wait({self._task}, timeout=timeout)
        return bool(done)

    def _put(self, event: object) -> None:
        self._queue.append(event)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and self._loop is not None:
            self._scheduled = True
            # Whoever caused the event, e.g. a turn, is not what the sensor runs in.
            self._loop.call_soon(self._drain, context=contextvars.Context())

    def _drain(self) -> None:
        self._scheduled = False
        for _ in range(min(len(self._queue), _BATCH)):
            if not self._queue:  # it has ended
                return
            self._handle(self._queue.popleft())
        self._space.set()
        if self._queue:
            self._schedule()

    def _handle(self, event: object) -> None:
        first = isinstance(event, _Begin)
        sensor, sensor.now = self.sensor, self._clock.now()
        before = sensor.state
        self.handled += 1
        try:
            before = before.model_copy(deep=True) if isinstance(before, pydantic.BaseModel) else before
            effects = self._checked_all(sensor.begin() if first else sensor.on_event(event))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever the author's code raises
            sensor.state = before
            self.failures += 1
            self._report("begin" if first else "on_event", error, self.failures)
            if first or self._policy.on_error == "end" or self.failures >= self._policy.max_failures:
                self._end(Ending("failed", _reason(error)))
            return
        self.failures = 0
        for effect in effects:
            if self.ending is not None:
                return
            self._apply(effect)
        if first and self.ending is None and sensor.has_source and self._loop is not None:
            name = f"sensor {self.tag} of {self._source}"
            self._task = self._loop.create_task(self._run_source(), name=name)

    def _checked_all(self, effects: Iterable[SensorEffect] | None) -> list[Deliver | After | Cancel | Finish]:
        """Raises what is wrong with them: then none is carried out."""
        if effects is None:
            raise TypeError("begin and on_event return effects; nothing to do is an empty list, not None")
        return [self._checked(effect) for effect in effects]

    def _checked(self, effect: SensorEffect) -> Deliver | After | Cancel | Finish:
        """An effect that will not fail. Raises what is wrong with it."""
        match effect:
            case Report(type=type_):
                if self.sensor.signals and not self.sensor.__declared__.candidates(type_):
                    raise UsageError(
                        f"{self.sensor.name} says that it reports {list(self.sensor.signals)}, not {type_!r}"
                    )
                return Deliver(self._signal(effect))
            case After(seconds=seconds, name=name):
                if not (math.isfinite(seconds) and seconds >= 0):
                    raise ValueError(f"After takes seconds from now on, not {seconds!r}")
                if len(self._timers) >= TIMERS and name not in self._timers:
                    raise UsageError(f"{self.sensor.name} waits for {TIMERS} things: Cancel some, or name them")
                return effect
            case Deliver() | Cancel() | Finish():
                return effect
            case _:
                raise TypeError(f"an effect is Report, Deliver, After, Cancel or Finish, not {type(effect).__name__}")

    def _signal(self, report: Report) -> Signal:
        return Signal.new(
            report.type,
            report.data,
            source=self._source,
            subject=report.subject,
            time=datetime.fromtimestamp(self._clock.now(), UTC),
            dataschema=report.dataschema,
            extensions=report.extensions,
        )

    def _apply(self, effect: Deliver | After | Cancel | Finish) -> None:
        match effect:
            case Deliver(signal=signal):
                self._send(signal)
            case After(seconds=seconds, event=event, name=name):
                self._cancel(name)
                key = name or next(self._numbers)
                self._timers[key] = self._clock.call_at(self._clock.now() + seconds, lambda: self._due(key, event))
            case Cancel(name=name):
                self._cancel(name)
            case Finish(reason=reason):
                self._end(Ending("finished", reason))

    def _due(self, key: str | int, event: object) -> None:
        if self._timers.pop(key, None) is not None:
            self._put(event)

    def _cancel(self, name: str) -> None:
        if name and (handle := self._timers.pop(name, None)) is not None:
            handle.cancel()

    def _send(self, signal: Signal) -> None:
        try:
            self._deliver(signal)
            self.delivered += 1
        except Exception:
            self.refused += 1
            _logger.exception(
                "%s: a %s of the sensor %s was not taken and is lost", self._source, signal.type, self.tag
            )

    def _report(self, during: str, error: BaseException, failures: int) -> None:
        _logger.error("%s: the sensor %s failed in %s", self._source, self.tag, during, exc_info=error)
        kind, message = _redactor.error(error)
        what = {"during": during, "error_type": kind, "message": message, "failures": failures}
        self._send(self._signal(Report(FAILED, {"sensor": self.sensor.name, "tag": self.tag, **what})))

    def _end(self, ending: Ending) -> None:
        if self.ending is not None:
            return
        self.ending = ending
        self._queue.clear()
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        if self._task is not None:
            self._task.cancel()
        try:
            self.sensor.end(ending)
        except Exception:
            _logger.exception("%s: the sensor %s failed in end", self._source, self.tag)
        if not ending.expected:
            what = {"sensor": self.sensor.name, "tag": self.tag, "kind": ending.kind, "reason": ending.reason}
            self._send(self._signal(Report(ENDED, what)))
        try:
            self._on_end(ending)
        except Exception:
            _logger.exception("%s: whoever waits for the end of the sensor %s failed", self._source, self.tag)

    async def _run_source(self) -> None:
        failures = 0
        while True:
            began = self._clock.now()
            try:
                await self._read_source()
            except (Exception, asyncio.CancelledError) as error:
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise
                await self._until_fewer_than(1)  # what came before the failure is told before it
                failures = 1 if self._clock.now() - began >= self._policy.peace else failures + 1
                self._report("events", error, failures)
                if failures > self._policy.restarts:
                    self._end(Ending("failed", f"its events ended {failures} times: {_reason(error)}"))
                    return
            else:
                _logger.debug("%s: the source of the sensor %s is done", self._source, self.tag)
                return
            await self._pause(min(self._policy.backoff * 2 ** (failures - 1), self._policy.backoff_max))

    async def _read_source(self) -> None:
        generator = cast(AsyncGenerator[object], self.sensor.events())  # as was checked
        async with aclosing(generator) as events:
            async for event in events:
                await self._until_fewer_than(self._policy.queue)
                self._put(event)

    async def _until_fewer_than(self, waiting: int) -> None:
        while len(self._queue) >= waiting:
            self._space.clear()
            await self._space.wait()

    async def _pause(self, seconds: float) -> None:
        """Wait by the clock of the runtime."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        handle = self._clock.call_at(
            self._clock.now() + seconds, lambda: None if future.done() else future.set_result(None)
        )
        try:
            await future
        finally:
            handle.cancel()


async def settled(runners: Callable[[], Iterable[SensorRunner]]) -> None:
    """Wait until these have handled what there is, and their sources wait for the world. The clock is not touched."""
    quiet, before = 0, -1
    while quiet < _QUIET:
        await asyncio.sleep(0)
        now = [(runner.busy, runner.handled) for runner in runners()]
        handled = sum(count for _, count in now)
        quiet = 0 if handled != before or any(busy for busy, _ in now) else quiet + 1
        before = handled


def _reason(error: BaseException) -> str:
    kind, message = _redactor.error(error)
    return f"{kind}: {message}" if message else kind
