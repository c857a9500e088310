"""Turns that fail by chance: tried again, put aside, or held until somebody says what is to become of them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from typing import Literal

import pydantic

import tenure
from tenure import errors
from tenure.testing import Simulation

SENDERS = ("a", "b")
SHAKY = "shaky"
ROUNDS = 8
TURNS = ("take", "work")


class Did(tenure.State):
    """What has been done, in its order."""

    did: list[str] = pydantic.Field(default_factory=list)


class Sender(tenure.Agent[Did]):
    """Lets another one do things."""

    @tenure.action
    def tell(self, ctx: tenure.Context, name: str) -> None:
        """One thing at once, and one in steps."""
        self.state.did.append(name)
        ctx.send(SHAKY, Shaky.take(name=f"{name} take"))
        ctx.send(SHAKY, Shaky.work(name=f"{name} work"))

    @tenure.query
    def told(self) -> list[str]:
        """All of it."""
        return self.state.did


class Shaky(tenure.Agent[Did]):
    """Fails half of the time."""

    @tenure.action
    def take(self, ctx: tenure.Context, name: str) -> None:
        """At once."""
        ctx.after(0.5, Shaky.rang(name=f"{name} rang"))
        self.state.did.append(name)
        stumble(name)

    @tenure.action
    async def work(self, ctx: tenure.Context, name: str) -> None:
        """In steps."""
        await ctx.step("one", str, name)
        stumble(name)
        await ctx.sleep(0.1)
        self.state.did.append(name)
        stumble(name)

    @tenure.action
    def rang(self, name: str) -> None:
        """A timer."""
        self.state.did.append(name)
        stumble(name)

    @tenure.action
    def add(self, name: str) -> str:
        """A call."""
        self.state.did.append(name)
        return name

    @tenure.query
    def did(self) -> list[str]:
        """All of it."""
        return self.state.did


def stumble(name: str) -> None:
    """Half of the time."""
    if random.random() < 0.5:
        raise ValueError(f"not now <{name}>")


async def putting_aside(cluster: Simulation) -> None:
    """What failed for the last time is a dead letter, and everything else is done."""
    await failing(cluster, "DeadLetter", ())


async def pausing(cluster: Simulation) -> None:
    """What failed for the last time is tried again, or put aside, or sent again, as somebody says."""
    await failing(cluster, "Pause", random.choice((("resume",), ("resume", "skip"), ("resume", "skip", "redrive"))))


async def failing(cluster: Simulation, how: Literal["DeadLetter", "Pause"], operations: tuple[str, ...]) -> None:
    """Each thing is done, or a dead letter, once; of each sender in order, unless it was sent again."""
    idle = random.choice((None, 0.1))
    while True:
        with contextlib.suppress(errors.Transient, errors.DeadlineExceeded):
            senders = {name: await cluster.create(Sender, name) for name in SENDERS}
            shaky = await cluster.create(
                Shaky, SHAKY, on_exhausted=how, max_attempts=2, backoff=0.05, idle_timeout=idle
            )
            break
    over = asyncio.Event()

    async def send(name: str) -> None:
        for n in range(ROUNDS):
            with contextlib.suppress(tenure.CallError):
                await senders[name].call(Sender.tell(name=f"{name}{n}"), timeout=0.5)
            await asyncio.sleep(0.3)

    async def call() -> None:
        for n in range(ROUNDS):
            with contextlib.suppress(tenure.CallError):
                await shaky.call(Shaky.add(name=f"call{n}"), timeout=0.3)
            await asyncio.sleep(0.2)

    async def operate() -> None:
        while not over.is_set():
            await asyncio.sleep(0.4)
            with contextlib.suppress(tenure.CallError):
                await cluster.operate(shaky, random.choice(operations))

    operating = asyncio.ensure_future(operate()) if operations else None
    await asyncio.gather(*map(send, SENDERS), call())
    cluster.faults.heal()
    await settled(cluster)
    for name in SENDERS:
        await senders[name].tell(name=f"{name}{ROUNDS}")
    await check(cluster, shaky, senders, ordered="redrive" not in operations)
    over.set()
    if operating is not None:
        await operating


async def settled(cluster: Simulation) -> None:
    """As `cluster.settled`; one that is paused is not Ready until somebody has said what is to be done."""
    end = cluster.now + 60.0
    while True:
        try:
            await cluster.settled(within=1.0)
        except AssertionError:
            assert cluster.now < end, "it never settles"
        else:
            return


async def check(cluster: Simulation, shaky: Shaky, senders: dict[str, Sender], *, ordered: bool) -> None:
    """What must have happened has, once."""
    end = cluster.now + 120.0
    while why := await missing(cluster, shaky, senders):
        assert cluster.now < end, why
        await asyncio.sleep(0.5)
    await asyncio.sleep(3.0)
    assert not (why := await missing(cluster, shaky, senders)), why
    did, buried = await looked(cluster, shaky)
    twice = [one for one, number in Counter([*did, *buried]).items() if number > 1]
    assert not twice, f"{twice} twice: {did}, {buried}"
    for name in SENDERS:
        told = [f"{one} {how}" for one in await senders[name].told() for how in TURNS]
        came = [one for one in did if one.startswith(name) and not one.endswith("rang")]
        assert not ordered or came == [one for one in told if one not in buried], f"{came} of {told}"
    for call in cluster.history:
        if call.method == "add":
            done = str(call.arguments["name"]) in did
            assert call.outcome == "unknown" or done is (call.outcome == "applied"), f"{call} {done}"


async def missing(cluster: Simulation, shaky: Shaky, senders: dict[str, Sender]) -> str:
    """What has no end yet."""
    did, buried = await looked(cluster, shaky)
    ended = {*did, *buried}
    for sender in senders.values():
        for one in await sender.told():
            for how in TURNS:
                if f"{one} {how}" not in ended:
                    return f"{one} {how} is neither done nor a dead letter"
    for one in did:
        if one.endswith("take") and f"{one} rang" not in ended:
            return f"{one} has rung neither, nor is it a dead letter"
    return ""


async def looked(cluster: Simulation, shaky: Shaky) -> tuple[list[str], list[str]]:
    """What is done, and what is a dead letter, by names. They are looked at one after the other."""
    while True:
        with contextlib.suppress(errors.CallError):
            before = await shaky.did()
            letters = await cluster.operate(shaky, "dlq.list")
            if await shaky.did() == before:
                return before, [re.findall("<(.*)>", letter["message"])[0] for letter in letters]
        await asyncio.sleep(0.1)
