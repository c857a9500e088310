"""Agents that end by themselves, and are made anew, while others send to them and callers call."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from typing import TypeVar

import pydantic

import tenure
from tenure import errors
from tenure.testing import Simulation

SENDERS = ("a", "b")
ROUNDS = 8
MAYFLY = "mayfly"
KEEPER = "keeper"
TTL_S = 6.0
"""Of what senders send; what a mayfly sends may take its time."""
PACE_S = 0.75
"""Between what is asked: so it goes on for as long as the lives do."""
PATIENCE_S = 4.0
"""For the end of a mayfly, which waits behind what it was asked before; who is cut off is so for longer."""


class Kept(tenure.State):
    """What was done, in its order."""

    did: list[str] = pydantic.Field(default_factory=list)


class Keeper(tenure.Agent[Kept]):
    """Outlives the others, and keeps what they did."""

    @tenure.action
    def saw(self, name: str) -> None:
        """A mayfly has done that."""
        self.state.did.append(name)

    @tenure.query
    def did(self) -> list[str]:
        """All of it."""
        return self.state.did


class Mayfly(tenure.Agent[Kept]):
    """Does things until it is told to end."""

    @tenure.action
    def do(self, ctx: tenure.Context, name: str) -> str:
        """Say so to the keeper; what it did last, if it has ended."""
        ctx.send(KEEPER, Keeper.saw(name=name))
        return self.state.did[-1] if self.state.did else name

    @tenure.action
    async def slowly(self, ctx: tenure.Context, name: str) -> str:
        """The same by a turn with steps."""
        await ctx.sleep(0.2)
        ctx.send(KEEPER, Keeper.saw(name=name))
        return name

    @tenure.action
    def end(self, ctx: tenure.Context, name: str) -> str:
        """The last that it does."""
        self.state.did.append(name)
        ctx.send(KEEPER, Keeper.saw(name=name))
        ctx.stop("it is evening")
        return name

    @tenure.action
    async def fade(self, ctx: tenure.Context, name: str) -> str:
        """The same by a turn with steps: what comes meanwhile is done behind it."""
        await ctx.sleep(0.3)
        self.state.did.append(name)
        ctx.send(KEEPER, Keeper.saw(name=name))
        ctx.stop("it is evening")
        return name


class Sender(tenure.Agent[Kept]):
    """Lets the mayfly do things."""

    @tenure.action
    def tell(self, ctx: tenure.Context, name: str) -> None:
        """One thing at once, and one slowly."""
        self.state.did.append(name)
        ctx.send(MAYFLY, Mayfly.do(name=name))
        ctx.send(MAYFLY, Mayfly.slowly(name=f"{name} slowly"))

    @tenure.query
    def told(self) -> list[str]:
        """All of it."""
        return self.state.did


A = TypeVar("A", Keeper, Mayfly, Sender)


async def persisting(cluster: Simulation, cls: type[A], name: str) -> A:
    """Create it, whatever is in the way just now."""
    while True:
        with contextlib.suppress(errors.Transient, errors.DeadlineExceeded):
            return await cluster.create(cls, name, ttl=TTL_S if cls is Sender else 300.0)


async def ending(cluster: Simulation) -> None:
    """Three lives of a mayfly. What it was asked is done once, or not at all, as the one who asked is told."""
    keeper = await persisting(cluster, Keeper, KEEPER)
    senders = {name: await persisting(cluster, Sender, name) for name in SENDERS}
    mayfly = await persisting(cluster, Mayfly, MAYFLY)

    async def send(name: str) -> None:
        for n in range(ROUNDS):
            with contextlib.suppress(tenure.CallError):
                await senders[name].call(Sender.tell(name=f"{name}{n}"), timeout=0.5)
            await asyncio.sleep(PACE_S)

    async def ask() -> None:
        for n in range(ROUNDS):
            with contextlib.suppress(tenure.CallError):
                await mayfly.call(Mayfly.do(name=f"call{n}"), timeout=0.5)
            with contextlib.suppress(tenure.CallError):
                await mayfly.call(Mayfly.slowly(name=f"slow call{n}"), timeout=0.5)
            await asyncio.sleep(PACE_S)

    async def live() -> None:
        for n in range(3):
            await asyncio.sleep(0.8)
            way = random.choice((Mayfly.end, Mayfly.fade))
            deaf = random.random() < 0.7 and cut_off(cluster)
            with contextlib.suppress(tenure.CallError):
                await mayfly.call(way(name=f"end{n}"), timeout=PATIENCE_S)
                if deaf and random.random() < 0.7:
                    cluster.faults.kill_host(deaf, back_after=1.0)
            await persisting(cluster, Mayfly, MAYFLY)

    await asyncio.gather(*map(send, SENDERS), ask(), live())
    cluster.faults.heal()
    await cluster.settled()
    await another(cluster, mayfly, "life before")
    await mayfly.end(name="end of ends")
    await another(cluster, mayfly, "last life")
    await asyncio.sleep(1.0)  # until all hosts have heard of it: who has not sends to the one before
    for name in SENDERS:
        await senders[name].tell(name=f"{name}{ROUNDS}")
    await account(cluster, keeper, senders)


def cut_off(cluster: Simulation) -> str:
    """Nothing that the mayfly says reaches the keeper for a while. Where it is; empty: they are on one host."""
    with contextlib.suppress(errors.NotReady, errors.NotFound):
        host, there = cluster.holder(MAYFLY), cluster.holder(KEEPER)
        if host != there:
            cluster.faults.partition([host], [there], lasts=1.5 * PATIENCE_S)
            return host
    return ""


async def another(cluster: Simulation, mayfly: Mayfly, name: str) -> None:
    """A life that has not ended; one that has may be there for a while."""
    end = cluster.now + 30.0
    while True:
        await persisting(cluster, Mayfly, MAYFLY)
        try:
            await mayfly.do(name=f"{name} at {cluster.now}")
        except errors.NotFound:
            assert cluster.now < end, "it has ended, and is still there"
        else:
            return


async def account(cluster: Simulation, keeper: Keeper, senders: dict[str, Sender]) -> None:
    """What was sent is done, or a dead letter that tells the truth; calls are what their callers were told."""
    end = cluster.now + 60.0
    while why := await missing(cluster, keeper, senders):
        assert cluster.now < end, why
        await asyncio.sleep(0.5)
    await asyncio.sleep(3.0)
    assert not (why := await missing(cluster, keeper, senders)), why
    did = await keeper.did()
    twice = [one for one, number in Counter(did).items() if number > 1]
    assert not twice, f"{twice} twice"
    last = {f"{name}{ROUNDS}{how}" for name in SENDERS for how in ("", " slowly")}
    assert {"end of ends", *last} <= {*did}
    for name in SENDERS:
        at_once = [one for one in did if one.startswith(name) and not one.endswith("slowly")]
        assert at_once == sorted(at_once), f"of {name}: {at_once}"
        buried = dict(await letters(cluster, name))
        lies = [one for one in did if buried.get(one) == "not applied"]
        assert not lies, f"{lies} are dead letters that say not applied, and were"
    for call in cluster.history:
        if call.method in {"do", "slowly", "end", "fade"}:
            name = str(call.arguments["name"])
            assert call.outcome != "applied" or call.reply == name, f"{name} was done after {call.reply}"
            assert call.outcome != "applied" or name in did, f"{name} was acknowledged, and the keeper has not heard"
            assert call.outcome != "not_applied" or name not in did, f"{name} was told to be not applied, and was"


async def missing(cluster: Simulation, keeper: Keeper, senders: dict[str, Sender]) -> str:
    """What was sent and has no end yet."""
    did = {*await keeper.did()}
    for name, sender in senders.items():
        buried = dict(await letters(cluster, name))
        for one in await sender.told():
            for what in (one, f"{one} slowly"):
                if what not in did and buried.get(what) in (None, "pending"):
                    return f"{what} is neither done nor a dead letter: {buried.get(what)}"
    return ""


async def letters(cluster: Simulation, name: str) -> list[tuple[str, str]]:
    """What a sender's dead letters were to do, and their verdicts."""
    found: list[tuple[str, str]] = []
    for line in await cluster.operate(name, "dlq.list"):
        letter = await cluster.operate(name, "dlq.show", id=line["id"])
        words = re.search(rb"name.(" + name.encode() + rb"([0-9]+)( slowly)?)", letter["body"])
        assert words is not None, letter
        found.append((words[1].decode(), letter["verdict"]))
    return found
