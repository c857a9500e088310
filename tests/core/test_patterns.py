"""Patterns of types of signals: the daemon's reading of them is the SDK's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure import signals
from tenured.core import patterns

WORDS = st.sampled_from(["a", "b", "order"])
TYPES = st.lists(WORDS, min_size=1, max_size=5).map(".".join)
PATTERNS = st.lists(WORDS | st.sampled_from(["*", "**"]), min_size=1, max_size=6).map(".".join)


@pytest.mark.parametrize(
    ("pattern", "type_", "expected"),
    [
        ("order.paid", "order.paid", True),
        ("order.paid", "order", False),
        ("order.*", "order.paid", True),
        ("order.*", "order", False),
        ("order.*", "order.paid.late", False),
        ("order.**", "order", True),
        ("order.**", "order.paid.late", True),
        ("**", "anything.at.all", True),
        ("**.late", "late", True),
        ("a.**.b.**.c", "a.x.b.b.c.y.c", True),
        ("a.**.b.**.c", "a.x.c", False),
    ],
)
def test_words(pattern: str, type_: str, expected: bool) -> None:
    assert patterns.matches(pattern, type_) is expected


@given(PATTERNS, TYPES)
def test_host_and_sdk_agree(pattern: str, type_: str) -> None:
    """A local runtime and a cluster send a signal to the same agents."""
    router = signals.Router([signals.Route(pattern, True)])
    assert patterns.matches(pattern, type_) is bool(router.candidates(type_))


def test_many_stars_cost_no_backtracking() -> None:
    """What a class declares cannot hold a host up."""
    assert not patterns.matches(".".join(["**", "a"] * 40), ".".join(["a"] * 39 + ["b"]))
