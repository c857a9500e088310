"""The time and the dice of user code, which has no seams: `time` and `random` of the standard library, for as long as a
simulation runs, in its thread only.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from tenured.simulation.timeline import NS, Clock, ProcessLoop, Timeline


@contextmanager
def virtual(timeline: Timeline, seed: int) -> Generator[None]:
    """`time.time()` and the like show the clocks of the machine whose process runs, `time.sleep` takes no time, and
    `random` repeats itself. Never nested.
    """
    real = {name: getattr(time, name) for name in _READERS}
    here, nobody, dice = threading.get_ident(), Clock(), random.getstate()

    def reader(name: str, read: Callable[..., Any]) -> Callable[..., Any]:
        def clock(*arguments: Any) -> Any:
            if threading.get_ident() != here:
                return real[name](*arguments)
            loop = asyncio._get_running_loop()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
            return read(loop.clock if isinstance(loop, ProcessLoop) else nobody, timeline.now, *arguments)

        return clock

    for name, read in _READERS.items():
        setattr(time, name, reader(name, read))
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(dice)
        for name, function in real.items():
            setattr(time, name, function)


def _of_kind(clock: Clock, now: int, kind: int) -> int:
    if kind == time.CLOCK_BOOTTIME:
        return clock.boot_ns(now)
    if kind == time.CLOCK_REALTIME:
        return int(clock.wall_s(now) * NS)
    return clock.monotonic_ns(now)


def _wall_s(clock: Clock, now: int) -> float:
    return clock.wall_s(now)


def _wall_ns(clock: Clock, now: int) -> int:
    return int(clock.wall_s(now) * NS)


def _monotonic_s(clock: Clock, now: int) -> float:
    return clock.monotonic_ns(now) / NS


def _monotonic_ns(clock: Clock, now: int) -> int:
    return clock.monotonic_ns(now)


def _of_kind_s(clock: Clock, now: int, kind: int) -> float:
    return _of_kind(clock, now, kind) / NS


def _at_once(*_: object) -> None:
    """A sleep that blocks the process."""


_READERS: dict[str, Callable[..., Any]] = {
    "time": _wall_s,
    "time_ns": _wall_ns,
    "monotonic": _monotonic_s,
    "monotonic_ns": _monotonic_ns,
    "clock_gettime": _of_kind_s,
    "clock_gettime_ns": _of_kind,
    "sleep": _at_once,
}
