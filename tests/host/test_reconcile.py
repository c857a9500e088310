"""What is started and stopped, as a pure comparison; and the mirror that it reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure_proto.v1.registry_pb2 import AgentRow, AgentSpec, HostRow, WatchBatch
from tenured.host.mirror import Mirror
from tenured.host.reconcile import Agenda, Changes, Why, compare

ME = "inc-me"


def row(uid: str, epoch: int = 1, **more: Any) -> AgentRow:
    """A row that this incarnation holds, unless told otherwise."""
    fields = {"incarnation": ME, "host": "me", **more}
    return AgentRow(uid=uid, epoch=epoch, spec=AgentSpec(id=f"shop/a{uid}"), **fields)


def changes(mine: Any, running: Any = None, given_up: Any = (), *, releasing: bool = False) -> Any:
    rows, runs = {each.uid: each for each in mine}, running or {}
    found = compare({**rows, **runs}, rows, runs.get, dict(given_up), releasing=releasing)
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


def test_a_batch_says_which_of_ours_it_touches() -> None:
    """What came, what left, and what is gone for good, wherever that was: it was perhaps here before."""
    mirror = Mirror(ME)
    mirror.apply(WatchBatch(revision=1, snapshot=True, synced=True, agents=[row("1"), row("2"), row("3")]))
    moved, new, foreign = row("1", incarnation="other"), row("4"), row("9", incarnation="other")
    touched = mirror.apply(WatchBatch(revision=2, agents=[moved, new, foreign], gone_agents=["3", "8"]))
    assert (set(touched.uids), touched.whole) == ({"1", "4", "3", "8"}, False)


# --- what changed is enough ---------------------------------------------------------------------------------------


UIDS = st.sampled_from(["1", "2", "3"])
ROWS = st.builds(
    lambda uid, epoch, mine, deleting: row(uid, epoch, incarnation=ME if mine else "other", deleting=deleting),
    UIDS, st.integers(1, 3), st.booleans(), st.booleans(),
)  # fmt: skip
HISTORY = st.lists(
    st.tuples(st.just("rows"), st.lists(ROWS, max_size=3), st.lists(UIDS, max_size=1))
    | st.tuples(st.just("snapshot"), st.lists(ROWS, max_size=4), st.integers(0, 4))
    | st.tuples(st.just("releasing"), st.booleans())
    | st.tuples(st.sampled_from(["ended", "failed"]), UIDS),
    max_size=30,
)


class Host:
    """Keeps what runs as it is told, as `activations` does; an activation that is to stop ends at some later time."""

    def __init__(self) -> None:
        self.mirror, self.agenda = Mirror(ME), Agenda()
        self.running: dict[str, int] = {}
        self.ending: dict[str, Why] = {}
        self.given_up: dict[str, int] = {}
        self.releasing = self.whole = False

    def everything(self) -> list[str]:
        return [*self.running, *self.mirror.mine, *self.given_up]

    def take(self, batch: WatchBatch) -> None:
        touched = self.mirror.apply(batch)
        self.whole |= touched.whole
        if not self.mirror.synced:
            return
        if self.whole:
            self.whole = False
            self.agenda.add(self.everything())
        self.agenda.add(touched.uids)

    def end(self, uid: str, *, failed: bool) -> None:
        if uid not in self.running or (uid not in self.ending and not failed):
            return
        why, epoch = self.ending.pop(uid, Why.RELEASED), self.running.pop(uid)
        if why is not Why.MOVED:
            self.given_up[uid] = epoch
        self.agenda.add([uid])

    def differences(self, uids: list[str]) -> Changes:
        for uid in uids:
            if uid in self.given_up and self.given_up[uid] != getattr(self.mirror.mine.get(uid), "epoch", None):
                del self.given_up[uid]
        found = compare(uids, self.mirror.mine, self.running.get, self.given_up, releasing=self.releasing)
        for uid in self.ending.keys() & found.stop.keys():
            del found.stop[uid]  # it is being stopped
        return found

    def carry_out(self, changes: Changes) -> None:
        self.running |= {each.uid: each.epoch for each in changes.start}
        self.given_up |= {uid: self.mirror.mine[uid].epoch for uid in changes.report}
        self.ending |= changes.stop


@given(HISTORY)
def test_what_changed_is_all_that_differs(history: list[Any]) -> None:
    """After it was compared there is nothing left that a comparison of everything would find."""
    host = Host()
    host.take(WatchBatch(revision=1, snapshot=True, synced=True))
    for number, (kind, *said) in enumerate(history, 2):
        match kind:
            case "rows":
                host.take(WatchBatch(revision=number, agents=said[0], gone_agents=said[1]))
            case "snapshot":
                host.take(WatchBatch(revision=number, snapshot=True, agents=said[0][: said[1]]))
                host.take(WatchBatch(revision=number, synced=True, agents=said[0][said[1] :]))
            case "releasing":
                host.releasing = said[0]
                host.agenda.add(host.everything())
            case _:
                host.end(said[0], failed=kind == "failed")
        while host.agenda:
            host.carry_out(host.differences(host.agenda.take(2)))
        assert host.differences(host.everything()) == Changes()


def test_an_agenda_gives_each_once_in_order() -> None:
    """A part at a time; what is added again while it waits is not there twice."""
    agenda = Agenda()
    agenda.add(["1", "2", "3"])
    agenda.add(["2", "4"])
    assert (agenda.take(2), agenda.take(9), bool(agenda), agenda.take(1)) == (["1", "2"], ["3", "4"], False, [])


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
