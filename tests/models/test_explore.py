"""The explorer itself: what it finds, and that it finds the shortest."""

from collections.abc import Iterator
from typing import ClassVar

import pytest

from models import explore


class Count(explore.Model[int]):
    """From 0 by steps of 1 or 3; 7 is wrong without `stop`; beyond 8 there is no way back to 5."""

    GUARDS: ClassVar = {"stop": {}, "back": {"top": 9}}
    top = 6
    live = True

    def init(self) -> int:
        return 0

    def check(self, s: int) -> str | None:
        return "seven" if s == 7 and not self.on("stop") else None

    def goal(self, s: int) -> bool:
        return s == 5

    def steps(self, s: int) -> Iterator[explore.Step[int]]:
        top = self.top if self.on("stop") else 7
        for step in (1, 3):
            if s + step <= top:
                yield f"{'!' if s == 8 else ''}add {step}", s + step
        if s and (self.on("back") or s < 9):
            yield "subtract 1", s - 1


def test_a_model_that_holds_is_explored_to_its_end() -> None:
    assert explore.bfs(Count()) == explore.Found(7, 3, True, None, [])


def test_the_shortest_counterexample_is_found() -> None:
    found = explore.without(Count, "stop")
    assert found.error == "seven"
    assert found.trace == ["add 1", "add 3", "add 3"]


def test_a_state_without_a_way_to_a_goal_is_found() -> None:
    assert explore.without(Count, "back").error == "stuck: no good end can be reached any more"
    assert explore.bfs(Count(top=9)).error is None


def test_a_limit_is_no_proof() -> None:
    found = explore.bfs(Count(), limit=3)
    assert (found.complete, found.error) == (False, None)


def test_random_walks_find_it_too() -> None:
    found = explore.walk(Count(frozenset({"stop"})), seed=1, seconds=5.0)
    assert found.error == "seven"
    assert found.trace[-1] in {"add 1", "add 3"}


def test_names_are_checked() -> None:
    with pytest.raises(KeyError):
        Count(frozenset({"stopp"}))
    with pytest.raises(AttributeError):
        Count(topp=3)
