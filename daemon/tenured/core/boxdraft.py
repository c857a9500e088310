"""Boxes in the making: what turns write of their signals (protocol 3). Values and keys: `core.boxes`.

Bounds: `MAX_OUT` entries and `MAX_OUT_BYTES`, of them `MAX_OUT_TO` for one receiver: `OutboxFull` [limit].
`MAX_LETTERS` letters: the oldest is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from tenured.core.boxes import (
    COUNTER,
    EMPTY,
    HELD,
    KEEP_S,
    LETTER,
    MARK,
    MAX_SENDERS,
    OUT,
    TRIES,
    Boxes,
    Entry,
    Held,
    Letter,
    Mark,
    Side,
    name_of,
)
from tenured.core.signals import Signal, Verdict

MAX_OUT = 10_000
MAX_OUT_TO = 2_000
MAX_OUT_BYTES = 16 * 1024 * 1024
MAX_LETTERS = 1_000
MAX_VOIDED = 1_000
FORGET = 16
"""Old marks dropped by one write at most."""

_encode = msgspec.msgpack.Encoder().encode


class OutboxFull(Exception):
    """The turn asks for more than the outbox takes: it fails before its commit [limit]."""


class BoxDraft:
    """Boxes in the making, with the entries that change: those of several turns, in their order."""

    def __init__(self, boxes: Boxes, puts: dict[str, bytes], deletes: dict[str, None]) -> None:
        self._boxes = boxes
        self._puts, self._deletes = puts, deletes
        self.n = boxes.n
        self.out = boxes.out.copy()  # not `dict()`, which takes four times as long once something was taken out
        self.out_bytes = boxes.out_bytes
        self.out_to = boxes.out_to.copy()
        self.touched: set[int] = set()
        """Numbers of the outbox that came, changed or left."""
        self.marks = boxes.marks.copy()
        self.letters = boxes.letters
        self.tries = boxes.tries
        self.held = boxes.held

    def boxes(self) -> Boxes:
        """As of now."""
        made = Boxes(
            n=self.n,
            out=self.out,
            out_bytes=self.out_bytes,
            out_to=self.out_to,
            marks=self.marks,
            letters=self.letters,
            tries=self.tries,
            held=self.held,
            volatile=self._boxes.volatile,
        )
        return EMPTY if made == EMPTY else made

    # --- the receiver -----------------------------------------------------------------------------------------------

    def mark(self, signal: Signal, now: float, *, applied: bool) -> None:
        """The number is settled: by a turn, a dead letter, or a void [mark_in_commit, used_born, void_memory].

        `now`: at least what the record has seen and when the signal was born.
        """
        if self.tries:
            self.forget_tries(name_of(signal))
        before = self.marks.pop(signal.sender, None)  # the latest used is the last one
        if before is not None and before.epoch > signal.epoch:
            self.marks[signal.sender] = before  # it never goes back
            return
        known = before if before is not None and before.epoch == signal.epoch else None
        voided = known.voided if known is not None else tuple[int, ...]()
        unsure = known.unsure if known is not None else signal.n - 1 if self._boxes.volatile else 0
        if signal.prev == 0 and known is not None:  # the sender has nothing unsettled below
            voided, unsure = tuple[int, ...](), 0
        if not applied:
            voided = (*voided, signal.n)
        if len(voided) > MAX_VOIDED:  # what is no longer remembered must not be called applied [void_memory]
            voided, unsure = voided[1:], max(unsure, voided[0])
        last = signal.n if known is None else max(known.last, signal.n)
        self.marks[signal.sender] = mark = Mark(last, now, voided, signal.epoch, unsure)
        self._put(MARK + signal.sender, _encode(mark))

    def forget(self, now: float) -> None:
        """Drop a few marks that were not used for `KEEP_S`."""
        old = [uid for uid, mark in list(self.marks.items())[:FORGET] if now - mark.used >= KEEP_S]
        if len(self.marks) >= MAX_SENDERS:
            old = [uid for uid, mark in self.marks.items() if now - mark.used >= KEEP_S]
        for uid in old:
            del self.marks[uid]
            self._delete(MARK + uid)

    def count_try(self, key: str) -> int:
        """Write down that a suspect is tried, before it is [count_first]. How often, with this time."""
        self.tries = {**self.tries, key: self.tries.get(key, 0) + 1}
        self._put(TRIES + key, _encode(self.tries[key]))
        return self.tries[key]

    def forget_tries(self, key: str) -> None:
        """It is settled."""
        if key in self.tries:
            self.tries = {name: count for name, count in self.tries.items() if name != key}
            self._delete(TRIES + key)

    def hold(self, held: Held | None) -> None:
        """Pause at a signal, or no longer."""
        self.held = held
        if held is None:
            self._delete(HELD)
        else:
            self._put(HELD, _encode(held))

    # --- the sender -------------------------------------------------------------------------------------------------

    def check_room(self, entries: Sequence[Entry]) -> None:
        """Raise OutboxFull if these do not fit [limit]."""
        size = self.out_bytes + sum(len(entry.body) for entry in entries)
        if len(self.out) + len(entries) > MAX_OUT or size > MAX_OUT_BYTES:
            raise OutboxFull(f"{len(self.out)} signals of this agent are not delivered yet; it may have {MAX_OUT}")
        if len(self.out) + len(entries) <= MAX_OUT_TO:
            return
        for to, more in Counter(entry.to for entry in entries).items():
            waiting = self.out_to.get(to, 0) + more
            if waiting > MAX_OUT_TO:
                raise OutboxFull(f"{waiting} signals wait for {to} to take them; there may be {MAX_OUT_TO}")

    def send(self, entry: Entry) -> int:
        """Into the outbox, under the next number of the state's counter [box_in_commit, numbers_in_state]."""
        self.n += 1
        self.out[self.n] = entry
        self.touched.add(self.n)
        self.out_bytes += len(entry.body)
        self.out_to[entry.to] = self.out_to.get(entry.to, 0) + 1
        self._put(f"{OUT}{self.n}", _encode(entry))
        self._put(COUNTER, _encode(self.n))
        return self.n

    def resolve(self, n: int, receiver: str) -> int | None:
        """Whom an entry is for is known now. It gets a new number: a later one may have been settled there already.

        None: it is gone.
        """
        entry = self._take_out(n)
        return None if entry is None else self.send(msgspec.structs.replace(entry, receiver=receiver))

    def give_up(self, n: int, letter_id: str, letter: Letter | None) -> None:
        """Turn an entry into a void under its own number, with a dead letter that waits for the truth [void]."""
        entry = self.out.get(n)
        if entry is None or entry.void:
            return
        self.out_bytes -= len(entry.body)
        self.touched.add(n)
        self.out[n] = void = msgspec.structs.replace(entry, void=True, body=b"")
        self._put(f"{OUT}{n}", _encode(void))
        if letter is not None:
            self.add_letter(letter_id, msgspec.structs.replace(letter, n=n))

    def settle(self, n: int, verdict: Verdict, letter_id: str = "", letter: Letter | None = None) -> None:
        """The receiver has settled an entry: it leaves, and its dead letter tells the truth [keep_box].

        `letter`: for one that has none yet and ends otherwise than applied.
        """
        if self._take_out(n) is None or (verdict is Verdict.APPLIED and not self.letters):
            return
        known = next((key for key, old in self.letters.items() if old.n == n and old.side is Side.SENDER), None)
        if verdict is Verdict.APPLIED:
            if known is not None:
                self.drop_letter(known)
        elif known is not None:
            self.add_letter(known, msgspec.structs.replace(self.letters[known], verdict=str(verdict), n=0))
        elif letter is not None:
            self.add_letter(letter_id, msgspec.structs.replace(letter, verdict=str(verdict)))

    def _take_out(self, n: int) -> Entry | None:
        entry = self.out.pop(n, None)
        if entry is not None:
            self.touched.add(n)
            self.out_bytes -= len(entry.body)
            self.out_to[entry.to] -= 1
            if not self.out_to[entry.to]:
                del self.out_to[entry.to]
            self._delete(f"{OUT}{n}")
        return entry

    # --- dead letters -----------------------------------------------------------------------------------------------

    def add_letter(self, letter_id: str, letter: Letter) -> None:
        """Keep it; the oldest goes when there are too many."""
        self.letters = {**self.letters, letter_id: letter}
        self._put(LETTER + letter_id, _encode(letter))
        while len(self.letters) > MAX_LETTERS:
            self.drop_letter(next(iter(self.letters)))

    def drop_letter(self, letter_id: str) -> bool:
        """False: there is none of that id."""
        if letter_id not in self.letters:
            return False
        self.letters = {key: letter for key, letter in self.letters.items() if key != letter_id}
        self._delete(LETTER + letter_id)
        return True

    # --- the record -------------------------------------------------------------------------------------------------

    def _put(self, name: str, data: bytes) -> None:
        self._deletes.pop(name, None)
        self._puts[name] = data

    def _delete(self, name: str) -> None:
        self._puts.pop(name, None)
        self._deletes[name] = None
