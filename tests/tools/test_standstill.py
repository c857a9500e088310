"""What the machine's own pauses are told to be."""

from collections.abc import Iterator

from tools.k8s.standstill import Standstills


def of(*moments: float) -> Standstills:
    """Sampled at these moments of the clock."""
    clock: Iterator[float] = iter(moments)
    seen = Standstills(lambda: next(clock))
    for _ in moments[1:]:
        seen.sample()
    return seen


def test_a_pause_counts_where_it_falls_into_the_time_asked_about() -> None:
    seen = of(0.0, 0.1, 9.1, 9.2, 12.2)
    assert seen.during(0.0, 20.0) == 12.0
    assert round(seen.during(5.0, 10.0), 6) == 4.9
    assert seen.during(9.1, 9.2) == 0.0


def test_a_busy_processor_is_not_a_standstill() -> None:
    seen = of(0.0, 0.4, 0.8)
    assert seen.during(0.0, 1.0) == 0.0
    assert "never" in str(seen)


def test_the_end_says_how_long_it_stood() -> None:
    assert "9.0 s at" in str(of(0.0, 9.0))
