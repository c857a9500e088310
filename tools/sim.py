"""The two seeded simulations, on fresh seeds: `python -m tools.sim --seeds N [--first SEED]`, or `make sim SEEDS=N`.

Consensus (`tests/raft/sim`: the engine itself on a simulated network and disk) and the cluster (`tests/core/sim`:
leases, registry, placement and failover with drifting clocks). A failure prints its seed, and the seed repeats it.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "core"), str(ROOT / "tests" / "core" / "sim")]

from tenured.raft.engine import Engine  # noqa: E402 - after the path of the simulations
from tests.raft.sim.sweep import sweep  # noqa: E402


def consensus(first: int, seeds: int) -> bool:
    """Run the simulation of Raft; false when a rule was broken."""
    result = sweep(Engine, first, seeds)
    print(f"consensus: seeds {first} to {first + seeds - 1}, {result.events} events in {result.seconds:.0f} s")
    for rule, found in result.found.items():
        print(f"  BROKEN in {len(found)}: {rule}: seeds {found[:6]}")
    return not result.found


def cluster(first: int, seeds: int) -> bool:
    """Run the simulation of the cluster; false when an invariant was broken. Prints the transcript of the first."""
    from core_cluster_sim import ClusterSim  # noqa: PLC0415 - on the path that is set above

    began = time.monotonic()
    for seed in range(first, first + seeds):
        try:
            ClusterSim(seed).run()
        except AssertionError as broken:
            print(f"cluster: BROKEN at seed {seed}\n{broken}")
            return False
    print(f"cluster: seeds {first} to {first + seeds - 1} in {time.monotonic() - began:.0f} s")
    return True


def main() -> int:
    """Return 0 when nothing was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200, help="how many of each")
    parser.add_argument("--first", type=int, default=None, help="begin here; default: anywhere")
    given = parser.parse_args()
    first = random.SystemRandom().randrange(1 << 31) if given.first is None else given.first
    logging.disable(logging.CRITICAL)
    held = [consensus(first, given.seeds), cluster(first, given.seeds)]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
