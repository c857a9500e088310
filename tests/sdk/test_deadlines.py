"""Time and turns: deadlines that reach inwards, cancellation without half a turn, what holds the event loop."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator

import pytest

import tenure
from tenure import _watch, errors
from tenure._turn import Activation
from tenure_link import Turn


class LedgerState(tenure.State):
    total: int = 0
    rows: list[str] = []  # noqa: RUF012 - pydantic copies it


calls: list[str] = []
"""What happened outside of agents, where nothing is undone."""
GATES: list[asyncio.Event] = []


class Ledger(tenure.Agent[LedgerState]):
    """Books that take their time."""

    @tenure.action(blocking=True)
    def time_left_in_a_thread(self, ctx: tenure.Context) -> float:
        return ctx.deadline - time.monotonic()

    @tenure.action
    async def family(self) -> None:
        async def child() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                calls.append("child ended")

        self.state.total += 1
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            group.create_task(child())

    @tenure.action
    async def half(self) -> None:
        self.state.total += 1
        await GATES[0].wait()
        self.state.rows.append("whole")

    @tenure.action
    def hold_the_loop(self) -> None:
        time.sleep(0.11)

    @tenure.action
    async def hold_the_loop_in_a_coroutine(self) -> None:
        await asyncio.sleep(0)
        time.sleep(0.11)  # noqa: ASYNC251 - that is the point

    @tenure.action(timeout=10)
    async def outer_deadline(self, ctx: tenure.Context) -> list[float]:
        now = asyncio.get_running_loop().time()
        return [ctx.deadline - now, await self.inner_deadline() - now, await self.own_deadline() - now]

    @tenure.action
    async def inner_deadline(self, ctx: tenure.Context) -> float:
        return ctx.deadline

    @tenure.action(timeout=1)
    async def own_deadline(self, ctx: tenure.Context) -> float:
        return ctx.deadline

    @tenure.action(timeout=0.01)
    async def late(self) -> str:
        time.sleep(0.02)  # noqa: ASYNC251 - the budget is spent
        return await self.touch()

    @tenure.action
    async def touch(self) -> str:
        calls.append("touched")
        return "touched"

    @tenure.query
    def value(self) -> int:
        return self.state.total


@pytest.fixture(autouse=True)
def nothing_happened_yet() -> None:
    calls.clear()
    GATES[:] = [asyncio.Event()]


@pytest.fixture
async def rt() -> AsyncIterator[tenure.LocalRuntime]:
    async with tenure.local() as runtime:
        yield runtime


@pytest.fixture
async def ledger(rt: tenure.LocalRuntime) -> Ledger:
    return await rt.create(Ledger, "l")


async def test_deadlines_get_tighter_inwards(ledger: Ledger) -> None:
    """The caller's, the action's own, that of one called inline."""
    outer, inner, own = await ledger.outer_deadline()
    assert 9 < outer <= 10
    assert math.isclose(outer, inner, abs_tol=0.1)
    assert 0.5 < own <= 1.1
    outer, inner, own = await ledger.call(Ledger.outer_deadline(), timeout=5)
    assert 4 < outer <= 5
    assert 4 < inner <= 5


async def test_a_thread_has_a_deadline_too(ledger: Ledger) -> None:
    assert 4 < await ledger.call(Ledger.time_left_in_a_thread(), timeout=5) <= 5


async def test_a_spent_budget_begins_nothing(ledger: Ledger) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await ledger.late()
    assert calls == []


async def test_a_caller_that_leaves_leaves_no_half_turn(rt: tenure.LocalRuntime, ledger: Ledger) -> None:
    call = asyncio.create_task(ledger.half())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert rt.state(ledger) == LedgerState()
    GATES[0].set()
    await ledger.touch()
    assert rt.state(ledger) == LedgerState(total=1, rows=["whole"])


async def test_children_of_a_turn_end_with_it(rt: tenure.LocalRuntime, ledger: Ledger) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await ledger.call(Ledger.family(), timeout=0.03)
    assert calls == ["child ended"] * 2
    assert rt.state(ledger).total == 0


async def test_a_turn_that_is_cancelled_is_undone() -> None:
    """As a worker does when its daemon gives the turn up."""
    activation = Activation(Ledger, uid="1", agent_id="d/l", epoch=1, stored=None)
    for action in ("half", "family"):
        turn = asyncio.create_task(activation.run(Turn(1, "1", "action", action, b"", 0)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert (await activation.run(Turn(2, "1", "query", "value", b"", 0))).reply == b"\x00"
    assert calls == ["child ended"] * 2


@pytest.mark.parametrize("action", ["hold_the_loop", "hold_the_loop_in_a_coroutine"])
async def test_what_holds_the_loop_is_named(ledger: Ledger, caplog: pytest.LogCaptureFixture, action: str) -> None:
    with caplog.at_level(logging.WARNING, "tenure.agent"):
        await ledger.call(getattr(Ledger, action)())
        await ledger.touch()
    about = [record.message for record in caplog.records if f"Ledger.{action} of default/l held" in record.message]
    assert len(about) == 1
    assert "blocking=True" in about[0]


async def test_waiting_is_not_holding(caplog: pytest.LogCaptureFixture) -> None:
    """Only the time between waits counts; exceptions and results pass through."""
    now = [0.0]

    async def body(step: float) -> str:
        now[0] += step
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            now[0] += step
            return "done"
        return "never"

    assert await _watch.watched(body(0.09), "a", "x", lambda: now[0]) == "done"
    assert caplog.records == []
    assert await _watch.watched(body(0.2), "a", "x", lambda: now[0]) == "done"
    assert len(caplog.records) == 2
