"""A leader hears of a host as soon as it can (protocol 1): until then it places nothing there (`core.detection`)."""

from __future__ import annotations

import pytest

from tenured.host.leasing import FirstBeats


class Links:
    """Who leads as far as is known, and who is connected."""

    def __init__(self) -> None:
        self.leader: str | None = None
        self.connected: frozenset[str] = frozenset()


class Story:
    def __init__(self) -> None:
        self.links = Links()
        self.beats: list[str | None] = []
        self.first = FirstBeats(self.links, lambda: self.beats.append(self.links.leader))  # type: ignore[arg-type] # the part of it that is used

    def learns(self, leader: str | None, *connected: str) -> list[str | None]:
        """The heartbeats that this leads to."""
        before = len(self.beats)
        self.links.leader, self.links.connected = leader, frozenset(connected)
        self.first.look()
        return self.beats[before:]


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_leader_that_is_named_before_it_is_reached_hears_once_it_is(story: Story) -> None:
    """The host registered by way of a follower: its heartbeat went nowhere, and the next was a tick away."""
    assert story.learns(None, "s0") == []
    assert story.learns("s2", "s0") == []
    assert story.learns("s2", "s0", "s2") == ["s2"]
    assert story.learns("s2", "s0", "s1", "s2") == []


def test_a_leader_that_is_elected_while_it_is_connected_hears_at_once(story: Story) -> None:
    everybody = ("s0", "s1", "s2")
    assert story.learns("s0", *everybody) == ["s0"]
    assert story.learns("s1", *everybody) == ["s1"]
    assert story.learns("s0", *everybody) == ["s0"], "a new leadership, which has heard of nobody"


def test_a_leader_that_was_lost_and_is_reached_again_hears_again(story: Story) -> None:
    """It may have been started anew."""
    assert story.learns("s0", "s0", "s1") == ["s0"]
    assert story.learns(None, "s1") == []
    assert story.learns("s0", "s0", "s1") == ["s0"]
