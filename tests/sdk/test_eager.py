"""Turns begin without a task of their own, and nobody can tell (`tenure._eager`)."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any

import pytest

from tenure import _eager

_var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="")


async def test_what_waits_for_nothing_has_ended() -> None:
    said: list[str] = []

    async def work() -> None:
        said.append("done")

    assert _eager.begin(work()) is None
    assert said == ["done"]


async def test_what_waits_goes_on_in_a_task_in_its_own_context() -> None:
    gate: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    said: list[Any] = []

    async def work() -> None:
        _var.set("mine")
        said.append(await gate)
        said.append((_var.get(), asyncio.current_task()))
        async with asyncio.timeout(5):
            await asyncio.sleep(0)

    task = _eager.begin(work())
    assert task is not None
    assert _var.get() == ""
    gate.set_result(7)
    await task
    assert said == [7, ("mine", task)]


async def test_failures_of_what_it_waits_for_and_cancellation_reach_it() -> None:
    said: list[str] = []

    async def work(gate: asyncio.Future[None]) -> None:
        try:
            await gate
        except ValueError:
            said.append("failed")
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            said.append("cancelled")
            raise

    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = _eager.begin(work(gate))
    assert task is not None
    gate.set_exception(ValueError())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said == ["failed", "cancelled"]


async def test_a_cancellation_before_the_task_has_run_reaches_it() -> None:
    """The turn that is dropped in the step in which it began is undone before the next one begins."""
    said: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            said.append("undone")

    task = _eager.begin(work())
    assert task is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said == ["undone"]


async def test_a_failure_before_any_wait_is_raised_at_once() -> None:
    async def work() -> None:
        raise ValueError("at once")

    with pytest.raises(ValueError, match="at once"):
        _eager.begin(work())


async def test_the_value_of_what_was_left_is_answered() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    work: Coroutine[Any, Any, int] = answer()
    waits_for = work.send(None)
    assert await _eager.resumed(work, waits_for) == 42
