"""The clocks of this process. Everything outside of the core that asks for the time asks here.

One place, so that a simulated process reads its machine's clocks instead (`tenured.simulation`, docs/adr/0018).
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol


class Clocks(Protocol):
    """Where the time comes from."""

    def boot_ns(self) -> int:
        """Nanoseconds; runs on in suspend, never jumps [boottime]."""
        ...

    def wall_s(self) -> float:
        """Seconds since 1970, as this machine believes; for display only. May jump."""
        ...


class SystemClocks:
    """Those of the kernel."""

    def boot_ns(self) -> int:
        """CLOCK_BOOTTIME."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def wall_s(self) -> float:
        """CLOCK_REALTIME."""
        return time.time()


class _Source:
    """Functions and not the object: a turn asks for the time ten times."""

    def __init__(self, clocks: Clocks) -> None:
        self.read_from(clocks)

    def read_from(self, clocks: Clocks) -> None:
        self.clocks, self.boot_ns, self.wall_s = clocks, clocks.boot_ns, clocks.wall_s


_source = _Source(SystemClocks())


def boot_ns() -> int:
    """The clock of leases: runs on in suspend, never jumps (protocol 1)."""
    return _source.boot_ns()


def wall_s() -> float:
    """The wall clock, for display only."""
    return _source.wall_s()


@contextmanager
def replaced(clocks: Clocks) -> Generator[None]:
    """While it lasts, this process reads those clocks. For simulations: never nested, never in a thread."""
    before = _source.clocks
    _source.read_from(clocks)
    try:
        yield
    finally:
        _source.read_from(before)
