"""Signals, timers and steps of users' agents in the simulated cluster, under whatever goes wrong by chance."""

from collections.abc import Awaitable, Callable

import pytest
from sim_asking import asking
from sim_ending import ending
from sim_failing import pausing, putting_aside
from sim_signalling import orderly, signalling
from sim_sleeping import sleeping
from sim_topics import broadcasting

from tenure.testing import Simulation, simulate


def test_everything_happens_once_where_nothing_goes_wrong() -> None:
    simulate(orderly, seeds=range(2))


@pytest.mark.parametrize("faults", ["calm", "rough"])
def test_everything_happens_once_whatever_goes_wrong_by_chance(faults: str) -> None:
    """Kills, partitions, pauses, slow disks, lost frames: each committed signal is applied once and in order, each
    timer fires once, each accepted turn ends once.
    """
    simulate(signalling, seeds=range(5), faults=faults)  # type: ignore[arg-type]


@pytest.mark.parametrize("story", [sleeping, asking, putting_aside, pausing, ending, broadcasting])
@pytest.mark.parametrize("faults", ["none", "calm", "rough"])
def test_agents_among_each_other(story: Callable[[Simulation], Awaitable[None]], faults: str) -> None:
    """Each story says what must have happened in the end, and what must not (invariants 2, 3 and 5)."""
    simulate(story, seeds=range(1), faults=faults)  # type: ignore[arg-type]
