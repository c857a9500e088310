"""`python -m tools.soak turns`: many turns of agents that count and send, while processes die and hang.

Every call and every signal carries an id; the agents keep in their states what came (`agents/soak_agents.py`). At the
end, when nothing is under way any more, the states are compared with what clients were told and with what senders sent:
an acknowledged call or a signal that is missing is lost, one that came twice is doubled, a call of which "not applied"
was said and that is there is a lie. Signals that ended as dead letters are counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import usage
from bench.harness import NAMESPACE, agent_spec, local_cluster, say
from tenure import errors
from tenure_cli.dev.bring_up import wait_for_hosts, wait_for_leader
from tenure_cli.dev.cluster import DevCluster
from tenure_cli.ports import Cluster

AGENTS_DIR = Path(__file__).resolve().parent / "agents"
AGENTS = 24
LOOPS = 48
CALL_S = 60.0
APART_S = (0.5, 4.0)
"""Between two faults."""
HANG_S = (0.2, 6.0)
SETTLE_S = 120.0
Id = tuple[str, str]
"""(loop, agent)"""


@dataclass
class Told:
    """What the callers were told, by id."""

    acknowledged: dict[Id, list[int]] = field(default_factory=lambda: defaultdict(list))
    not_applied: dict[Id, list[int]] = field(default_factory=lambda: defaultdict(list))
    unknown: dict[Id, list[int]] = field(default_factory=lambda: defaultdict(list))
    refusals: Counter[str] = field(default_factory=Counter)

    def count(self, what: str) -> int:
        """Of one kind."""
        return sum(map(len, getattr(self, what).values()))


@dataclass
class Report:
    """Everything that was counted."""

    seed: int
    seconds: float
    turns: int
    acknowledged: int
    not_applied: int
    unknown: int
    signals: int
    dead_letters: int
    faults: dict[str, int]
    refusals: dict[str, int]
    found: list[str]

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        return "\n".join(
            [
                f"seed {self.seed}, {self.seconds:.0f} s: {self.turns} turns",
                f"calls: {self.acknowledged} acknowledged, {self.not_applied} not applied, {self.unknown} unknown",
                f"signals: {self.signals} sent, {self.dead_letters} dead letters",
                f"faults: {faults or 'none'}; refusals: {self.refusals}",
                f"**Lost, doubled, or told wrongly: {len(self.found)}.**",
                *self.found,
            ]
        )


class Load:
    """Callers that go on until so many turns have been made, or so many seconds have passed."""

    def __init__(self, cluster: Cluster, turns: int, seed: int, seconds: float) -> None:
        self.told = Told()
        self._until = time.monotonic() + seconds
        self.names = [f"{NAMESPACE}/soak-{number}" for number in range(AGENTS)]
        self._cluster, self._turns, self._seed = cluster, turns, seed
        self._next: Counter[Id] = Counter()
        self.done = 0

    async def run(self) -> None:
        """All of them."""
        await asyncio.gather(*(self._loop(number) for number in range(LOOPS)))

    async def _loop(self, number: int) -> None:
        rng, who = random.Random(self._seed * 1000 + number), f"loop-{number}"
        while self.done < self._turns and time.monotonic() < self._until:
            agent, to = rng.sample(self.names, 2)
            self._next[who, agent] += 1
            n = self._next[who, agent]
            kind = await self._call(agent, {"who": who, "n": n, "to": to})
            getattr(self.told, kind)[who, agent].append(n)
            self.done += 2  # the call, and the signal that it sends

    async def _call(self, agent: str, arguments: dict[str, Any]) -> str:
        try:
            await self._cluster.call(agent, "count", arguments, CALL_S)
        except errors.CallError as error:
            self.told.refusals[f"{error.code} ({error.outcome})"] += 1
            return str(error.outcome)
        return "acknowledged"


class Faults:
    """One after the other, by chance; each is repaired before the next."""

    def __init__(self, running: DevCluster, cluster: Cluster, seed: int) -> None:
        self._running, self._cluster, self._rng = running, cluster, random.Random(seed)
        self.made: Counter[str] = Counter()
        self.kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "workers killed": lambda: self._strike("worker", signal.SIGKILL),
            "workers hung": lambda: self._hang("worker"),
            "daemons killed": lambda: self._strike("host", signal.SIGKILL),
            "daemons hung": lambda: self._hang("host"),
            "hosts killed": self._host_killed,
            "hosts hung": self._host_hung,
            "servers killed": self._server_killed,
            "servers hung": self._server_hung,
            "all servers killed": self._servers_killed,
        }

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._rng.uniform(*APART_S))
            name = self._rng.choice(list(self.kinds))
            await self.kinds[name]()
            self.made[name] += 1

    def _victim(self, kind: str) -> int:
        host = self._rng.choice(self._running.hosts)
        found = [pid for pid in usage.children(host.pid) if usage.kind(pid) == kind]
        return self._rng.choice(found) if found else 0

    async def _strike(self, kind: str, number: signal.Signals) -> None:
        _send(self._victim(kind), number)

    async def _hang(self, kind: str) -> None:
        pid = self._victim(kind)
        _send(pid, signal.SIGSTOP)
        await asyncio.sleep(self._rng.uniform(*HANG_S))
        _send(pid, signal.SIGCONT)

    async def _host_killed(self) -> None:
        await self._rng.choice(self._running.hosts).kill(restart=True)
        await self._hosts()

    async def _host_hung(self) -> None:
        host = self._rng.choice(self._running.hosts)
        host.freeze()
        await asyncio.sleep(self._rng.uniform(*HANG_S))
        host.thaw()
        await self._hosts()

    async def _server_killed(self) -> None:
        await self._rng.choice(self._running.servers).kill(restart=True)
        await self._servers()

    async def _server_hung(self) -> None:
        server = self._rng.choice(self._running.servers)
        server.freeze()
        await asyncio.sleep(self._rng.uniform(*HANG_S))
        server.thaw()
        await self._servers()

    async def _servers_killed(self) -> None:
        await asyncio.gather(*(server.kill(restart=True) for server in self._running.servers))
        await self._servers()
        await self._hosts()

    async def _hosts(self) -> None:
        await wait_for_hosts(self._cluster, [host.name for host in self._running.plan.hosts], SETTLE_S)

    async def _servers(self) -> None:
        async with asyncio.timeout(SETTLE_S):
            while (await wait_for_leader(self._cluster)).quorum_ready < len(self._running.servers):  # noqa: ASYNC110
                await asyncio.sleep(0.2)


def _send(pid: int, number: signal.Signals) -> None:
    if pid:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


# --- the verdict ----------------------------------------------------------------------------------------------------


async def states_at_rest(cluster: Cluster, names: list[str]) -> dict[str, dict[str, Any]]:
    """Every agent's state once all that was sent has come, or nothing has changed for a long time."""
    before, since = -1, time.monotonic()
    while True:
        replies = await asyncio.gather(*(cluster.call(name, "seen", {}, SETTLE_S) for name in names))
        states = {name: reply.value for name, reply in zip(names, replies, strict=True)}
        sent, came = _sums(states)
        if sent == came or time.monotonic() - since > SETTLE_S:
            return states
        if came != before:
            before, since = came, time.monotonic()
        await asyncio.sleep(0.5)


def _sums(states: dict[str, dict[str, Any]]) -> tuple[int, int]:
    sent = sum(sum(state["sent"].values()) for state in states.values())
    tallies = [tally for state in states.values() for tally in state["signals"].values()]
    return sent, sum(tally["last"] - len(tally["missing"]) for tally in tallies)


def judge(told: Told, states: dict[str, dict[str, Any]], dead_letters: int) -> list[str]:
    """Every breach, in words."""
    found: list[str] = []
    empty = {"last": 0, "missing": [], "doubled": []}

    def applied(tally: dict[str, Any], n: int) -> bool:
        return n <= tally["last"] and n not in tally["missing"]

    pairs = {*told.acknowledged, *told.not_applied, *told.unknown}
    for who, agent in sorted(pairs):
        tally = states[agent]["calls"].get(who, empty)
        lost = [n for n in told.acknowledged.get((who, agent), []) if not applied(tally, n)]
        lies = [n for n in told.not_applied.get((who, agent), []) if applied(tally, n)]
        found += [f"{agent}: acknowledged and lost, of {who}: {lost}"] if lost else []
        found += [f"{agent}: 'not applied' and applied, of {who}: {lies}"] if lies else []
    for agent, state in states.items():
        for who, tally in (*state["calls"].items(), *state["signals"].items()):
            found += [f"{agent}: doubled, of {who}: {tally['doubled']}"] if tally["doubled"] else []
    missing = {
        f"{sender} to {receiver}": sent - tally["last"] + len(tally["missing"])
        for sender, state in states.items()
        for receiver, sent in state["sent"].items()
        if sent != (tally := states[receiver]["signals"].get(sender, empty))["last"] or tally["missing"]
    }
    if sum(missing.values()) > dead_letters:
        found.append(f"signals that did not come: {missing}; dead letters: {dead_letters}")
    return found


async def dead_letters_of(cluster: Cluster) -> int:
    """In all records."""
    async for rows in cluster.watch():
        return sum(row.dead_letters for row in rows.agents.values())
    return 0


async def soak(turns: int, seed: int, *, seconds: float = math.inf, log: bool = False) -> Report:
    """Run it, and count. After so many seconds no turn begins: what was made by then is judged."""
    began = time.monotonic()
    specs = [agent_spec(f"soak-{number}", "SoakAgent") for number in range(AGENTS)]
    async with local_cluster(specs, log=log, root=AGENTS_DIR, modules=("soak_agents",)) as (running, cluster):
        load, faults = Load(cluster, turns, seed, seconds), Faults(running, cluster, seed)
        striking, telling = asyncio.create_task(faults.run()), asyncio.create_task(tell(load, faults))
        try:
            await load.run()
        finally:
            for task in (striking, telling):
                task.cancel()
            ended = await asyncio.gather(striking, telling, return_exceptions=True)
            for process in (*running.servers, *running.hosts):
                process.thaw()
        await faults.kinds["servers killed"]()  # waits until all are whole
        states = await states_at_rest(cluster, load.names)
        letters = await dead_letters_of(cluster)
    told = load.told
    return Report(
        seed=seed,
        seconds=time.monotonic() - began,
        turns=sum(state["turns"] for state in states.values()),
        acknowledged=told.count("acknowledged"),
        not_applied=told.count("not_applied"),
        unknown=told.count("unknown"),
        signals=_sums(states)[0],
        dead_letters=letters,
        faults=dict(faults.made),
        refusals=dict(told.refusals),
        found=[
            *judge(told, states, letters),
            *(f"ended early: {error!r}" for error in ended if not isinstance(error, asyncio.CancelledError)),
        ],
    )


async def tell(load: Load, faults: Faults) -> None:
    """A line now and then."""
    while True:
        await asyncio.sleep(10)
        say(f"{load.done} turns, {faults.made.total()} faults (load {os.getloadavg()[0]:.1f})")


def main(arguments: list[str]) -> int:
    """Exit status 1 when anything was lost, doubled, or told wrongly."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.soak turns", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=1_000_000, help="default: 1,000,000")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="judge what was made after so long, if that is sooner"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 20))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    parser.add_argument("--log", action="store_true", help="print the processes' logs to standard error")
    given = parser.parse_args(arguments)
    report = asyncio.run(soak(given.turns, given.seed, seconds=60 * given.minutes, log=given.log))
    print(report)
    if given.json:
        given.json.write_text(json.dumps(asdict(report), indent=1) + "\n")
    return 1 if report.found else 0
