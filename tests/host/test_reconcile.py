"""What is started and stopped, as a pure comparison; and the mirror that it reads."""

from __future__ import annotations

from typing import Any

import pytest

from tenure_proto.v1.registry_pb2 import AgentRow, AgentSpec, HostRow, WatchBatch
from tenured.host.mirror import Mirror
from tenured.host.reconcile import Why, compare

ME = "inc-me"


def row(uid: str, epoch: int = 1, **more: Any) -> AgentRow:
    """A row that this incarnation holds, unless told otherwise."""
    fields = {"incarnation": ME, "host": "me", **more}
    return AgentRow(uid=uid, epoch=epoch, spec=AgentSpec(id=f"shop/a{uid}"), **fields)


def changes(mine: Any, running: Any = None, given_up: Any = (), *, releasing: bool = False) -> Any:
    found = compare({each.uid: each for each in mine}, running or {}, set(given_up), releasing=releasing)
    return [each.uid for each in found.start], found.stop, found.report


@pytest.mark.parametrize(
    ("mine", "running", "given_up", "releasing", "expected"),
    [
        ([row("1")], {}, [], False, (["1"], {}, {})),
        ([row("1")], {"1": 1}, [], False, ([], {}, {})),
        ([row("1", 3)], {"1": 2}, [], False, ([], {"1": Why.MOVED}, {})),
        ([], {"1": 1}, [], False, ([], {"1": Why.MOVED}, {})),
        ([row("1", deleting=True)], {"1": 1}, [], False, ([], {"1": Why.DELETED}, {})),
        ([row("1", deleting=True)], {}, [], False, ([], {}, {"1": Why.DELETED})),
        ([row("1")], {"1": 1}, [], True, ([], {"1": Why.RELEASED}, {})),
        ([row("1")], {}, [], True, ([], {}, {"1": Why.RELEASED})),
        ([row("1")], {}, [("1", 1)], False, ([], {}, {})),
        ([row("1", 2)], {}, [("1", 1)], False, (["1"], {}, {})),
    ],
    ids=[
        "assigned: start",
        "running: nothing",
        "another epoch: the old activation goes first",
        "no longer mine: stop",
        "deleting: finish and say so",
        "deleting and never started: say so",
        "draining: release",
        "draining and never started: release",
        "given up, the registry has not heard it: not again under that epoch",
        "given up, and assigned anew: start",
    ],
)
def test_compare(mine: Any, running: Any, given_up: Any, releasing: bool, expected: Any) -> None:
    """One line of the table."""
    assert changes(mine, running, given_up, releasing=releasing) == expected


def test_the_mirror_knows_what_is_mine() -> None:
    """Rows of this incarnation only: epochs of other process starts are not ours [epoch_once]."""
    mirror = Mirror(ME)
    assert mirror.apply(WatchBatch(revision=5, snapshot=True, agents=[row("1"), row("2", incarnation="other")]))
    assert set(mirror.mine) == {"1"}
    assert not mirror.synced
    mirror.apply(WatchBatch(revision=6, synced=True))
    assert mirror.synced
    assert mirror.apply(WatchBatch(revision=7, agents=[row("1", incarnation="other", host="o")]))
    assert not mirror.mine


def test_a_batch_about_others_touches_nothing() -> None:
    """No reconcile for what is not ours."""
    mirror = Mirror(ME)
    mirror.apply(WatchBatch(revision=1, snapshot=True, synced=True))
    assert not mirror.apply(WatchBatch(revision=2, agents=[row("9", incarnation="other")]))


def test_routes_lead_to_the_holders_address() -> None:
    """As far as this host knows; without a holder there is no address."""
    mirror = Mirror(ME)
    mirror.apply(
        WatchBatch(
            revision=3,
            snapshot=True,
            agents=[row("1", incarnation="o", host="h2", phase="Running"), row("2", incarnation="", host="")],
            hosts=[HostRow(name="h2", incarnation="o", address="10.0.0.2:7445")],
        )
    )
    route = mirror.route(mirror.agent("shop/a1"))
    assert (route.host, route.address, route.epoch, route.revision) == ("h2", "10.0.0.2:7445", 1, 3)
    assert mirror.route(mirror.agent("shop/a2")).address == ""


def test_a_new_agent_of_an_old_name_is_another_one() -> None:
    """The uid counts: the row of the deleted one may go before or after the new one comes."""
    mirror = Mirror(ME)
    mirror.apply(WatchBatch(revision=1, snapshot=True, agents=[row("1")]))
    new = row("2")
    new.spec.id = "shop/a1"
    mirror.apply(WatchBatch(revision=2, agents=[new]))
    mirror.apply(WatchBatch(revision=3, gone_agents=["1"]))
    assert mirror.agent("shop/a1").uid == "2"
    assert set(mirror.mine) == {"2"}


def test_a_snapshot_replaces_everything() -> None:
    """What is not in it is gone."""
    mirror = Mirror(ME)
    mirror.apply(WatchBatch(revision=9, snapshot=True, synced=True, agents=[row("1")]))
    assert mirror.apply(WatchBatch(revision=4, snapshot=True, synced=True))
    assert (mirror.mine, mirror.agent("shop/a1"), mirror.revision) == ({}, None, 4)
