"""The soak: many rounds of faults under load, a judge's verdict after every few, and a report of what was counted."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import logging
import os
import platform
import random
import statistics
import subprocess
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faulty_servers import Fault, ForgetfulServers, Rounds
from grpc import aio

from tenured.raft.engine import Engine
from tests.raft.sim.sweep import sweep

ROOT = Path(__file__).resolve().parents[2]
JUDGE_EVERY = 10
"""Rounds between two verdicts: a history of some thousand operations."""

KINDS: dict[str, tuple[Fault, int]] = {
    "leader-kills": (Rounds.kill_leader, 200),
    "all-kills": (Rounds.kill_all, 50),
    "follower-kills": (Rounds.kill_follower, 20),
    "followers-behind-a-snapshot": (Rounds.follower_needs_a_snapshot, 10),
    "leader-freezes": (Rounds.freeze_leader, 30),
    "leader-power-cuts": (Rounds.power_off_leader, 30),
    "all-power-cuts": (Rounds.power_off_all, 20),
    "kills-then-power-cuts": (Rounds.kill_all_then_power_off_all, 10),
    "full-disks": (Rounds.fill_leaders_disk, 10),
    "broken-disks": (Rounds.break_leaders_disk, 10),
    "broken-disks-then-power-cuts": (Rounds.break_leaders_disk_then_power_off_all, 10),
}


@dataclasses.dataclass
class Kind:
    """One kind of fault: how often it was made, and the seconds from it to the next accepted write."""

    rounds: int
    p50_s: float
    worst_s: float


@dataclasses.dataclass
class Report:
    """Everything that was counted."""

    commit: str
    machine: str
    seed: int
    seconds: float
    kinds: dict[str, Kind]
    acknowledged: int
    unknown: int
    judged: int
    disks: dict[str, int]
    seeds: int
    seeds_found: dict[str, list[int]]
    found: list[str]

    def __str__(self) -> str:
        lines = [f"commit {self.commit}, {self.machine}, seed {self.seed}, {self.seconds / 60:.0f} min", ""]
        lines += ["| fault | rounds | next accepted write, p50 | worst |", "|---|---|---|---|"]
        lines += [f"| {name} | {k.rounds} | {k.p50_s:.2f} s | {k.worst_s:.2f} s |" for name, k in self.kinds.items()]
        lines += [
            "",
            f"{self.acknowledged} writes acknowledged, {self.unknown} outcomes unknown, {self.judged} operations",
        ]
        lines[-1] += " judged by Porcupine."
        disks = ", ".join(f"{name} {count}" for name, count in self.disks.items())
        lines += [f"Power cuts, and what was lost of the unsynced: {disks}.", f"Simulated seeds of Raft: {self.seeds}."]
        breaches = len(self.found) + len(self.seeds_found)
        lines += [f"**Lost, applied twice, different between servers, or not back: {breaches}.**"]
        return "\n".join([*lines, *self.found, *map(str, self.seeds_found.items())])


def plan(wanted: dict[str, int], rng: random.Random) -> Iterator[str]:
    """All rounds, in random order."""
    names = [name for name, count in wanted.items() for _ in range(count)]
    rng.shuffle(names)
    return iter(names)


async def rounds_of(
    directory: Path, wanted: dict[str, int], seed: int, budget_s: float
) -> tuple[Rounds, dict[str, Kind]]:
    """Make the faults until all are made, something is found, or the time is up."""
    rng, begun = random.Random(seed), time.monotonic()
    took: dict[str, list[float]] = {name: [] for name in wanted}
    async with ForgetfulServers(directory, rng=rng) as servers:
        rounds = Rounds(servers, seed=seed)
        await rounds.prepare()
        try:
            for number, name in enumerate(plan(wanted, rng), 1):
                rounds.recovery_s.clear()
                await KINDS[name][0](rounds)
                took[name].append(rounds.recovery_s[0])
                if number % JUDGE_EVERY == 0:
                    await rounds.settle()
                    print(
                        f"{time.monotonic() - begun:6.0f} s  {number} rounds, {rounds.counts}",
                        *rounds.found,
                        flush=True,
                    )
                    rounds.begin()
                if rounds.found or time.monotonic() - begun > budget_s:
                    break
            await rounds.settle()
        except (AssertionError, TimeoutError, aio.AioRpcError):  # somebody did not come back: that is a finding, too
            rounds.found.append(f"stuck in {name}: {traceback.format_exc()}")
            print(rounds.found[-1], flush=True)
        finally:
            await rounds.load.stop()
    return rounds, {
        name: Kind(len(times), statistics.median(times), max(times)) for name, times in took.items() if times
    }


def soak(options: argparse.Namespace) -> Report:
    """Run it, and count."""
    begun = time.monotonic()
    wanted = {name: getattr(options, name.replace("-", "_")) for name in KINDS}
    directory = Path(tempfile.mkdtemp(prefix="tenure-soak."))
    rounds, kinds = asyncio.run(rounds_of(directory, wanted, options.seed, options.minutes * 60))
    logging.disable(logging.CRITICAL)
    simulated = sweep(Engine, options.seed * 1_000_000, options.seeds) if options.seeds else None
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    if rounds.found:
        print(f"kept: {directory}")
    return Report(
        commit=options.commit or commit.stdout.strip(),
        machine=f"{os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}",
        seed=options.seed,
        seconds=time.monotonic() - begun,
        kinds=kinds,
        acknowledged=rounds.counts["acknowledged"],
        unknown=rounds.counts["unknown"],
        judged=sum(verdict.operations for verdict in rounds.verdicts),
        disks=dict(rounds.servers.losses),
        seeds=0 if simulated is None else simulated.runs,
        seeds_found={} if simulated is None else simulated.found,
        found=rounds.found,
    )


def main() -> int:
    """Exit status 1 when anything was lost, applied twice, different between servers, or did not come back."""
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__)
    for name, (_, rounds) in KINDS.items():
        parser.add_argument(f"--{name}", type=int, default=rounds, metavar="ROUNDS")
    parser.add_argument("--seeds", type=int, default=2000, help="seeds of the simulation of Raft, after the rounds")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 20))
    parser.add_argument("--minutes", type=float, default=24 * 60, help="stop making faults after so long")
    parser.add_argument("--commit", default="", help="of what is run, where it is no checkout")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    options = parser.parse_args()
    report = soak(options)
    print(f"\n{report}")
    if options.json:
        fields: dict[str, Any] = dataclasses.asdict(report)
        options.json.write_text(json.dumps(fields, indent=1) + "\n")
    return 1 if report.found or report.seeds_found else 0
