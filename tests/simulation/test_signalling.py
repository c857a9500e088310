"""Signals, timers and steps of users' agents in the simulated cluster, under whatever goes wrong by chance."""

import pytest
from sim_signalling import signalling

from tenure.testing import simulate


def test_everything_happens_once_where_nothing_goes_wrong() -> None:
    simulate(signalling, seeds=range(2))


@pytest.mark.parametrize("faults", ["calm", "rough"])
def test_everything_happens_once_whatever_goes_wrong_by_chance(faults: str) -> None:
    """Kills, partitions, pauses, slow disks, lost frames: each committed signal is applied once and in order, each
    timer fires once, each accepted turn ends once.
    """
    simulate(signalling, seeds=range(5), faults=faults)  # type: ignore[arg-type]
