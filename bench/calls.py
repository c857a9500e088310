"""Calls to running agents through their hosts, their state committed on the servers before the reply.

    python -m bench.calls [--json] [--runs 2000] [--rounds 5] [--part sequential …] [--restate DIR]

Parts:

* sequential: one call at a time, 3 servers and 2 hosts; the floor (one write with fdatasync and one echo over a
  loopback TCP connection to another process) and Restate on three nodes in the same run, in turns.
* one-server: the same with one server and one host, and Restate on one node.
* in-flight: 64 calls in flight over 64 agents for some seconds, and the processor time of a call, by kind of process;
  Restate on three nodes in turns.
* volatile: calls of agents with `durability: Volatile`, one at a time, and 64 in flight.

All of ours goes through mTLS and, where a call is durable, fdatasync on a majority. Where Restate is, and how to put it
there, is said in bench/restate_peer.py.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench import restate_peer as restate
from bench import usage
from bench.harness import NAMESPACE, Line, agent_spec, emit, local_cluster, parser, percentile, say
from tenure_cli.dev.cluster import DevCluster
from tenure_cli.ports import Cluster
from tenure_cli.remote import RemoteCluster

WARM = 200
BLOCK = 100
"""Calls in a row before as many of the floor and of the peer: noise hits all."""
IN_FLIGHT = 64
ROUND_S = 3.0
RECORD = b"x" * 256
RESTATE = "Restate, same run"
FLOOR = "floor: one fdatasync and one loopback TCP echo, same run"
ECHO = """
import asyncio
async def serve(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

Work = Callable[[], Awaitable[Any]]


async def timed(count: int, work: Work) -> list[float]:
    """Milliseconds of each of `count` in a row."""
    times: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        await work()
        times.append((time.perf_counter() - began) * 1000)
    return times


async def together(works: Sequence[Work], seconds: float) -> tuple[int, float]:
    """Each of them again and again, all at once: (how many ended, seconds)."""
    began = time.perf_counter()
    until, count = began + seconds, 0

    async def loop(work: Work) -> None:
        nonlocal count
        while time.perf_counter() < until:
            await work()
            count += 1

    await asyncio.gather(*(loop(work) for work in works))
    return count, time.perf_counter() - began


@asynccontextmanager
async def floor() -> AsyncGenerator[Work]:
    """A coroutine function that does one synced write and one echo."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", ECHO, stdout=asyncio.subprocess.PIPE)
    if process.stdout is None:
        raise RuntimeError("the echo server has no output")
    port = int(await process.stdout.readline())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with tempfile.TemporaryFile() as file:

        async def once() -> None:
            os.write(file.fileno(), RECORD)
            os.fdatasync(file.fileno())
            writer.write(RECORD)
            await reader.readexactly(len(RECORD))

        try:
            yield once
        finally:
            writer.close()
            process.kill()
            await process.wait()


def caller(cluster: Cluster, agent: str, method: str, arguments: dict[str, Any]) -> Work:
    """A call straight to the SDK's client, as a program would make it."""
    assert isinstance(cluster, RemoteCluster)
    remote, packed = cluster.remote, msgspec.msgpack.encode(arguments)

    def call() -> Awaitable[Any]:
        return remote.call(f"{NAMESPACE}/{agent}", "by_name", method, packed, timeout_s=30.0)

    return call


def load() -> str:
    """Of the machine, for progress lines."""
    return f"load {os.getloadavg()[0]:.1f}"


# --- parts ----------------------------------------------------------------------------------------------------------


async def sequential(given: argparse.Namespace, servers: int, hosts: int) -> list[Line]:
    """Durable calls one at a time, the floor and the peer in turns; then queries."""
    async with (
        local_cluster(["counter"], log=given.log, servers=servers, hosts=hosts) as (_, cluster),
        floor() as once,
        restate.running(given.restate, servers) as peer,
    ):
        works: dict[str, Work] = {"ours": caller(cluster, "counter", "increment", {"by": 1}), "floor": once}
        if peer is not None:
            works["peer"] = lambda: peer.call("counter")
        times: dict[str, list[float]] = {name: [] for name in works}
        for work in works.values():
            await timed(WARM, work)
        while len(times["ours"]) < given.runs:
            for name, work in works.items():
                times[name] += await timed(BLOCK, work)
            middles = ", ".join(f"{name} {percentile(each, 0.5):.2f} ms" for name, each in times.items())
            say(f"{len(times['ours'])} of {given.runs} calls, p50 so far: {middles} ({load()})")
        queries = await timed(given.runs // 2, caller(cluster, "counter", "value", {}))
    lines: list[Line] = []
    title = f"durable call, {servers} server{'s'[: servers - 1]}, sequential"
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        ours = percentile(times["ours"], share)
        lines.append(Line(f"{title}, {name}", ours, "ms", times["ours"], FLOOR, percentile(times["floor"], share)))
        if peer is not None:
            lines.append(
                Line(f"{title}, {name}, beside Restate", ours, "ms", [], RESTATE, percentile(times["peer"], share))
            )
        lines.append(Line(f"query, sequential, {name}", percentile(queries, share), "ms", queries))
    return lines


async def in_flight(given: argparse.Namespace) -> list[Line]:
    """Durable calls, 64 at a time, each to an agent of its own."""
    names = [f"counter-{number}" for number in range(IN_FLIGHT)]
    async with (
        local_cluster(names, log=given.log, hosts=2) as (running, cluster),
        restate.running(given.restate, 3) as peer,
    ):
        ours = Rates(running, [caller(cluster, name, "increment", {"by": 1}) for name in names])
        theirs: list[float] = []
        costs: list[float] = []
        for number in range(given.rounds + 1):  # the first one warms up
            await ours.round(keep=number > 0)
            if peer is not None:
                before = peer.seconds
                count, took = await together([_peer_call(peer, name) for name in names], ROUND_S)
                if number:
                    theirs.append(count / took)
                    costs.append((peer.seconds - before) / count * 1000)
            say(f"round {number} of {given.rounds}: {ours.said} ({load()})" + _beside(theirs, costs))
    title = f"durable calls, {IN_FLIGHT} in flight over {IN_FLIGHT} agents"
    return ours.lines(title, theirs, costs)


def _peer_call(peer: restate.Restate, key: str) -> Work:
    return lambda: peer.call(key)


def _beside(rates: list[float], costs: list[float]) -> str:
    return f"; Restate {rates[-1]:.0f}/s, {costs[-1]:.2f} ms" if rates else ""


class Rates:
    """Rounds of calls in flight, and what they cost."""

    def __init__(self, running: DevCluster, works: Sequence[Work]) -> None:
        self._roots = [process.pid for process in (*running.servers, *running.hosts)]
        self._works = works
        self.rates: list[float] = []
        self.costs: list[dict[str, float]] = []
        self.said = ""

    async def round(self, *, keep: bool) -> None:
        """One round of `ROUND_S` seconds; `keep`: it counts."""
        before, own = usage.by_kind(self._roots), time.process_time()
        count, took = await together(self._works, ROUND_S)
        cost = usage.spent(before, usage.by_kind(self._roots)) | {"client": time.process_time() - own}
        per_call = {kind: used / count * 1000 for kind, used in cost.items()}
        self.said = f"{count / took:.0f}/s, ms a call: " + ", ".join(
            f"{kind} {used:.2f}" for kind, used in per_call.items()
        )
        if keep:
            self.rates.append(count / took)
            self.costs.append(per_call)

    def lines(self, title: str, theirs: list[float], their_costs: list[float]) -> list[Line]:
        """Medians of all rounds; without a peer's, its column is empty."""
        sums = [sum(used for kind, used in cost.items() if kind != "client") for cost in self.costs]
        peer = {"peer": RESTATE, "theirs": percentile(theirs, 0.5)} if theirs else {}
        cost = {"peer": f"{RESTATE}, nodes and service", "theirs": percentile(their_costs, 0.5)} if their_costs else {}
        name = f"{title}: processor time of a call"
        found = [
            Line(title, percentile(self.rates, 0.5), "1/s", self.rates, **peer),
            Line(f"{name}, servers, hosts and workers", percentile(sums, 0.5), "ms", sums, **cost),
        ]
        for kind in sorted({kind for each in self.costs for kind in each}):
            used = [each.get(kind, 0.0) for each in self.costs]
            found.append(Line(f"{name}, {kind}", percentile(used, 0.5), "ms", used))
        return found


async def volatile(given: argparse.Namespace) -> list[Line]:
    """Calls of agents that keep nothing, straight to the holder's host."""
    names = [f"volatile-{number}" for number in range(IN_FLIGHT)]
    specs = [agent_spec(name, durability="Volatile") for name in names]
    async with local_cluster(specs, log=given.log, hosts=2) as (running, cluster):
        works = [caller(cluster, name, "increment", {"by": 1}) for name in names]
        await timed(WARM, works[0])
        times = await timed(given.runs, works[0])
        rates = Rates(running, works * 4)
        for number in range(given.rounds + 1):
            await rates.round(keep=number > 0)
            say(f"round {number} of {given.rounds}: {rates.said} ({load()})")
    return [
        Line("volatile call, sequential, p50", percentile(times, 0.5), "ms", times),
        Line("volatile call, sequential, p99", percentile(times, 0.99), "ms", times),
        *rates.lines(f"volatile calls, {4 * IN_FLIGHT} in flight over {IN_FLIGHT} agents", [], []),
    ]


PARTS: dict[str, Callable[[argparse.Namespace], Awaitable[list[Line]]]] = {
    "sequential": lambda given: sequential(given, 3, 2),
    "one-server": lambda given: sequential(given, 1, 1),
    "in-flight": in_flight,
    "volatile": volatile,
}


async def measure(given: argparse.Namespace) -> list[Line]:
    """All parts that were asked for, each on a cluster of its own."""
    return [line for part in given.part or PARTS for line in await PARTS[part](given)]


def main() -> None:
    """`python -m bench.calls`."""
    options = parser(__doc__ or "", runs=2000)
    options.add_argument("--rounds", type=int, default=5, help=f"of calls in flight, {ROUND_S:g} s each (default: 5)")
    options.add_argument("--part", action="append", choices=tuple(PARTS), help="default: all; repeat")
    restate.option(options)
    given = options.parse_args()
    given.restate = restate.found(None if given.restate is None else Path(given.restate))
    emit(uvloop.run(measure(given)), as_json=given.json)


if __name__ == "__main__":
    main()
