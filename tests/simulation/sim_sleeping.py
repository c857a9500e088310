"""Agents that sleep between all that they do: signals, timers, steps and calls of others wake them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

from sim_signalling import NAMES, ROUNDS, Station, look, made, until_quiet

import tenure
from tenure import errors
from tenure.testing import Simulation

IDLE_S = 0.2
WAIT_S = 30.0
QUIET_S = 15.0
"""In which nobody asks for anything: longer than anything that is owed or planned takes once nothing goes wrong."""


async def sleeping(cluster: Simulation) -> None:
    """As `signalling`, by agents that leave memory at each pause; what they owe or plan is done though nobody asks for
    it. In the end all of them sleep, a signal wakes them, a timer wakes them, and they sleep again.
    """
    stations = {name: await made(cluster, name, idle_timeout=random.choice((0.05, IDLE_S))) for name in NAMES}

    async def busy(name: str) -> None:
        others = [other for other in NAMES if other != name]
        for n in range(ROUNDS):
            with contextlib.suppress(tenure.CallError):
                await stations[name].call(Station.tell(name=f"{name}{n}", to=others), timeout=0.5)
            await asyncio.sleep(random.choice((0.0, 0.4, 1.5)))
            with contextlib.suppress(tenure.CallError):
                await stations[name].call(Station.pay(name=f"{name}{n}"), timeout=0.3)
            await asyncio.sleep(random.choice((0.0, 0.4, 1.5)))

    await asyncio.gather(*map(busy, NAMES))
    for n in range(2):
        for name in NAMES:
            await left_owing(cluster, stations[name], name, n)
    cluster.faults.heal()
    await cluster.settled()
    await unasked(cluster, stations)
    for name in NAMES:
        await until_asleep(cluster)
        await stations[name].tell(name=f"{name}{ROUNDS}", to=[other for other in NAMES if other != name])
    await until_quiet(cluster, stations)
    await until_asleep(cluster)


async def left_owing(cluster: Simulation, station: Station, name: str, n: int) -> None:
    """It is woken to do something that cannot be done at once, and forgotten, most times with its host, before anybody
    has heard that it does not sleep any more.
    """
    with contextlib.suppress(AssertionError):  # things go wrong still
        await cluster.settled(within=5.0)
        await until_asleep(cluster)
    others, word = [other for other in NAMES if other != name], f"{name} left {n}"
    plan = Station.remember(name=word)
    instructions = (plan, plan, Station.pass_on(name=word, to=others), Station.pay(name=word))
    with contextlib.suppress(errors.NotReady, errors.NoQuorum):
        host = cluster.holder(name)
        there = {cluster.holder(other) for other in others} - {host}
        deaf = cluster.leader() if random.random() < 0.5 else random.choice(cluster.servers)
        cluster.faults.partition([host], [*sorted(there), deaf], lasts=2.0)
        with contextlib.suppress(tenure.CallError):
            await station.call(random.choice(instructions), timeout=1.0)
        if random.random() < 0.7:
            cluster.faults.kill_host(host, back_after=1.0)


async def unasked(cluster: Simulation, stations: dict[str, Station]) -> None:
    """Nobody calls, and nothing goes wrong: what agents owe and plan wakes them, and is done. Whoever looks wakes them,
    too: so nothing may be done after the first look that was not done before, but for what the last call to an agent
    left, if it was told to be unknown: a write that one server has is found, or not, by whoever reads the record next
    (protocol 2, owner 2). What was left before that call, it found.
    """
    await asyncio.sleep(QUIET_S)
    before = await asyncio.gather(*map(look, stations.values()))
    await asyncio.sleep(3.0)
    after = await asyncio.gather(*map(look, stations.values()))
    said = [call for call in cluster.history if " left " in str(call.arguments.get("name", ""))]
    unknown = tuple(str(call.arguments["name"]) for call in said if call.outcome == "unknown")
    for was, now in zip(before, after, strict=True):
        late = [one for kind, done in now.items() for one in Counter(done) - Counter(was[kind])]
        assert all(one.endswith(unknown) for one in late), f"{now} was {was} until somebody looked"


async def until_asleep(cluster: Simulation) -> None:
    """Nobody has anything to do. Raises AssertionError: somebody stays awake all the same."""
    end = cluster.now + WAIT_S
    while awake := [name for name in NAMES if not cluster.asleep(name)]:
        assert cluster.now < end, f"{awake} do not sleep, and have nothing to do"
        await asyncio.sleep(0.1)
