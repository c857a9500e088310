"""What bounds signals between hosts: credits, windows, the receiving host's rules, and a fair share for each tenant."""

from __future__ import annotations

import pytest
from core_signals_world import APPLIED, RECEIVERS, Entry, Pair, Tight
from hypothesis import given
from hypothesis import strategies as st

from tenured.core import receiving
from tenured.core.fairness import FairQueue
from tenured.core.receiving import Inbound, Shares
from tenured.core.sending import Sending
from tenured.core.signalframes import BadFrame, Batch
from tenured.core.signals import Again, Signal
from tenured.core.streams import PAIR_WINDOW, BadAnswer, Owner, Route

# --- bounds ---------------------------------------------------------------------------------------------------------


def test_no_more_is_under_way_than_the_receiver_granted() -> None:
    pair = Pair(granted=5)
    pair.release(*range(1, 20))
    lane = pair.open()
    assert len(pair.take()) == 5
    lane.answered(1, 3, APPLIED, 0.0)
    assert pair.take() == []
    lane.grant(8, 1 << 20)
    assert [n for n, _ in pair.take()] == [6, 7, 8]


def test_bytes_bound_what_is_under_way_and_one_large_signal_passes() -> None:
    pair = Pair()
    pair.release(1, 2, 3, body=bytes(3000))
    pair.lane.opened(100, 2000)
    assert [n for n, _ in pair.take()] == [1]
    pair.lane.answered(1, 1, APPLIED, 0.0)
    assert [n for n, _ in pair.take()] == [2]


def test_one_pair_takes_no_more_than_its_window() -> None:
    """A receiver that stands still leaves the connection to others."""
    pair = Pair()
    pair.release(*range(1, 2 * PAIR_WINDOW))
    pair.sending.release(pair.owner, [Entry(9999, "11")], 0.0)
    pair.open()
    taken = pair.lane.take(1000, 1 << 20, 0.0)
    assert len([each for each in taken if each.receiver == "10"]) == PAIR_WINDOW
    assert [each.n for each in taken if each.receiver == "11"] == [9999]


def test_answers_to_what_was_not_sent_are_a_breach() -> None:
    pair = Pair()
    pair.release(1)
    pair.open()
    pair.take()
    with pytest.raises(BadAnswer):
        pair.lane.answered(1, 2, APPLIED, 0.0)


def signal(n: int, prev: int = 0, receiver: str = "10", sender: str = "1", body: bytes = b"") -> Signal:
    return Signal(sender, receiver, n, prev, 1.0, body)


def test_the_receiving_host_ends_a_connection_that_breaks_the_rules() -> None:
    inbound = Inbound(Tight())
    with pytest.raises(BadFrame, match="came after 0"):
        inbound.take(Batch(2, [signal(1)]))
    with pytest.raises(BadFrame, match="more signals"):
        inbound.take(Batch(1, [signal(n) for n in range(1, 8)]))
    with pytest.raises(BadFrame, match="more bytes"):
        Inbound(Tight()).take(Batch(1, [signal(1, body=bytes(600)), signal(2, 1)]))


def test_an_agent_that_stands_still_leaves_room_for_others() -> None:
    """No head-of-line blocking: it gets `Busy` beyond its share, and others are admitted."""
    inbound = Inbound(Shares())
    inbound.take(Batch(1, [signal(n, n - 1) for n in range(1, 4001)]))
    answers = [inbound.admit(seq, signal(seq, seq - 1)) for seq in range(1, 4001)]
    admitted = answers.count(None)
    assert admitted == (receiving.LINK_SIGNALS - 4000) // receiving.SHARE
    first = answers[admitted]
    assert first is not None
    assert first.code == "Busy"
    assert {each.code for each in answers[admitted + 1 :] if each} <= {"OutOfOrder", "Busy"}
    inbound.take(Batch(4001, [signal(1, receiver="11", sender="2")]))
    assert inbound.admit(4001, signal(1, receiver="11", sender="2")) is None


def test_what_follows_a_refused_one_is_refused_until_it_comes_again() -> None:
    inbound = Inbound(Shares())
    inbound.take(Batch(1, [signal(1), signal(2, 1), signal(1), signal(2, 1)]))
    assert inbound.admit(1, signal(1)) is None
    inbound.refused(signal(1))
    inbound.answer(1, Again("NotReady"))
    again = inbound.admit(2, signal(2, 1))
    assert again is not None
    assert again.code == "OutOfOrder"
    assert inbound.admit(3, signal(1)) is None
    assert inbound.admit(4, signal(2, 1)) is None


def test_answers_travel_in_runs_with_new_credits() -> None:
    inbound = Inbound(Tight())
    came = [signal(n, receiver=str(n)) for n in range(1, 6)]
    inbound.take(Batch(1, came))
    for seq, each in enumerate(came, 1):
        assert inbound.admit(seq, each) is None
    for seq in (5, 1, 2, 3):
        inbound.answer(seq, Again("Busy") if seq == 3 else APPLIED)
    said = inbound.flush()
    assert said is not None
    assert said.runs == [(1, 2, APPLIED), (3, 3, Again("Busy")), (5, 5, APPLIED)]
    assert (said.serial, said.signals) == (1, 4 + 6)
    assert inbound.flush() is None


# --- fairness -------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 2000), min_size=2, max_size=5))
def test_tenants_get_equal_bytes_however_large_their_signals_are(sizes: list[int]) -> None:
    queue: FairQueue[str] = FairQueue(quantum=1000)
    served = dict.fromkeys(map(str, range(len(sizes))), 0)
    for tenant in served:
        for _ in range(3):
            queue.put(tenant, 0, tenant)
    while sum(served.values()) < 200_000:
        tenant = queue.pop()
        assert tenant is not None
        served[tenant] += sizes[int(tenant)]
        queue.charge(tenant, sizes[int(tenant)])
        queue.put(tenant, 0, tenant)
    assert max(served.values()) - min(served.values()) <= 2 * (1000 + 2000)


def test_a_tenant_that_comes_and_goes_pays_its_debt() -> None:
    """One huge signal at a time is not a way around the others."""
    queue: FairQueue[str] = FairQueue(quantum=10)
    served = {"huge": 0, "small": 0}
    for tenant in served:
        queue.put(tenant, 0, tenant)
    for _ in range(1000):
        tenant = queue.pop()
        assert tenant is not None
        size = 500 if tenant == "huge" else 10
        served[tenant] += size
        queue.charge(tenant, size)
        queue.put(tenant, 0, tenant)
    assert abs(served["huge"] - served["small"]) <= 1000


def test_higher_priority_goes_first_between_senders_and_a_pair_keeps_its_order() -> None:
    routes = dict.fromkeys(RECEIVERS, Route("A", 1))
    sending = Sending(routes.__getitem__, lambda: 1.0)
    low, high = Owner("1", "t/low", "t", 0), Owner("2", "t/high", "t", 0)
    sending.release(low, [Entry(1, "10"), Entry(2, "10", priority=9), Entry(3, "10")], 0.0)
    sending.release(high, [Entry(1, "10", priority=5), Entry(2, "10", priority=5)], 0.0)
    lane = sending.lanes["A"]
    lane.opened(100, 1 << 20)
    taken = [(each.sender, each.n) for each in lane.take(10, 1 << 20, 0.0)]
    assert taken == [("2", 1), ("2", 2), ("1", 1), ("1", 2), ("1", 3)]


def test_a_backlog_of_one_tenant_does_not_hold_up_another() -> None:
    routes = {str(uid): Route("A", 1) for uid in range(1000)}
    sending = Sending(routes.__getitem__, lambda: 1.0)
    for number in range(200):
        many = Owner(f"{number}", "loud/s", "loud", 0)
        sending.release(many, [Entry(n, str(number), body=bytes(400)) for n in range(1, 101)], 0.0)
    sending.release(Owner("q", "quiet/s", "quiet", 0), [Entry(1, "999")], 0.0)
    lane = sending.lanes["A"]
    lane.opened(10_000, 1 << 24)
    place = [each.source for each in lane.take(10_000, 1 << 24, 0.0)].index("quiet/s")
    assert place < 100
