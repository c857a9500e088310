"""Coroutines that begin at once, and become tasks only if they have to wait (as `asyncio.eager_task_factory` of Python
3.12 does): most turns end in the step in which they begin, and a task costs as much as a tenth of one.
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")


def begin(work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Run it until it waits; None: it has ended. Raises what it raises before it waits for the first time.

    Until then it has no current task.
    """
    context = contextvars.copy_context()
    try:
        waits_for = context.run(work.send, None)
    except StopIteration:
        return None
    rest = _rest(work, waits_for)
    context.run(rest.send, None)
    return asyncio.get_running_loop().create_task(rest, context=context)


@types.coroutine
def resumed(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Await what is left of it, from the wait that it has come to."""
    while True:
        step: Callable[[Any], Any] = work.send
        try:
            given: Any = yield waits_for
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 - it is the work's
            step, given = work.throw, error
        try:
            waits_for = step(given)
        except StopIteration as end:
            return cast(T, end.value)


async def _rest(work: Coroutine[Any, Any, None], waits_for: Any) -> None:
    try:
        await into_task()  # before the task is made: what is thrown into one before its first step would not get here
    except BaseException as error:  # noqa: BLE001 - it is the work's
        try:
            waits_for = work.throw(error)
        except StopIteration:
            return
    await resumed(work, waits_for)


@types.coroutine
def into_task() -> Generator[None, None, None]:
    """From here on there is a current task: wait for nothing, once."""
    yield
