"""What a storage offers, and how it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tenure.errors import TenureError

KEY_LIMIT = 400
"""Characters of a key."""


class StorageError(TenureError):
    """A storage could not do what it was asked. Nothing was changed, unless the subclass says otherwise."""


class StorageUnreadable(StorageError):
    """Something is there and cannot be read: damaged, or of another format. It stays as it is."""


class StorageBusy(StorageError):
    """Another process uses this storage."""


class RevisionConflict(StorageError):
    """Somebody else wrote since: the revision is `actual`, and `expected` was wanted."""

    def __init__(self, key: str, expected: int, actual: int) -> None:
        super().__init__(f"{key} is at revision {actual}, not {expected}: somebody else has written it")
        self.key = key
        self.expected = expected
        self.actual = actual


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The last bytes put under a key, and how often that happened."""

    data: bytes
    revision: int
    """1 with the first put; never 0."""


@dataclass(frozen=True, slots=True)
class Journal:
    """Entries of a journal, oldest first. The first entry ever appended has number 1."""

    entries: tuple[bytes, ...]
    first: int
    """Number of the first of these entries."""
    revision: int
    """Number of the last entry of the journal; 0: it is empty."""


class Storage(Protocol):
    """Checkpoints and journals by key. What a method has returned outlives the process, if the storage does.

    A key is 1 to 400 printable characters, e.g. `namespace/name`; others raise ValueError. Every method may raise
    StorageError.
    """

    async def get(self, key: str) -> Checkpoint | None:
        """The checkpoint; None if there never was one, or it was deleted. Raises StorageUnreadable."""
        ...

    async def put(self, key: str, data: bytes, *, expected: int | None = None) -> int:
        """Replace the checkpoint, and return its new revision.

        With `expected`, only if its revision is that one (0: there is none); else raises RevisionConflict. A checkpoint
        that cannot be read is not replaced: raises StorageUnreadable.
        """
        ...

    async def load(self, key: str, *, after: int = 0) -> Journal:
        """The entries of a journal whose number is greater than `after`. Raises StorageUnreadable."""
        ...

    async def append(self, key: str, entries: Sequence[bytes], *, expected: int | None = None) -> int:
        """Append entries, all or none, and return the journal's new revision. `expected` and errors as for `put`."""
        ...

    async def delete(self, key: str) -> None:
        """Remove checkpoint and journal, readable or not. Nothing happens if there is none."""
        ...

    async def keys(self) -> list[str]:
        """All keys that have a checkpoint or a journal, sorted."""
        ...

    async def close(self) -> None:
        """Give up what is held. Idempotent; anything else raises StorageError from now on."""
        ...


def checked(key: str) -> str:
    """The key. Raises ValueError for one that cannot be."""
    if not 0 < len(key) <= KEY_LIMIT or not key.isprintable():
        raise ValueError(f"a key is 1 to {KEY_LIMIT} printable characters, not {key[:40]!r}")
    return key


def agree(key: str, expected: int | None, actual: int) -> None:
    """Raise RevisionConflict unless the revision is the expected one, if any."""
    if expected is not None and expected != actual:
        raise RevisionConflict(key, expected, actual)
