"""Actions that hold the event loop for long are named in the log: all other agents of the process wait for them."""

from __future__ import annotations

import logging
import time
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

LONG_S = 0.1
"""A step of an action that takes longer is logged."""

_logger = logging.getLogger("tenure.agent")


def note(label: str, agent_id: str, seconds: float) -> None:
    """Log a step that held the loop so long, if that is long."""
    if seconds > LONG_S:
        _logger.warning(
            "%s of %s held the event loop for %.0f ms, and every agent of the process with it: "
            "use @tenure.action(blocking=True), or await asyncio.to_thread(...)",
            label,
            agent_id,
            seconds * 1e3,
            extra={"agent": agent_id},
        )


@types.coroutine
def watched(
    body: Coroutine[Any, Any, Any], label: str, agent_id: str, clock: Callable[[], float] | None = None
) -> Generator[Any, Any, Any]:
    """Await a coroutine, with an eye on the time between its waits. `clock` in seconds; None: the machine's."""
    clock = clock or time.monotonic  # looked up late: a simulation has its own
    step: Callable[[Any], Any] = body.send
    value: Any = None
    while True:
        began = clock()
        try:
            waits_for = step(value)
        except StopIteration as end:
            return end.value
        finally:
            note(label, agent_id, clock() - began)
        try:
            value = yield waits_for
            step = body.send
        except GeneratorExit:
            body.close()
            raise
        except BaseException as error:  # noqa: BLE001 - it is the body's
            step, value = body.throw, error
