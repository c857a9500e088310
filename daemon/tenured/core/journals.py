"""What a record holds of a turn that is owed: accepted before its first step, and ended later (protocol 9).

Keys of the record (numbers are decimal):

* `j`: the turn, what it waits for, and who is to be told of its end: an `Owed`.
* `j/<position>`: a finished step: a `Step`.
* `q/<k>`: a signal that was accepted meanwhile, to be run after it: a `Signal` [inbox].
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tenured.core.patterns import matches
from tenured.core.signals import Signal

MAX_INBOX = 1_000
"""Signals accepted during one turn; more are held back by their senders."""
MAX_STEPS = 10_000

OWED = "j"
_STEP = "j/"
_INBOX = "q/"


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What a suspended turn waits for: the first of these ends it (rule 5)."""

    position: int
    name: str
    until: float = 0.0
    """Cluster seconds; 0: no end by time."""
    types: tuple[str, ...] = ()
    """Patterns of signals."""
    key: str = ""
    """Of an awaited reply."""
    to: str = ""
    """id of the agent whose reply that is."""


class Owed(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted turn."""

    kind: str
    """As of the worker link: action, work, timer."""
    method: str
    arguments: bytes
    caller: str
    key: str
    """The same in every attempt [stable_key]."""
    label: str
    until: float
    """Cluster seconds at which it ends, whatever it waits for (rule 7)."""
    born: float = 0.0
    at: float = 0.0
    """Of a timer."""
    client: str = ""
    call: int = 0
    """With `client`: the call that is answered by its end."""
    source: str = ""
    """id of the sender, for dead letters."""
    sender: str = ""
    """uid of the sender, who waits for the reply named `reply`."""
    reply: str = ""
    waiting: Waiting | None = None


class Step(msgspec.Struct, frozen=True, array_like=True):
    """A finished step."""

    name: str
    result: bytes


class Journal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All of it, as of one version."""

    owed: Owed | None = None
    steps: tuple[Step, ...] = ()
    inbox: dict[int, Signal] = {}
    """In the order of their coming."""

    def awaits(self, type_: str, key: str) -> bool:
        """Whether a signal of this type, or the reply with this key, ends the wait."""
        waiting = self.owed.waiting if self.owed is not None else None
        if waiting is None:
            return False
        if key:
            return waiting.key == key
        return any(matches(pattern, type_) for pattern in waiting.types)


EMPTY = Journal()
"""Of an agent that owes nothing: one for all."""
_encode = msgspec.msgpack.Encoder().encode
_owed = msgspec.msgpack.Decoder(Owed).decode
_step = msgspec.msgpack.Decoder(Step).decode
_signal = msgspec.msgpack.Decoder(Signal).decode


def load(entries: Mapping[str, bytes]) -> Journal:
    """Read what an adopted record holds. Raises msgspec.DecodeError, ValueError."""
    if OWED not in entries and not any(name.startswith(_INBOX) for name in entries):
        return EMPTY
    steps = {int(name[2:]): _step(data) for name, data in entries.items() if name.startswith(_STEP)}
    inbox = {int(name[2:]): _signal(data) for name, data in entries.items() if name.startswith(_INBOX)}
    if sorted(steps) != list(range(len(steps))):
        raise ValueError(f"the journal of a turn has holes: {sorted(steps)}")
    return Journal(
        owed=_owed(entries[OWED]) if OWED in entries else None,
        steps=tuple(steps[position] for position in range(len(steps))),
        inbox=dict(sorted(inbox.items())),
    )


class JournalDraft:
    """A journal in the making, with the entries that change."""

    def __init__(self, journal: Journal, puts: dict[str, bytes], deletes: dict[str, None]) -> None:
        self._puts, self._deletes = puts, deletes
        self.owed = journal.owed
        self.steps = journal.steps
        self.inbox = journal.inbox

    def journal(self) -> Journal:
        """As of now."""
        if self.owed is None and not self.steps and not self.inbox:
            return EMPTY
        return Journal(owed=self.owed, steps=self.steps, inbox=self.inbox)

    def accept(self, owed: Owed) -> None:
        """Before the first step: from now on the agent owes the turn's end [accept_first]."""
        self._owe(owed)

    def finish_step(self, position: int, step: Step) -> None:
        """Before anything depends on it [journal_first]. One that is there already stays as it is."""
        if position == len(self.steps):
            self.steps = (*self.steps, step)
            self._put(f"{_STEP}{position}", _encode(step))

    def suspend(self, waiting: Waiting) -> None:
        """The turn waits."""
        if self.owed is not None:
            self._owe(msgspec.structs.replace(self.owed, waiting=waiting))

    def wake(self, result: bytes) -> None:
        """What ends the wait is committed with its result [wake_in_commit]."""
        waiting = self.owed.waiting if self.owed is not None else None
        if self.owed is None or waiting is None:
            return
        self.finish_step(waiting.position, Step(waiting.name, result))
        self._owe(msgspec.structs.replace(self.owed, waiting=None))

    def resume(self, now: float) -> None:
        """Its agent was paused at it, and goes on: the turn has as long again as it had."""
        if self.owed is not None:
            self._owe(msgspec.structs.replace(self.owed, until=now + self.owed.until - self.owed.born))

    def end(self) -> None:
        """The turn has ended: the journal goes with the same commit [end_in_commit]."""
        self.owed = None
        self._delete(OWED)
        for position in range(len(self.steps)):
            self._delete(f"{_STEP}{position}")
        self.steps = ()

    def take(self, signal: Signal) -> None:
        """Accept a signal for later [inbox_in_commit]."""
        k = max(self.inbox, default=0) + 1
        self.inbox = {**self.inbox, k: signal}
        self._put(f"{_INBOX}{k}", _encode(signal))

    def drop(self, k: int) -> None:
        """It was run, or is what was waited for."""
        self.inbox = {number: signal for number, signal in self.inbox.items() if number != k}
        self._delete(f"{_INBOX}{k}")

    def _owe(self, owed: Owed) -> None:
        self.owed = owed
        self._put(OWED, _encode(owed))

    def _put(self, name: str, data: bytes) -> None:
        self._deletes.pop(name, None)
        self._puts[name] = data

    def _delete(self, name: str) -> None:
        self._puts.pop(name, None)
        self._deletes[name] = None
