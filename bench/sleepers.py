"""Agents that sleep: how fast they wake, what they cost in memory, and a host that has a hundred thousand of them.

    python -m bench.sleepers [--json] [--runs 500] [--part wake,memory,size] [--agents 100000] [--resident 5000]
                             [--profile Balanced]

* wake: a call, and a query, to an agent that has fallen asleep, one after the other; beside them the same to agents
  that stay in memory, in turns.
* memory: what an agent in memory, with nothing to do, costs the worker and the hosts; and one that sleeps. Private
  bytes (Uss) of the processes before and after, by the number of agents; both hosts hold half of them, and each has a
  row of all. Its own state is one small number.
* size: so many agents asleep on one host. The worst delay of that host's loop while rows of its agents change, its
  memory; then the host is killed, and 200 agents chosen at random are called at the other one at once: seconds until
  the slowest has answered, and whether any forgot what it had acknowledged.

3 servers, 2 hosts.
"""

import argparse
import asyncio
import os
import random
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import uvloop

from bench import usage
from bench.harness import NAMESPACE, Line, agent_spec, emit, local_cluster, parser, percentile, say
from tenure_cli.dev.cluster import DevCluster
from tenure_cli.dev.plan import HostPlan
from tenure_cli.ports import Cluster
from tenure_cli.remote import RemoteCluster
from tenure_proto.v1 import registry_pb2

PARTS = ("wake", "memory", "size")
WAKERS = 60
IDLE_S = 0.25
SHORT_S = 0.05
"""Of agents that are made to sleep and nothing else."""
BATCH = 250
UNDER_WAY = 500
"""Agents that may be made and not asleep yet."""
CALLED = 200
CHANGES = 400
CHANGES_S = 0.02
LOOK_S = 0.02
FORGOTTEN_S = 15.0
"""The gauge of the loop's delay has lost a half of what it was ten times by then."""
PATIENCE_S = 600.0
MADE_S = 1800.0
_one = msgspec.msgpack.encode({"by": 1})
_none = msgspec.msgpack.encode({})


def spec_of(name: str, idle_s: float) -> registry_pb2.AgentSpec:
    """A counter that asks for no room: how many fit on a host is not the question here."""
    spec = agent_spec(name)
    spec.cpu_milli = spec.memory_bytes = 0
    spec.idle_timeout_s = idle_s
    return spec


async def ask(cluster: Cluster, name: str, method: str, arguments: bytes) -> int:
    """What a counter answers."""
    assert isinstance(cluster, RemoteCluster)
    reply = await cluster.remote.call(f"{NAMESPACE}/{name}", "by_name", method, arguments, timeout_s=PATIENCE_S)
    return int(msgspec.msgpack.decode(reply.value))


async def timed(cluster: Cluster, name: str, method: str) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    await ask(cluster, name, method, _one if method == "increment" else _none)
    return (time.perf_counter() - began) * 1000


# --- what a host says of itself ---------------------------------------------------------------------------------------


async def gauges(host: HostPlan) -> dict[str, float]:
    """Its page of metrics; empty while it does not answer."""

    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{host.http_port}/metrics", timeout=10) as page:
            return str(page.read().decode())

    with suppress(OSError):
        pairs = (line.rpartition(" ") for line in (await asyncio.to_thread(read)).splitlines() if line[:1] != "#")
        return {name: float(value) for name, _, value in pairs}
    return {}


async def asleep(hosts: Sequence[HostPlan]) -> int:
    """Agents that sleep there."""
    name = 'tenure_host_agents{phase="Hibernated"}'
    return int(sum([(await gauges(host)).get(name, 0) for host in hosts]))


async def until_asleep(hosts: Sequence[HostPlan], count: int, patience_s: float = PATIENCE_S) -> None:
    """So many, at least."""
    async with asyncio.timeout(patience_s):
        while await asleep(hosts) < count:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def worst_lag(host: HostPlan) -> AsyncIterator[list[float]]:
    """The longest delays of its loop, in milliseconds, as often as it can be asked."""
    seen: list[float] = []

    async def look() -> None:
        while True:
            lag = (await gauges(host)).get("tenure_host_loop_lag_seconds")
            seen.extend([] if lag is None else [lag * 1000])
            await asyncio.sleep(LOOK_S)

    task = asyncio.create_task(look())
    try:
        yield seen
    finally:
        task.cancel()


def private_bytes(running: DevCluster, kind: str) -> dict[str, float]:
    """Host -> Uss of its processes of a kind."""

    def uss(pid: int) -> int:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))

    return {
        process.name: sum(uss(pid) for pid in usage.children(process.pid) if usage.kind(pid) == kind)
        for process in running.hosts
    }


# --- making them ------------------------------------------------------------------------------------------------------


async def make(cluster: Cluster, names: Sequence[str], idle_s: float, hosts: Sequence[HostPlan]) -> None:
    """In batches, not many more than can begin; with an idle time until all sleep, else until each has answered."""
    before = await asleep(hosts)
    began = time.perf_counter()
    for at in range(0, len(names), BATCH):
        part = names[at : at + BATCH]
        results = await cluster.apply_agents([spec_of(name, idle_s) for name in part])
        if any(result.outcome == "refused" for result in results):
            raise RuntimeError(f"refused: {results[0]}")
        if not idle_s:
            await asyncio.gather(*(ask(cluster, name, "value", _none) for name in part))
            continue
        await until_asleep(hosts, before + at + len(part) - UNDER_WAY, MADE_S)
        if at % (40 * BATCH) == 0:
            say(f"{at + len(part)} of {len(names)} agents, {time.perf_counter() - began:.0f} s{_load()}")
    if idle_s:
        await until_asleep(hosts, before + len(names), MADE_S)
    say(f"{len(names)} agents are there after {time.perf_counter() - began:.0f} s{_load()}")


def _load() -> str:
    return f" (load {os.getloadavg()[0]:.1f})"


# --- the parts --------------------------------------------------------------------------------------------------------


async def wake(given: argparse.Namespace) -> list[Line]:
    """Of agents that fell asleep, and the same of some that did not."""
    times: dict[tuple[str, str], list[float]] = {}
    names = {"asleep": [f"sleeper-{n}" for n in range(WAKERS)], "in memory": [f"awake-{n}" for n in range(WAKERS)]}
    specs = [spec_of(name, IDLE_S if kind == "asleep" else 0) for kind, all_ in names.items() for name in all_]
    async with local_cluster(specs, log=given.log, profile=given.profile, hosts=2) as (running, cluster):
        for name in names["asleep"] + names["in memory"]:
            await ask(cluster, name, "increment", _one)  # the client knows where they are
        while sum(map(len, times.values())) < 4 * given.runs:
            await until_asleep(running.plan.hosts, WAKERS)
            for number in range(WAKERS):
                method = ("increment", "value")[number % 2]
                for kind, each in names.items():
                    times.setdefault((kind, method), []).append(await timed(cluster, each[number], method))
            done = {" ".join(key): f"{percentile(found, 0.5):.2f}" for key, found in times.items()}
            say(f"{len(times['asleep', 'increment'])} of {given.runs}: {done} ms{_load()}")
    what = {"increment": "a durable call", "value": "a query"}
    return [
        Line(f"{what[method]} to an agent that is {kind}, {name}", percentile(found, share), "ms", found)
        for (kind, method), found in sorted(times.items())
        for share, name in ((0.5, "p50"), (0.99, "p99"))
    ]


async def memory(given: argparse.Namespace) -> list[Line]:
    """Each kind in processes of its own: what has grown does not shrink again."""
    count, lines = given.resident, list[Line]()
    for title, idle_s in (("that sleeps", SHORT_S), ("in memory, idle", 0.0)):
        async with local_cluster([], log=given.log, profile=given.profile, hosts=2) as (running, cluster):
            await make(cluster, [f"warm-{n}" for n in range(BATCH)], idle_s, running.plan.hosts)
            before = await collect(cluster, running)
            await make(cluster, [f"agent-{n}" for n in range(count)], idle_s, running.plan.hosts)
            grown = await collect(cluster, running)
        for kind in ("worker", "host"):
            found = [(grown[kind][host] - before[kind][host]) / count for host in grown[kind]]
            where = "worker" if kind == "worker" else "hosts, with a row of it in each"
            lines.append(Line(f"memory of an agent {title}: {where}", sum(found), "B", found))
    return lines


async def collect(cluster: Cluster, running: DevCluster) -> dict[str, dict[str, float]]:
    """Kind of process -> host -> private bytes, after a garbage collection of each worker."""
    for host in running.plan.hosts:
        for number in range(100):  # one of them is on it
            name = f"collector-{host.name}-{number}"
            await cluster.apply_agents([spec_of(name, 0)])
            if (await cluster.call(f"{NAMESPACE}/{name}", "collect", {}, PATIENCE_S)).host == host.name:
                break
    await asyncio.sleep(2)
    return {kind: private_bytes(running, kind) for kind in ("worker", "host")}


async def size(given: argparse.Namespace) -> list[Line]:
    """All on one host, which is killed in the end."""
    async with local_cluster([], log=given.log, profile=given.profile, hosts=2) as (running, cluster):
        full, empty = running.plan.hosts
        await cluster.quarantine(empty.name, "bench: all agents are to be on the other host")
        before = {kind: private_bytes(running, kind) for kind in ("worker", "host")}
        names = [f"sleeper-{n}" for n in range(given.agents)]
        await make(cluster, names, SHORT_S, [full])
        grown = {
            (kind, host.name): (private_bytes(running, kind)[host.name] - before[kind][host.name]) / len(names)
            for kind in ("worker", "host")
            for host in (full, empty)
        }
        chosen = random.Random(1).sample(names, min(CALLED, len(names)))
        await asyncio.gather(*(ask(cluster, name, "increment", _one) for name in chosen))
        await until_asleep([full], len(names))
        await asyncio.sleep(FORGOTTEN_S)
        async with worst_lag(full) as quiet:
            await asyncio.sleep(CHANGES * CHANGES_S / 2)
        async with worst_lag(full) as changing:
            await change(cluster, names)
        say(f"loop delays {max(quiet):.1f} ms at rest, {max(changing):.1f} ms while rows change{_load()}")
        await cluster.quarantine(empty.name, "")
        roots = [process.pid for process in (*running.servers, running.process(empty.name))]
        used = usage.by_kind(roots)
        away, everyone, lag = await take_over(running, cluster, (full, empty), (names, chosen))
        spent = usage.spent(used, usage.by_kind(roots))
        spent = {kind: seconds * 1e6 / len(names) for kind, seconds in spent.items()}
        say(f"processor time of one that is taken over, us: { {kind: round(us) for kind, us in spent.items()} }")
    title = f"{len(names)} agents asleep on one host"
    return [
        *(Line(f"{title}: memory of one, {kind} of {name}", each, "B", [each]) for (kind, name), each in grown.items()),
        Line(f"{title}: the loop's worst delay at rest", max(quiet), "ms", quiet),
        Line(f"{title}: the loop's worst delay while rows of them change", max(changing), "ms", changing),
        Line(f"{title}, it is killed: until {len(chosen)} have answered, the slowest", max(away), "s", away),
        Line(f"{title}, it is killed: until they sleep at the other one", everyone, "s", [everyone]),
        Line(f"{title}, it is killed: processor time of each", sum(spent.values()), "us", list(spent.values())),
        Line(f"{title}, it is killed: the other loop's worst delay", max(lag), "ms", lag),
        Line(f"{title}, it is killed: agents of {len(chosen)} that lost an acknowledged call", 0, "", []),
    ]


async def change(cluster: Cluster, names: Sequence[str]) -> None:
    """Rows of its agents, one at a time."""
    for number in range(CHANGES):
        spec = spec_of(names[number % len(names)], SHORT_S)
        spec.labels["change"] = str(number)
        await cluster.apply_agents([spec])
        await asyncio.sleep(CHANGES_S)


async def take_over(
    running: DevCluster, cluster: Cluster, hosts: tuple[HostPlan, HostPlan], names: tuple[Sequence[str], Sequence[str]]
) -> tuple[list[float], float, list[float]]:
    """(seconds until each of the chosen has answered, seconds until all sleep again, delays of the loop that takes
    them). Raises RuntimeError when one does not know what it had acknowledged.
    """
    full, empty = hosts
    everyone, chosen = names
    async with worst_lag(empty) as lag:
        began = time.perf_counter()
        await running.process(full.name).kill(restart=False)

        async def back(name: str) -> float:
            if (count := await ask(cluster, name, "increment", _one)) != 2:
                raise RuntimeError(f"{name} counts {count} instead of 2")
            return time.perf_counter() - began

        away = await asyncio.gather(*map(back, chosen))
        say(f"{len(chosen)} have answered after {max(away):.2f} s{_load()}")
        await until_asleep([empty], len(everyone), MADE_S)
        took = time.perf_counter() - began
        say(f"all sleep again after {took:.1f} s{_load()}")
    return away, took, lag


async def measure(given: argparse.Namespace) -> list[Line]:
    """The parts that are wanted."""
    parts = {"wake": wake, "memory": memory, "size": size}
    return [line for name in given.part.split(",") for line in await parts[name](given)]


def main() -> None:
    """`python -m bench.sleepers`."""
    options = parser(__doc__ or "", runs=500)
    options.add_argument("--part", default=",".join(PARTS), help=f"some of {', '.join(PARTS)} (default: all)")
    options.add_argument("--agents", type=int, default=100_000, help="asleep on one host (default: 100000)")
    options.add_argument("--resident", type=int, default=5000, help="in memory, of `memory` (default: 5000)")
    options.add_argument("--profile", default="Balanced", help="of leases (default: Balanced)")
    given = options.parse_args()
    emit(uvloop.run(measure(given)), as_json=given.json)


if __name__ == "__main__":
    main()
