"""How long an agent is away, and what becomes of its calls, when what holds it dies.

    python -m bench.failover [--json] [--runs 20]

Three deaths, each under a client that calls without pause:

* silence: the holder's whole process group is frozen (SIGSTOP). Sockets stay open, nothing is reset.
* daemon: the holder's daemon is killed, its supervisor lives.
* both: the holder and the leader's server are frozen together.

The time runs from the signal to the first reply of a call that was made after it. Every call adds one, and an
acknowledged one counts once: what the counter misses was lost, what it has too much was doubled.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.harness import NAMESPACE, Line, arguments, emit, local_cluster, percentile, say
from tenure_cli.dev.bring_up import wait_for_hosts, wait_for_leader
from tenure_cli.dev.cluster import DevCluster
from tenure_cli.dev.processes import Process
from tenure_cli.dev.workers import daemon_pids
from tenure_cli.ports import Cluster

AGENT = f"{NAMESPACE}/counter"
CALL_S = 30.0
SETTLE_S = 60.0
PAUSE_S = 0.01
"""Between calls: two cores are shared by client, servers and hosts."""
WARM_CALLS = 20
CALLS_AFTER = 20


@dataclass
class Tally:
    """What was acknowledged, and what the counter says, over all runs."""

    acknowledged: int = 0
    lost: list[float] = field(default_factory=list)
    doubled: list[float] = field(default_factory=list)

    async def check(self, cluster: Cluster) -> None:
        """Compare with the counter."""
        value = (await cluster.call(AGENT, "value", {}, CALL_S)).value
        self.lost.append(max(0, self.acknowledged - value))
        self.doubled.append(max(0, value - self.acknowledged))
        self.acknowledged = value

    async def increment(self, cluster: Cluster) -> str:
        """One call; the host that answered."""
        host = (await cluster.call(AGENT, "increment", {"by": 1}, CALL_S)).host
        self.acknowledged += 1
        return host


Strike = Callable[[DevCluster, str, str], Sequence[Process]]
"""Given the cluster, the holder and the leader: strike, and return the processes that must be replaced afterwards."""


def freeze_host(running: DevCluster, holder: str, _leader: str) -> Sequence[Process]:
    """Silence of one host."""
    victim = running.process(holder)
    victim.freeze()
    return [victim]


def kill_daemon(running: DevCluster, holder: str, _leader: str) -> Sequence[Process]:
    """The daemon alone; its supervisor starts it again."""
    for pid in daemon_pids(running.process(holder).pid):
        os.kill(pid, signal.SIGKILL)
    return []


def freeze_both(running: DevCluster, holder: str, leader: str) -> Sequence[Process]:
    """Silence of the holder's host and of the leader's server at once."""
    victims = [running.process(holder), running.process(leader)]
    for victim in victims:
        victim.freeze()
    return victims


async def one_run(running: DevCluster, cluster: Cluster, strike: Strike, tally: Tally) -> float:
    """Milliseconds from the strike to the first reply of a call made after it. Leaves a whole cluster."""
    leader = (await wait_for_leader(cluster)).leader
    holder = ""
    for _ in range(WARM_CALLS):
        holder = await tally.increment(cluster)
        await asyncio.sleep(PAUSE_S)
    # One call is under way at the strike, as in life.
    under_way = asyncio.create_task(tally.increment(cluster))
    await asyncio.sleep(0)
    began = time.monotonic()
    victims = strike(running, holder, leader)
    await tally.increment(cluster)
    away_ms = (time.monotonic() - began) * 1000
    await under_way
    for _ in range(CALLS_AFTER):
        await tally.increment(cluster)
    await tally.check(cluster)
    for victim in victims:
        await victim.kill(restart=True)
    await whole_again(running, cluster)
    return away_ms


async def whole_again(running: DevCluster, cluster: Cluster) -> None:
    """All servers caught up, all hosts ready: the next run starts from the same."""
    async with asyncio.timeout(SETTLE_S):
        while True:
            status = await wait_for_leader(cluster)
            if status.quorum_ready == len(status.servers) and all(server.store == "ready" for server in status.servers):
                break
            await asyncio.sleep(0.2)
    await wait_for_hosts(cluster, [host.name for host in running.plan.hosts], SETTLE_S)


async def measure(runs: int, *, log: bool) -> list[Line]:
    """All three deaths, one cluster."""
    lines: list[Line] = []
    async with local_cluster(["counter"], log=log) as (running, cluster):
        deaths: tuple[tuple[str, Strike, int], ...] = (
            ("host silent (group frozen)", freeze_host, runs),
            ("daemon killed, supervisor alive", kill_daemon, max(3, runs // 2)),
            ("host and leader's server silent", freeze_both, max(3, runs // 2)),
        )
        for name, strike, count in deaths:
            tally = Tally()
            tally.acknowledged = (await cluster.call(AGENT, "value", {}, CALL_S)).value
            times: list[float] = []
            for number in range(count):
                times.append(await one_run(running, cluster, strike, tally))
                say(f"{name}: run {number + 1} of {count}: {times[-1]:.0f} ms")
            lines += [
                Line(f"{name}: to the agent answering, p50", percentile(times, 0.5), "ms", times),
                Line(f"{name}: to the agent answering, worst of {count}", max(times), "ms", times),
                Line(f"{name}: acknowledged increments lost", sum(tally.lost), "calls", tally.lost),
                Line(f"{name}: increments doubled", sum(tally.doubled), "calls", tally.doubled),
            ]
    return lines


def main() -> None:
    """`python -m bench.failover`."""
    given = arguments(__doc__ or "", runs=20)
    emit(asyncio.run(measure(given.runs, log=given.log)), as_json=given.json)


if __name__ == "__main__":
    main()
