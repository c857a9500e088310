"""What tests of steps have in common."""

import asyncio
from collections.abc import Awaitable

import pytest
import step_agents as sample
from step_agents import Shop

from tenure import errors
from tenure.signals import Signal
from tenure.testing import VirtualRuntime

HOUR = 3600.0


def nobody_was_asked() -> None:
    """Begin anew outside."""
    sample.service.__init__()  # type: ignore[misc]
    sample.attempts.clear()
    sample.plan.clear()
    sample.prices = iter(range(100))


def approved(by: str = "ann") -> Signal:
    return Signal.new("order.approved", by, source="desk")


async def started(rt: VirtualRuntime, shop: Shop, what: str = "a cup") -> "asyncio.Task[str]":
    """An order that waits for its approval; its caller has patience."""
    task = asyncio.create_task(shop.call(Shop.order(what=what), timeout=10 * HOUR))
    await rt.idle()
    return task


async def ended(call: "Awaitable[str]") -> object:
    """The result of a call, or its error."""
    (end,) = await asyncio.gather(call, return_exceptions=True)
    return end


async def faults_restart(rt: VirtualRuntime, *calls: "asyncio.Task[str]") -> None:
    """The process ends, and its callers do not learn how their calls end."""
    await rt.faults.restart()
    for call in calls:
        with pytest.raises(errors.Unavailable) as caught:
            await call
        assert caught.value.outcome == "unknown"
