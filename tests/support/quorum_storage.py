"""The cluster's store behind the SDK's storage interface: one agent's record, sealed by a host, holds all keys."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Self

from fake_host import FakeHost

from tenure.storage import Checkpoint, Journal, StorageError
from tenure.storage._interface import agree, checked
from tenured.clocks import boot_ns
from tenured.host.store import Record, RecordLost, Store

CHECKPOINT, JOURNAL = "c/", "j/"
REVISION_BYTES = 8


class QuorumStorage:
    """`tenure.storage.Storage` over `tenured.host.store`: what a method has returned is on most servers."""

    def __init__(self, host: FakeHost, store: Store, record: Record, entries: Mapping[str, bytes]) -> None:
        """See `open`."""
        self.host = host
        self._store = store
        self._record: Record | None = record
        self._entries = dict(entries)
        self._repeats = asyncio.ensure_future(store.keep_repeating())

    @classmethod
    async def open(cls, host: FakeHost, uid: str, *, written: bool) -> Self:
        """Wait until the agent is the host's, seal its epoch and adopt what is stored. The host goes with `close`."""
        await host.until(lambda: uid in host.mine)
        store = Store(host.links, host.incarnation, boot_ns)
        record = store.open(uid, host.mine[uid].epoch, expect_state=written)
        repeats = asyncio.ensure_future(store.keep_repeating())
        try:
            adopted = await record.adopted()
        finally:
            repeats.cancel()
        return cls(host, store, record, adopted.entries)

    async def get(self, key: str) -> Checkpoint | None:
        self._key(key)
        stored = self._entries.get(CHECKPOINT + key)
        if stored is None:
            return None
        return Checkpoint(stored[REVISION_BYTES:], int.from_bytes(stored[:REVISION_BYTES], "big"))

    async def put(self, key: str, data: bytes, *, expected: int | None = None) -> int:
        before = await self.get(key)
        actual = before.revision if before is not None else 0
        agree(key, expected, actual)
        await self._write({CHECKPOINT + key: (actual + 1).to_bytes(REVISION_BYTES, "big") + data})
        return actual + 1

    async def load(self, key: str, *, after: int = 0) -> Journal:
        names = self._journal(self._key(key))
        return Journal(tuple(self._entries[name] for name in names[after:]), after + 1, len(names))

    async def append(self, key: str, entries: Sequence[bytes], *, expected: int | None = None) -> int:
        last = len(self._journal(self._key(key)))
        agree(key, expected, last)
        if entries:
            await self._write({_entry(key, number): entry for number, entry in enumerate(entries, last + 1)})
        return last + len(entries)

    async def delete(self, key: str) -> None:
        gone = [name for name in (CHECKPOINT + self._key(key), *self._journal(key)) if name in self._entries]
        if gone:
            await self._write({}, gone)

    async def keys(self) -> list[str]:
        self._key("any")
        found = {name.removeprefix(CHECKPOINT) for name in self._entries if name.startswith(CHECKPOINT)}
        found |= {name.removeprefix(JOURNAL).rpartition("/")[0] for name in self._entries if name.startswith(JOURNAL)}
        return sorted(found)

    async def close(self) -> None:
        if self._record is None:
            return
        self._store.close(self._record)
        self._record = None
        self._repeats.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._repeats
        await self.host.leave()

    def _key(self, key: str) -> str:
        if self._record is None:
            raise StorageError("this storage is closed")
        return checked(key)

    def _journal(self, key: str) -> list[str]:
        names: list[str] = []
        while (name := _entry(key, len(names) + 1)) in self._entries:
            names.append(name)
        return names

    async def _write(self, puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> None:
        """One write of the record. Later ones build on it at once: a record that loses one loses all after it."""
        assert self._record is not None
        try:
            done = self._record.write(boot_ns(), puts, deletes)
            self._entries |= puts
            for name in deletes:
                del self._entries[name]
            await done
        except RecordLost as error:
            raise StorageError(f"the record is lost: {error}") from error


def _entry(key: str, number: int) -> str:
    return f"{JOURNAL}{key}/{number:016x}"
