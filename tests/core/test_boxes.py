"""Outbox, marks of senders and dead letters (protocol 3), against a model of what was sent and applied."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenured.core import boxdraft
from tenured.core import boxes as b
from tenured.core import turns as t
from tenured.core.boxdraft import OutboxFull
from tenured.core.signals import Signal, Verdict

LETTER = b.Letter(at=1.0, side=b.Side.SENDER, verdict="pending", what="x", source="d/a", to="d/b", code="E", message="")


def entry(to: str = "d/b", body: bytes = b"body") -> b.Entry:
    return b.Entry(receiver="7", to=to, born=1.0, body=body)


def signal(n: int, prev: int = 0, born: float = 1.0, **more: object) -> Signal:
    return Signal("5", "7", n, prev, born, **more)  # type: ignore[arg-type]


def after(book: t.Book, *changes: object, now: float = 1.0) -> t.Book:
    draft = t.Draft(book, now)
    for change in changes:
        change(draft.boxes)  # type: ignore[operator]
    turn = draft.turn()
    stored = {**turn.puts}
    assert not set(turn.puts) & set(turn.deletes)
    if book == t.Book():
        assert t.load(stored) == turn.book
    return turn.book


def applied(book: t.Book, one: Signal, now: float = 1.0) -> t.Book:
    return after(book, lambda boxes: boxes.mark(one, now, applied=not one.void), now=now)


def test_numbers_come_from_the_committed_state() -> None:
    """Protocol 3 [numbers_in_state]: one counter, which goes on after a take-over."""
    draft = t.Draft(t.Book(), 1.0)
    assert [draft.boxes.send(entry()), draft.boxes.send(entry("d/c"))] == [1, 2]
    stored = draft.turn().puts
    again = t.Draft(t.load(stored), 1.0)
    assert again.boxes.send(entry()) == 3
    assert list(again.turn().book.boxes.out) == [1, 2, 3]


def test_a_signal_is_applied_once_and_in_order() -> None:
    """Protocol 3, receiver 1 and 2 [ack_committed, prev]."""
    book = applied(t.Book(), signal(1))
    assert b.judge(book.boxes, signal(1), 1.0) == b.Duplicate(Verdict.APPLIED)
    assert b.judge(book.boxes, signal(4, prev=3), 1.0) == b.OutOfOrder()
    assert b.judge(book.boxes, signal(4, prev=3), 1.0, last=3) == b.Take()
    assert b.judge(book.boxes, signal(4, prev=1), 1.0) == b.Take()
    assert b.judge(t.Book().boxes, signal(4, prev=3), 1.0) == b.OutOfOrder()


def test_a_void_is_remembered() -> None:
    """Protocol 3 [void, void_memory]: given up means not applied, also when it is asked again."""
    book = applied(applied(t.Book(), signal(1)), signal(2, prev=1, void=True))
    assert b.judge(book.boxes, signal(2, prev=1), 1.0) == b.Duplicate(Verdict.NOT_APPLIED)
    pruned = applied(book, signal(3))
    assert b.judge(pruned.boxes, signal(2), 1.0) == b.Duplicate(Verdict.APPLIED), "nobody asks any more: prev was 0"


def test_an_old_signal_without_a_mark_is_unknown() -> None:
    """Protocol 3 [age, used_born]: the mark may have been there and forgotten."""
    assert b.judge(t.Book().boxes, signal(1, born=0.0), b.KEEP_S) == b.Duplicate(Verdict.UNKNOWN)
    kept = applied(t.Book(), signal(1, born=50.0), now=50.0)
    assert after(kept, now=b.KEEP_S + 49).boxes.marks
    assert not after(kept, now=b.KEEP_S + 50).boxes.marks


def test_a_new_start_of_a_volatile_sender_numbers_from_one() -> None:
    """Protocol 3 [vol_epoch, vol_highest]."""
    book = applied(applied(t.Book(), signal(1, epoch=3)), signal(2, epoch=3))
    assert b.judge(book.boxes, signal(1, epoch=4), 1.0) == b.Take()
    assert b.judge(book.boxes, signal(9, epoch=2), 1.0) == b.Duplicate(Verdict.UNKNOWN)


def test_what_is_given_up_waits_for_the_truth() -> None:
    """Protocol 3, dead letters (b) [void]: the void goes under the same number; its answer is in the letter."""
    sent = after(t.Book(), lambda boxes: boxes.send(entry()))
    given_up = after(sent, lambda boxes: boxes.give_up(1, "l", LETTER))
    assert given_up.boxes.out[1].void
    assert given_up.boxes.letters["l"].verdict == "pending"
    refused = after(given_up, lambda boxes: boxes.settle(1, Verdict.NOT_APPLIED, "", None))
    assert refused.boxes.letters["l"].verdict == "not applied"
    assert not refused.boxes.out
    assert not after(given_up, lambda boxes: boxes.settle(1, Verdict.APPLIED, "", None)).boxes.letters


def test_the_outbox_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protocol 3 [limit]: for one receiver, in all, and in bytes; said before anything is kept."""
    monkeypatch.setattr(boxdraft, "MAX_OUT", 5)
    monkeypatch.setattr(boxdraft, "MAX_OUT_TO", 3)
    monkeypatch.setattr(boxdraft, "MAX_OUT_BYTES", 100)
    full = after(t.Book(), *[lambda boxes: boxes.send(entry())] * 3)
    draft = t.Draft(full, 1.0)
    draft.boxes.check_room([entry("d/c")])
    for more in ([entry()], [entry("d/c")] * 3, [entry("d/c", b"x" * 99)]):
        with pytest.raises(OutboxFull):
            draft.boxes.check_room(more)


def test_the_oldest_dead_letter_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded; and a letter that is put again stays where it was."""
    monkeypatch.setattr(boxdraft, "MAX_LETTERS", 2)
    book = after(t.Book(), *(lambda boxes, name=name: boxes.add_letter(name, LETTER) for name in "abc"))
    assert list(book.boxes.letters) == ["b", "c"]


def test_whom_it_is_for_is_found_late() -> None:
    """It gets a new number: a later one may have been settled at that receiver already."""
    book = after(t.Book(), lambda boxes: boxes.send(msgspec.structs.replace(entry(), receiver="")))
    book = after(book, lambda boxes: boxes.send(entry()), lambda boxes: boxes.resolve(1, "7"))
    assert {n: one.receiver for n, one in book.boxes.out.items()} == {2: "7", 3: "7"}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40))
def test_resent_signals_change_nothing_twice(arrivals: list) -> None:
    """Whatever is resent in whatever order: each number once, in order, none skipped."""
    sent = [signal(n, prev=n - 1) for n in range(1, 7)]
    book, done = t.Book(), []
    for which, committed in arrivals:
        one = sent[which]
        if b.judge(book.boxes, one, 1.0) == b.Take() and committed:  # else the holder ended before its commit
            book = applied(book, one)
            done.append(one.n)
    assert done == list(range(1, len(done) + 1))


def test_who_owes_a_signal_must_be_awake_at_once() -> None:
    """Its next holder may have heard that it sleeps; the clear field of the record says better [wake_owing]."""
    planned = t.Wake(cluster=500.0)
    draft = t.Draft(t.Book(), 1.0)
    draft.due(planned)
    draft.boxes.send(entry())
    owing = draft.turn()
    assert msgspec.msgpack.decode(owing.puts["w"], type=t.Wake) == owing.book.wake == t.AT_ONCE
    draft = t.Draft(owing.book, 2.0)
    draft.boxes.settle(1, Verdict.APPLIED, "x", None)
    done = draft.turn()
    assert msgspec.msgpack.decode(done.puts["w"], type=t.Wake) == done.book.wake == planned
