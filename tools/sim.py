"""The seeded simulations, on fresh seeds: `python -m tools.sim --seeds N [--first SEED] [--kind cluster]`, or
`make sim SEEDS=N`.

* `cluster`: the whole cluster (`tenured.simulation`): servers, hosts, clients and an operator under faults.
* `stories`: the same with agents of the SDK and its client (`tenure.testing`), under no, few or many faults.
* `signals`: as `stories`, with agents that send to each other, plan timers, take steps and wait, sleep, end, fail, ask
  each other, come to wait for each other, and hear topics: eight stories by turns.
* `consensus`: the Raft engine alone, on a network and disks that are worse than real ones (`tests/raft/sim`).
* `store`: the quorum register alone (`tests/core/core_register_sim.py`).

A breach prints the rule, its seed and the transcript of the first, and the exit status is 1. The seed repeats it.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenure.testing import Simulation

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), *(str(ROOT / part) for part in ("tests/core", "tests/simulation", "examples/counter"))]

CHUNK = 10
"""Seeds of one piece of work."""


@dataclass
class Result:
    """Of some seeds of one kind."""

    seeds: int = 0
    events: int = 0
    acknowledged: int = 0
    seconds: float = 0.0
    coverage: Counter[str] = field(default_factory=Counter)
    broken: dict[str, list[int]] = field(default_factory=dict)
    """rule -> seeds"""
    transcript: str = ""
    """Of the first."""

    def add(self, other: Result) -> None:
        """Sum up."""
        self.seeds += other.seeds
        self.events += other.events
        self.acknowledged += other.acknowledged
        self.seconds += other.seconds
        self.coverage += other.coverage
        for rule, seeds in other.broken.items():
            self.broken.setdefault(rule, []).extend(seeds)
        self.transcript = self.transcript or other.transcript


def cluster(first: int, count: int) -> Result:
    """The whole cluster."""
    from tenured.simulation import Breach, Cluster  # noqa: PLC0415 - only what is asked for

    result, began = Result(), time.process_time()
    for seed in range(first, first + count):
        world = Cluster(seed)
        try:
            world.run()
        except Breach as breach:
            result.broken.setdefault(breach.rule, []).append(seed)
            result.transcript = result.transcript or str(breach)
        result.seeds += 1
        result.events += world.timeline.events
        result.acknowledged += sum(client.succeeded for client in world.clients)
        result.coverage += world.coverage
    result.seconds = time.process_time() - began
    return result


def stories(first: int, count: int) -> Result:
    """Users' agents."""
    from sim_stories import busy  # noqa: PLC0415

    return _tell((busy,), first, count)


def signals(first: int, count: int) -> Result:
    """Users' agents among each other."""
    from sim_asking import asking  # noqa: PLC0415
    from sim_cycles import cycles  # noqa: PLC0415
    from sim_ending import ending  # noqa: PLC0415
    from sim_failing import pausing, putting_aside  # noqa: PLC0415
    from sim_signalling import signalling  # noqa: PLC0415
    from sim_sleeping import sleeping  # noqa: PLC0415
    from sim_topics import broadcasting  # noqa: PLC0415

    return _tell((signalling, sleeping, asking, putting_aside, pausing, ending, broadcasting, cycles), first, count)


def _tell(told: Sequence[Callable[[Simulation], Awaitable[None]]], first: int, count: int) -> Result:
    """Stories by turns, each under all faults."""
    from tenure.testing import simulate  # noqa: PLC0415

    result, began = Result(), time.process_time()
    for seed in range(first, first + count):
        faults, story = ("none", "calm", "rough")[seed % 3], told[seed // 3 % len(told)]
        try:
            (run,) = simulate(story, seeds=[seed], faults=faults)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            result.broken.setdefault(getattr(error, "rule", repr(error)), []).append(seed)
            result.transcript = result.transcript or "\n".join([str(error), *getattr(error, "__notes__", [])])
        else:
            result.events += len(run.transcript)
            result.acknowledged += sum(call.outcome == "applied" for call in run.history)
            result.coverage[f"{story.__name__}, {faults}"] += 1
        result.seeds += 1
    result.seconds = time.process_time() - began
    return result


def consensus(first: int, count: int) -> Result:
    """Raft alone."""
    from tenured.raft.engine import Engine  # noqa: PLC0415
    from tests.raft.sim.sweep import sweep  # noqa: PLC0415

    began = time.process_time()
    swept = sweep(Engine, first, count)
    return Result(
        seeds=swept.runs,
        events=swept.events,
        acknowledged=swept.applied,
        seconds=time.process_time() - began,
        coverage=swept.coverage,
        broken=swept.found,
    )


def store(first: int, count: int) -> Result:
    """The quorum register alone."""
    from core_register_sim import StoreSim, Violation  # noqa: PLC0415

    result, began = Result(), time.process_time()
    for seed in range(first, first + count):
        run = StoreSim(seed)
        try:
            run.run()
        except Violation as broken:
            result.broken.setdefault("the store", []).append(seed)
            result.transcript = result.transcript or str(broken)
        result.seeds += 1
        result.events += len(run.transcript)
    result.seconds = time.process_time() - began
    return result


KINDS: dict[str, Callable[[int, int], Result]] = {
    "cluster": cluster,
    "stories": stories,
    "signals": signals,
    "consensus": consensus,
    "store": store,
}


def sweep_kind(kind: str, first: int, seeds: int, jobs: int, until: float = float("inf")) -> Result:
    """Run that many seeds, in processes; no more are begun after `until` (time.monotonic) or the first breach."""
    total = Result()
    starts = list(range(first, first + seeds, CHUNK))
    with ProcessPoolExecutor(jobs, initializer=_quiet) as pool:
        while starts and not total.broken and time.monotonic() < until:
            now, starts = starts[:jobs], starts[jobs:]
            counts = [min(CHUNK, first + seeds - start) for start in now]
            for result in pool.map(KINDS[kind], now, counts):
                total.add(result)
    return total


def _quiet() -> None:
    logging.disable(logging.CRITICAL)


def report(kind: str, first: int, result: Result) -> None:
    """For people."""
    each = result.seconds / max(1, result.seeds)
    print(
        f"{kind}: {result.seeds} seeds from {first}, {result.events} events, {result.acknowledged} acknowledged, "
        f"{each:.2f} s of a processor each, {sum(map(len, result.broken.values()))} broken",
        flush=True,
    )
    for rule, seeds in result.broken.items():
        print(f"  BROKEN: {rule}: seeds {seeds[:6]}")
        print(f"  again: python -m tools.sim --kind {kind} --first {seeds[0]} --seeds 1")
    if result.transcript:
        print(result.transcript)


def main() -> int:
    """Return 0 when nothing was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200, help="how many of each kind")
    parser.add_argument("--first", type=int, default=None, help="begin here; default: anywhere")
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of each kind at most")
    given = parser.parse_args()
    first = random.SystemRandom().randrange(1 << 31) if given.first is None else given.first
    held = True
    for kind in KINDS if given.kind == "all" else (given.kind,):
        result = sweep_kind(kind, first, given.seeds, given.jobs, time.monotonic() + given.seconds)
        report(kind, first, result)
        held &= not result.broken
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
