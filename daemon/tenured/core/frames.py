"""What the holder of a record and the servers of the store say to each other, and what an owner tells its shell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from tenured.core.cells import NOTHING, Verdict, Version

MAX_RECORD = 32 * 1024 * 1024
"""Bytes of a record's entries, plain; the holder refuses a turn that would exceed it before it writes."""
MAX_STORED = MAX_RECORD + (4 << 20)
"""Bytes of a record's entries as a store takes them: encryption adds some to each (ADR 0025)."""
WAKE = "w"
"""The clear field of a record (`core.turns`): when its agent must be awake."""

# --- frames --------------------------------------------------------------------------------------------


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """Seal the epoch and tell what is stored, the record too."""

    uid: str
    epoch: int
    view: int
    bare: bool = False
    """Without the record: its agent sleeps."""


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """Fetch a record that was too large for the answer to the seal."""

    uid: str
    view: int


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """One version: the whole record (`base` None) or changed keys on exactly `base`."""

    uid: str
    view: int
    version: Version
    base: Version | None
    puts: Mapping[str, bytes]
    deletes: tuple[str, ...] = ()


Request = Seal | Read | Write


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to Seal. `entries` None: not sent (too large, or not asked for), fetch it."""

    verdict: Verdict
    sealed: int = 0
    version: Version = NOTHING
    entries: Mapping[str, bytes] | None = None
    wake: bytes = b""
    """The record's clear field of that name, where the entries are not sent."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to Read."""

    version: Version = NOTHING
    entries: Mapping[str, bytes] = {}


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to Write; `version` is what is stored now."""

    verdict: Verdict
    sealed: int = 0
    version: Version = NOTHING
    message: str = ""


Answer = Sealed | Record | Written


# --- what the owner says -------------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True):
    """A request for one server."""

    server: str
    request: Request


class Adopted(msgspec.Struct, frozen=True):
    """The record is owned: the state may become visible. `entries` is empty if there never was one."""

    version: Version
    entries: Mapping[str, bytes]


class Known(msgspec.Struct, frozen=True, gc=False):
    """What an owner had committed, all of it, when its agent went to sleep [sleep_settled]."""

    version: Version
    entries: Mapping[str, bytes] | None = None
    """As they are stored; None: they were not kept, and are read again."""


class Committed(msgspec.Struct, frozen=True):
    """Every write up to `seq` is at a majority: release what waits for it."""

    seq: int


class Fenced(msgspec.Struct, frozen=True):
    """A higher epoch is sealed: stop. Writes without `Committed` may or may not be adopted by the next holder:
    `Unknown`.
    """

    sealed: int


class Unreadable(msgspec.Struct, frozen=True):
    """The store has nothing although an earlier epoch was Ready: stay down (reason StateUnreadable)."""

    message: str


class Deleted(msgspec.Struct, frozen=True):
    """The registry has no such agent any more: stop."""


class Asleep(msgspec.Struct, frozen=True):
    """The epoch is sealed, and the record is not adopted: its agent sleeps (protocol 2, bulk take-over)."""

    wake: bytes
    """The clear field of the *highest* version of the majority [wake_highest]; empty: nothing will wake it."""


Outcome = Adopted | Committed | Fenced | Unreadable | Deleted | Asleep


@dataclass(slots=True)
class Output:
    """Send first, then act on the outcomes, both in order."""

    sends: list[Send] = field(default_factory=list[Send])
    outcomes: list[Outcome] = field(default_factory=list[Outcome])


class Phase(StrEnum):
    """Of an owner."""

    SEALING = "Sealing"
    READING = "Reading"
    REPAIRING = "Repairing"
    READY = "Ready"
    STOPPED = "Stopped"
