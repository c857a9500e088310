"""Agents whose turns come to wait for each other, on hosts of their own (protocol 9, rule 12)."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pydantic

import tenure
from tenure import errors
from tenure.testing import Simulation

ROUNDS = 4


class Told(tenure.State):
    """What has been done here."""

    answered: list[str] = pydantic.Field(default_factory=list)
    outcomes: dict[str, str] = pydantic.Field(default_factory=dict[str, str])


class Neighbour(tenure.Agent[Told]):
    """Asks others in turns of its own, and for others."""

    @tenure.action
    async def ask(self, ctx: tenure.Context, name: str, whom: list[str]) -> str:
        """Think, so that others do meanwhile; ask the first, who asks the next before answering, and so on."""
        await ctx.step("think", thought, name)
        await ctx.sleep(0.2)
        try:
            outcome = await ctx.call(whom[0], Neighbour.answer(name=name, whom=whom[1:]))
        except errors.WaitCycle as error:
            outcome = f"refused: {error}"
        self.state.outcomes[name] = outcome
        return outcome

    @tenure.action
    async def answer(self, ctx: tenure.Context, name: str, whom: list[str]) -> str:
        """At once, or after asking another one. A refusal goes back to who began."""
        said = await ctx.call(whom[0], Neighbour.answer(name=name, whom=whom[1:])) if whom else f"{name}!"
        self.state.answered.append(name)
        return said

    @tenure.query
    def told(self) -> dict[str, str]:
        """How its own turns have ended."""
        return self.state.outcomes

    @tenure.query
    def answers(self) -> list[str]:
        """What it was asked, and has done."""
        return self.state.answered


def thought(what: str) -> str:
    """Something outside."""
    return what


async def neighbours(cluster: Simulation, names: str, idle_timeout: float | None = None) -> dict[str, Neighbour]:
    """One for each letter. A rough world may be without a quorum for as long as one attempt lasts."""
    made = dict[str, Neighbour]()
    for name in names:
        while name not in made:
            with contextlib.suppress(errors.Transient, errors.DeadlineExceeded):
                made[name] = await cluster.create(Neighbour, name, idle_timeout=idle_timeout)
    return made


async def ends(agents: dict[str, Neighbour], asks: dict[str, list[str]]) -> dict[str, str]:
    """Let them ask at the same time: name -> what became of it."""
    said = await asyncio.gather(
        *(agents[name].call(Neighbour.ask(name=name, whom=whom), timeout=60) for name, whom in asks.items())
    )
    return dict(zip(asks, said, strict=True))


async def crossing(cluster: Simulation) -> None:
    """Two ask each other."""
    agents = await neighbours(cluster, "ab")
    said = await ends(agents, {"a": ["b"], "b": ["a"]})
    refused = [name for name, end in said.items() if end.startswith("refused")]
    assert len(refused) == 1, said
    other = "b" if refused == ["a"] else "a"
    assert said[other] == f"{other}!"
    assert f"default/{refused[0]} -> default/{other} -> default/{refused[0]}" in said[refused[0]]
    assert await agents[other].answers() == [], "it was refused, and done"


async def round_about(cluster: Simulation) -> None:
    """Four in a ring, one of them for another one, while a fifth waits for one of them, outside of the cycle."""
    agents = await neighbours(cluster, "abcde")
    said = await ends(agents, {"a": ["b", "c"], "c": ["d"], "d": ["a"], "e": ["a"]})
    refused = [name for name, end in said.items() if end.startswith("refused")]
    assert len(refused) == 1, said
    assert "e" not in refused, "it is in no cycle"
    assert all(end == f"{name}!" for name, end in said.items() if name not in refused), said


async def asleep(cluster: Simulation) -> None:
    """Agents that would sleep as soon as their turns wait."""
    agents = await neighbours(cluster, "ab", idle_timeout=0.05)
    said = await ends(agents, {"a": ["b"], "b": ["a"]})
    assert sorted(end.startswith("refused") for end in said.values()) == [False, True], said


async def cycles(cluster: Simulation) -> None:
    """Under whatever goes wrong: no turn waits for ever, what is refused is not done, and the rest is, once."""
    agents = await neighbours(cluster, "abcd", idle_timeout=random.choice((None, 0.1)))
    names = list(agents)

    async def busy(name: str) -> None:
        for n in range(ROUNDS):
            way = random.sample([other for other in names if other != name], random.randint(1, 3))
            with contextlib.suppress(tenure.CallError):
                await agents[name].call(Neighbour.ask(name=f"{name}{n}", whom=way), timeout=0.5)
            await asyncio.sleep(random.choice((0.1, 0.5)))

    await asyncio.gather(*map(busy, names))
    cluster.faults.heal()
    await cluster.settled()
    for name in names:  # it comes behind whatever waits there
        assert await agents[name].call(Neighbour.ask(name=f"{name}x", whom=[names[names[0] == name]]), timeout=300)
    answered = {name: await agents[name].answers() for name in names}
    for name in names:
        assert len(set(answered[name])) == len(answered[name]), f"{name} did something twice"
        for what, end in (await agents[name].told()).items():
            did = [other for other in names if what in answered[other]]
            assert end == f"{what}!" or (end.startswith("refused") and not did), f"{what}: {end}; done by {did}"
