"""Agents that ask each other, and wait for each other's signals, in turns with steps."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

import pydantic

import tenure
from tenure import errors
from tenure.testing import Simulation

NAMES = ("a", "b", "c")
ROUNDS = 6


class Done(tenure.State):
    """What has been done, in its order."""

    asked: list[str] = pydantic.Field(default_factory=list)
    """Requests of this agent, with what became of them."""
    answered: list[str] = pydantic.Field(default_factory=list)
    waited: list[str] = pydantic.Field(default_factory=list)
    """Waits that have ended."""
    heard: list[str] = pydantic.Field(default_factory=list)
    """Signals: what ended a wait, and what was nobody's."""
    sent: list[str] = pydantic.Field(default_factory=list)


class Desk(tenure.Agent[Done]):
    """Asks, answers, waits, and sends what others wait for."""

    @tenure.action
    async def ask(self, ctx: tenure.Context, name: str, whom: str, within: float | None) -> str:
        """Ask another one; say what came of it."""
        try:
            outcome = await ctx.call(whom, Desk.answer(name=name), timeout=within)
        except errors.DeadlineExceeded:
            outcome = "late"
        except errors.WaitCycle:
            outcome = "cycle"
        self.state.asked.append(f"{name}: {outcome}")
        return outcome

    @tenure.action
    async def answer(self, ctx: tenure.Context, name: str) -> str:
        """With a step, and sometimes with a pause."""
        said = await ctx.step("think", thought, name)
        if name[-1] in "135":
            await ctx.sleep(0.2)
        self.state.answered.append(name)
        return said

    @tenure.action
    async def wait(self, ctx: tenure.Context, name: str, within: float | None) -> str:
        """Until two words came, or no second one in time."""
        first = await ctx.wait_for("word.*")
        second = await ctx.wait_for("word.*", timeout=within)
        words = [str(word.data) for word in (first, second) if word is not None]
        self.state.heard += words
        self.state.waited.append(name)
        return " ".join(words)

    @tenure.action
    def say(self, ctx: tenure.Context, name: str, to: list[str]) -> None:
        """Send a word to others."""
        self.state.sent.append(name)
        for one in to:
            ctx.emit("word.said", name, to=one)

    @tenure.on("word.*")
    @tenure.action
    def word(self, signal: tenure.Signal) -> None:
        """One that no turn waits for."""
        self.state.heard.append(str(signal.data))

    @tenure.query
    def done(self) -> dict[str, list[str]]:
        """All of it."""
        state = self.state
        return {
            "asked": state.asked,
            "answered": state.answered,
            "waited": state.waited,
            "heard": state.heard,
            "sent": state.sent,
        }


def thought(what: str) -> str:
    """Something outside."""
    return f"{what}!"


async def made(cluster: Simulation, name: str) -> Desk:
    """A rough world may be without a quorum for as long as one attempt lasts."""
    while True:
        with contextlib.suppress(errors.Transient, errors.DeadlineExceeded):
            return await cluster.create(Desk, name, idle_timeout=random.choice((None, 0.1)))


async def asking(cluster: Simulation) -> None:
    """Everybody asks everybody, and waits for words of all; then each request was answered once, as it was told."""
    desks = {name: await made(cluster, name) for name in NAMES}

    async def busy(name: str) -> None:
        others = [other for other in NAMES if other != name]
        for n in range(ROUNDS):
            within, whom = random.choice((None, 0.3, 2.0)), random.choice(others)
            for instruction in (
                Desk.say(name=f"{name}{n}", to=others),
                Desk.ask(name=f"{name}{n}", whom=whom, within=within),
                Desk.wait(name=f"{name}{n}", within=within),
            ):
                with contextlib.suppress(tenure.CallError):
                    await desks[name].call(instruction, timeout=0.4)
            await asyncio.sleep(random.choice((0.1, 0.5)))

    await asyncio.gather(*map(busy, NAMES))
    cluster.faults.heal()
    await cluster.settled()
    await until_free(cluster, desks)
    for name, whom in zip(NAMES, "bca", strict=True):
        assert await desks[name].ask(name=f"{name} last", whom=whom, within=None) == f"{name} last!"
    await check(cluster, desks)


async def until_free(cluster: Simulation, desks: dict[str, Desk]) -> None:
    """Say words until nobody waits for one any more: each agent takes a call at once, and has nothing before it."""
    end = cluster.now + 120.0
    number = 0
    while True:
        waiting = []
        for name, desk in desks.items():
            try:
                await desk.call(Desk.say(name=f"{name}x{number}", to=[]), timeout=2.0)
            except tenure.CallError:  # none in time; an earlier try may have found it elsewhere
                waiting.append(name)
            number += 1
        if not waiting:
            return
        assert cluster.now < end, f"{waiting} wait for ever"
        mouth = await cluster.create(Desk, "m")  # nothing keeps it from speaking
        for n in range(6):
            await mouth.say(name=f"m{number}.{n}", to=waiting)


async def check(cluster: Simulation, desks: dict[str, Desk]) -> None:
    """What must have happened has, once."""
    end = cluster.now + 60.0
    while why := unheard(seen := {name: await desk.done() for name, desk in desks.items()}):
        assert cluster.now < end, why
        await asyncio.sleep(0.5)
    await asyncio.sleep(3.0)
    seen = {name: await desk.done() for name, desk in desks.items()}
    answered = [one for has in seen.values() for one in has["answered"]]
    for name, has in seen.items():
        for kind in ("answered", "waited", "heard", "sent"):
            twice = [one for one, number in Counter(has[kind]).items() if number > 1]
            assert not twice, f"{name} {kind} {twice} twice"
        for one in has["asked"]:
            asked, _, outcome = one.partition(": ")
            assert answered.count(asked) <= 1, f"{asked} was answered {answered.count(asked)} times"
            assert outcome in {"late", "cycle", f"{asked}!"}, one
            assert outcome != f"{asked}!" or asked in answered, f"{asked} was answered, and nobody has it"
            assert outcome != "cycle" or asked not in answered, f"{asked} was refused, and answered"
        for other in NAMES:
            came = [one for one in has["heard"] if one[0] == other]
            sent = [one for one in seen[other]["sent"] if "x" not in one]
            assert other == name or came == sent, f"{name} heard {came} of {sent}"
    for call in cluster.history:
        if call.method in {"ask", "wait"} and call.outcome in {"applied", "not_applied"}:
            has = seen[call.agent.removeprefix("default/")]
            name = str(call.arguments["name"])
            kept = name in [one.partition(": ")[0] for one in has["asked" if call.method == "ask" else "waited"]]
            assert kept is (call.outcome == "applied"), f"{call.method} of {name} was {call.outcome}; {kept}"


def unheard(seen: dict[str, dict[str, list[str]]]) -> str:
    """A word that was said, and is not there yet."""
    for name, has in seen.items():
        for one in has["sent"]:
            for other in NAMES:
                if other != name and "x" not in one and one not in seen[other]["heard"]:
                    return f"{other} has not heard {one}"
    return ""
