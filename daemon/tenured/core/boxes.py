"""What an agent's record holds of its signals: the outbox, marks of senders, dead letters (protocol 3).

Keys of the record (numbers are decimal):

* `n`: the one counter of what the agent has sent.
* `o/<n>`: a signal that is not settled: an `Entry`.
* `i/<sender uid>`: the mark of a sender: a `Mark`.
* `d/<id>`: a dead letter: a `Letter`.
* `p/<sender uid>/<n>`: how often a signal was tried alone (protocol 3, poison).
* `x`: the signal that the agent is paused at: a `Held`.

Bounds: `MAX_SENDERS` marks: a new sender gets `Busy` until one is old enough to be forgotten. Those of the outbox and
of dead letters are of `core.boxdraft`, which writes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from tenured.core.signals import Signal, Verdict

KEEP_S = 7200.0
"""Cluster time for which a sender is recognised after its last signal; more than any `ttl` of a signal."""
MAX_SENDERS = 10_000

COUNTER = "n"
HELD = "x"
OUT = "o/"
MARK = "i/"
LETTER = "d/"
TRIES = "p/"
_KINDS = frozenset({OUT, MARK, LETTER, TRIES})


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
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


class Mark(msgspec.Struct, frozen=True, array_like=True, gc=False):
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
    """The signal that a paused agent has failed at; its mark is committed with it [pause_mark]. If a turn is owed,
    it is that turn, and its journal stays [pause_journal].
    """

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


class Boxes(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All of it, as of one version."""

    n: int = 0
    out: dict[int, Entry] = {}
    """By number, in their order."""
    out_bytes: int = 0
    out_to: dict[str, int] = {}
    """How many of them are for whom, by `Entry.to`."""
    marks: dict[str, Mark] = {}
    letters: dict[str, Letter] = {}
    """By id, oldest first."""
    tries: dict[str, int] = {}
    held: Held | None = None
    volatile: bool = False
    """The agent keeps nothing (protocol 3, volatile agents). Never stored."""


EMPTY = Boxes()
"""Of most agents: one for all."""


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

_number = msgspec.msgpack.Decoder(int).decode
_entry = msgspec.msgpack.Decoder(Entry).decode
_mark = msgspec.msgpack.Decoder(Mark).decode
_letter = msgspec.msgpack.Decoder(Letter).decode
_held = msgspec.msgpack.Decoder(Held).decode


def load(entries: Mapping[str, bytes]) -> Boxes:
    """Read what an adopted record holds. Raises msgspec.DecodeError, ValueError."""
    if COUNTER not in entries and HELD not in entries and not any(name[:2] in _KINDS for name in entries):
        return EMPTY
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
    found = Boxes(
        n=_number(entries[COUNTER]) if COUNTER in entries else 0,
        out=dict(sorted(out.items())),
        out_bytes=sum(len(entry.body) for entry in out.values()),
        out_to=dict(Counter(entry.to for entry in out.values())),
        marks=marks,
        letters=dict(sorted(letters.items(), key=lambda item: (item[1].at, item[0]))),
        tries=tries,
        held=_held(entries[HELD]) if HELD in entries else None,
    )
    return EMPTY if found == EMPTY else found


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
