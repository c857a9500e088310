"""What a server of the store may do with a record (protocol 2, the table of guards).

The shell keeps one `Cell` and the entries of each record. It checks `guard_view`, then `guard_uid`, `guard_assigned`,
and `guard_seal` or `guard_write`, applies what the decision says, and syncs it before it answers, seals too
[sync_seal, sync_write].
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class Version(msgspec.Struct, frozen=True, order=True, gc=False):
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


# --- guards ----------------------------------------------------------------------------------------------------


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


def guard_assigned(assigned: int, *, holds: bool, epoch: int) -> Verdict:
    """Let only the holder that the committed assignment names seal or write its epoch [seal_assigned].

    `assigned`: the epoch of the row; `holds`: the row names the sender, as its certificate and incarnation say who it
    is. An epoch that is not assigned here yet may be on its way: a server that is behind waits, and refuses nobody.
    """
    if assigned < epoch:
        return Verdict.BEHIND
    return Verdict.OK if holds and assigned == epoch else Verdict.FENCED


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
