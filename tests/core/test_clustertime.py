"""Cluster time on a host, between acknowledgements (protocol 1, cluster time)."""

import random

import pytest

from tenured.core.clustertime import STOOD_STILL_S, ClusterClock

S = 1_000_000_000
TICK_S = 0.25


def test_before_the_first_reading_there_is_no_time() -> None:
    """And an older reading, of a server that was deposed, changes nothing."""
    clock = ClusterClock()
    assert clock.at(7 * S) == 0.0
    clock.heard(100.0, 7 * S)
    assert (clock.read, clock.at(8 * S)) == (100.0, 101.0)
    clock.heard(99.0, 8 * S)
    assert (clock.read, clock.at(8 * S)) == (100.0, 101.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rate", [1.0, 1.0002, 0.9998])
def test_a_late_acknowledgement_makes_no_timer_late(seed: int, rate: float) -> None:
    """They take 2 to 30 ms. What is read is behind the truth by little more than the quickest takes, and ahead of it by
    no more than what clocks of different rates gain meanwhile.
    """
    rng, clock = random.Random(seed), ClusterClock()
    true = 1000.0
    for number in range(2000):
        true = 1000.0 + number * TICK_S
        delay = 0.002 + 0.028 * rng.random() ** 3
        clock.heard(true, int((true + delay) * rate * S))
        later = true + delay + rng.random() * (TICK_S - delay)
        if number >= 100:
            error = clock.at(int(later * rate * S)) - later
            assert -0.007 <= error <= 0.0, number


def test_time_that_stood_still_is_noticed_at_once() -> None:
    """An election takes 0.3 s, in which no cluster time passes: timers must wait so much longer."""
    clock = ClusterClock()
    clock.heard(100.0, 10 * S)
    clock.heard(100.25, int(10.55 * S))
    assert clock.at(int(10.55 * S)) == pytest.approx(100.25)
    assert clock.at(11 * S) == pytest.approx(100.7)


def test_it_is_never_behind_what_was_read() -> None:
    """A reading that is ahead counts at once."""
    clock = ClusterClock()
    clock.heard(100.0, 10 * S)
    clock.heard(100.25, int((10.25 + STOOD_STILL_S / 2) * S))
    assert clock.at(int(10.5 * S)) == pytest.approx(100.5, abs=0.001)
    clock.heard(100.5, int(10.49 * S))
    assert clock.at(int(10.5 * S)) == pytest.approx(100.51)
    assert clock.at(0) == 100.5
