"""What an agent's record holds of its signals: the outbox, marks of senders, dead letters (protocol 3).

Keys of the record (numbers are decimal):

* `n`: the one counter of what the agent has sent.
* `o/<n>`: a signal that is not settled: an `Entry`.
* `i/<sender uid>`: the mark of a sender: a `Mark`.
* `d/<id>`: a dead letter: a `Letter`.
* `p/<sender uid>/<n>`: how often a signal was tried alone (protocol 3, poison).
* `x`: the signal that the agent is paused at: a `Held`.

Bounds: `MAX_OUT` entries and `MAX_OUT_BYTES`, of them `MAX_OUT_TO` for one receiver: `OutboxFull` [limit].
`MAX_SENDERS` marks: a new sender gets `Busy` until one is old enough to be forgotten. `MAX_LETTERS` letters: the oldest
is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from tenured.core.signals import Signal, Verdict

KEEP_S = 7200.0
"""Cluster time for which a sender is recognised after its last signal; more than any `ttl` of a signal."""
MAX_OUT = 10_000
MAX_OUT_TO = 2_000
MAX_OUT_BYTES = 16 * 1024 * 1024
MAX_SENDERS = 10_000
MAX_LETTERS = 1_000
MAX_VOIDED = 1_000
FORGET = 16
"""Old marks dropped by one write at most."""

COUNTER = "n"
HELD = "x"
_OUT = "o/"
_MARK = "i/"
_LETTER = "d/"
_TRIES = "p/"


class OutboxFull(Exception):
    """The turn asks for more than the outbox takes: it fails before its commit [limit]."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A signal on its way."""

    receiver: str
    """uid; empty: the receiver is not known yet, `to` says whom it is for."""
    to: str
    """`namespace/name`, for messages and to resolve."""
    born: float
    """Cluster seconds of the commit that made it."""
    body: bytes
    type: str = ""
    """Of the signal, or the name of the action that is asked for: for people."""
    void: bool = False
    priority: int = 0
    reply: str = ""
    """A turn of the sender waits for the reply of this name."""


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """What is known of one sender."""

    last: int
    """The highest number settled here."""
    used: float
    """Cluster seconds of its last use."""
    voided: tuple[int, ...] = ()
    """Numbers up to `last` that were not applied [void_memory]."""
    epoch: int = 0
    """Of a volatile sender: the highest one seen [vol_highest]."""
    unsure: int = 0
    """Of numbers up to this, but for those in `voided`, nobody remembers whether they were applied [vol_ack]."""


class Side(StrEnum):
    """Whose a dead letter is."""

    RECEIVER = "receiver"
    """Its turn failed for the last time."""
    SENDER = "sender"
    """It could not be delivered."""


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter."""

    at: float
    """Wall time, for people."""
    side: Side
    verdict: str
    """`not applied`, `unknown`, or `pending`: given up, and its void is on its way."""
    what: str
    """Action or type of the signal."""
    source: str
    to: str
    code: str
    message: str
    details: str = ""
    attempts: int = 0
    body: bytes = b""
    born: float = 0.0
    n: int = 0
    """Of the sender's: number of the void [void]."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """The signal that a paused agent has failed at; its mark is committed with it [pause_mark]."""

    source: str
    what: str
    body: bytes
    born: float
    code: str
    message: str
    details: str = ""
    attempts: int = 0
    at: float = 0.0
    """Wall time, for people."""
    sender: str = ""
    n: int = 0
    epoch: int = 0
    """With the two before: which signal it is, for the keys of its steps [stable_key]."""


class Boxes(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, as of one version."""

    n: int = 0
    out: dict[int, Entry] = {}
    """By number, in their order."""
    out_bytes: int = 0
    marks: dict[str, Mark] = {}
    letters: dict[str, Letter] = {}
    """By id, oldest first."""
    tries: dict[str, int] = {}
    held: Held | None = None
    volatile: bool = False
    """The agent keeps nothing (protocol 3, volatile agents). Never stored."""


class Take(msgspec.Struct, frozen=True):
    """The signal is new and in order: run it, or note its void."""


class Duplicate(msgspec.Struct, frozen=True):
    """Settled before, like that."""

    verdict: Verdict


class OutOfOrder(msgspec.Struct, frozen=True):
    """One before it is missing [prev]."""


class Crowded(msgspec.Struct, frozen=True):
    """Too many senders to tell apart."""


Judgement = Take | Duplicate | OutOfOrder | Crowded

_encode = msgspec.msgpack.Encoder().encode
_number = msgspec.msgpack.Decoder(int).decode
_entry = msgspec.msgpack.Decoder(Entry).decode
_mark = msgspec.msgpack.Decoder(Mark).decode
_letter = msgspec.msgpack.Decoder(Letter).decode
_held = msgspec.msgpack.Decoder(Held).decode


def load(entries: Mapping[str, bytes]) -> Boxes:
    """Read what an adopted record holds. Raises msgspec.DecodeError, ValueError."""
    out: dict[int, Entry] = {}
    marks: dict[str, Mark] = {}
    letters: dict[str, Letter] = {}
    tries: dict[str, int] = {}
    for name, data in entries.items():
        match name[:2]:
            case "o/":
                out[int(name[2:])] = _entry(data)
            case "i/":
                marks[name[2:]] = _mark(data)
            case "d/":
                letters[name[2:]] = _letter(data)
            case "p/":
                tries[name[2:]] = _number(data)
            case _:
                pass
    return Boxes(
        n=_number(entries[COUNTER]) if COUNTER in entries else 0,
        out=dict(sorted(out.items())),
        out_bytes=sum(len(entry.body) for entry in out.values()),
        marks=marks,
        letters=dict(sorted(letters.items(), key=lambda item: (item[1].at, item[0]))),
        tries=tries,
        held=_held(entries[HELD]) if HELD in entries else None,
    )


def judge(boxes: Boxes, signal: Signal, now: float, last: int | None = None) -> Judgement:
    """Decide what to do with a signal (protocol 3, receiver 1 to 3). `now`: cluster seconds, at least the record's
    clock [state_clock]. By the *committed* marks [ack_committed]; `last`: the highest number of this sender that runs
    already, ahead of its commit.
    """
    mark = boxes.marks.get(signal.sender)
    if mark is not None and signal.epoch < mark.epoch:
        return Duplicate(Verdict.UNKNOWN)  # of an old start [vol_highest]
    if mark is not None and signal.epoch > mark.epoch:
        mark = None  # a new start numbers from 1 again [vol_epoch]
    settled = mark.last if mark is not None else 0
    if signal.n <= settled and mark is not None:
        return Duplicate(_settled_as(mark, signal.n))
    if mark is None and now - signal.born >= KEEP_S:  # its mark may have been forgotten [age]
        return Duplicate(Verdict.UNKNOWN)
    gap = boxes.volatile and mark is None and last is None  # it takes the stream up where that stands [vol_gap]
    if signal.prev > max(settled, last or 0) and not gap:
        return OutOfOrder()
    crowded = signal.sender not in boxes.marks and len(boxes.marks) >= MAX_SENDERS
    if crowded and not any(now - known.used >= KEEP_S for known in boxes.marks.values()):
        return Crowded()
    return Take()


def _settled_as(mark: Mark, n: int) -> Verdict:
    if n in mark.voided:
        return Verdict.NOT_APPLIED  # [void_memory]
    return Verdict.UNKNOWN if n <= mark.unsure else Verdict.APPLIED


def stream_of(signal: Signal) -> str:
    """Whose numbers these are: of a sender, or of one start of a volatile one [vol_epoch]."""
    return f"{signal.sender}@{signal.epoch}" if signal.epoch else signal.sender


def name_of(signal: Signal) -> str:
    """The same for each time that it comes, and of no other signal."""
    return f"{stream_of(signal)}/{signal.n}"


class BoxDraft:
    """Boxes in the making, with the entries that change: those of several turns, in their order."""

    def __init__(self, boxes: Boxes, puts: dict[str, bytes], deletes: dict[str, None]) -> None:
        self._boxes = boxes
        self._puts, self._deletes = puts, deletes
        self.n = boxes.n
        self.out = dict(boxes.out)
        self.out_bytes = boxes.out_bytes
        self.marks = dict(boxes.marks)
        self.letters = boxes.letters
        self.tries = boxes.tries
        self.held = boxes.held

    def boxes(self) -> Boxes:
        """As of now."""
        return Boxes(
            n=self.n,
            out=self.out,
            out_bytes=self.out_bytes,
            marks=self.marks,
            letters=self.letters,
            tries=self.tries,
            held=self.held,
            volatile=self._boxes.volatile,
        )

    # --- the receiver -----------------------------------------------------------------------------------------------

    def mark(self, signal: Signal, now: float, *, applied: bool) -> None:
        """The number is settled: by a turn, a dead letter, or a void [mark_in_commit, used_born, void_memory].

        `now`: at least what the record has seen and when the signal was born.
        """
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
        self._put(_MARK + signal.sender, _encode(mark))

    def forget(self, now: float) -> None:
        """Drop a few marks that were not used for `KEEP_S`."""
        old = [uid for uid, mark in list(self.marks.items())[:FORGET] if now - mark.used >= KEEP_S]
        if len(self.marks) >= MAX_SENDERS:
            old = [uid for uid, mark in self.marks.items() if now - mark.used >= KEEP_S]
        for uid in old:
            del self.marks[uid]
            self._delete(_MARK + uid)

    def count_try(self, key: str) -> int:
        """Write down that a suspect is tried, before it is [count_first]. How often, with this time."""
        self.tries = {**self.tries, key: self.tries.get(key, 0) + 1}
        self._put(_TRIES + key, _encode(self.tries[key]))
        return self.tries[key]

    def forget_tries(self, key: str) -> None:
        """It is settled."""
        if key in self.tries:
            self.tries = {name: count for name, count in self.tries.items() if name != key}
            self._delete(_TRIES + key)

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
        for to in {entry.to for entry in entries}:
            waiting = sum(entry.to == to for entry in (*self.out.values(), *entries))
            if waiting > MAX_OUT_TO:
                raise OutboxFull(f"{waiting} signals wait for {to} to take them; there may be {MAX_OUT_TO}")

    def send(self, entry: Entry) -> int:
        """Into the outbox, under the next number of the state's counter [box_in_commit, numbers_in_state]."""
        self.n += 1
        self.out[self.n] = entry
        self.out_bytes += len(entry.body)
        self._put(f"{_OUT}{self.n}", _encode(entry))
        self._put(COUNTER, _encode(self.n))
        return self.n

    def resolve(self, n: int, receiver: str) -> int | None:
        """Whom an entry is for is known now. It gets a new number: a later one may have been settled there already.

        None: it is gone.
        """
        entry = self._take_out(n)
        return None if entry is None else self.send(msgspec.structs.replace(entry, receiver=receiver))

    def give_up(self, n: int, letter_id: str, letter: Letter) -> None:
        """Turn an entry into a void under its own number, with a dead letter that waits for the truth [void]."""
        entry = self.out.get(n)
        if entry is None or entry.void:
            return
        self.out_bytes -= len(entry.body)
        self.out[n] = void = msgspec.structs.replace(entry, void=True, body=b"")
        self._put(f"{_OUT}{n}", _encode(void))
        self.add_letter(letter_id, msgspec.structs.replace(letter, n=n))

    def settle(self, n: int, verdict: Verdict, letter_id: str, letter: Letter | None) -> None:
        """The receiver has settled an entry: it leaves, and its dead letter tells the truth [keep_box].

        `letter`: for one that has none yet and ends otherwise than applied.
        """
        if self._take_out(n) is None:
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
            self.out_bytes -= len(entry.body)
            self._delete(f"{_OUT}{n}")
        return entry

    # --- dead letters -----------------------------------------------------------------------------------------------

    def add_letter(self, letter_id: str, letter: Letter) -> None:
        """Keep it; the oldest goes when there are too many."""
        self.letters = {**self.letters, letter_id: letter}
        self._put(_LETTER + letter_id, _encode(letter))
        while len(self.letters) > MAX_LETTERS:
            self.drop_letter(next(iter(self.letters)))

    def drop_letter(self, letter_id: str) -> bool:
        """False: there is none of that id."""
        if letter_id not in self.letters:
            return False
        self.letters = {key: letter for key, letter in self.letters.items() if key != letter_id}
        self._delete(_LETTER + letter_id)
        return True

    # --- the record -------------------------------------------------------------------------------------------------

    def _put(self, name: str, data: bytes) -> None:
        self._deletes.pop(name, None)
        self._puts[name] = data

    def _delete(self, name: str) -> None:
        self._puts.pop(name, None)
        self._deletes[name] = None
