"""The quorum register (protocol 2): what a server of the store may do, and how the holder of an agent owns its record.

Server side: `guard_seal`, `guard_write` and `guard_uid` decide; the shell keeps `Cell`s, synced before every answer
[sync_seal, sync_write]. Holder side: `Owner`, a state machine without I/O for one record.

Duties of the owner's shell: send every `Send` of an `Output` in order; hand each answer back with the request that it
answers (`answered`); call `tick` every `RETRY_NS / 2` or so while `busy`; say `lost(server)` and `restored(server)`
when a connection breaks and comes back; `view_changed` when the registry's view grows. Requests may be lost, doubled
and delayed at will.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

RETRY_NS = 300_000_000
"""First pause before a request without an answer is repeated."""
RETRY_MAX_NS = 2_400_000_000
"""The pause doubles up to this."""
MAX_RECORD = 32 * 1024 * 1024
"""Bytes of a record's entries; the holder refuses a turn that would exceed it before it writes."""


class Version(msgspec.Struct, frozen=True, order=True):
    """Of a record: epoch first, then the number of the write in that epoch [epoch_first]."""

    epoch: int = 0
    seq: int = 0


NOTHING = Version()
"""Nothing is stored."""


class Verdict(StrEnum):
    """A server's answer. The names are those of `StoreVerdict` on the wire."""

    OK = "OK"
    FENCED = "FENCED"
    """A higher epoch is sealed."""
    STALE = "STALE"
    """An older version than the stored one."""
    NEED_BASE = "NEED_BASE"
    """The delta's base is not what is stored: send the whole record."""
    JOINING = "JOINING"
    """This disk is new and must not answer yet."""
    OTHER_VIEW = "OTHER_VIEW"
    DELETED = "DELETED"
    """The registry has no such uid any more."""
    BEHIND = "BEHIND"
    """This server's registry has not reached the uid's revision: try again."""
    TOO_LARGE = "TOO_LARGE"
    FAILED = "FAILED"
    """The disk refused."""


# --- server side ----------------------------------------------------------------------------------------------------


class Cell(msgspec.Struct, frozen=True):
    """What a server keeps of one record, beside its entries."""

    sealed: int = 0
    version: Version = NOTHING


class WriteDecision(msgspec.Struct, frozen=True):
    """`store`: apply the entries and keep `cell`, synced, before the answer; else only answer."""

    verdict: Verdict
    cell: Cell
    store: bool = False


def guard_view(view: int, own_view: int, *, joining: bool) -> Verdict:
    """Refuse while the disk is new, and requests of another view [rejoin, view]."""
    if joining:
        return Verdict.JOINING
    return Verdict.OK if view == own_view else Verdict.OTHER_VIEW


def guard_uid(uid: str, agents: Mapping[str, object], revision: int) -> Verdict:
    """Refuse records of agents that the registry does not have [uid]: gone, or not here yet."""
    if uid in agents:
        return Verdict.OK
    return Verdict.DELETED if uid.isdecimal() and int(uid) <= revision else Verdict.BEHIND


def guard_seal(cell: Cell, epoch: int) -> WriteDecision:
    """Decide a seal; `cell.sealed` is synced before the answer [sync_seal]. First check `guard_view`, `guard_uid`."""
    if epoch < cell.sealed:
        return WriteDecision(Verdict.FENCED, cell)
    return WriteDecision(Verdict.OK, Cell(epoch, cell.version), store=epoch > cell.sealed)


def guard_write(cell: Cell, version: Version, base: Version | None) -> WriteDecision:
    """Decide a write: whole (`base` None) or a delta on exactly `base`. Check `guard_view` and `guard_uid` first."""
    if version.epoch < cell.sealed:  # [seal]
        return WriteDecision(Verdict.FENCED, cell)
    if version < cell.version:  # [order]
        return WriteDecision(Verdict.STALE, cell)
    if version == cell.version:  # repeated: the same bytes are here
        return WriteDecision(Verdict.OK, cell)
    if base is not None and base != cell.version:
        return WriteDecision(Verdict.NEED_BASE, cell)
    return WriteDecision(Verdict.OK, Cell(version.epoch, version), store=True)


# --- holder side: frames --------------------------------------------------------------------------------------------


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """Seal the epoch and tell what is stored, the record too."""

    uid: str
    epoch: int
    view: int


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
    """Answer to Seal. `entries` None: not sent (too large), fetch it."""

    verdict: Verdict
    sealed: int = 0
    version: Version = NOTHING
    entries: Mapping[str, bytes] | None = None


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


# --- holder side: what the owner says -------------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True):
    """A request for one server."""

    server: str
    request: Request


class Adopted(msgspec.Struct, frozen=True):
    """The record is owned: the state may become visible. `entries` is empty if there never was one."""

    version: Version
    entries: Mapping[str, bytes]


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


Outcome = Adopted | Committed | Fenced | Unreadable | Deleted


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


class Owner:
    """Owner of one record at one epoch. The epoch comes from a committed assignment made for this process start
    [epoch_once].

    `expect_state`: the registry has a `ready_epoch` for this uid, so that "nothing found" is a loss and no beginning.
    """

    def __init__(self, uid: str, epoch: int, servers: Iterable[str], *, view: int, expect_state: bool) -> None:
        self.uid = uid
        self.epoch = epoch
        self.view = view
        self.expect_state = expect_state
        self.phase = Phase.SEALING
        self.entries: dict[str, bytes] = {}
        """The record as of the last write, acknowledged or not."""
        self.seq = 0
        """Of the last write."""
        self.committed = 0
        """Of the last write that a majority holds."""
        self.trouble = ""
        """The last refusal by a server that is not a verdict on the epoch, for status and logs."""
        self._servers = {name: _Peer() for name in servers}

    @property
    def quorum(self) -> int:
        """A majority of the servers [seal_majority, write_majority]."""
        return len(self._servers) // 2 + 1

    @property
    def busy(self) -> bool:
        """Whether `tick` has anything to do."""
        raise NotImplementedError

    def start(self, now: int) -> Output:
        """Seal at every server."""
        raise NotImplementedError

    def answered(self, now: int, server: str, request: Request, answer: Answer) -> Output:
        """Take an answer, in any order, as often as it comes."""
        raise NotImplementedError

    def write(self, now: int, puts: Mapping[str, bytes], deletes: Iterable[str] = ()) -> tuple[int, Output]:
        """Write the next version (only when READY); returns its `seq`, which a `Committed` will cover. Writes are
        pipelined.
        """
        raise NotImplementedError

    def tick(self, now: int) -> Output:
        """Repeat what has had no answer for too long: the same versions, the same bytes."""
        raise NotImplementedError

    def lost(self, server: str) -> None:
        """Note that the connection broke: what was under way may or may not have arrived."""
        raise NotImplementedError

    def restored(self, now: int, server: str) -> Output:
        """Note that the connection is back: repeat at once what is open there."""
        raise NotImplementedError

    def view_changed(self, now: int, view: int) -> Output:
        """Ask again under the new view: answers of the old one no longer count [view]."""
        raise NotImplementedError


@dataclass(slots=True)
class _Peer:
    connected: bool = True
