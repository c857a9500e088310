"""What a turn writes and how a repeated call is recognised (protocol 3, external clients)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenured.core import turns as t


def apply(record: dict, turn: t.Turn) -> dict:
    """What a server of the store does with a delta."""
    assert not set(turn.puts) & set(turn.deletes)
    return {name: data for name, data in record.items() if name not in turn.deletes} | turn.puts


def settle(book: t.Book, call_id: t.CallId, born: float, now: float, *, state: bytes | None, reply: bytes) -> t.Turn:
    draft = t.Draft(book, now)
    draft.state(state)
    draft.call(call_id, born, reply)
    return draft.turn()


def settled(book: t.Book, client: str, key: int, now: float = 0.0, reply: bytes = b"r") -> t.Book:
    return settle(book, (client, key), now, now, state=None, reply=reply).book


def test_the_first_state() -> None:
    """Committed before the agent is Ready."""
    draft = t.Draft(t.Book(), 5.0)
    draft.state(b"state")
    turn = draft.turn()
    assert turn.puts[t.STATE] == b"state"
    assert t.load(turn.puts) == turn.book


def test_a_turn_writes_state_clock_and_mark_with_reply() -> None:
    """One write of one record [mark_in_commit]."""
    turn = settle(t.Book(), ("client/1", 7), 1.0, 2.0, state=b"new", reply=b"reply")
    assert set(turn.puts) == {"s", "c", "r/client/1/7"}
    assert turn.deletes == ()
    assert t.judge(turn.book, "client/1", 7, 1.0, 3.0) == t.Recorded(b"reply")
    assert t.judge(turn.book, "client/1", 8, 1.0, 3.0) == t.New()
    assert t.load(turn.puts) == turn.book


def test_a_turn_that_changes_nothing_keeps_its_mark() -> None:
    """The reply must be the same on a repetition."""
    assert t.STATE not in settle(t.Book(), ("c", 1), 0.0, 0.0, state=None, reply=b"").puts


def test_a_call_without_an_id_leaves_no_mark() -> None:
    """It cannot be recognised again."""
    turn = settle(t.Book(), ("", 0), 0.0, 0.0, state=b"s", reply=b"r")
    assert set(turn.puts) == {"s", "c"}
    assert t.judge(turn.book, "", 0, -9e9, 0.0) == t.New()


def test_a_call_older_than_marks_are_kept_is_unknown() -> None:
    """[age]: without a mark one cannot say whether it was applied."""
    assert t.judge(t.Book(), "c", 1, 0.0, t.KEEP_S) == t.TooOld()
    assert t.judge(t.Book(), "c", 1, 1.0, t.KEEP_S) == t.New()


@pytest.mark.parametrize("client", ["c", ""])
@pytest.mark.parametrize("born", [t.MAX_LEAD_S + 1, float("inf"), float("nan")])
def test_a_call_from_the_far_future_does_not_move_the_records_clock(client: str, born: float) -> None:
    """[used_born]: `clock = max(now, born, clock)` would make every honest call after it too old."""
    assert t.judge(t.Book(), client, 1, born, 0.0) == t.FromTheFuture()
    assert t.judge(t.Book(), client, 1, t.MAX_LEAD_S, 0.0) == t.New(), "a host may lag behind its clients"
    assert t.judge(t.Book(clock=5.0), client, 1, t.MAX_LEAD_S + 5, 0.0) == t.New()


def test_a_holder_that_has_read_less_cluster_time_goes_by_the_records_clock() -> None:
    """[state_clock, used_born]."""
    book = settled(t.Book(), "other", 1, now=t.KEEP_S + 10)
    assert t.judge(book, "c", 1, 10.0, 0.0) == t.TooOld()
    ahead = settle(t.Book(), ("c", 1), 50.0, 20.0, state=None, reply=b"").book
    assert ahead.clock == 50.0


def test_old_replies_are_forgotten_and_their_calls_unknown() -> None:
    """After `KEEP_S` nothing is applied twice: the age rule answers."""
    book = settled(t.Book(), "c", 1, now=10.0)
    turn = settle(book, ("c", 2), t.KEEP_S + 10, t.KEEP_S + 10, state=None, reply=b"")
    assert turn.deletes == ("r/c/1",)
    assert t.judge(turn.book, "c", 1, 10.0, t.KEEP_S + 10) == t.TooOld()


def test_more_replies_than_the_bound_become_marks_without_reply() -> None:
    """A client that counts its calls costs one span, however many they are."""
    book, record = t.Book(), {}
    for key in range(1, t.MAX_REPLIES + 500):
        turn = settle(book, ("c", key), 0.0, key / 1000, state=b"s", reply=b"reply")
        record, book = apply(record, turn), turn.book
        assert len(book.replies) <= t.MAX_REPLIES
    assert book.spans == 1
    assert t.judge(book, "c", 1, 0.0, 2.0) == t.AppliedReplyGone()
    assert t.judge(book, "c", t.MAX_REPLIES + 499, 0.0, 2.0) == t.Recorded(b"reply")
    assert t.judge(book, "c", t.MAX_REPLIES + 500, 0.0, 2.0) == t.New()
    assert t.load(record) == book


def test_large_replies_push_out_older_ones_and_the_largest_are_not_kept() -> None:
    """Bounded in bytes."""
    book = t.Book()
    for key in range(5):
        book = settled(book, "c", key, reply=b"x" * (t.MAX_REPLY_BYTES // 3))
        assert book.reply_bytes <= t.MAX_REPLY_BYTES
    assert t.judge(book, "c", 4, 0.0, 0.0) == t.Recorded(b"x" * (t.MAX_REPLY_BYTES // 3))
    assert t.judge(book, "c", 0, 0.0, 0.0) == t.AppliedReplyGone()
    huge = settled(book, "c", 99, reply=b"x" * (t.MAX_REPLY_BYTES + 1))
    assert t.judge(huge, "c", 99, 0.0, 0.0) == t.AppliedReplyGone()


def test_too_many_marks_within_the_keep_time_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not applied; after the keep time the old marks go and calls are taken again."""
    monkeypatch.setattr(t, "MAX_SPANS", 3)
    monkeypatch.setattr(t, "MAX_REPLIES", 1)
    monkeypatch.setattr(t, "FOLD", 1)
    book, record = t.Book(), {}
    for key in (10, 20, 30, 40):
        turn = settle(book, ("c", key), 0.0, 0.0, state=None, reply=b"")
        record, book = apply(record, turn), turn.book
    assert book.spans == 3
    assert t.judge(book, "c", 50, 0.0, 1.0) == t.Busy()
    assert t.judge(book, "c", 10, 0.0, 1.0) == t.AppliedReplyGone()
    later = t.KEEP_S
    assert t.judge(book, "c", 50, later, later) == t.New()
    turn = settle(book, ("c", 50), later, later, state=None, reply=b"")
    record, book = apply(record, turn), turn.book
    assert book.spans == 0
    assert t.load(record) == book


def test_two_turns_make_one_write() -> None:
    """Protocol additions 9: the delta of both is that of one after the other."""
    first = settle(t.Book(), ("c", 1), 0.0, 0.0, state=b"1", reply=b"a" * t.MAX_REPLY_BYTES)
    then = settle(first.book, ("c", 2), 0.0, 0.0, state=b"2", reply=b"b")
    both = t.Draft(t.Book(), 0.0)
    for state, call_id, reply in ((b"1", ("c", 1), b"a" * t.MAX_REPLY_BYTES), (b"2", ("c", 2), b"b")):
        both.state(state)
        both.call(call_id, 0.0, reply)
    turn = both.turn()
    assert turn.book == then.book
    assert apply({}, turn) == apply(apply({}, first), then)


@pytest.mark.parametrize(
    "entries",
    [{"c": b"\xc1"}, {"r/c/1": b"\xc1"}, {"m/c": b"\x01"}, {"r/c/x": b"\x92\x01\xc4\x00"}, {"r/1": b"\x80"}],
)
def test_a_damaged_record_is_said_to_be_so(entries: dict) -> None:
    """The agent stays down rather than forget what was applied."""
    with pytest.raises(t.Damaged):
        t.load(entries)


CALLS = st.lists(
    st.tuples(st.sampled_from(["a", "b/c"]), st.integers(0, 30), st.floats(0, 400), st.integers(0, 60)),
    max_size=60,
)


@given(CALLS, st.integers(1, 4))
def test_no_call_is_applied_twice_and_none_is_called_new_that_was(calls: list, replies: int) -> None:
    """Against a plain set of what was applied, with tiny bounds, across activations that reload the record."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("MAX_REPLIES", replies), ("FOLD", 1), ("KEEP_S", 1000.0), ("MAX_REPLY_BYTES", 50)):
            patch.setattr(t, name, value)
        book, record, applied, now = t.Book(), {}, {}, 0.0
        for client, key, step, size in calls:
            now += step
            born = now - step
            verdict = t.judge(book, client, key, born, now)
            if (client, key) in applied:
                at = applied[client, key]
                # Known, or so long ago that the same id cannot have been born then.
                assert isinstance(verdict, t.Recorded | t.AppliedReplyGone) or now - at >= t.KEEP_S
            else:
                assert verdict == t.New()
            if verdict == t.New():
                turn = settle(book, (client, key), born, now, state=b"s", reply=b"x" * size)
                record, book = apply(record, turn), turn.book
                applied[client, key] = now
                assert len(book.replies) <= replies
                assert book.reply_bytes <= t.MAX_REPLY_BYTES
                assert book.spans == sum(len(spans) for spans in book.marks.values())
                assert t.load(record) == book
