"""Many simulated runs.

    python -m tests.raft.sim.sweep [--engine NAME] [--first SEED] [--count N] [--seconds S] [name=value ...]

Prints what was covered and, for each rule that was broken, the seeds that show it. Exit status 1 when there is one.
"""

from __future__ import annotations

import argparse
import ast
import logging
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tenured.raft.engine import Engine
from tests.raft.sim.mutants import MUTANTS
from tests.raft.sim.world import World


@dataclass
class Result:
    """Sum of a sweep."""

    runs: int = 0
    events: int = 0
    applied: int = 0
    seconds: float = 0.0
    coverage: Counter[str] = field(default_factory=Counter)
    found: dict[str, list[int]] = field(default_factory=dict)  # rule -> seeds


def sweep(
    engine_class: type[Engine],
    first: int,
    count: int,
    *,
    seconds: float = float("inf"),
    until_found: bool = False,
    **fixed: Any,
) -> Result:
    """Run seeds `first`, `first + 1`, ... within the budget of real seconds."""
    result, start = Result(), time.monotonic()
    for seed in range(first, first + count):
        world = World(seed, engine_class, **fixed)
        for rule, *_ in world.run():
            result.found.setdefault(rule, []).append(seed)
        result.runs += 1
        result.events += world.events
        result.applied += len(world.check.order)
        result.coverage += world.coverage
        result.seconds = time.monotonic() - start
        if result.seconds > seconds or (until_found and result.found):
            break
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description="Sweep over seeds of the Raft simulation.")
    parser.add_argument("--engine", default="Engine", choices=["Engine", *MUTANTS])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("fixed", nargs="*", help="name=value, any attribute of World")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    fixed = {name: ast.literal_eval(value) for name, value in (pair.split("=", 1) for pair in args.fixed)}
    engine = MUTANTS.get(args.engine, Engine)
    result = sweep(engine, args.first, args.count, seconds=args.seconds, **fixed)
    rate = round(result.events / result.seconds)
    print(f"{args.engine}: {result.runs} runs, {result.events} events ({rate}/s), {result.applied} commands applied")
    print("  " + ", ".join(f"{name} {count}" for name, count in sorted(result.coverage.items())))
    for rule, seeds in result.found.items():
        print(f"  {len(seeds):5d}  {rule}: seeds {seeds[:6]}")
    return 1 if result.found else 0


if __name__ == "__main__":
    sys.exit(main())
