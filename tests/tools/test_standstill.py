"""What is told of the machine's own pauses."""

from collections.abc import Iterator

from tools.k8s.standstill import Standstills


def of(*moments: float) -> Standstills:
    """Sampled at these moments of the clock."""
    clock: Iterator[float] = iter(moments)
    seen = Standstills(lambda: next(clock))
    for _ in moments[1:]:
        seen.sample()
    return seen


def test_each_pause_is_told_with_its_length() -> None:
    seen = of(0.0, 0.1, 9.1, 9.2, 12.2)
    assert "stood still: 9.0 s until " in str(seen)
    assert ", 3.0 s until " in str(seen)
    assert seen.longest_s == 9.0


def test_a_busy_processor_is_not_a_standstill() -> None:
    seen = of(0.0, 0.4, 0.8)
    assert (str(seen), seen.longest_s) == ("the machine never stood still", 0.0)
