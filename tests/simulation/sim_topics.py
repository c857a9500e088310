"""Signals by topic, capability and to everybody, with priorities, to agents of which some come and go."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from typing import TypeVar

import pydantic

import tenure
from tenure import errors
from tenure.testing import Simulation

SPEAKERS = ("a", "b")
LISTENERS = ("l0", "l1", "l2")
ROUNDS = 8
WAYS = ("topic", "capability", "all")


class Heard(tenure.State):
    """What has been heard and said, in its order."""

    heard: list[str] = pydantic.Field(default_factory=list)
    said: list[str] = pydantic.Field(default_factory=list)


class Speaker(tenure.Agent[Heard]):
    """Says the same in three ways."""

    @tenure.action
    def say(self, ctx: tenure.Context, name: str) -> None:
        """Each with a priority of its own: of one sender all arrives in order all the same."""
        self.state.said.append(name)
        ctx.emit("news.topic", f"{name} topic", priority=random.choice((-10, 0, 10)))
        signal = tenure.Signal.new("word.said", f"{name} capability", source=self.id)
        ctx.send("capability:ears", signal, priority=random.choice((-10, 0, 10)))
        ctx.send("all:", tenure.Signal.new("word.said", f"{name} all", source=self.id))

    @tenure.on("word.*")
    @tenure.action
    def ignore(self, signal: tenure.Signal) -> None:
        """It hears what is for everybody."""
        self.state.heard.append(str(signal.data))

    @tenure.query
    def seen(self) -> dict[str, list[str]]:
        """All of it."""
        return {"heard": self.state.heard, "said": self.state.said}


class Listener(tenure.Agent[Heard], capabilities=["ears"], subscribes=["news.*"]):
    """Hears all three."""

    @tenure.on("word.*")
    @tenure.on("news.*")
    @tenure.action
    def hear(self, signal: tenure.Signal) -> None:
        """Keep it."""
        self.state.heard.append(str(signal.data))

    @tenure.query
    def seen(self) -> dict[str, list[str]]:
        """All of it."""
        return {"heard": self.state.heard, "said": self.state.said}


A = TypeVar("A", Speaker, Listener)


async def made(cluster: Simulation, cls: type[A], name: str) -> A:
    """Create it, whatever is in the way just now."""
    while True:
        with contextlib.suppress(tenure.CallError):
            return await cluster.create(cls, name, idle_timeout=random.choice((None, 0.1)), ttl=20.0)


async def broadcasting(cluster: Simulation) -> None:
    """Who is there all the time hears everything once, of each speaker in order; who comes and goes nothing twice."""
    listeners = {name: await made(cluster, Listener, name) for name in LISTENERS}
    speakers = {name: await made(cluster, Speaker, name) for name in SPEAKERS}
    with contextlib.suppress(AssertionError):  # things go wrong already
        await cluster.settled(within=5.0)
    await asyncio.sleep(1.0)  # until all hosts have heard of all of them

    async def speak(name: str) -> None:
        for n in range(ROUNDS):
            with contextlib.suppress(tenure.CallError):
                await speakers[name].call(Speaker.say(name=f"{name}{n}"), timeout=0.5)
            await asyncio.sleep(random.choice((0.05, 0.4)))

    async def come_and_go() -> None:
        for _ in range(3):
            guest = await made(cluster, Listener, "guest")
            await asyncio.sleep(random.choice((0.1, 1.0)))
            with contextlib.suppress(tenure.CallError):
                once((await guest.call(Listener.seen(), timeout=0.5))["heard"])
            with contextlib.suppress(errors.Transient, errors.DeadlineExceeded):
                await cluster.delete("guest")

    await asyncio.gather(*map(speak, SPEAKERS), come_and_go())
    cluster.faults.heal()
    await cluster.settled()
    for name in SPEAKERS:
        await speakers[name].say(name=f"{name}{ROUNDS}")
    await check(cluster, [*listeners.values()], speakers)


async def check(cluster: Simulation, listeners: list[Listener], speakers: dict[str, Speaker]) -> None:
    """What must have been heard has, once and in order."""
    said = {name: (await speaker.seen())["said"] for name, speaker in speakers.items()}
    end = cluster.now + 60.0
    waiting = [*listeners]
    while waiting:
        assert cluster.now < end, f"{waiting[0].id} has not heard all of {said}"
        heard = (await waiting[0].seen())["heard"]
        if all(f"{one} {way}" in heard for ones in said.values() for one in ones for way in WAYS):
            waiting.pop(0)
        else:
            await asyncio.sleep(0.5)
    await asyncio.sleep(3.0)
    for listener in listeners:
        heard = (await listener.seen())["heard"]
        once(heard)
        for name, ones in said.items():
            came = [one for one in heard if one.startswith(name)]
            assert came == [f"{one} {way}" for one in ones for way in WAYS], f"{listener.id} of {name}: {came}"
    for name, speaker in speakers.items():
        heard = (await speaker.seen())["heard"]
        once(heard)
        expected = [f"{one} all" for other, ones in said.items() if other != name for one in ones]
        assert heard == expected, f"{name} has heard {heard} of {expected}"


def once(heard: list[str]) -> None:
    """Nothing twice."""
    twice = [one for one, number in Counter(heard).items() if number > 1]
    assert not twice, f"{twice} twice"
