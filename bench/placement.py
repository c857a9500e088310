"""What a placement decision costs: 100 hosts, 10,000 agents, no disk and no network.

    python -m bench.placement [--json] [--runs N]

A decision is one call of `place` with one agent, in a cluster that holds 10,000 already: filters and scores of all
hosts, explanation included. Each decision is carried out (its `Assign` is applied, which keeps usage, groups and
history) before the next one is asked for, and another agent leaves, so that the cluster stays as full as it was. Then a
batch: 10,000 at once into the empty cluster, and what that is for each of them.

Each decision is timed twice: by the wall clock, and by the processor time of this process, which a busy machine does
not change. No peer: kube-scheduler decides over a watch of an API server and binds through it, one pod at a time; no
part of it could be set beside this one function in the same run. `theirs` is null.
"""

import time
from collections.abc import Sequence

import msgspec

from bench.harness import Line, arguments, emit, percentile, say
from tenured.core import commands as c
from tenured.core import machine
from tenured.core.agentspec import AgentSpec, Spread
from tenured.core.model import Agent, AgentClass, Node, Pool
from tenured.core.placement import STRATEGIES, place
from tenured.core.registry import Registry

HOSTS = 100
AGENTS = 10_000
ZONES = 4
NO_PEER = "none: kube-scheduler has no such part"
CASES: dict[str, dict[str, object]] = {
    **{name: {"strategy": name} for name in STRATEGIES},
    "LoadBalanced, with requires, a selector and spread by zone and host": {
        "requires": ("gpu",),
        "node_selector": {"disk": "fast"},
        "spread": (Spread(by="Zone"), Spread(by="Host", max_skew=5)),
    },
}


class World:
    """A registry and its log."""

    def __init__(self) -> None:
        self.registry = Registry()
        self._index = 0
        self._created = 0
        nodes = tuple(
            Node(
                name=f"node-{n}",
                labels={"topology.kubernetes.io/zone": f"zone-{n % ZONES}", "disk": "fast" if n % 2 else "slow"},
            )
            for n in range(HOSTS)
        )
        self.apply(c.ApplyPools(pools=(Pool(name="default", max_agents_per_host=1000),)))
        self.apply(c.SetNodes(nodes=nodes))
        classes = (AgentClass(name="Counter"), AgentClass(name="Other"))
        for n in range(HOSTS):
            self.apply(
                c.RegisterHost(
                    name=f"host-{n}",
                    incarnation=f"incarnation-{n}",
                    pool="default",
                    node=f"node-{n}",
                    cpu_milli=32_000,
                    memory_bytes=64 << 30,
                    capabilities=("gpu", "big") if n % 3 else ("big",),
                )
            )
            self.apply(c.ReportHost(incarnation=f"incarnation-{n}", ready=True, classes=classes))

    def apply(self, command: c.Command) -> None:
        self._index += 1
        machine.apply(self.registry, self._index, command)

    def create(self, count: int, **wish: object) -> list[Agent]:
        first, self._created = self._created, self._created + count
        blank = AgentSpec(id="bench/x", class_name="Counter", cpu_milli=100, memory_bytes=64 << 20)
        specs = tuple(
            msgspec.structs.replace(blank, id=f"bench/agent-{n}", **wish) for n in range(first, first + count)
        )
        self.apply(c.ApplyAgents(agents=specs, managed_by="API"))
        return [self.registry.agents[self.registry.by_id[spec.id]] for spec in specs]

    def assign(self, agent: Agent, incarnation: str, explanation: str) -> None:
        item = c.Assignment(
            uid=agent.uid, epoch=agent.epoch, incarnation=incarnation, reason="Scheduled", explanation=explanation
        )
        self.apply(c.Assign(items=(item,)))

    def remove(self, agent: Agent) -> None:
        row = self.registry.agents[agent.uid]
        self.apply(c.DeleteAgents(ids=(row.id,), managed_by="API"))
        report = c.AgentReport(uid=row.uid, epoch=row.epoch, stopped=True)
        self.apply(c.AgentReports(incarnation=row.incarnation, reports=(report,)))


def full() -> tuple[World, list[Agent]]:
    """A cluster that holds AGENTS agents."""
    world = World()
    agents = world.create(AGENTS)
    for agent, found in zip(agents, place(world.registry, agents), strict=True):
        world.assign(agent, found.incarnation, found.explanation)
    return world, agents


def decisions(
    world: World, standing: list[Agent], runs: int, wish: dict[str, object]
) -> tuple[list[float], list[float]]:
    """Milliseconds of each: by the wall clock, and of the processor."""
    walls: list[float] = []
    busy: list[float] = []
    for _ in range(runs):
        (agent,) = world.create(1, **wish)
        begin, used = time.perf_counter(), time.process_time()
        (found,) = place(world.registry, [agent])
        busy.append((time.process_time() - used) * 1000)
        walls.append((time.perf_counter() - begin) * 1000)
        if not found.incarnation:
            raise SystemExit(f"an agent fits nowhere: {found.message}")
        world.assign(agent, found.incarnation, found.explanation)
        standing.append(agent)
        world.remove(standing.pop(0))
    return walls, busy


def batch(wish: dict[str, object]) -> tuple[float, float]:
    """Milliseconds for AGENTS agents at once: by the wall clock, and of the processor."""
    world = World()
    agents = world.create(AGENTS, **wish)
    begin, used = time.perf_counter(), time.process_time()
    placed = place(world.registry, agents)
    busy = (time.process_time() - used) * 1000
    wall = (time.perf_counter() - begin) * 1000
    if not all(found.incarnation for found in placed):
        raise SystemExit("an agent of the batch fits nowhere")
    return wall, busy


def measure(runs: int) -> Sequence[Line]:
    """All cases."""
    lines: list[Line] = []
    world, standing = full()
    for name, wish in CASES.items():
        say(name)
        walls, busy = decisions(world, standing, runs, wish)
        what = f"one decision, {HOSTS} hosts, {AGENTS:,} agents, {name}"
        for times, suffix in ((walls, ""), (busy, " (processor time)")):
            lines += [
                Line(f"{what}, {word}{suffix}", percentile(times, share), "ms", times, peer=NO_PEER)
                for word, share in (("p50", 0.5), ("p95", 0.95))
            ]
    for name, wish in CASES.items():
        runs_of_it = [batch(wish) for _ in range(3)]
        what = f"batch of {AGENTS:,}, {HOSTS} hosts, {name}, each, worst of 3"
        for which, suffix in ((0, ""), (1, " (processor time)")):
            each = [took[which] / AGENTS for took in runs_of_it]
            lines.append(Line(f"{what}{suffix}", max(each), "ms", each, peer=NO_PEER))
    return lines


def main() -> None:
    """`python -m bench.placement`."""
    given = arguments(__doc__ or "", runs=1000)
    emit(measure(given.runs), as_json=given.json)


if __name__ == "__main__":
    main()
