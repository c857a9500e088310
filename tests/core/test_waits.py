"""Probes of turns that wait for each other: what one agent makes of them (protocol 9, rule 12; model P)."""

import msgspec
import pytest

from tenured.core import waits
from tenured.core.journals import Journal, Owed, Waiting
from tenured.core.signals import Signal
from tenured.core.waits import Hop, Probe, Refusal

A, B, C = ("7", "shop/a"), ("12", "shop/b"), ("9", "shop/c")


def request(key: str, sender: str = "5") -> Signal:
    return Signal(sender, "0", 1, 0, 0.0, msgspec.msgpack.encode({"name": "add", "reply": key}), source="shop/x")


def agent(*, waits_for: str = "", to: str = "", inbox: tuple[str, ...] = (), serves: str = "") -> Journal:
    """What its record holds: its turn waits, these requests wait for it."""
    waiting = Waiting(position=0, name="call", key=waits_for, to=to) if waits_for else None
    owed = Owed(
        kind="work", method="m", arguments=b"", caller="", key="t", label="m", until=9.0, reply=serves, waiting=waiting
    )
    return Journal(owed=owed, inbox={k: request(key) for k, key in enumerate(inbox, start=1)})


def hop(of: tuple[str, str], waits_for: str, *, inbox: bool = True) -> Hop:
    return Hop(of[0], of[1], waits_for, inbox=inbox)


def test_who_waits_and_is_waited_for_asks() -> None:
    found = waits.begin(*A, agent(waits_for="a1", to="shop/b", inbox=("x1",)))
    assert found == Probe((hop(A, "a1"),), "shop/b")


@pytest.mark.parametrize(
    "journal",
    [Journal(), agent(inbox=("x1",)), agent(waits_for="a1", to="shop/b"), agent(waits_for="a1", inbox=("x1",))],
    ids=["idle", "runs", "nobody waits for it", "of an older version: for whom it waits is not known"],
)
def test_else_nobody_asks(journal: Journal) -> None:
    assert waits.begin(*A, journal) is None


@pytest.mark.parametrize("how", ["in the inbox", "served"])
def test_it_is_handed_on_by_who_waits_too(how: str) -> None:
    """[probe_served]: a request that is being answered waits as long as one in the inbox."""
    inbox = how == "in the inbox"
    journal = agent(waits_for="b1", to="shop/c", inbox=("a1",) if inbox else (), serves="" if inbox else "a1")
    found = waits.judge(B[0], Probe((hop(A, "a1"),), B[1]), journal)
    assert found == Probe((hop(A, "a1"), hop(B, "b1", inbox=inbox)), "shop/c")


@pytest.mark.parametrize(
    "journal",
    [Journal(), agent(inbox=("a1",)), agent(waits_for="b1", to="shop/c", inbox=("a2",))],
    ids=["idle", "runs", "the request is answered"],
)
def test_it_ends_where_nobody_waits(journal: Journal) -> None:
    """[probe_seen]"""
    assert waits.judge(B[0], Probe((hop(A, "a1"),), B[1]), journal) is None


def test_the_youngest_whose_inbox_has_a_request_refuses_it() -> None:
    """[one_victim]: whoever found the cycle, the same; uids are numbers."""
    path = (hop(A, "a1"), hop(B, "b1"), hop(C, "c1"))
    at_a = waits.judge(A[0], Probe(path, A[1]), agent(waits_for="a1", to="shop/b", inbox=("c1",)))
    assert at_a == Probe(path, "shop/b", victim="12", left=2)
    assert isinstance(at_a, Probe)
    found = waits.judge(B[0], at_a, agent(waits_for="b1", to="shop/c", inbox=("x1", "a1")))
    assert isinstance(found, Refusal)
    assert (found.k, found.key) == (2, "a1")
    assert found.message == "turns would wait for each other: shop/a -> shop/b -> shop/c -> shop/a"


def test_who_answers_a_request_is_no_victim() -> None:
    """There is nothing that it could refuse: it has begun."""
    path = (hop(A, "a1"), hop(B, "b1", inbox=False))
    found = waits.judge(A[0], Probe(path, A[1]), agent(waits_for="a1", to="shop/b", inbox=("b1",)))
    assert isinstance(found, Refusal)


def test_another_wait_is_not_taken_for_the_one_that_was_asked_about() -> None:
    path = (hop(A, "a1"), hop(B, "b1"))
    assert waits.judge(A[0], Probe(path, A[1]), agent(waits_for="a2", to="shop/b", inbox=("b1",))) is None
    decided = Probe(path, B[1], victim=B[0], left=1)
    assert waits.judge(B[0], decided, agent(waits_for="b2", to="shop/a", inbox=("a1",))) is None


def test_a_probe_from_outside_of_a_cycle_ends_in_it() -> None:
    """[probe_ends]: whoever began in the cycle finds it."""
    path = (hop(("1", "shop/x"), "x1"), hop(A, "a1"), hop(B, "b1"))
    assert waits.judge(A[0], Probe(path, A[1]), agent(waits_for="a1", to="shop/b", inbox=("x1", "b1"))) is None


def test_one_that_has_gone_too_far_ends() -> None:
    path = tuple(Hop(str(n), f"shop/{n}", f"{n}", inbox=True) for n in range(100, 100 + waits.MAX_HOPS))
    journal = agent(waits_for="b1", to="shop/c", inbox=(path[-1].waits,))
    assert waits.judge(B[0], Probe(path, B[1]), journal) is None
    assert waits.judge(B[0], Probe(path[1:], B[1]), journal) is not None


def test_what_cannot_be_read_leads_nowhere() -> None:
    journal = agent(waits_for="b1", to="shop/c", inbox=("a1",))
    assert waits.judge(B[0], waits.decode(b"\xff"), journal) is None
    assert waits.decode(waits.encode(Probe((hop(A, "a1"),), "shop/b"))) == Probe((hop(A, "a1"),), "shop/b")
