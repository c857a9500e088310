"""A storage that lives as long as its object: for tests."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tenure.storage._interface import Checkpoint, Journal, StorageError, agree, checked


class MemoryStorage:
    """Keeps everything in this object. What `close` leaves is gone."""

    def __init__(self) -> None:
        self._checkpoints: dict[str, Checkpoint] = {}
        self._journals: dict[str, list[bytes]] = {}
        self._open = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def get(self, key: str) -> Checkpoint | None:
        """See `Storage`."""
        return self._checkpoints.get(self._key(key))

    async def put(self, key: str, data: bytes, *, expected: int | None = None) -> int:
        """See `Storage`."""
        before = self._checkpoints.get(self._key(key))
        actual = before.revision if before is not None else 0
        agree(key, expected, actual)
        self._checkpoints[key] = Checkpoint(bytes(data), actual + 1)
        return actual + 1

    async def load(self, key: str, *, after: int = 0) -> Journal:
        """See `Storage`."""
        entries = self._journals.get(self._key(key), [])
        return Journal(tuple(entries[after:]), after + 1, len(entries))

    async def append(self, key: str, entries: Sequence[bytes], *, expected: int | None = None) -> int:
        """See `Storage`."""
        journal = self._journals.get(self._key(key), [])
        agree(key, expected, len(journal))
        if entries:
            self._journals[key] = [*journal, *map(bytes, entries)]
        return len(journal) + len(entries)

    async def delete(self, key: str) -> None:
        """See `Storage`."""
        self._checkpoints.pop(self._key(key), None)
        self._journals.pop(key, None)

    async def keys(self) -> list[str]:
        """See `Storage`."""
        self._key("any")
        return sorted(self._checkpoints.keys() | self._journals.keys())

    async def close(self) -> None:
        """See `Storage`."""
        self._open = False

    def _key(self, key: str) -> str:
        if not self._open:
            raise StorageError("this storage is closed")
        return checked(key)
