"""Evidence that the checks of consensus can fail: every mutant is caught, by a scenario or by seeds, as a named breach.

A mutant is the engine with one rule taken back (tests/raft/sim/mutants.py). One that nothing here catches is a rule
without evidence, and fails this file.
"""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tenured.raft.engine import Engine
from tests.raft.sim.mutants import MUTANTS
from tests.raft.sim.scenarios import DIRECTED, Directed
from tests.raft.sim.seam import OnlyTheSeam
from tests.raft.sim.stage import play
from tests.raft.sim.sweep import sweep

FIRST, MOST = 1000, 200
"""Seeds that mutants run on: each is caught within some tens of them."""

BY_SCENARIO = {mutant: directed for directed in DIRECTED for mutant in directed.catches}
BY_SEEDS: dict[str, dict[str, Any]] = {
    "CutsAlways": {},
    "ForgetsTail": {},
    "TakesOldSnapshots": {
        "size": 3,
        "compact_entries": 8,
        "compact_bytes": 10**9,
        "part_bytes": 1 << 16,
        "snapshot_time": 0,
        "hostile": True,
        "duplicates": 0.3,
        "delay": 0.04,
    },
    "ForgetsDisks": {"size": 3, "gap": 0.1, "fault_names": ["lose_disk", "isolate", "power"]},
    "NoPreVote": {},
    "AppliesTwice": {},
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Bad frames and broken rules are part of the simulation; their log lines are not interesting."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("directed", DIRECTED, ids=lambda directed: directed.script.__name__)
def test_the_engine_as_it_is_breaks_no_rule_in_a_scenario(directed: Directed) -> None:
    assert play(directed.script, **directed.fixed) == []


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_every_mutant_is_caught(mutant: str) -> None:
    assert mutant in BY_SCENARIO or mutant in BY_SEEDS, f"nothing shows that the checks see {mutant}"
    if mutant in BY_SCENARIO:
        directed = BY_SCENARIO[mutant]
        assert directed.catches[mutant] in play(directed.script, MUTANTS[mutant], **directed.fixed)
    else:
        caught_by_seeds(MUTANTS[mutant], **BY_SEEDS[mutant])


def test_a_missing_barrier_is_caught() -> None:
    """K6: messages and answers that leave before the log is on the disk."""
    caught_by_seeds(Engine, barrier=False, sync_time=0.05)


def caught_by_seeds(engine: type[Engine], **fixed: Any) -> None:
    """The checker finds something, in a world that is clean with the whole rule set."""
    result = sweep(engine, FIRST, MOST, until_found=True, **fixed)
    assert result.found, f"nothing found in {result.runs} runs"
    fixed.pop("barrier", None)
    assert not sweep(Engine, FIRST + result.runs - 1, 1, **fixed).found


def test_the_simulation_runs_whatever_is_behind_its_seam() -> None:
    """tests/raft/sim/seam.py names all that it uses of an engine; anything else is an AttributeError here."""

    def sealed(*arguments: Any) -> Any:
        return OnlyTheSeam(Engine(*arguments))

    assert not sweep(sealed, FIRST, 3).found  # type: ignore[arg-type]
    for directed in DIRECTED:
        assert play(directed.script, sealed, **directed.fixed) == []  # type: ignore[arg-type]
