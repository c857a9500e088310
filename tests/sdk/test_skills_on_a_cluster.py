"""Skills in the simulated cluster: what an agent was given is still there after its host has died."""

import pydantic
import pytest

import tenure
from tenure import errors
from tenure.skills import Identity, Memory
from tenure.testing import Simulation, simulate


class BagState(tenure.State):
    items: list[str] = pydantic.Field(default_factory=list)
    starts: int = 0


class Bag(tenure.Skill[BagState], key="bag", requires=["identity"]):
    """Holds things."""

    limit: int = 2

    def on_start(self, ctx: tenure.Context) -> None:
        self.state.starts += 1

    @tenure.action
    def put(self, item: str) -> int:
        self.state.items.append(item)
        if len(self.state.items) > self.limit:
            raise ValueError("full")
        return len(self.state.items)

    @tenure.query
    def items(self) -> list[str]:
        return self.state.items

    @tenure.query
    def starts(self) -> int:
        return self.state.starts


class Traveller(tenure.Agent[tenure.State], skills=[Identity(), Bag()], attachable=[Memory]):
    """Has a bag, and may be given more."""

    @tenure.action
    def pack(self, ctx: tenure.Context) -> None:
        ctx.attach(Bag(limit=1, alias="pocket"))
        ctx.attach(Memory())

    @tenure.action
    def forget(self, ctx: tenure.Context) -> None:
        ctx.detach("memory")

    @tenure.action
    def remember(self, ctx: tenure.Context) -> None:
        ctx.attach(Memory())


async def travels(cluster: Simulation) -> None:
    """Skills attached and detached, with a host that dies after each."""
    ann = await cluster.create(Traveller, "ann")
    await ann.skill(Bag).put(item="map")
    await ann.pack()
    await ann.call(Memory.put("world", "sky", "blue"))
    await ann.skill(Bag, "pocket").put(item="coin")
    cluster.faults.kill_host(cluster.holder(ann))
    with pytest.raises(errors.ActionFailed, match="full"):
        await ann.call(Bag.put(item="stone").of("pocket"))
    assert await ann.skill(Bag).items() == ["map"]
    assert await ann.skill(Bag, "pocket").items() == ["coin"]
    assert await ann.call(Memory.get("world", "sky")) == "blue"
    assert await ann.skill(Bag).starts() == 2
    await ann.forget()
    cluster.faults.kill_host(cluster.holder(ann))
    with pytest.raises(errors.UnknownMethod, match="no skill 'memory'"):
        await ann.call(Memory.get("world", "sky"))
    await ann.remember()
    assert await ann.call(Memory.get("world", "sky")) == "blue"


def test_skills_survive_the_death_of_hosts() -> None:
    """In three worlds."""
    simulate(travels, seeds=range(3), timeout=60)
