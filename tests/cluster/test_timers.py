"""Delays and cron on real hosts that are killed: once for the cluster, at their time or when somebody is there."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.cluster.cluster_local import Local
from tests.cluster.test_operating import good

pytestmark = pytest.mark.cluster
MINUTE_S = 60.0
AHEAD_S = 1.2
"""Before a run is due: the host is silent then, and its agents are held elsewhere only after it."""
SOON_S = 10.0
"""Until the first run is due: the clocks must have been told of it by AHEAD_S before."""


async def test_delays_fire_once_while_their_hosts_are_killed(whole: Local) -> None:
    """[timer_in_commit]: a run and the forgetting of its plan are one commit; `kill -9` of host and worker by turns."""
    clocks = [await whole.on(node, class_="Clock") for node in (1, 2, 3)]
    delays = [0.2 * number for number in range(1, 31)]
    await asyncio.gather(*(whole.call(clock, "plan", seconds=delays) for clock in clocks))
    expected = sorted(map(str, range(len(delays))))

    async def rung(clock: str) -> list[str]:
        return sorted(await whole.call(clock, "rung"))

    for number in range(5):
        clock = clocks[number % 3]
        row = await whole.until(clock, lambda row: row.ready, "Ready")
        (whole.kill_worker if number % 3 == 2 else whole.kill_host)(row.host)
        await rung(clock)
    for clock in clocks:
        await whole.until_answer(clock, "rung", lambda found: len(found) >= len(delays), "all of them")
        assert await rung(clock) == expected
        assert json.loads(await good(whole, "timers", clock, "-o", "json"))["items"] == []


async def test_plans_are_listed_replaced_and_cancelled(local: Local) -> None:
    """`tenure timers`: the earliest first, with what is run and how often."""
    clock = await local.running_agent(class_="Clock")
    far = (datetime.now(UTC) + timedelta(hours=12)).hour  # the plans below come first, whatever the time of day
    await local.call(clock, "daily", times=f"0 {far} * * *", missed="once")
    await local.call(clock, "plan", seconds=[3600, 7200])
    await local.call(clock, "forget", plan="ring-1")
    items = json.loads(await good(local, "timers", clock, "-o", "json"))["items"]
    assert {(one["name"], one["clock"], one["every"], one["what"]) for one in items} == {
        ("daily", "wall", f"0 {far} * * * UTC", "ring"),
        ("ring-0", "cluster", None, "ring"),
    }
    shown = (await good(local, "timers", clock)).splitlines()
    assert shown[0].split() == ["NAME", "DUE", "CLOCK", "EVERY", "WHAT"]
    assert shown[1].split()[:3] == ["ring-0", "in", "59m"]


async def test_cron_fires_once_across_a_failover_and_as_its_policy_says(whole: Local) -> None:
    """A run is due while nobody holds the agents [cron_in_commit]: there is one, or none for `skip`."""
    clocks = {missed: await whole.on(2, class_="Clock") for missed in ("once", "skip", "all")}
    rows = [await whole.until(clock, lambda row: row.ready, "Ready") for clock in clocks.values()]
    assert len({row.host for row in rows}) == 1
    second = int(time.time() + SOON_S) % 60
    for missed, clock in clocks.items():
        await whole.call(clock, "daily", times=f"{second} * * * *", missed=missed)  # of each minute: cluster_clock
    run = await next_run(whole, clocks["once"])
    victim = whole.running.process(rows[0].host)
    await until_wall(run - AHEAD_S)
    before = {missed: await whole.call(clock, "rung") for missed, clock in clocks.items()}
    assert not any(before.values())
    victim.freeze()
    for clock, row in zip(clocks.values(), rows, strict=True):
        await whole.until(clock, lambda row, old=row: row.ready and row.epoch > old.epoch, "Ready elsewhere")
    for missed in ("once", "all"):
        assert await whole.until_answer(clocks[missed], "rung", bool, "one run") == [missed]
    for clock in clocks.values():
        assert await next_run(whole, clock) == run + MINUTE_S
    assert await whole.call(clocks["skip"], "rung") == []
    victim.thaw()
    assert await whole.call(clocks["once"], "rung") == ["once"]


async def next_run(local: Local, clock: str) -> float:
    """When its cron is due, on the wall clock."""
    (timer,) = json.loads(await good(local, "timers", clock, "-o", "json"))["items"]
    return float(timer["at"])


async def until_wall(moment: float) -> None:
    """The hosts' wall clock is that of this machine, and nobody can move it."""
    await asyncio.sleep(max(0.0, moment - time.time()))
