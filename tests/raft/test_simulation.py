"""The engine under simulated networks, disks and crashes. That the checker can fail: test_evidence.py.

Longer: `python -m tests.raft.sim.sweep --seconds 600`.
"""

import logging
import os
import random
from collections.abc import Iterator

import pytest

from tenured.raft.engine import Engine
from tests.raft.sim.sweep import sweep
from tests.raft.sim.world import World

SEEDS = 30
BUDGET_S = 8.0


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Bad frames and broken callbacks are part of the simulation; their log lines are not interesting."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_random_worlds_break_no_rule() -> None:
    """A different base seed every run; TENURE_SIM_SEED repeats one."""
    first = int(os.environ.get("TENURE_SIM_SEED", random.SystemRandom().randrange(1 << 31)))
    print(f"base seed {first}")
    result = sweep(Engine, first, SEEDS, seconds=BUDGET_S)
    assert not result.found, f"TENURE_SIM_SEED={first}: {result.found}"
    assert result.applied > 0


def test_a_run_is_a_function_of_its_seed() -> None:
    traces = []
    for _ in range(2):
        world = World(7)
        world.trace = []
        world.run()
        traces.append(world.trace)
    assert traces[0] == traces[1]
    assert traces[0]


# ---- founding, ADR 0005 ------------------------------------------------------------------------------------------


def quiet_world(engine: type[Engine]) -> World:
    """Three servers, no faults but those that the test makes."""
    world = World(1, engine, size=3, hostile=False, stagger=0, gap=1e9, first_fault=1e9, delay=0.002, tick=0.01,
                  sync_time=0, until=1e9, compact_entries=10**6, compact_bytes=10**9, rate=100)  # fmt: skip
    world.begin()
    return world


def run_for(world: World, seconds: float) -> None:
    end = world.now + seconds
    while world.now < end and not world.check.fatal:
        world.turn()


def test_two_empty_servers_of_three_do_not_found() -> None:
    """The third may know of a cluster; nobody may guess."""
    world = quiet_world(Engine)
    world.hosts["n2"].paused_until = 1e9
    run_for(world, 10)
    assert not any(h.engine.log.voter for h in world.alive())
