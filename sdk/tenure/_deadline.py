"""Until when code may go on: the deadline of its turn, or the earlier one of an action or a plan within the turn."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator
from contextvars import ContextVar

_cap: ContextVar[tuple[object, int] | None] = ContextVar("tenure_deadline", default=None)
"""The turn's scope, and a CLOCK_BOOTTIME in ns. Another turn that a task of this one begins is not bound by it."""


def boot_ns() -> int:
    """CLOCK_BOOTTIME in ns: the clock of deadlines; it goes on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def until(scope: object, deadline_ns: int) -> int:
    """Until when the running code may go on, where its turn may until `deadline_ns`. CLOCK_BOOTTIME; 0: for ever."""
    cap = _cap.get()
    if cap is None or cap[0] is not scope:
        return deadline_ns
    return min(cap[1], deadline_ns) if deadline_ns else cap[1]


@contextlib.contextmanager
def capped(scope: object, cap_ns: int) -> Generator[None]:
    """Let what runs inside, and the tasks that it starts, go on until then at most; 0: as long as before."""
    cap_ns = until(scope, cap_ns)
    token = _cap.set((scope, cap_ns) if cap_ns else None)
    try:
        yield
    finally:
        _cap.reset(token)


def on_loop_clock(deadline_ns: int) -> float:
    """A CLOCK_BOOTTIME deadline on the event loop's clock, in seconds; inf for 0, which means none."""
    if not deadline_ns:
        return math.inf
    import asyncio  # noqa: PLC0415 - a tenth of the time of `import tenure`, and only needed by what runs agents

    left = (deadline_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e9
    try:
        return asyncio.get_running_loop().time() + left
    except RuntimeError:  # in a thread of a blocking action: this is the clock of asyncio's loops
        return time.monotonic() + left
