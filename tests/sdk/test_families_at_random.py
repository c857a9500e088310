"""Stories by seed: families and sleep, with a storage that takes its time; what must hold in the end holds."""

import asyncio
import random
from typing import Any

import pydantic
import pytest
from family_agents import virtual

import tenure
from tenure import errors
from tenure.directives import ParentEnd, Restart
from tenure.policies import StopOnError
from tenure.storage import MemoryStorage

NAMES = [f"n{index}" for index in range(8)]


class Log(tenure.State):
    notes: int = 0
    heard: list[str] = pydantic.Field(default_factory=list)


class Node(tenure.Agent[Log], on_error=StopOnError()):
    """May be anybody's child, and anybody's parent."""

    @tenure.action
    def note(self) -> int:
        self.state.notes += 1
        return self.state.notes

    @tenure.action
    def spawn(self, ctx: tenure.Context, name: str, end: ParentEnd, restart: Restart) -> None:
        ctx.spawn(Node, name, on_parent_end=end, restart=restart)

    @tenure.action
    def adopt(self, ctx: tenure.Context, name: str, end: ParentEnd) -> None:
        ctx.adopt(name, on_parent_end=end)

    @tenure.action
    def dismiss(self, ctx: tenure.Context, name: str) -> None:
        if name in ctx.children:
            ctx.stop_child(name)

    @tenure.action
    def fail(self) -> None:
        raise ValueError("as asked")

    @tenure.query
    def family(self, ctx: tenure.Context) -> tuple[str, dict[str, str]]:
        return ctx.parent.id if ctx.parent else "", dict(ctx.children)


class Slow(MemoryStorage):
    """Lets others run while it reads and writes."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    async def get(self, key: str) -> Any:
        await self._pause()
        return await super().get(key)

    async def put(self, key: str, data: bytes, *, expected: int | None = None) -> int:
        await self._pause()
        return await super().put(key, data, expected=expected)

    async def _pause(self) -> None:
        for _ in range(self._rng.randrange(4)):
            await asyncio.sleep(0)


async def _step(rt: tenure.LocalRuntime, rng: random.Random) -> None:
    one, other = (rt.agent(Node, name) for name in rng.sample(NAMES, 2))
    end: ParentEnd = rng.choice(["stop", "continue", "orphan"])
    restart: Restart = rng.choice(["transient", "permanent", "temporary"])
    name = other.id.partition("/")[2]
    try:
        match rng.randrange(10):
            case 0 | 1:
                await one.spawn(name, end, restart)
            case 2:
                await one.adopt(name, end)
            case 3:
                await one.dismiss(name)
            case 4:
                await one.fail()
            case 5 | 6:
                await rt.hibernate(one)
            case 7:
                await rt.stop(one)
            case 8:
                await rt.create(Node, name)
            case _:
                await one.note()
    except errors.CallError:
        pass  # refused: as it may be


async def _check(rt: tenure.LocalRuntime) -> None:
    families = {}
    for name in NAMES:
        if rt.alive(name) or rt._engine.expected(f"default/{name}"):
            families[f"default/{name}"] = await rt.agent(Node, name).family()
    for agent, (parent, children) in families.items():
        if parent:
            assert parent in families, f"{agent} is a child of {parent}, which is not there"
            assert agent in families[parent][1].values(), f"{parent} does not know its child {agent}"
        for child in children.values():
            assert child in families, f"{agent} has a child {child} that is not there"
            assert families[child][0] == agent, f"{child} does not know its parent {agent}"


@pytest.mark.parametrize("seed", range(20))
async def test_families_agree_whatever_happens(seed: int) -> None:
    rng = random.Random(seed)
    async with virtual(storage=Slow(rng)) as rt:
        for name in NAMES[:4]:
            await rt.create(Node, name)
        for _ in range(20):
            await asyncio.gather(*(_step(rt, rng) for _ in range(4)))
            if rng.random() < 0.3:
                await rt.advance(rng.randrange(60))
        await rt.idle()
        await _check(rt)
