"""Patterns, priorities, and the routes of `tenure.signals.Router`."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.errors import DefinitionError
from tenure.signals import Route, Router, Signal, matches

WORDS = st.sampled_from(["a", "b", "c"])
TYPES = st.lists(WORDS, min_size=1, max_size=6).map(".".join)
PATTERNS = st.lists(st.sampled_from(["a", "b", "c", "*", "**"]), min_size=1, max_size=6).map(".".join)


def by_regex(pattern: str, type_: str) -> bool:
    """The same by another road: each segment with the dot that follows it."""
    parts = {"*": r"[^.]+\.", "**": r"([^.]+\.)*"}
    return re.fullmatch("".join(parts.get(part, rf"{part}\.") for part in pattern.split(".")), f"{type_}.") is not None


def signal(type_: str, data: object = None) -> Signal:
    return Signal.new(type_, data, source="shop/a")


@given(PATTERNS, TYPES)
def test_patterns_match_as_they_say(pattern: str, type_: str) -> None:
    assert matches(pattern, type_) == by_regex(pattern, type_)


@given(st.lists(PATTERNS, max_size=12), st.lists(st.tuples(st.integers(0, 11), TYPES), max_size=12))
def test_adding_and_removing_keeps_the_count_and_the_rest(patterns: list[str], steps: list[tuple[int, str]]) -> None:
    router = Router(Route(pattern, number) for number, pattern in enumerate(patterns))
    left = dict(enumerate(patterns))
    for number, type_ in steps:
        removed = router.remove(left[number], number) if number in left else 0
        assert removed == (1 if left.pop(number, None) is not None else 0)
        assert len(router) == len(left) == len(router.routes())
        wanted = {other for other, pattern in left.items() if by_regex(pattern, type_)}
        assert set(router.route(signal(type_))) == wanted


def test_fifty_segments_and_adjacent_wildcards() -> None:
    long = ".".join(["a"] * 50)
    assert matches("**.**.a.**", long)
    assert not matches(".".join(["**", "a"] * 20) + ".b", long), "and ends: no backtracking without end"


def test_order_is_priority_then_exactness_then_age() -> None:
    router = Router(
        [
            Route("**", "deep"),
            Route("order.*", "star"),
            Route("order.paid", "exact"),
            Route("*.paid", "star first"),
            Route("order.paid", "exact, later"),
            Route("**", "urgent", priority=100),
            Route("order.paid", "last", priority=-100),
        ]
    )
    assert router.route(signal("order.paid")) == [
        "urgent",
        "exact",
        "exact, later",
        "star",
        "star first",
        "deep",
        "last",
    ]


def test_a_match_function_sees_the_signal() -> None:
    told: list[str] = []
    router = Router(
        [
            Route("order.paid", "large", match=lambda one: isinstance(one.data, int) and one.data > 10),
            Route("order.paid", "broken", match=lambda one: bool(1 / 0)),
        ],
        on_error=lambda route, error: told.append(f"{route.target}: {type(error).__name__}"),
    )
    assert router.route(signal("order.paid", 11)) == ["large"]
    assert router.route(signal("order.paid", 9)) == []
    assert told == ["broken: ZeroDivisionError"] * 2


def test_a_route_that_is_added_later_is_seen_by_types_that_were_routed_before() -> None:
    router = Router([Route("a", 1)])
    assert router.route(signal("a")) == [1]
    router.add(Route("*", 2))
    assert router.route(signal("a")) == [1, 2]
    other = Router([Route("**", 3)])
    router.merge(other)
    assert router.route(signal("a")) == [1, 2, 3]
    assert router.remove("*") == 1
    assert router.remove("nothing.there") == 0
    assert router.route(signal("a")) == [1, 3]


@pytest.mark.parametrize("pattern", ["", ".", "a.", ".a", "a..b", "a.***", "a b", "a*", "ü"])
def test_a_pattern_that_cannot_be_names_its_segment(pattern: str) -> None:
    with pytest.raises(DefinitionError, match="segment"):
        Route(pattern, None)


@pytest.mark.parametrize("priority", [-101, 101])
def test_priorities_have_bounds(priority: int) -> None:
    with pytest.raises(DefinitionError, match="priority"):
        Route("a", None, priority=priority)
