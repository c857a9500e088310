"""What goes into the store and what comes out."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tenured.core.cells import NOTHING, Verdict, Version


class SealItem(msgspec.Struct, frozen=True):
    """Promise to refuse what is below this epoch."""

    uid: str
    epoch: int


class WriteItem(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one record: the whole of it (`base` None), or changed keys on exactly `base`."""

    uid: str
    version: Version
    base: Version | None = None
    puts: Mapping[str, bytes] = {}
    deletes: tuple[str, ...] = ()


class SealAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`entries`: None when it was not asked for, or is too large for the answer: read it."""

    uid: str
    verdict: Verdict
    sealed: int = 0
    version: Version = NOTHING
    entries: Mapping[str, bytes] | None = None
    message: str = ""
    wake: bytes = b""
    """The entry of that name, where records are not asked for."""


class WriteAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`version`: what is stored now."""

    uid: str
    verdict: Verdict
    sealed: int = 0
    version: Version = NOTHING
    message: str = ""


class AdoptItem(msgspec.Struct, frozen=True, kw_only=True):
    """What a joining disk takes over of one record: the highest seal and version of the others (rejoin 4)."""

    uid: str
    sealed: int
    version: Version = NOTHING
    entries: Mapping[str, bytes] = {}


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A stored record. `message`: why its entries cannot be read; then they are not to be used."""

    uid: str
    version: Version = NOTHING
    entries: Mapping[str, bytes] = {}
    message: str = ""
