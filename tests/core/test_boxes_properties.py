"""Signals of one sender to one receiver, under any order, loss and repetition (protocol 3), on the pure parts of the
record: `core.boxes` against what a bystander sees.
"""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tenured.core import boxdraft
from tenured.core import boxes as b
from tenured.core import journals as j
from tenured.core import turns as t
from tenured.core.signals import Signal, Verdict

VOID = b.Letter(at=1.0, side=b.Side.SENDER, verdict="pending", what="x", source="d/a", to="d/b", code="E", message="")


class OneStream(RuleBasedStateMachine):
    """A sender and a receiver; messages stay deliverable for ever, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.sender, self.receiver = t.Book(), t.Book()
        self.wire: dict[tuple[int, bool], Signal] = {}
        self.acks: list[tuple[int, Verdict]] = []
        self.applied: list[int] = []
        self.emitted: dict[int, int] = {}
        """Number -> which emission."""
        self.count = 0

    @initialize()
    def begin(self) -> None:
        self.emit()

    @rule()
    def emit(self) -> None:
        draft = t.Draft(self.sender, 1.0)
        self.count += 1
        n = draft.boxes.send(b.Entry("7", "d/b", 1.0, str(self.count).encode()))
        self.emitted[n] = self.count
        self.sender = draft.turn().book

    @rule()
    def late(self) -> None:
        """One whose receiver is found late: it gets a new number (protocol 3, outbox entry)."""
        draft = t.Draft(self.sender, 1.0)
        self.count += 1
        n = draft.boxes.send(b.Entry("", "d/b", 1.0, str(self.count).encode()))
        found = draft.boxes.resolve(n, "7")
        assert found is not None
        assert found > n
        self.emitted[found] = self.count
        self.sender = draft.turn().book

    @rule()
    def release(self) -> None:
        """All of it, with `prev` as the courier names it."""
        before = 0
        for n, entry in self.sender.boxes.out.items():
            self.wire[n, entry.void] = Signal("5", "7", n, before, entry.born, entry.body, entry.void)
            before = n

    @precondition(lambda self: self.wire)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        signal = data.draw(st.sampled_from(sorted(self.wire.values(), key=lambda one: (one.n, one.void))))
        verdict = b.judge(self.receiver.boxes, signal, 1.0)
        if isinstance(verdict, b.Duplicate):
            self.acks.append((signal.n, verdict.verdict))
        elif isinstance(verdict, b.Take):
            draft = t.Draft(self.receiver, 1.0)
            draft.boxes.mark(signal, 1.0, applied=not signal.void)
            self.receiver = draft.turn().book
            if not signal.void:
                self.applied.append(self.emitted[signal.n])

    @precondition(lambda self: self.sender.boxes.out)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        n = data.draw(st.sampled_from(list(self.sender.boxes.out)))
        draft = t.Draft(self.sender, 1.0)
        draft.boxes.give_up(n, f"v{n}", VOID)
        self.sender = draft.turn().book

    @precondition(lambda self: self.acks)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        n, verdict = data.draw(st.sampled_from(self.acks))
        draft = t.Draft(self.sender, 1.0)
        draft.boxes.settle(n, verdict, f"s{n}", VOID)
        self.sender = draft.turn().book

    @invariant()
    def once_and_in_order(self) -> None:
        assert self.applied == sorted(set(self.applied))

    @invariant()
    def nothing_is_lost(self) -> None:
        """In the box, applied, or a dead letter; and one that says `not applied` is not."""
        boxes = self.sender.boxes
        kept = {self.emitted[n] for n in boxes.out if n in self.emitted}
        said = {int(key[1:]) for key, letter in boxes.letters.items() if letter.verdict == "not applied"}
        dead = {self.emitted[n] for n in said if n in self.emitted}
        assert not dead & {*self.applied}
        assert {*self.emitted.values()} <= kept | dead | {*self.applied}


TestOneStream = OneStream.TestCase
TestOneStream.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class OneJournal(RuleBasedStateMachine):
    """A turn with steps, and what comes meanwhile: what is stored is what is known, in every order of events."""

    def __init__(self) -> None:
        super().__init__()
        self.book = t.Book()
        self.stored: dict[str, bytes] = {}
        self.taken = self.run = 0

    def change(self, draft: t.Draft) -> None:
        turn = draft.turn()
        assert not set(turn.puts) & set(turn.deletes)
        self.stored = {name: data for name, data in self.stored.items() if name not in turn.deletes} | turn.puts
        self.book = turn.book

    @precondition(lambda self: self.book.journal.owed is None)
    @rule()
    def accept(self) -> None:
        draft = t.Draft(self.book, 1.0)
        owed = j.Owed(kind="work", method="m", arguments=b"", caller="c", key="k", label="m", until=9.0)
        draft.journal.accept(owed)
        self.change(draft)

    @precondition(lambda self: self.book.journal.owed is not None)
    @rule()
    def step(self) -> None:
        draft = t.Draft(self.book, 1.0)
        draft.journal.finish_step(len(self.book.journal.steps), j.Step("a", b"1"))
        self.change(draft)

    @precondition(lambda self: self.book.journal.owed is not None)
    @rule()
    def suspend_and_wake(self) -> None:
        draft = t.Draft(self.book, 1.0)
        steps = len(self.book.journal.steps)
        draft.journal.suspend(j.Waiting(position=steps, name="w", key="r"))
        assert draft.journal.journal().awaits("", "r")
        draft.journal.wake(b"first")
        draft.journal.wake(b"second")
        assert [one.result for one in draft.journal.steps[steps:]] == [b"first"]
        self.change(draft)

    @precondition(lambda self: self.book.journal.owed is not None)
    @rule()
    def take(self) -> None:
        self.taken += 1
        draft = t.Draft(self.book, 1.0)
        draft.journal.take(Signal("5", "7", self.taken, 0, 1.0))
        self.change(draft)

    @precondition(lambda self: self.book.journal.owed is not None)
    @rule()
    def end(self) -> None:
        draft = t.Draft(self.book, 1.0)
        draft.journal.end()
        self.change(draft)

    @precondition(lambda self: self.book.journal.inbox)
    @rule()
    def run_the_first(self) -> None:
        """In the order of their coming, whatever places were used before."""
        k, signal = min(self.book.journal.inbox.items())
        assert signal.n == self.run + 1
        self.run += 1
        draft = t.Draft(self.book, 1.0)
        draft.journal.drop(k)
        self.change(draft)

    @invariant()
    def what_is_stored_is_what_is_known(self) -> None:
        """Protocol 9, rule 7: nothing of an ended journal stays."""
        loaded = t.load(self.stored)
        assert loaded.journal == self.book.journal
        assert len(loaded.journal.inbox) == self.taken - self.run
        if self.book.journal.owed is None:
            assert not [name for name in self.stored if name.startswith("j")]


TestOneJournal = OneJournal.TestCase
TestOneJournal.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_void_that_is_no_longer_remembered_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protocol 3 [void_memory]: never `applied`, which would drop its dead letter and lose the signal silently."""
    monkeypatch.setattr(boxdraft, "MAX_VOIDED", 2)
    book = t.Book()
    for n in range(1, 5):
        draft = t.Draft(book, 1.0)
        draft.boxes.mark(Signal("5", "7", n, n - 1, 1.0, void=True), 1.0, applied=False)
        turn = draft.turn()
        book = turn.book
    verdicts = [b.judge(book.boxes, Signal("5", "7", n, n - 1, 1.0), 1.0) for n in range(1, 5)]
    unsure, told = b.Duplicate(Verdict.UNKNOWN), b.Duplicate(Verdict.NOT_APPLIED)
    assert verdicts == [unsure, unsure, told, told]


def test_a_mark_of_before_is_read() -> None:
    """Records of an earlier version have fewer fields."""
    old = msgspec.msgpack.encode([3, 1.0, [2]])
    assert t.load({"i/5": old}).boxes.marks["5"] == b.Mark(3, 1.0, (2,))


def test_marks_that_are_in_use_do_not_keep_old_ones() -> None:
    """Protocol 3, bounds: an unused mark goes after the keep time, however many others are in use before it."""
    book = t.Book()
    for sender in [*(f"{k}" for k in range(20)), "old"]:
        draft = t.Draft(book, 1.0)
        draft.boxes.mark(Signal(sender, "7", 1, 0, 1.0), 1.0, applied=True)
        book = draft.turn().book
    for k in range(20):
        draft = t.Draft(book, b.KEEP_S + 2)
        draft.boxes.mark(Signal(f"{k}", "7", 2, 0, 1.0), b.KEEP_S + 2, applied=True)
        book = draft.turn().book
    assert "old" not in book.boxes.marks
