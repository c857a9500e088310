"""How long agents are away after kill -9: of their worker; of all servers at once, which start again.

    python -m bench.restarts [--json] [--runs 20] [--server-runs 5]

* worker: one worker process of a host is killed. Until each of its agents has answered a durable call, with the state
  that it had; nothing acknowledged may be lost or doubled. `at rest`: the calls come 10 ms after the kill. `with a call
  each`: they come at once, mostly before the host knows. `in mid-turn`: the turns of all had begun, so that each is a
  suspect and tried alone (protocol 3, poison).
* servers: all of them are killed at once, and started at once as `tenure dev` does (after 0.1 s). Until a durable call
  has its reply, on one server and on three. Hosts live on.
"""

import argparse
import asyncio
import os
import signal
import time

import uvloop

from bench.harness import NAMESPACE, Line, emit, local_cluster, parser, percentile, say
from tenure_cli.dev.bring_up import wait_for_hosts, wait_for_leader
from tenure_cli.ports import Cluster

AGENTS = 16
PATIENCE_S = 30.0
REST_S = 1.0
NOTICED_S = 0.01
BEGUN_S = 0.1
"""In which turns that wait until twice as much has passed have all begun."""


async def increment(cluster: Cluster, name: str, expected: int, wall: float = 0.0) -> None:
    """One call, whose reply says that all before it are there, once. `wall`: not before. Raises RuntimeError."""
    method, arguments = ("increment_at", {"wall": wall}) if wall else ("increment", {"by": 1})
    reply = await cluster.call(f"{NAMESPACE}/{name}", method, arguments, PATIENCE_S)
    if reply.value != expected:
        raise RuntimeError(f"{name} counted {reply.value}; {expected} were acknowledged")


async def killed(cluster: Cluster, names: list[str], pid: int, kind: str, expected: int) -> float:
    """Milliseconds from the end of the worker to the last reply."""
    under_way: list[asyncio.Task[None]] = []
    if kind == "in mid-turn":
        wall = time.time() + 2 * BEGUN_S
        under_way = [asyncio.create_task(increment(cluster, name, expected, wall)) for name in names]
        await asyncio.sleep(BEGUN_S)
    os.kill(pid, signal.SIGKILL)
    began = time.perf_counter()
    await asyncio.sleep(NOTICED_S if kind == "at rest" else 0)
    await asyncio.gather(*(under_way or [increment(cluster, name, expected) for name in names]))
    return (time.perf_counter() - began) * 1000


async def worker(given: argparse.Namespace) -> list[Line]:
    """All runs on one host, so that all agents are in one worker."""
    names = [f"counter-{number}" for number in range(AGENTS)]
    kinds: dict[str, list[float]] = {"at rest": [], "with a call each": [], "in mid-turn": []}
    async with local_cluster(names, log=given.log, hosts=1) as (_, cluster):
        for number in range(1, given.runs + 1):
            kind = list(kinds)[number % len(kinds)]
            await asyncio.gather(*(increment(cluster, name, 2 * number - 1) for name in names))
            pid = (await cluster.call(f"{NAMESPACE}/{names[0]}", "process", {}, PATIENCE_S)).value
            times = kinds[kind]
            times.append(await killed(cluster, names, pid, kind, 2 * number))
            say(f"worker killed, {kind}, {number} of {given.runs}: {times[-1]:.0f} ms (load {os.getloadavg()[0]:.1f})")
            await asyncio.sleep(REST_S)
    title = f"worker killed to the slowest of its {AGENTS} agents answering with its state"
    return [
        line
        for kind, times in kinds.items()
        for line in (
            Line(f"{title}, {kind}, p50", percentile(times, 0.5), "ms", times),
            Line(f"{title}, {kind}, worst", max(times), "ms", times),
        )
    ]


async def servers(given: argparse.Namespace, count: int) -> list[Line]:
    """All runs on one cluster."""
    times: list[float] = []
    async with local_cluster(["counter"], log=given.log, servers=count, hosts=2) as (running, cluster):
        hosts = [host.name for host in running.plan.hosts]
        for number in range(1, given.server_runs + 1):
            await increment(cluster, "counter", 2 * number - 1)
            began = time.perf_counter()
            await asyncio.gather(*(process.kill(restart=True) for process in running.servers))
            await increment(cluster, "counter", 2 * number)
            times.append(time.perf_counter() - began)
            say(f"{count} killed, {number} of {given.server_runs}: {times[-1]:.2f} s (load {os.getloadavg()[0]:.1f})")
            await wait_for_leader(cluster)
            await wait_for_hosts(cluster, hosts)
            await asyncio.sleep(10 * REST_S)  # the delay of a next start grows until a process has lived so long
    name = "the only server" if count == 1 else f"all {count} servers"
    title = f"{name} killed and started again to the next durable reply"
    return [Line(f"{title}, p50", percentile(times, 0.5), "s", times), Line(f"{title}, worst", max(times), "s", times)]


async def measure(given: argparse.Namespace) -> list[Line]:
    """All lines."""
    return [*await worker(given), *await servers(given, 1), *await servers(given, 3)]


def main() -> None:
    """`python -m bench.restarts`."""
    options = parser(__doc__ or "", runs=20)
    options.add_argument("--server-runs", type=int, default=5, help="of each number of servers (default: 5)")
    emit(uvloop.run(measure(options.parse_args())), as_json=options.parse_args().json)


if __name__ == "__main__":
    main()
