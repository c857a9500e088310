"""Asking two servers so that one which is frozen costs no time: it sends no word, not even that it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


async def first_good(
    asks: Sequence[Callable[[], Awaitable[T]]], good: Callable[[T], bool], *, apart_s: float = 0.0
) -> T:
    """Begin the asks `apart_s` seconds apart, earlier when one has ended, and return the first good answer.

    With none that is good, the last one that came. Whatever is still under way is cancelled. Raises the last error when
    every ask failed.
    """
    waiting = list(asks)
    running: set[asyncio.Future[T]] = set()
    answers: list[T] = []
    failure: BaseException = ValueError("nobody to ask")
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(waiting.pop(0)()))
            pause = apart_s if waiting else None
            done, running = await asyncio.wait(running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is not None:
                    failure = error
                elif good(task.result()):
                    return task.result()
                else:
                    answers.append(task.result())
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=0)
    if answers:
        return answers[-1]
    raise failure
