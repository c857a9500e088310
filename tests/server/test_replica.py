"""Those who wait for the registry to change, and what wakes them."""

from __future__ import annotations

import asyncio

from tenured.core import commands
from tenured.core.agentspec import AgentSpec
from tenured.server.replica import Replica


class World:
    def __init__(self) -> None:
        self.replica = Replica()
        self.index = 0

    def apply(self, command: commands.Command) -> None:
        self.index += 1
        self.replica.apply(self.index, commands.encode(command))

    def create(self, name: str, config: bytes = b"") -> None:
        spec = AgentSpec(id=f"shop/{name}", class_name="C", config=config)
        self.apply(commands.ApplyAgents(agents=(spec,), managed_by="API"))

    def uid(self, name: str) -> str:
        agent = self.replica.registry.agent(f"shop/{name}")
        assert agent is not None
        return agent.uid


async def test_who_waits_for_an_agent_is_woken_by_its_row_alone() -> None:
    """Of thousands of long polls an entry wakes those that it concerns."""
    world = World()
    world.create("a")
    world.create("b")
    looks: list[int] = []

    def looked() -> bool:
        looks.append(world.index)
        return world.replica.registry.agents[world.uid("a")].spec.config == b"\x80"

    waiting = asyncio.ensure_future(world.replica.until_agent(world.uid("a"), looked, 5.0))
    await asyncio.sleep(0)
    world.create("b", config=b"\x80")
    world.create("c")
    for _ in range(5):
        await asyncio.sleep(0)
    assert looks == [2]
    world.create("a", config=b"\x80")
    assert await waiting
    assert looks == [2, 5]


async def test_who_waits_for_an_agent_hears_that_it_is_gone_or_that_everything_changed() -> None:
    """Its row is dropped; a snapshot is installed."""
    world = World()
    world.create("a")
    uid = world.uid("a")
    gone = asyncio.ensure_future(world.replica.until_agent(uid, lambda: uid not in world.replica.registry.agents, 5.0))
    await asyncio.sleep(0)
    world.apply(commands.DeleteAgents(ids=("shop/a",), managed_by="API"))
    assert await gone
    world.create("b")
    other, uid = Replica(), world.uid("b")
    late = asyncio.ensure_future(world.replica.until_agent(uid, lambda: uid not in world.replica.registry.agents, 5.0))
    await asyncio.sleep(0)
    restore = world.replica.restore()
    for chunk in other.snapshot():
        restore.feed(chunk)
    restore.finish()
    assert await late


async def test_who_waits_for_nothing_that_comes_is_told_so_and_forgotten() -> None:
    """The time passes."""
    world = World()
    world.create("a")
    assert not await world.replica.until_agent(world.uid("a"), lambda: False, 0.0)
    world.create("a", config=b"\x80")
