"""New agents to their first durable reply, and how late timers are.

    python -m bench.firsts [--json] [--runs 300] [--rounds 3] [--restate DIR]

* One new agent after the other: from the request to create it to the reply of its first call, its state on a majority.
* A burst: 500 agents with one apply, and a call to each at once; agents a second until all have replied.
* Timers: `ctx.after(1 s)` of 100 agents, two each, some 5 ms apart; how much later than planned their action runs.

3 servers, 2 hosts. Restate on three nodes in the same run, in turns: first calls to new keys, which need no creation
there; its delayed sends, as it has no timers.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import uvloop

from bench import restate_peer as restate
from bench.harness import NAMESPACE, Line, agent_spec, emit, local_cluster, parser, percentile, say
from tenure_cli.ports import Cluster
from tenure_cli.remote import RemoteCluster

BLOCK = 50
BURST = 500
ALARMS = 100
DELAY_S = 1.0
APART_S = 0.005
RESTATE = "Restate, same run"
_one = msgspec.msgpack.encode({"by": 1})


async def first_reply(cluster: Cluster, name: str) -> None:
    """Create an agent and call it."""
    assert isinstance(cluster, RemoteCluster)
    await cluster.remote.apply_agents([agent_spec(name)])
    await call(cluster, name)


async def call(cluster: Cluster, name: str) -> None:
    """One increment."""
    assert isinstance(cluster, RemoteCluster)
    reply = await cluster.remote.call(f"{NAMESPACE}/{name}", "by_name", "increment", _one, timeout_s=30.0)
    if msgspec.msgpack.decode(reply.value) != 1:
        raise RuntimeError(f"{name} is not new")


async def timed(work: Callable[[str], Awaitable[object]], names: list[str]) -> list[float]:
    """Milliseconds of each, one after the other."""
    times: list[float] = []
    for name in names:
        began = time.perf_counter()
        await work(name)
        times.append((time.perf_counter() - began) * 1000)
    return times


async def burst(cluster: Cluster, names: list[str]) -> float:
    """Agents a second."""
    assert isinstance(cluster, RemoteCluster)
    began = time.perf_counter()
    await cluster.remote.apply_agents([agent_spec(name) for name in names])
    await asyncio.gather(*(call(cluster, name) for name in names))
    return len(names) / (time.perf_counter() - began)


async def clear(cluster: Cluster, names: list[str]) -> None:
    """Away with them, so that each round begins as the first did."""
    ids = {f"{NAMESPACE}/{name}" for name in names}
    await cluster.delete_agents(sorted(ids))
    async for rows in cluster.watch():
        if not ids & {row.spec.id for row in rows.agents.values()}:
            return


async def creation(given: argparse.Namespace, cluster: Cluster, peer: restate.Restate | None) -> list[Line]:
    """One after the other, and bursts."""
    ours: list[float] = []
    theirs: list[float] = []
    await timed(lambda name: first_reply(cluster, name), [f"warm-{number}" for number in range(20)])
    for first in range(0, given.runs, BLOCK):
        names = [f"first-{number}" for number in range(first, first + BLOCK)]
        ours += await timed(lambda name: first_reply(cluster, name), names)
        if peer is not None:
            theirs += await timed(peer.call, names)
        await clear(cluster, names)
        say(f"{len(ours)} of {given.runs} new agents, p50 so far {percentile(ours, 0.5):.2f} ms{_load()}")
    rates: list[float] = []
    their_rates: list[float] = []
    for number in range(given.rounds + 1):
        names = [f"burst-{number}-{each}" for each in range(BURST)]
        rates.append(await burst(cluster, names))
        if peer is not None:
            began = time.perf_counter()
            await asyncio.gather(*map(peer.call, names))
            their_rates.append(BURST / (time.perf_counter() - began))
        await clear(cluster, names)
        say(f"burst {number}: {rates[-1]:.0f}/s{_load()}")
    rates, their_rates = rates[1:], their_rates[1:]  # the first one warms up
    title = "new agent to its first durable reply"
    return [
        beside(f"{title}, p50", "ms", ours, theirs, 0.5),
        beside(f"{title}, p99", "ms", ours, theirs, 0.99),
        beside(f"{title}, in a burst of {BURST}", "1/s", rates, their_rates, 0.5),
    ]


async def timers(cluster: Cluster, peer: restate.Restate | None) -> list[Line]:
    """Of agents that are Ready. The earliest is below zero: a delay counts on cluster time, which a host may know a
    little behind as it begins the turn, and from before the action looks at the clock.
    """
    names = [f"alarm-{number}" for number in range(ALARMS)]
    for _ in range(2):
        for name in names:
            await cluster.call(f"{NAMESPACE}/{name}", "plan", {"seconds": DELAY_S}, 30.0)
            await asyncio.sleep(APART_S)
        await asyncio.sleep(DELAY_S + 1)
        if peer is not None:
            for name in names:
                await peer.call(name, "later", int(DELAY_S * 1000))
                await asyncio.sleep(APART_S)
            await asyncio.sleep(DELAY_S + 1)
    ours: list[float] = []
    theirs: list[float] = []
    for name in names:
        ours += (await cluster.call(f"{NAMESPACE}/{name}", "lateness", {}, 30.0)).value
        theirs += [] if peer is None else await peer.call(name, "lateness", None)
    if len(ours) != 2 * ALARMS:
        raise RuntimeError(f"{len(ours)} of {2 * ALARMS} timers ran")
    say(f"timers: {percentile(ours, 0.5):.2f} ms late{_load()}")
    title = "lateness of a timer (ctx.after), its action run"
    shares = ((0.5, "p50"), (0.99, "p99"), (0.0, "the earliest"))
    return [beside(f"{title}, {name}", "ms", ours, theirs, share) for share, name in shares]


def beside(title: str, unit: str, ours: list[float], theirs: list[float], share: float) -> Line:
    """A line with the peer's value, if it was there."""
    value = percentile(ours, share)
    return (
        Line(title, value, unit, ours, RESTATE, percentile(theirs, share)) if theirs else Line(title, value, unit, ours)
    )


def _load() -> str:
    return f" (load {os.getloadavg()[0]:.1f})"


async def measure(given: argparse.Namespace) -> list[Line]:
    """All lines."""
    alarms = [agent_spec(f"alarm-{number}", "BenchAlarm") for number in range(ALARMS)]
    async with (
        local_cluster(alarms, log=given.log, hosts=2) as (_, cluster),
        restate.running(given.restate, 3) as peer,
    ):
        late = await timers(cluster, peer)
        return [*await creation(given, cluster, peer), *late]


def main() -> None:
    """`python -m bench.firsts`."""
    options = parser(__doc__ or "", runs=300)
    options.add_argument("--rounds", type=int, default=3, help="bursts (default: 3)")
    restate.option(options)
    given = options.parse_args()
    given.restate = restate.found(None if given.restate is None else Path(given.restate))
    emit(uvloop.run(measure(given)), as_json=given.json)


if __name__ == "__main__":
    main()
