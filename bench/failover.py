"""How long agents are away, and what becomes of their calls, when what holds them dies.

    python -m bench.failover [--json] [--runs 30] [--profile Balanced] [--kind sigstop --kind killed ...] [--steps]

Kinds, each under clients that call without pause:

* sigstop: the holder's whole process group is frozen. Sockets stay open, nothing is reset.
* silent: the holder's machine loses its power: nothing it sends arrives any more, then everything on it is killed.
* partition: the holder is cut off, both ways, and runs on.
* deaf: nothing that the holder sends arrives; it hears the others.
* killed: the holder's daemon is killed, its supervisor lives.
* tree: the holder's daemon and all its workers are killed, their supervisor lives.
* leader-and-host: the holder and the leader's server are frozen together.
* most: the holder and another host of the three are frozen together: the guard holds their failover back.
* quiet: nothing happens for `--minutes`, with a busy process for each core; what is counted are false expiries.

The time runs from the strike to the first reply of a call that was made after it, of the slowest agent that the host
held. Every call adds one, and an acknowledged one counts once: what a counter misses was lost, what it has too much was
doubled. `--steps` says on standard error when the servers suspected, ended and replaced the holder.

Restate was not run: `theirs` is null. Its figures of another day (same machine, quiet, slowest key): 2.9 to 3.7 s after
a kill, 7.2 to 8.2 s after a hang.
"""

import asyncio
import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bench import netcut
from bench.harness import NAMESPACE, Line, emit, local_cluster, parser, percentile, say
from bench.strikes import KINDS, SETTLE_S, Stage, Strike
from tenure_cli.dev.bring_up import wait_for_hosts, wait_for_leader
from tenure_cli.ports import Cluster, Rows

AGENTS = 6
CALL_S = 40.0
PAUSE_S = 0.02
"""Between calls: two cores are shared by clients, servers and hosts."""
WARM_CALLS = 8
CALLS_AFTER = 8


@dataclass
class Tally:
    """What was acknowledged, and what each counter says."""

    acknowledged: dict[str, int]
    lost: list[float] = field(default_factory=list)
    doubled: list[float] = field(default_factory=list)

    async def check(self, cluster: Cluster) -> None:
        """Compare with the counters."""
        values = await asyncio.gather(*(value_of(cluster, name) for name in self.acknowledged))
        pairs = list(zip(self.acknowledged.values(), values, strict=True))
        self.lost.append(sum(max(0, mine - value) for mine, value in pairs))
        self.doubled.append(sum(max(0, value - mine) for mine, value in pairs))
        self.acknowledged = dict(zip(self.acknowledged, values, strict=True))

    async def increment(self, cluster: Cluster, name: str) -> str:
        """One call; the host that answered."""
        host = (await cluster.call(name, "increment", {"by": 1}, CALL_S)).host
        self.acknowledged[name] += 1
        return host


async def value_of(cluster: Cluster, name: str) -> int:
    """What a counter says."""
    return int((await cluster.call(name, "value", {}, CALL_S)).value)


NOT_BY_DEFAULT = ("most",)


# --- one run --------------------------------------------------------------------------------------------------------


async def one_run(stage: Stage, strike: Strike, tally: Tally, *, steps: bool) -> float:
    """Milliseconds from the strike to the first reply of the slowest agent. Leaves a whole cluster."""
    leader = (await wait_for_leader(stage.cluster)).leader
    holders: dict[str, str] = {}
    for _ in range(WARM_CALLS):
        for name in stage.names:
            holders[name] = await tally.increment(stage.cluster, name)
        await asyncio.sleep(PAUSE_S)
    holder = holders[stage.names[0]]
    victims = [name for name, host in holders.items() if host == holder]
    # One call of each is under way at the strike, as in life.
    under_way = [asyncio.create_task(tally.increment(stage.cluster, name)) for name in victims]
    await asyncio.sleep(0)
    async with watched(stage.cluster, victims, holder) as story:
        began = time.monotonic()
        repair = strike(stage, holder, leader)
        away = await asyncio.gather(*(back(stage.cluster, tally, name, began) for name in victims))
    if steps:
        say(f"    leader {leader}, holder {holder}: {story.text(began)}; answers {[round(ms) for ms in away]} ms")
    await asyncio.gather(*under_way)
    for _ in range(CALLS_AFTER):
        await asyncio.gather(*(tally.increment(stage.cluster, name) for name in stage.names))
    await tally.check(stage.cluster)
    await repair()
    await whole_again(stage)
    return max(away)


async def back(cluster: Cluster, tally: Tally, name: str, began: float) -> float:
    """Milliseconds until an agent has answered a call that was made after the strike."""
    await tally.increment(cluster, name)
    return (time.monotonic() - began) * 1000


@dataclass
class Story:
    """When the registry showed what."""

    times: dict[str, float] = field(default_factory=dict)

    def note(self, what: str) -> None:
        """The first time counts."""
        self.times.setdefault(what, time.monotonic())

    def text(self, began: float) -> str:
        """In milliseconds after the strike."""
        return ", ".join(f"{what} {(at - began) * 1000:.0f}" for what, at in self.times.items())


@asynccontextmanager
async def watched(cluster: Cluster, names: list[str], holder: str) -> AsyncGenerator[Story]:
    """Follow the registry while something happens."""
    story, begun = Story(), asyncio.Event()
    old: dict[str, int] = {}

    async def follow() -> None:
        async for rows in cluster.watch():
            if not begun.is_set():
                old.update({row.spec.id: row.epoch for row in rows.agents.values()})
                begun.set()
            look(rows)

    def look(rows: Rows) -> None:
        if any(host.name == holder and host.suspect and not host.expired for host in rows.hosts.values()):
            story.note("suspected")
        mine = [row for row in rows.agents.values() if row.spec.id in names]
        if any(not row.host for row in mine):
            story.note("ended")
        if any(row.host and row.epoch > old[row.spec.id] for row in mine):
            story.note("assigned")
        if all(row.ready and row.epoch > old[row.spec.id] for row in mine):
            story.note("ready")

    task = asyncio.create_task(follow())
    await begun.wait()
    try:
        yield story
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def whole_again(stage: Stage) -> None:
    """All servers caught up, all hosts ready and trusted: the next run starts from the same."""
    async with asyncio.timeout(SETTLE_S):
        while True:
            status = await wait_for_leader(stage.cluster)
            if status.quorum_ready == len(status.servers) and all(server.store == "ready" for server in status.servers):
                break
            await asyncio.sleep(0.2)
        await wait_for_hosts(stage.cluster, [host.name for host in stage.running.plan.hosts], SETTLE_S)
        async for rows in stage.cluster.watch():
            if all(row.ready for row in rows.agents.values()) and not any(row.suspect for row in rows.live_hosts()):
                return


# --- all runs -------------------------------------------------------------------------------------------------------


async def measure(profile: str, kinds: list[str], runs: int, *, log: bool, steps: bool) -> list[Line]:
    """One cluster, one kind after the other."""
    lines: list[Line] = []
    names = [f"counter-{number}" for number in range(AGENTS)]
    async with local_cluster(names, log=log, profile=profile) as (running, cluster):
        stage = Stage(running, cluster, [f"{NAMESPACE}/{name}" for name in names])
        try:
            for kind in kinds:
                lines += await measure_kind(stage, kind, profile, runs, steps=steps)
        finally:
            for cage in stage.cages.values():
                cage.heal()
    for cage in stage.cages.values():
        cage.close()
    return lines


async def measure_kind(stage: Stage, kind: str, profile: str, runs: int, *, steps: bool) -> list[Line]:
    """All runs of one kind."""
    name, strike, caged = KINDS[kind]
    if caged:
        for host in stage.running.plan.hosts:
            await stage.enclose(host.name)
    await whole_again(stage)
    tally = Tally({agent: await value_of(stage.cluster, agent) for agent in stage.names})
    times: list[float] = []
    for number in range(runs):
        load = os.getloadavg()[0]
        times.append(await one_run(stage, strike, tally, steps=steps))
        say(f"{profile}, {name}: run {number + 1} of {runs}: {times[-1]:.0f} ms (load {load:.1f})")
    title = f"{profile}, {name}"
    return [
        Line(f"{title}: to its slowest agent answering, p50", percentile(times, 0.5), "ms", times),
        Line(f"{title}: to its slowest agent answering, worst of {runs}", max(times), "ms", times),
        Line(f"{title}: acknowledged increments lost", sum(tally.lost), "calls", tally.lost),
        Line(f"{title}: increments doubled", sum(tally.doubled), "calls", tally.doubled),
    ]


async def stay_quiet(profile: str, minutes: float, burners: int, *, log: bool) -> list[Line]:
    """False expiries while every core is busy, and calls go on."""
    names = [f"counter-{number}" for number in range(AGENTS)]
    burn = [sys.executable, "-c", "while True: pass"]
    async with local_cluster(names, log=log, profile=profile) as (running, cluster):
        stage = Stage(running, cluster, [f"{NAMESPACE}/{name}" for name in names])
        await whole_again(stage)
        before = await cluster_failovers(cluster)
        tally = Tally({agent: await value_of(cluster, agent) for agent in stage.names})
        busy = [subprocess.Popen(burn) for _ in range(burners)]  # noqa: ASYNC220 - instant
        suspicions, load, lowest = [0.0], 0.0, math.inf
        try:
            watching = asyncio.create_task(count_suspicions(cluster, suspicions))
            until = time.monotonic() + minutes * 60
            while time.monotonic() < until:
                for name in stage.names:
                    await tally.increment(cluster, name)
                await asyncio.sleep(0.2)
                load, lowest = max(load, os.getloadavg()[0]), min(lowest, os.getloadavg()[0])
            if watching.done():
                watching.result()  # it ended by an error: then nobody has counted
            watching.cancel()
        finally:
            for process in busy:
                process.kill()
                process.wait()
        await tally.check(cluster)
        expired = await cluster_failovers(cluster) - before
    loads = f"load {lowest:.1f} to {load:.1f}"
    say(f"{profile}: {minutes:g} min, {loads}, {suspicions[0]:g} suspicions")
    title = f"{profile}, {minutes:g} min with every core busy"
    return [
        Line(f"{title}: hosts ended without cause", expired, "hosts", [expired]),
        Line(f"{title}: suspicions (they move nothing)", suspicions[0], "", suspicions),
        Line(f"{title}: acknowledged increments lost", sum(tally.lost), "calls", tally.lost),
    ]


async def count_suspicions(cluster: Cluster, count: list[float]) -> None:
    """How often some host began to be suspected."""
    suspected: set[str] = set()
    async for rows in cluster.watch():
        now = {row.incarnation for row in rows.live_hosts() if row.suspect}
        count[0] += len(now - suspected)
        suspected = now


async def cluster_failovers(cluster: Cluster) -> int:
    """Hosts that ended without having said so, as far as the registry shows them."""
    async for rows in cluster.watch():
        return sum(row.ended in ("LeaseExpired", "HostLost") for row in rows.hosts.values())
    return 0


def main() -> None:
    """`python -m bench.failover`."""
    options = parser(__doc__ or "", runs=30)
    options.add_argument("--profile", default="Balanced", choices=("Fast", "Balanced", "Calm"))
    options.add_argument(
        "--kind", action="append", choices=(*KINDS, "quiet"), help="default: all but most and quiet; repeat"
    )
    options.add_argument("--minutes", type=float, default=10.0, help="of quiet (default: 10)")
    options.add_argument(
        "--burners",
        type=int,
        default=os.cpu_count() or 1,
        help="busy processes in quiet (default: one a core; 0 where others keep the machine busy)",
    )
    options.add_argument("--steps", action="store_true", help="say when the servers did what")
    given = options.parse_args()
    kinds = given.kind or [kind for kind in KINDS if kind not in NOT_BY_DEFAULT]
    refusal = netcut.why_not() if any(kind in KINDS and KINDS[kind][2] for kind in kinds) else ""
    if refusal and given.kind:
        sys.exit(f"bench.failover: {refusal}")
    if refusal:
        say(f"left out silent, partition and deaf: {refusal}")
        kinds = [kind for kind in kinds if not KINDS[kind][2]]
    lines: list[Line] = []
    if [kind for kind in kinds if kind != "quiet"]:
        hard = [kind for kind in kinds if kind != "quiet"]
        lines += asyncio.run(measure(given.profile, hard, given.runs, log=given.log, steps=given.steps))
    if "quiet" in kinds:
        lines += asyncio.run(stay_quiet(given.profile, given.minutes, given.burners, log=given.log))
    emit(lines, as_json=given.json)


if __name__ == "__main__":
    main()
