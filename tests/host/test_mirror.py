"""Rows that come ahead of the watch, from the leader: whichever is newer stays, and none that is gone comes back."""

from __future__ import annotations

from tenure_proto.v1.registry_pb2 import AgentRow, AgentSpec, WatchBatch
from tenured.host.mirror import Mirror

ME = "me"


def row(uid: str, revision: int, *, epoch: int = 1, mine: bool = True) -> AgentRow:
    """A row as it was when the registry was at that revision."""
    spec = AgentSpec(id=f"shop/{uid}")
    return AgentRow(uid=uid, spec=spec, revision=revision, epoch=epoch, incarnation=ME if mine else "other", host="h")


def at(revision: int, *agents: AgentRow) -> Mirror:
    """A copy that has been read up to there."""
    mirror = Mirror(ME)
    mirror.apply(WatchBatch(revision=revision, snapshot=True, synced=True, agents=agents))
    return mirror


def test_a_row_that_is_ahead_is_ours_at_once() -> None:
    mirror = at(10)
    touched = mirror.ahead([row("11", 11)])
    assert (list(touched.uids), touched.whole) == (["11"], False)
    assert mirror.mine["11"].epoch == 1
    assert mirror.agent("shop/11") is not None
    assert mirror.revision == 10  # others up to 11 have not come


def test_a_server_that_is_behind_does_not_take_it_back() -> None:
    """The watch may be of a server that has not applied the assignment; it brings what was before it."""
    mirror = at(10, row("4", 4, mine=False))
    mirror.ahead([row("4", 12, epoch=2)])
    assert not mirror.apply(WatchBatch(revision=11, synced=True, agents=[row("4", 11, mine=False)]))
    assert mirror.mine["4"].epoch == 2
    assert mirror.apply(WatchBatch(revision=13, synced=True, agents=[row("4", 13, epoch=3, mine=False)]))
    assert not mirror.mine


def test_a_row_that_the_watch_has_brought_already_is_no_news() -> None:
    mirror = at(10, row("4", 9))
    assert not mirror.ahead([row("4", 9)])
    assert not mirror.ahead([row("4", 8, epoch=0)])
    assert mirror.mine["4"].revision == 9


def test_an_agent_that_is_gone_does_not_come_back() -> None:
    """It is not here, at a revision that has seen that row [uid_drop]."""
    mirror = at(10, row("4", 9))
    mirror.apply(WatchBatch(revision=12, synced=True, gone_agents=["4"]))
    assert not mirror.ahead([row("4", 11)])
    assert mirror.agent("shop/4") is None


def test_a_snapshot_of_a_server_that_is_behind_loses_nothing_that_is_ahead() -> None:
    """What it lacks would be stopped, and its epoch be lost."""
    mirror = at(10)
    mirror.ahead([row("12", 12)])
    mirror.apply(WatchBatch(revision=11, snapshot=True))
    assert not mirror.mine
    touched = mirror.apply(WatchBatch(revision=11, synced=True))
    assert touched.whole
    assert set(mirror.mine) == {"12"}


def test_a_snapshot_that_has_passed_it_decides() -> None:
    mirror = at(10)
    mirror.ahead([row("12", 12)])
    mirror.apply(WatchBatch(revision=14, snapshot=True, synced=True))
    assert not mirror.mine
    assert mirror.agent("shop/12") is None


def test_before_a_snapshot_is_whole_nothing_is_ahead() -> None:
    mirror = Mirror(ME)
    assert not mirror.ahead([row("1", 1)])
    assert not mirror.mine
