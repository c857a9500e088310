"""Snapshots, in the place of pysyncobj.serializer.Serializer. Compaction is off for now: nothing writes one yet.

A snapshot holds the state, and the last two entries that it covers: the parent wants a predecessor at the start of
its log.
"""

# ruff: noqa: N802  (PySyncObj names these methods)

import zlib
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from tenured.raft.messages import SnapshotPart
from tenured.raft.records import Entry

PART_BYTES = 1 << 18
SIZE_LIMIT = 1 << 30
_IDLE, _BUSY, _DONE, _FAILED = range(4)


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """State after `last`. `previous` is the entry before it."""

    previous: Entry
    last: Entry
    state: bytes

    @property
    def at(self) -> tuple[int, int]:
        """(index, term) of the last entry covered."""
        return self.last.index, self.last.term


class SnapshotStore(Protocol):
    """Keeps the newest snapshot: a side file, fsync, rename, fsync of the directory. Never goes back to an older."""

    def read(self) -> tuple[tuple[int, int], bytes] | None:
        """((index, term), bytes) of the newest, None when there is none."""
        ...

    def write(self, at: tuple[int, int], data: bytes, done: Callable[[bool], None]) -> None:
        """Store off the loop, then call `done` on it."""
        ...

    def put(self, at: tuple[int, int], data: bytes) -> None:
        """Store now, durably, unless a newer one is there (K7)."""
        ...


class NoSnapshots:
    """The store while compaction is off."""

    def read(self) -> None:
        """There never is one."""

    def write(self, at: tuple[int, int], data: bytes, done: Callable[[bool], None]) -> None:
        """Not called: compaction never begins."""
        raise NotImplementedError

    def put(self, at: tuple[int, int], data: bytes) -> None:
        """Not called: no leader of this version sends a snapshot, and `accepts` refuses those of others."""
        raise NotImplementedError


class Snapshots:
    """Writing, sending and receiving. One write at a time; the previous snapshot is served meanwhile (N6)."""

    def __init__(self, store: SnapshotStore, capture: Callable[[], bytes], part_bytes: int = PART_BYTES) -> None:
        self._store = store
        self._capture = capture
        self._part_bytes = part_bytes
        self._job: tuple[int, int | None] = (_IDLE, None)
        self._sending: dict[Any, tuple[tuple[int, int], bytes, int]] = {}
        self._receiving: tuple[tuple[tuple[int, int], int, int], dict[int, bytes]] | None = None

    @property
    def accepts(self) -> bool:
        """Whether a snapshot from a leader can be kept."""
        return not isinstance(self._store, NoSnapshots)

    def load(self) -> Snapshot | None:
        """The newest snapshot of this server."""
        stored = self._store.read()
        return None if stored is None else msgspec.msgpack.decode(stored[1], type=Snapshot)

    def next_part(self, peer: object) -> tuple[SnapshotPart, bool] | None:
        """The next piece for `peer` and whether it is the last; None when there is nothing to send."""
        if peer not in self._sending:
            stored = self._store.read()
            if stored is None:
                return None
            self._sending[peer] = (*stored, 0)
        at, blob, position = self._sending[peer]
        data = blob[position : position + self._part_bytes]
        last = position + len(data) >= len(blob)
        if last:
            del self._sending[peer]
        else:
            self._sending[peer] = (at, blob, position + len(data))
        return SnapshotPart(at, len(blob), zlib.crc32(blob), position, data), last

    def stop_sending(self, peer: object) -> None:
        """The stream to `peer` is gone."""
        self._sending.pop(peer, None)

    def take_part(self, part: SnapshotPart) -> bytes | None:
        """The whole snapshot once all its pieces are there and its checksum is right, else None (N5)."""
        key = (part.at, part.size, part.crc)
        if part.size > SIZE_LIMIT:
            return None
        if self._receiving is None or self._receiving[0] != key:
            self._receiving = (key, {})
        pieces = self._receiving[1]
        pieces[part.position] = part.data
        if sum(map(len, pieces.values())) < part.size:
            return None
        blob = b"".join(pieces[position] for position in sorted(pieces))
        self._receiving = None
        return blob if zlib.crc32(blob) == part.crc else None

    def keep(self, at: tuple[int, int], blob: bytes) -> None:
        """Store a snapshot that came from the leader."""
        self._store.put(at, blob)

    # ---- what PySyncObj calls ------------------------------------------------------------------------------------

    def checkSerializing(self) -> tuple[int, int | None]:
        """State of the running write; success and failure are told once."""
        job = self._job
        if job[0] in (_DONE, _FAILED):
            self._job = (_IDLE, None)
        return job

    def serialize(self, data: tuple[Any, Entry, Entry, Any], identifier: int) -> None:
        """Begin to write a snapshot. `data[1]` and `data[2]` are the last two applied entries."""
        if self._job[0] != _IDLE:
            return
        self._job = (_BUSY, identifier)
        snapshot = Snapshot(previous=data[2], last=data[1], state=self._capture())
        self._store.write(snapshot.at, msgspec.msgpack.encode(snapshot), lambda ok: self._written(identifier, ok))

    def _written(self, identifier: int, ok: bool) -> None:
        self._job = (_DONE if ok else _FAILED, identifier)
