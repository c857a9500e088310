"""Waiting for agents: told by each change, until the runtime's clock says enough."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pydantic
import pytest
from family_agents import Boss, Worker, boss_of, virtual

import tenure
from tenure import errors
from tenure.storage import MemoryStorage


class Steps(tenure.State):
    done: list[str] = pydantic.Field(default_factory=list)


class Runner(tenure.Agent[Steps], strategy=tenure.FSM()):
    """Gets somewhere."""

    @tenure.action
    def step(self, name: str) -> None:
        if name == "fail":
            raise ValueError("no luck")
        self.state.done.append(name)

    @tenure.action
    def finish(self, ctx: tenure.Context) -> None:
        ctx.transition("completed")

    @tenure.action
    async def hold(self, ctx: tenure.Context) -> None:
        await gates[self.id].wait()
        self.state.done.append("held")

    @tenure.action
    def later(self, ctx: tenure.Context, seconds: float) -> None:
        ctx.after(seconds, Runner.step("later"))

    @tenure.action
    def leave(self, ctx: tenure.Context) -> None:
        ctx.stop("enough")

    @tenure.action
    async def wait_within(self) -> None:
        await runtimes[0].wait("r")


gates: dict[str, asyncio.Event] = {}
runtimes: list[tenure.LocalRuntime] = []


async def waiting(awaitable: Awaitable[Any]) -> "asyncio.Future[Any]":
    """A task that waits already."""
    task = asyncio.ensure_future(awaitable)
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_waiting_for_a_state() -> None:
    async with virtual() as rt:
        runner = await rt.create(Runner, "r")
        task = await waiting(rt.wait(runner, lambda state: len(state.done) == 2))
        await runner.step("a")
        await runner.step("b")
        assert (await task).done == ["a", "b"]
        state = await rt.wait(runner, lambda state: bool(state.done))
        state.done.clear()
        assert rt.state(runner).done == ["a", "b"], "what one gets is a copy"


async def test_waiting_until_an_agent_is_done() -> None:
    async with virtual() as rt:
        runner, other = await rt.create(Runner, "r"), await rt.create(Runner, "o")
        task = await waiting(rt.wait(runner))
        await runner.step("a")
        assert not task.done()
        await runner.finish()
        status = await task
        assert (status.snapshot.status, status.standing, status.turns) == ("success", "idle", 2)
        task = await waiting(rt.wait(other))
        await other.leave()
        assert ((await task).standing, (await task).reason) == ("stopped", "enough")
        assert (await rt.wait(other)).done, "also afterwards"


async def test_what_an_agent_plans_is_waited_for_in_virtual_time() -> None:
    async with virtual() as rt:
        runner = await rt.create(Runner, "r")
        await runner.later(5)
        task = await waiting(rt.wait(runner, lambda state: state.done == ["later"]))
        await rt.advance(5)
        assert (await task).done == ["later"]


async def timed_out(rt: tenure.LocalRuntime, awaitable: Awaitable[Any], seconds: float = 10) -> dict[str, Any]:
    task = await waiting(awaitable)
    await rt.advance(seconds)
    with pytest.raises(errors.WaitTimeout) as caught:
        await task
    return {**caught.value.diagnosis, "text": str(caught.value)}


async def test_a_timeout_says_how_the_agent_stands() -> None:
    async with virtual() as rt:
        runner = await rt.create(Runner, "r")
        found = await timed_out(rt, rt.wait(runner, lambda state: bool(state.done)))
        assert found.pop("text") == (
            "the condition on default/r did not come in 10 s: it is idle and had no turn yet: "
            "nobody asked it for anything"
        )
        assert found == {
            "hint": "it is idle and had no turn yet: nobody asked it for anything",
            "status": "idle",
            "queue_length": 0,
            "turns": 0,
            "waited_ms": 10_000,
            "last_error": "",
        }
        with pytest.raises(errors.ActionFailed):
            await runner.step("fail")
        found = await timed_out(rt, rt.wait(runner, lambda state: bool(state.done), timeout=3), 7)
        assert found["last_error"] == "ActionFailed: ValueError in step: no luck"
        assert found["waited_ms"] == 3000
        assert "last failure was ActionFailed" in found["hint"]


async def test_a_timeout_tells_of_a_turn_that_runs_and_of_the_queue() -> None:
    async with virtual() as rt:
        runner = await rt.create(Runner, "r")
        gates["default/r"] = asyncio.Event()
        calls = [asyncio.ensure_future(runner.hold()), asyncio.ensure_future(runner.step("b"))]
        wait = await waiting(rt.wait(runner, lambda state: len(state.done) == 2, timeout=1))
        rt._engine.clock.step(rt._engine.clock.now() + 1)  # type: ignore[attr-defined] # `advance` would wait for the turn
        with pytest.raises(errors.WaitTimeout) as caught:
            await wait
        assert caught.value.diagnosis["status"] == "processing"
        assert caught.value.diagnosis["queue_length"] == 1
        assert "one of its turns is still running, and 1 wait behind it" in str(caught.value)
        gates["default/r"].set()
        await asyncio.gather(*calls)


async def test_what_cannot_be_waited_for() -> None:
    async with virtual() as rt:
        runner = await rt.create(Runner, "r")
        runtimes[:] = [rt]
        with pytest.raises(errors.NotFound, match="no agent default/nobody"):
            await rt.wait("nobody")
        with pytest.raises(errors.ActionFailed, match="CallInsideTurn in wait_within: default/r waits"):
            await runner.wait_within()
        task = await waiting(rt.wait(runner, lambda state: bool(state.done)))
        await runner.leave()
        with pytest.raises(errors.AgentUnavailable, match="stopped before the condition held: enough"):
            await task
        other = await rt.create(Runner, "o")
        with pytest.raises(ZeroDivisionError):
            await rt.wait(other, lambda _: 1 // 0 > 0)


async def test_a_wait_that_is_cancelled_leaves_nothing_behind() -> None:
    async with virtual() as rt:
        runner = await rt.create(Runner, "r")
        task = await waiting(rt.wait(runner))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert rt._engine.clock.next_at() is None  # type: ignore[attr-defined]
        await runner.step("a")


async def test_waiting_for_a_child() -> None:
    async with virtual() as rt:
        boss = await rt.create(Boss, "boss")
        task = await waiting(rt.wait_child(boss, "ann", lambda state: state.log == ["sums"]))
        await boss.hire_and_tell("ann", "sums")
        assert (await task).log == ["sums"]
        ended = await waiting(rt.wait_child(boss, "ann"))
        await boss.dismiss("ann")
        assert (await ended).reason == "dismissed"
        await rt.idle()
        assert (await rt.wait_child(boss, "ann")).standing == "stopped", "also when it is gone"
        found = await timed_out(rt, rt.wait_child(boss, "bob"), 30)
        assert "the child 'bob' of default/boss did not come in 30 s" in found["text"]


async def test_a_child_that_begins_again_is_waited_for_still() -> None:
    async with virtual(storage=MemoryStorage()) as rt:
        boss = await boss_of(rt, "ann")
        ann = rt.agent(Worker, "ann")
        task = await waiting(rt.wait_child(boss, "ann", lambda state: state.log == ["sums"]))
        with pytest.raises(errors.ActionFailed):
            await ann.work("fail")
        await rt.idle()
        await ann.work("sums")
        assert (await task).log == ["sums"]


async def test_waiting_for_all_and_for_any() -> None:
    async with virtual() as rt:
        one, two = await rt.create(Runner, "one"), await rt.create(Runner, "two")
        every = await waiting(rt.wait_all([one, two]))
        first = await waiting(rt.wait_any([one, two]))
        await two.finish()
        agent, status = await first
        assert (agent, status.id) == (two, "default/two")
        await one.leave()
        assert [status.standing for status in await every] == ["stopped", "idle"]
        three = await rt.create(Runner, "three")
        found = await timed_out(rt, rt.wait_all([two, three], timeout=5), 5)
        assert found["text"].startswith("default/three did not come")
        found = await timed_out(rt, rt.wait_any([three, three], timeout=5), 5)
        assert found["waited_ms"] == 5000
        with pytest.raises(errors.UsageError, match="would never end"):
            await rt.wait_any([])


async def test_status_and_children() -> None:
    async with virtual() as rt:
        boss = await boss_of(rt, "ann")
        assert rt.children(boss) == {"ann": "default/ann"}
        status = rt.status("ann")
        assert (status.standing, status.errors, status.queue_length) == ("idle", 0, 0)
        await rt.stop("ann", "fired")
        assert (rt.status("ann").standing, rt.status("ann").reason) == ("stopped", "fired")
        with pytest.raises(errors.NotFound):
            rt.status("nobody")


async def test_a_status_can_be_watched_to_its_end() -> None:
    async with virtual() as rt:
        runner = await rt.create(Runner, "r")
        gates["default/r"] = asyncio.Event()
        seen: list[str] = []

        async def watch() -> None:
            async for status in rt.watch_status(runner):
                seen.append(f"{status.standing} {status.snapshot.status}")
                if status.standing == "processing":
                    gates["default/r"].set()

        task = await waiting(watch())
        await runner.hold()
        await runner.finish()
        await task
        assert seen[0] == "idle idle"
        assert "processing idle" in seen
        assert seen[-1] == "idle success"


async def test_an_agent_that_somebody_waits_for_is_woken() -> None:
    async with virtual(storage=MemoryStorage()) as rt:
        worker = await rt.create(Worker, "ann")
        await worker.work("a")
        await rt.hibernate(worker)
        assert (await rt.wait(worker, lambda state: state.log == ["a"])).log == ["a"]
        task = await waiting(rt.wait(worker, lambda state: len(state.log) == 2))
        await rt.hibernate(worker)
        await worker.work("b")
        assert (await task).log == ["a", "b"]
