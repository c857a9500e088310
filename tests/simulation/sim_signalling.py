"""Agents that send to each other, plan timers, take steps and wait, for stories of the simulated cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pydantic

import tenure
from tenure import errors
from tenure.testing import Simulation

ROUNDS = 6
NAMES = ("a", "b", "c")


class Seen(tenure.State):
    """What has been done, in its order."""

    took: list[str] = pydantic.Field(default_factory=list)
    rang: list[str] = pydantic.Field(default_factory=list)
    paid: list[str] = pydantic.Field(default_factory=list)


class Station(tenure.Agent[Seen]):
    """Sends what it is told to send, and keeps what comes."""

    @tenure.action
    def tell(self, ctx: tenure.Context, name: str, to: list[str]) -> None:
        """Send to others, and plan to be reminded of it."""
        self.state.took.append(f"told {name}")
        ctx.after(1.0, Station.ring(name=name), name=name)
        for one in to:
            ctx.send(one, Station.take(name=name))

    @tenure.action
    def pass_on(self, ctx: tenure.Context, name: str, to: list[str]) -> None:
        """Send to others, and plan nothing."""
        self.state.took.append(f"sent {name}")
        for one in to:
            ctx.send(one, Station.take(name=name))

    @tenure.action
    def remember(self, ctx: tenure.Context, name: str) -> None:
        """Plan to be reminded, and send nothing."""
        self.state.took.append(f"planned {name}")
        ctx.after(1.0, Station.ring(name=name), name=name)

    @tenure.action
    def take(self, name: str) -> None:
        """A signal of another."""
        self.state.took.append(name)

    @tenure.action
    def ring(self, name: str) -> None:
        """A timer."""
        self.state.rang.append(name)

    @tenure.action
    async def pay(self, ctx: tenure.Context, name: str) -> str:
        """Steps with a sleep between them."""
        first = await ctx.step("ask", asked, name)
        await ctx.sleep(0.5)
        second = await ctx.step("pay", asked, first)
        self.state.paid.append(name)
        return second

    @tenure.query
    def seen(self) -> dict[str, list[str]]:
        """All of it."""
        return {"took": self.state.took, "rang": self.state.rang, "paid": self.state.paid}


def asked(what: str) -> str:
    """Something outside."""
    return f"{what}!"


async def made(cluster: Simulation, name: str, idle_timeout: float | None = None) -> Station:
    """A rough world may be without a quorum for as long as one attempt lasts."""
    while True:
        with contextlib.suppress(errors.Transient, errors.DeadlineExceeded):
            return await cluster.create(Station, name, idle_timeout=idle_timeout)


async def signalling(cluster: Simulation) -> None:
    """Everybody tells everybody, is reminded, and pays; then each has happened once, in order, as it was committed."""
    await signalled(cluster)


async def signalled(cluster: Simulation) -> dict[str, Station]:
    """The same; who has."""
    stations = {name: await made(cluster, name) for name in NAMES}

    async def busy(name: str) -> None:
        others = [other for other in NAMES if other != name]
        for n in range(ROUNDS):
            with contextlib.suppress(tenure.CallError):
                await stations[name].call(Station.tell(name=f"{name}{n}", to=others), timeout=0.5)
            with contextlib.suppress(tenure.CallError):
                await stations[name].call(Station.pay(name=f"{name}{n}"), timeout=0.3)
            await asyncio.sleep(0.3)

    await asyncio.gather(*map(busy, NAMES))
    cluster.faults.heal()
    await cluster.settled()
    for name in NAMES:  # whatever became of the others, these are sent
        await stations[name].tell(name=f"{name}{ROUNDS}", to=[other for other in NAMES if other != name])
    await until_quiet(cluster, stations)
    return stations


async def orderly(cluster: Simulation) -> None:
    """Where nothing goes wrong, reminders come in the order in which they were planned.

    Else they need not. While no server leads cluster time stands still, and a host goes on by its own clock for as long
    as its lease: when it hears of the next leader, or another host holds the agent, cluster time may be behind that,
    and what is planned then may be due before what was planned earlier.
    """
    for name, station in (await signalled(cluster)).items():
        rang = (await look(station))["rang"]
        assert rang == sorted(rang), f"{name}: {rang}"


async def until_quiet(cluster: Simulation, stations: dict[str, Station]) -> None:
    """Wait until everything that was committed has had its effects; what has not within a minute is lost."""
    end = cluster.now + 60.0
    while True:
        seen = {name: await look(stations[name]) for name in NAMES}
        why = missing(seen) or await owing(stations)
        if not why:
            break
        assert cluster.now < end, why
        await asyncio.sleep(0.5)
    await asyncio.sleep(5.0)
    seen = {name: await look(stations[name]) for name in NAMES}
    for name, has in seen.items():
        for kind, what in has.items():
            twice = [one for one, number in Counter(what).items() if number > 1 and one != "end"]
            assert not twice, f"{name} {kind} {twice} twice"
        for other in NAMES:
            came = [one for one in has["took"] if one.startswith(other)]
            sent = orders(seen[other], "told", "sent")
            assert other == name or came == sent, f"{name} took {came} of {sent}"
        assert set(has["rang"]) == set(orders(has, "told", "planned"))


async def look(station: Station) -> dict[str, list[str]]:
    """What it has seen, whatever is in the way just now."""
    while True:
        with contextlib.suppress(tenure.CallError):
            return await station.seen()


async def owing(stations: dict[str, Station]) -> str:
    """Each accepted turn has ended: a call is taken at once."""
    for station in stations.values():
        try:
            await station.call(Station.take(name="end"), timeout=0.5)
        except tenure.CallError as error:
            return f"{station.id}: {error}"
    return ""


def missing(seen: dict[str, dict[str, list[str]]]) -> str:
    """What was committed and has not had its effect."""
    for name, has in seen.items():
        for one in orders(has, "told", "planned"):
            if one not in has["rang"]:
                return f"{name} was not reminded of {one}"
        for one in orders(has, "told", "sent"):
            for other in NAMES:
                if other != name and one not in seen[other]["took"]:
                    return f"{other} has not got {one}"
    return ""


def orders(has: dict[str, list[str]], *kinds: str) -> list[str]:
    """What it was told to do in these ways, in its order."""
    return [one.partition(" ")[2] for one in has["took"] if one.partition(" ")[0] in kinds]
