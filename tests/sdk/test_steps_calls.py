"""Turns that wait for other agents, in the local runtime: protocol 9, 5 and 6."""

import asyncio

import pytest
from step_agents import Asks
from step_support import HOUR, ended, faults_restart

from tenure import errors
from tenure.testing import VirtualRuntime

pytestmark = pytest.mark.usefixtures("outside_anew")


async def pair(rt: VirtualRuntime) -> tuple[Asks, Asks]:
    return await rt.create(Asks, "a"), await rt.create(Asks, "b")


async def test_a_turn_asks_another_agent(rt: VirtualRuntime) -> None:
    """The reply resumes it; nothing is left on either side."""
    a, b = await pair(rt)
    assert await a.ask(to="b") == "hello yourself"
    assert (await a.log(), await b.log()) == (["hello yourself"], ["was asked hello"])
    await rt.idle()
    assert [held.activation.slices for held in rt._engine.agents.values()] == [{}, {}]
    assert await a.read(to=b.id) == ["was asked hello"]


async def test_what_the_other_agent_raises_is_raised(rt: VirtualRuntime) -> None:
    """So is that there is none."""
    a, _ = await pair(rt)
    with pytest.raises(errors.ActionFailed, match="no answer"):
        await a.ask(to="b", text="fail")
    with pytest.raises(errors.NotFound):
        await a.ask(to="nobody")


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
@pytest.mark.parametrize(("who", "commit"), [(who, n) for who in ("ask_slowly", "slow") for n in range(5)])
async def test_a_crash_at_any_commit_of_a_call(rt: VirtualRuntime, who: str, commit: int, when: str) -> None:
    """The other agent does it once, and the reply comes."""
    a, b = await pair(rt)
    rt.faults.crash_turn(f"Asks.{who}", after=commit, when=when)  # type: ignore[arg-type]
    task = asyncio.create_task(a.call(Asks.ask_slowly(to="b"), timeout=HOUR))
    await rt.advance(200)
    end = await ended(task)
    if who == "ask_slowly" and (commit == 0 or (commit, when) == (2, "after_commit")):
        assert isinstance(end, errors.WorkerCrashed if when == "before_commit" else errors.Unavailable)
    else:
        assert end == "slowly yourself"
    if who == "ask_slowly" and (commit, when) == (0, "before_commit"):
        return
    assert await b.log() == ["was asked slowly"]


@pytest.mark.parametrize("seconds", [0, 30, 61])
async def test_a_call_survives_the_process(rt: VirtualRuntime, seconds: float) -> None:
    """It is asked again under its key, and done once; whoever is there first."""
    a, b = await pair(rt)
    task = asyncio.create_task(a.call(Asks.ask_slowly(to="b"), timeout=HOUR))
    await rt.advance(seconds)
    if not task.done():
        await faults_restart(rt, task)
    await rt.advance(100)
    assert await b.log() == ["was asked slowly"]
    assert rt._engine.agents["default/a"].activation.slices == {}


async def test_a_reply_that_was_lost_is_the_recorded_one(rt: VirtualRuntime) -> None:
    """The other agent has committed its turn, and the process ends before the reply is."""
    a, b = await pair(rt)
    rt.faults.fail_storage(after=3)  # accepted, waits, answered: the reply is not committed
    task = asyncio.create_task(a.ask(to="b"))
    await rt.idle()
    await faults_restart(rt, task)
    await rt.advance(10)
    assert (await a.log(), await b.log()) == (["hello yourself"], ["was asked hello"])


async def test_a_call_has_its_time(rt: VirtualRuntime) -> None:
    """DeadlineExceeded, "unknown": the other one may have done it."""
    a, b = await pair(rt)
    busy = asyncio.create_task(b.call(Asks.slow(text="first"), timeout=HOUR))
    await rt.idle()
    task = asyncio.create_task(a.ask(to="b", timeout=5))
    await rt.advance(6)
    with pytest.raises(errors.DeadlineExceeded, match="no reply came in time"):
        await task
    await rt.advance(100)
    await busy
    assert await b.log() == ["was asked first", "was asked hello"]


async def test_turns_that_would_wait_for_each_other_are_refused(rt: VirtualRuntime) -> None:
    """With the chain of their ids."""
    a, _ = await pair(rt)
    with pytest.raises(errors.WaitCycle, match=r"default/a -> default/b -> default/a"):
        await a.round(to=["b", "a"])
    assert await a.round(to=["b"]) == "the end"
    with pytest.raises(errors.WaitCycle, match=r"default/a -> default/a"):
        await a.ask(to="a")


async def test_a_cycle_that_closes_later_is_refused_too(rt: VirtualRuntime) -> None:
    """Each of two turns comes to its call while the other one is suspended."""
    a, b = await pair(rt)
    calls = [asyncio.create_task(one.call(Asks.later(to=other), timeout=HOUR)) for one, other in ((a, "b"), (b, "a"))]
    await rt.advance(11)
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["WaitCycle", "str"]
