"""The engine under simulated networks, disks and crashes; and the checker failing on engines without a rule.

Longer: `python -m tests.raft.sim.sweep --seconds 600`.
"""

import logging
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tenured.raft.core import State
from tenured.raft.engine import Engine
from tests.raft.sim.mutants import MUTANTS, FoundsWithOne
from tests.raft.sim.sweep import sweep
from tests.raft.sim.world import World

SEEDS = 30
BUDGET_S = 8.0
FIRST, MOST = 1000, 200
"""Seeds that the mutants run on: each is caught within some tens of them."""


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


def caught(engine: type[Engine], **fixed: Any) -> None:
    """The checker finds something, in a world that is clean with the whole rule set."""
    result = sweep(engine, FIRST, MOST, until_found=True, **fixed)
    assert result.found, f"nothing found in {result.runs} runs"
    fixed.pop("barrier", None)
    assert not sweep(Engine, FIRST + result.runs - 1, 1, **fixed).found


@pytest.mark.parametrize(
    ("mutant", "fixed"),
    [
        ("CutsAlways", {}),
        ("ForgetsTail", {}),
        ("TakesOldSnapshots", {"size": 3, "compact_entries": 8, "part_bytes": 200}),
        ("ForgetsDisks", {"size": 3, "gap": 0.1, "fault_names": ["lose_disk", "isolate", "power"]}),
        ("NoPreVote", {}),
        ("AppliesTwice", {}),
    ],
)
def test_the_checker_sees_a_rule_that_is_missing(mutant: str, fixed: dict[str, Any]) -> None:
    caught(MUTANTS[mutant], **fixed)


def test_the_checker_sees_a_missing_barrier() -> None:
    """K6: messages and answers that leave before the log is on the disk."""
    caught(Engine, barrier=False, sync_time=0.05)


# ---- founding, ADR 0005 ------------------------------------------------------------------------------------------


def quiet_world(engine: type[Engine]) -> World:
    """Three servers, no faults but those that the test makes."""
    world = World(1, engine, size=3, hostile=False, stagger=0, gap=1e9, first_fault=1e9, delay=0.002, tick=0.01,
                  sync_time=0, until=1e9, compact_entries=10**6, compact_seconds=1000, rate=100)  # fmt: skip
    world.begin()
    return world


def run_until(world: World, condition: Callable[[], bool], limit: float = 20.0) -> None:
    end = world.now + limit
    while not condition():
        assert world.now < end, "the condition did not come true"
        assert not world.check.fatal, world.check.found
        world.turn()


def run_for(world: World, seconds: float) -> None:
    end = world.now + seconds
    while world.now < end and not world.check.fatal:
        world.turn()


def cut_off(world: World, name: str, *, on: bool = True) -> None:
    for source, target in world.net.streams:
        if name in (source, target):
            world.net.block(source, target, on)
            if on:
                world.net.cut(source, target)  # what stalls in it must not arrive later


def one_disk_lost_and_the_only_witness_away(engine: type[Engine]) -> World:
    """All founded, the third saw nothing of the first election; then a disk is lost while the leader is paused."""
    world = quiet_world(engine)
    run_until(world, lambda: all(h.engine is not None and h.engine.log.voter for h in world.hosts.values()))
    assert not world.check.begun, "the seed must leave time between founding and the first election"
    virgin = world.names[2]
    cut_off(world, virgin)
    run_until(world, lambda: len(world.check.order) > 5)
    leader = next(h for h in world.alive() if h.engine.state == State.LEADER)
    lost = next(h for h in world.hosts.values() if h.name not in (leader.name, virgin))
    leader.paused_until = world.now + 5
    lost.lose_disk()
    lost.boot()
    cut_off(world, virgin, on=False)
    run_for(world, 10)
    return world


def test_a_lost_disk_does_not_found_on_the_word_of_a_server_that_has_seen_nothing() -> None:
    world = one_disk_lost_and_the_only_witness_away(Engine)
    assert not world.check.found
    run_until(world, lambda: all(h.engine.role().ready for h in world.alive()))


def test_the_checker_sees_a_founding_with_one_witness() -> None:
    assert one_disk_lost_and_the_only_witness_away(FoundsWithOne).check.found


def test_two_empty_servers_of_three_do_not_found() -> None:
    """The third may know of a cluster; nobody may guess."""
    world = quiet_world(Engine)
    world.hosts["n2"].paused_until = 1e9
    run_for(world, 10)
    assert not any(h.engine.log.voter for h in world.alive())
