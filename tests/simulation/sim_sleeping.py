"""Agents that sleep between all that they do: signals, timers, steps and calls of others wake them."""

from __future__ import annotations

import asyncio
import contextlib
import random

from sim_signalling import NAMES, ROUNDS, Station, made, until_quiet

import tenure
from tenure.testing import Simulation

IDLE_S = 0.2
WAIT_S = 30.0


async def sleeping(cluster: Simulation) -> None:
    """As `signalling`, by agents that leave memory at each pause; in the end all of them sleep, a signal wakes them,
    a timer wakes them, and they sleep again.
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
    cluster.faults.heal()
    await cluster.settled()
    for name in NAMES:
        await until_asleep(cluster)
        await stations[name].tell(name=f"{name}{ROUNDS}", to=[other for other in NAMES if other != name])
    await until_quiet(cluster, stations)
    await until_asleep(cluster)


async def until_asleep(cluster: Simulation) -> None:
    """Nobody has anything to do. Raises AssertionError: somebody stays awake all the same."""
    end = cluster.now + WAIT_S
    while awake := [name for name in NAMES if not cluster.asleep(name)]:
        assert cluster.now < end, f"{awake} do not sleep, and have nothing to do"
        await asyncio.sleep(0.1)
