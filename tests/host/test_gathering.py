"""What comes at once is looked at once."""

from __future__ import annotations

import pytest

from tenured.host.gathering import Gathering


def test_each_looks_once_after_all_is_handed_on() -> None:
    """In the order in which they asked first; outside of it, at once."""
    together, seen = Gathering(), list[str]()
    first, second = lambda: seen.append("a"), lambda: seen.append("b")
    together.ask(first)
    assert seen == ["a"]
    with together:
        for look in (second, first, second):
            together.ask(look)
        with together:
            together.ask(first)
        assert seen == ["a"]
    assert seen == ["a", "b", "a"]


def test_who_is_asked_for_while_others_look_does_so_at_once() -> None:
    """It is over by then."""
    together, seen = Gathering(), list[str]()
    with together:
        together.ask(lambda: together.ask(lambda: seen.append("a")))
    assert seen == ["a"]


def test_they_look_whatever_was_raised() -> None:
    """What was handed on before must not stand still."""
    together, seen = Gathering(), list[str]()

    def hand_on() -> None:
        with together:
            together.ask(lambda: seen.append("a"))
            raise ValueError("no frame")

    with pytest.raises(ValueError, match="no frame"):
        hand_on()
    assert seen == ["a"]
