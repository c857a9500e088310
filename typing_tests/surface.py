"""What users' type checkers see: the example of API.md section 5, and what they must refuse. Never run.

mypy and pyright check this file in strict mode. A line with ignore comments must be an error in both: where one of them
accepted it, its unused ignore would fail the check (`warn_unused_ignores`, `reportUnnecessaryTypeIgnoreComment`).
"""
# pyright: reportUnnecessaryTypeIgnoreComment=true

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, assert_type

import pydantic

import tenure


class CounterState(tenure.State):
    count: int = 0
    names: list[str] = pydantic.Field(default_factory=list[str])


class Counter(tenure.Agent[CounterState]):
    """Counts things."""

    @tenure.action
    async def increment(self, ctx: tenure.Context, by: int = 1) -> int:
        """Add to the counter."""
        self.state.count += by
        ctx.emit("counter.changed", {"count": self.state.count})
        assert_type(await self.value(), int)  # inline, on the same draft
        return self.state.count

    @tenure.action(blocking=True)
    def rename(self, ctx: tenure.Context, old: str, *, new: str) -> list[str]:
        self.state.names.append(new or old or ctx.caller)
        return self.state.names

    @tenure.action
    def reset(self) -> None:
        self.state = CounterState()

    @tenure.query
    def value(self) -> int:
        return self.state.count

    @tenure.query
    async def slow_value(self, ctx: tenure.Context) -> float:
        return ctx.deadline


@tenure.action
async def archive(agent: Counter, ctx: tenure.Context, why: str) -> bool:
    return bool(agent.state.count and ctx.epoch and why)


class Doubler(Counter, actions=[archive]):
    @tenure.action
    async def increment(self, by: int = 1) -> int:
        return await super().increment(by=2 * by)


async def accepted() -> None:
    async with tenure.local() as rt:
        counter = await rt.create(Counter, "counter-1", state={"count": 1})
        assert_type(counter, Counter)
        assert_type(await counter.increment(by=2), int)
        assert_type(await counter.increment(2), int)
        assert_type(await counter.value(), int)
        assert_type(await counter.slow_value(), float)
        assert_type(await counter.rename("a", new="b"), list[str])
        assert_type(await counter.reset(), None)
        task: Coroutine[Any, Any, int] = counter.increment()
        await asyncio.create_task(task)
        assert_type(await counter.call(Counter.increment(by=2)), int)
        assert_type(await counter.call(archive(why="old")), bool)
        assert_type(await counter.send(Counter.increment(by=2)), None)
        assert_type(await counter.call_by_name("increment", {"by": 2}), object)
        assert_type(rt.state(counter), CounterState)
        assert_type(rt.signals, list[tenure.Signal])
        assert_type(await rt.agent(Doubler, "shop/d").increment(), int)


async def on_a_cluster() -> None:
    async with tenure.connect() as client:
        assert_type(client, tenure.AsyncClient)
        counter = await client.create(Counter, "counter-1", pool="gpu")
        assert_type(await counter.increment(by=2), int)
        assert_type(await client.call_by_name("counter-1", "increment", {"by": 2}), object)


def without_a_loop() -> None:
    with tenure.Client() as client:
        counter = client.agent(Counter, "counter-1")
        assert_type(counter, tenure.Reference[Counter])
        assert_type(counter.call(Counter.increment(by=2)), int)
        counter.send(Counter.reset())


def values() -> None:
    assert_type(Counter.increment(by=2), tenure.Instruction[int])
    assert_type(Counter.value(), tenure.Instruction[int])
    assert_type(archive(why="x"), tenure.Instruction[bool])
    agent = Counter.new()
    assert_type(agent, Counter)
    assert_type(Counter.new({"count": 3}).state.count, int)
    assert_type(Counter.cmd(agent, Counter.increment(by=2)), tuple[Counter, tuple[tenure.Directive, ...]])
    make: Callable[..., tenure.Instruction[int]] = Counter.increment
    make()


async def refused(counter: Counter, client: tenure.Client) -> None:
    await counter.increment(bye=2)  # type: ignore[call-arg]
    await counter.increment(by="2")  # type: ignore[arg-type]
    Counter.increment(bye=2)  # type: ignore[call-arg]
    Counter.increment(by="2")  # type: ignore[arg-type]
    await counter.rename("a")  # type: ignore[call-arg]
    await counter.decrement()  # type: ignore[attr-defined]
    archive(reason="x")  # type: ignore[call-arg]
    counter.state.count = "2"  # type: ignore[assignment]
    await counter.call("increment")  # type: ignore[arg-type]
    client.agent(Counter, "c").call(Counter.increment(by="2"))  # type: ignore[arg-type]
    _: str = await counter.increment()  # type: ignore[assignment]


class Wrong(tenure.Agent[int]):  # type: ignore[type-var]
    pass
