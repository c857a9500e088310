"""Signals between hosts, the pure part (protocol 3, "Sender"): nothing lost, passed over, doubled or settled twice."""

from __future__ import annotations

import random

import pytest
from core_signals_world import APPLIED, SENDERS, Entry, Pair, World
from hypothesis import given, settings
from hypothesis import strategies as st

from tenured.core.signals import Again, Settled, Verdict
from tenured.core.streams import MAX_BODY, PAIR_WINDOW, Route

OFTEN = ("emit", "connect", "send", "receive", "turn", "ack", "forget")
SELDOM = ("wait", "publish", "cut", "lose", "move", "hinder", "give_up", "delete")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(20, 400))
def test_whatever_happens_each_signal_is_settled_once_in_order_and_truly(seed: int, steps: int) -> None:
    """Protocol 3 [keep_box, prev, void]: frames lost, doubled, reordered, connections cut, agents moved and deleted.
    Each seed has its own share of each of them (swarm testing).
    """
    rng, world = random.Random(seed), World()
    weights = [rng.choice((2, 4, 8)) for _ in OFTEN] + [rng.choice((0, 0.2, 0.5, 1.5)) for _ in SELDOM]
    for name in rng.choices(OFTEN + SELDOM, weights, k=steps):
        getattr(world, name)(rng.randrange(1 << 12))
        world.judge()
    world.heal()
    world.judge()
    for uid, epoch in SENDERS.items():
        assert set(world.settled[uid]) == set(world.released[uid]), "some are not settled"
        for n, verdict in world.settled[uid].items():
            if verdict is Verdict.UNKNOWN:
                assert epoch or world.receivers[world.released[uid][n].receiver].deleted
    assert world.sending.results.unsettled == 0
    assert not any(lane.streams for lane in world.sending.lanes.values()), "nothing is kept of what was forgotten"


# --- one pair ---------------------------------------------------------------------------------------------------------


def test_prev_names_the_one_before_until_its_settlement_is_committed() -> None:
    """Protocol 3 [prev]: an answer alone does not do, for the record still has the entry."""
    pair = Pair()
    pair.release(3, 5, 9)
    lane = pair.open()
    assert pair.take() == [(3, 0), (5, 3), (9, 5)]
    lane.answered(1, 2, APPLIED, 0.0)
    assert pair.outcomes() == [(3, "applied"), (5, "applied")]
    lane.broken("cut")
    pair.open()
    assert pair.take() == [(9, 5)]
    pair.sending.forget(pair.owner, [3, 5])
    lane.broken("cut")
    pair.open()
    assert pair.take() == [(9, 0)]


def test_a_refused_pair_goes_on_from_its_first_unsettled_one_after_a_pause() -> None:
    pair = Pair()
    pair.release(1, 2, 3)
    lane = pair.open()
    pair.take()
    lane.answered(1, 1, APPLIED, 0.0)
    lane.answered(2, 2, Again("Busy", "full"), 0.0)
    lane.answered(3, 3, Again("OutOfOrder"), 0.0)  # of before the pause: it is not heard
    assert pair.outcomes() == [(1, "applied")]
    assert pair.sending.waiting(pair.owner).stuck == {"10": ("Busy", "full")}
    assert pair.take() == []
    assert pair.sending.next_due == pytest.approx(0.05)
    pair.sending.due(0.05)
    assert pair.take() == [(2, 1), (3, 2)]


def test_a_pair_that_waits_sends_nothing_though_it_stood_in_the_queue() -> None:
    pair = Pair(granted=2)
    pair.release(1, 2, 3, 4)
    lane = pair.open()
    assert len(pair.take()) == 2
    lane.answered(1, 1, Again("Busy"), 0.0)
    lane.grant(100, 1 << 20)
    assert pair.take() == []
    pair.sending.refusals(0.0)
    pair.sending.due(10.0)
    assert [n for n, _ in pair.take()] == [1, 2, 3, 4]


def test_what_is_forgotten_under_way_makes_room_for_the_next() -> None:
    pair = Pair()
    pair.release(*range(1, PAIR_WINDOW + 2))
    lane = pair.open()
    assert len(pair.take()) == PAIR_WINDOW
    pair.sending.forget(pair.owner, range(1, PAIR_WINDOW + 1))
    lane.answered(1, PAIR_WINDOW, Again("Busy"), 0.0)
    assert pair.take() == [(PAIR_WINDOW + 1, 0)]


def test_pauses_grow_to_five_seconds_and_end_with_progress() -> None:
    pair, now, pauses = Pair(), 0.0, []
    pair.release(1, 2)
    lane = pair.open()
    for seq in range(1, 21, 2):
        assert len(pair.take()) == 2
        lane.answered(seq, seq, Again("Busy"), now)
        lane.answered(seq + 1, seq + 1, Again("OutOfOrder"), now)
        pair.sending.refusals(now)
        pauses.append(round(pair.sending.next_due - now, 3))
        now = pair.sending.next_due
        pair.sending.due(now)
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    pair.take()
    lane.answered(21, 21, APPLIED, now)
    lane.answered(22, 22, Again("Busy"), now)
    pair.sending.refusals(now)
    assert pair.sending.next_due - now == pytest.approx(0.05)


def test_a_moved_pair_waits_for_the_newer_route_and_follows_it_at_once() -> None:
    """A stale route is corrected, not failed."""
    pair = Pair()
    pair.release(1, 2)
    lane = pair.open()
    pair.take()
    lane.answered(1, 2, Again("Moved"), 0.0)
    assert pair.outcomes() == []
    assert pair.take() == []
    pair.routes["10"] = Route("B", 2)
    pair.sending.routes_changed(["10"], 0.0)
    other = pair.sending.lanes["B"]
    other.opened(10, 1000)
    assert [(each.n, each.prev) for each in other.take(10, 1000, 0.0)] == [(1, 0), (2, 1)]
    assert not lane.streams


def test_an_answer_of_the_old_host_counts_after_a_move() -> None:
    """It was applied there before: the copy at the new host is a duplicate, and its answer is not told again."""
    pair = Pair()
    pair.release(1)
    lane = pair.open()
    pair.take()
    pair.routes["10"] = Route("B", 2)
    pair.sending.routes_changed(["10"], 0.0)
    other = pair.sending.lanes["B"]
    other.opened(10, 1000)
    other.take(10, 1000, 0.0)
    lane.answered(1, 1, APPLIED, 0.0)
    other.answered(1, 1, APPLIED, 0.0)
    assert pair.outcomes() == [(1, "applied")]


def test_a_volatile_senders_signal_is_not_sent_again_after_a_break() -> None:
    """Protocol 3, volatile agents [vol_once]: what was under way is unknown, what was not goes on."""
    pair = Pair(epoch=4, granted=2)
    pair.release(1, 2, 3)
    lane = pair.open()
    assert pair.take() == [(1, 0), (2, 1)]
    lane.broken("cut")
    assert pair.outcomes() == [(1, "unknown"), (2, "unknown")]
    pair.open()
    assert [n for n, _ in pair.take()] == [3]


def test_a_refused_signal_of_a_volatile_sender_is_sent_again() -> None:
    """A refusal says that nobody took it."""
    pair = Pair(epoch=4)
    pair.release(1)
    lane = pair.open()
    pair.take()
    lane.answered(1, 1, Again("NotReady"), 0.0)
    pair.sending.refusals(0.0)
    pair.sending.due(10.0)
    assert pair.take() == [(1, 0)]


def test_what_waits_for_a_deleted_receiver_is_unknown() -> None:
    """Protocol 3, dead letters (c): also what this activation never sent, for an earlier one may have."""
    pair = Pair(granted=1)
    pair.release(1, 2)
    pair.open()
    pair.take()
    pair.routes["10"] = Route(deleted=True)
    pair.sending.routes_changed(None, 0.0)
    assert pair.outcomes() == [(1, "unknown"), (2, "unknown")]
    pair.release(3)
    assert pair.outcomes() == [(3, "unknown")]


def test_a_void_replaces_the_live_one_and_the_first_answer_counts() -> None:
    """Protocol 3 [void]: under the same number, also when the live one is under way."""
    pair = Pair()
    pair.release(1, 2)
    lane = pair.open()
    pair.take()
    pair.sending.release(pair.owner, [Entry(1, "10", void=True)], 0.0)
    again = pair.lane.take(10, 1000, 0.0)
    assert [(each.n, each.void, each.body) for each in again] == [(1, True, b""), (2, False, b"b")]
    lane.answered(1, 2, APPLIED, 0.0)
    lane.answered(3, 4, APPLIED, 0.0)
    assert pair.outcomes() == [(1, "applied"), (2, "applied")]


def test_an_order_that_is_broken_is_refused() -> None:
    pair = Pair()
    pair.release(4)
    with pytest.raises(ValueError, match="released after 4"):
        pair.release(3)


def test_a_body_that_fits_no_frame_waits_and_is_told_until_it_is_given_up() -> None:
    pair = Pair()
    pair.release(1, body=bytes(MAX_BODY + 1))
    pair.open()
    assert pair.take() == []
    assert pair.sending.waiting(pair.owner).stuck["10"][0] == "TooLarge"
    pair.sending.release(pair.owner, [Entry(1, "10", void=True)], 0.0)
    assert pair.take() == [(1, 0)]


def test_a_forgotten_one_lets_a_pair_go_on_that_waited_for_it() -> None:
    """The receiver's mark was forgotten, so `prev` named what it does not know."""
    pair = Pair()
    pair.release(1, 2)
    lane = pair.open()
    pair.take()
    lane.answered(1, 1, Settled(Verdict.UNKNOWN), 0.0)
    lane.answered(2, 2, Again("OutOfOrder"), 0.0)
    pair.sending.refusals(0.0)
    pair.sending.forget(pair.owner, [1])
    assert pair.take() == [(2, 0)]


def test_one_in_the_middle_and_the_last_may_be_forgotten_first() -> None:
    """A sender may settle what it gave up otherwise."""
    pair = Pair()
    pair.release(1, 2, 3)
    pair.sending.forget(pair.owner, [2, 3])
    pair.release(4)
    pair.open()
    assert pair.take() == [(1, 0), (4, 1)]


def test_a_refusal_by_the_old_host_is_not_taken_for_one_of_the_new() -> None:
    """Numbers of two connections may be the same."""
    pair = Pair()
    pair.release(1)
    old = pair.open()
    pair.take()
    pair.routes["10"] = Route("B", 2)
    pair.sending.routes_changed(["10"], 0.0)
    new = pair.sending.lanes["B"]
    new.opened(10, 1000)
    new.take(10, 1000, 0.0)
    old.answered(1, 1, Again("Moved"), 0.0)
    assert pair.sending.waiting(pair.owner).stuck == {}
    new.broken("cut")
    new.opened(10, 1000)
    assert [each.n for each in new.take(10, 1000, 0.0)] == [1]


def test_a_closed_sender_sends_and_hears_nothing_more() -> None:
    pair = Pair()
    pair.release(1, 2)
    lane = pair.open()
    pair.take()
    pair.sending.close(pair.owner)
    lane.answered(1, 1, APPLIED, 0.0)
    lane.answered(2, 2, Again("Busy"), 0.0)
    assert pair.outcomes() == []
    assert pair.sending.results.unsettled == 0
    assert pair.sending.waiting(pair.owner).unsettled == 0
    assert not lane.streams


def test_what_waits_is_told_with_its_age_and_its_reason() -> None:
    pair = Pair()
    pair.release(1, 2, born=7.0)
    waiting = pair.sending.waiting(pair.owner)
    assert (waiting.unsettled, waiting.oldest_born) == (2, 7.0)
    assert waiting.stuck["10"][0] == "Unreachable"
    pair.routes["10"] = Route()
    pair.sending.routes_changed(None, 0.0)
    assert pair.sending.waiting(pair.owner).stuck["10"][0] == "NotReady"
