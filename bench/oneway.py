"""Signals from agents of one host to agents of another, one way, on a real cluster: actions run, state committed.

    python -m bench.oneway [--json] [--runs 5]

Eight senders on one host send to eight receivers each on another; a sender's turn sends 64 (8 to each of its
receivers), and goes on as long as its outbox has room. Counted is from the first call to the moment at which the
receivers have taken all. Lines: volatile agents, whose receivers run an action that does nothing; durable ones, whose
receivers count in their state, so that lost and doubled signals show. `bench.signals` measures the courier alone.
"""

import argparse
import asyncio
import os
import time

import uvloop

from bench import usage
from bench.harness import NAMESPACE, Line, agent_spec, emit, local_cluster, parser, percentile, say
from tenure import errors
from tenure_cli.dev.cluster import DevCluster
from tenure_cli.ports import Cluster

SENDERS = 8
RECEIVERS = 8
"""Of each sender."""
EACH = 8
"""Signals to each receiver in one turn."""
SEND_S = 2.0
ARRIVE_S = 20.0
FULL_S = 0.01


class Field:
    """Senders on one host, receivers on another."""

    def __init__(self, cluster: Cluster, senders: list[str], receivers: list[str], *, counted: bool) -> None:
        self._cluster = cluster
        self._counted = counted
        self._to = {sender: receivers[number::SENDERS][:RECEIVERS] for number, sender in enumerate(senders)}
        self.sent = 0

    async def post(self, until: float) -> None:
        """All senders, until then."""
        await asyncio.gather(*(self._post(sender, to, until) for sender, to in self._to.items()))

    async def _post(self, sender: str, to: list[str], until: float) -> None:
        arguments = {"to": to, "each": EACH, "counted": self._counted}
        while time.perf_counter() < until:
            try:
                reply = await self._cluster.call(sender, "post", arguments, 30.0)
                self.sent += reply.value
            except errors.CallError as error:
                if error.code != "OutboxFull":
                    raise
                await asyncio.sleep(FULL_S)

    async def taken(self) -> int:
        """By all receivers together."""
        names = [receiver for to in self._to.values() for receiver in to]
        replies = await asyncio.gather(*(self._cluster.call(name, "taken", {}, 30.0) for name in names))
        return sum(reply.value for reply in replies)


async def split(cluster: Cluster, kind: str) -> tuple[list[str], list[str]]:
    """Names of senders that one host has, and of receivers that another one has. Raises RuntimeError: too few."""
    async for rows in cluster.watch():
        mine = [row for row in rows.agents.values() if kind in row.spec.id]
        if len(mine) == 3 * SENDERS * (1 + RECEIVERS) and all(row.ready for row in mine):
            break
    senders = [row for row in mine if "sender" in row.spec.id]
    host = max({row.host for row in senders}, key=[row.host for row in senders].count)
    receivers = [row.spec.id for row in mine if "receiver" in row.spec.id and row.host != host]
    found = [row.spec.id for row in senders if row.host == host][:SENDERS]
    if len(found) < SENDERS or len(receivers) < SENDERS * RECEIVERS:
        raise RuntimeError(f"{host} has {len(found)} senders, and others {len(receivers)} receivers: too few")
    return found, receivers


async def one_round(field: Field, running: DevCluster) -> tuple[float, float]:
    """(signals a second, processor microseconds of one in all processes). Raises RuntimeError if any is lost."""
    roots = [process.pid for process in (*running.servers, *running.hosts)]
    already, sent, before = await field.taken(), field.sent, usage.by_kind(roots)
    begun = time.perf_counter()
    await field.post(begun + SEND_S)
    count = field.sent - sent
    async with asyncio.timeout(ARRIVE_S):
        while (taken := await field.taken() - already) < count:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    took = time.perf_counter() - begun
    if taken != count:
        raise RuntimeError(f"{count} sent, {taken} taken")
    return count / took, sum(usage.spent(before, usage.by_kind(roots)).values()) / count * 1e6


async def measure(given: argparse.Namespace) -> list[Line]:
    """Both kinds, in turns."""
    kinds = {"volatile": "Volatile", "durable": ""}
    specs = [
        agent_spec(f"{kind}-{what}-{number}", f"Bench{what.capitalize()}", durability)
        for kind, durability in kinds.items()
        for what, count in (("sender", 3 * SENDERS), ("receiver", 3 * SENDERS * RECEIVERS))
        for number in range(count)
    ]
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    async with local_cluster(specs, log=given.log, hosts=2) as (running, cluster):
        fields = {
            kind: Field(cluster, *await split(cluster, f"{NAMESPACE}/{kind}"), counted=kind == "durable")
            for kind in kinds
        }
        for number in range(given.runs + 1):  # the first one warms up
            for kind, field in fields.items():
                rate, used = await one_round(field, running)
                if number:
                    found[kind].append((rate, used))
                say(f"round {number}: {kind} {rate:.0f}/s, {used:.0f} us each (load {os.getloadavg()[0]:.1f})")
    lines: list[Line] = []
    for kind, runs in found.items():
        title = f"signals one way between hosts, {kind} agents, each runs an action"
        rates, costs = [run[0] for run in runs], [run[1] for run in runs]
        lines.append(Line(title, percentile(rates, 0.5), "1/s", rates))
        lines.append(Line(f"{title}: processor time of one", percentile(costs, 0.5), "us", costs))
    return lines


def main() -> None:
    """`python -m bench.oneway`."""
    given = parser(__doc__ or "", runs=5).parse_args()
    emit(uvloop.run(measure(given)), as_json=given.json)


if __name__ == "__main__":
    main()
