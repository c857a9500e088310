"""Snapshots on disk: their format, and the store that keeps the two newest.

    snapshot-<index>-<term> = magic (8 bytes), frame (head), frame (0, a chunk of the state) ..., frame (1, end)

Each chunk has its checksum, the end says how many there are. A snapshot is written to a side file, synced, renamed and
its name synced, before anybody hears of it: what bears the name is whole. The one before it stays, and so does the log
behind that one: should the newest be damaged, the two of them give the same state. An older one never replaces a newer
one (K7).

All changes are made by one thread, as steps; `done` is called on the loop.
"""

import logging
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, Protocol

import msgspec

from tenured.raft.files import TEMPORARY, Files, OpenFile, ReadFile
from tenured.raft.frames import HEAD_BYTES, Damaged, frame, read_frame
from tenured.raft.records import Entry

logger = logging.getLogger(__name__)

MAGIC = b"TNRSNAP\n"
FORMAT = 1
SYNC_BYTES = 4 << 20
"""Bytes between two syncs of a file that is being written, so that the log's own syncs find little to wait for."""
READ_BYTES = 1 << 20
INCOMING = "snapshot-incoming" + TEMPORARY
DAMAGED = ".damaged"
KEPT = 2
_NAME = re.compile(r"snapshot-(\d{16})-(\d{16})")
_CHUNK, _END = b"\x00", b"\x01"

Done = Callable[[Exception | None], None]
"""Told on the loop how it ended."""


class Head(msgspec.Struct, frozen=True, array_like=True):
    """The state is that after `last`; `previous` is the entry before it, the predecessor that a log begins with."""

    format: int
    previous: Entry
    last: Entry


class End(msgspec.Struct, frozen=True, array_like=True):
    """Last frame: nothing is missing."""

    chunks: int


class Kept(NamedTuple):
    """A snapshot in the store: (index, term) of the last entry it covers, length and checksum of its file."""

    at: tuple[int, int]
    size: int
    crc: int
    head: Head


class Worker(Protocol):
    """Runs one job after the other, off the loop."""

    def submit(self, steps: Iterator[None], done: Done) -> None:
        """Run `steps` to their end, then call `done` on the loop: with the exception that ended them, or None."""
        ...


def snapshot_name(at: tuple[int, int]) -> str:
    """File name of the snapshot at (index, term)."""
    return f"snapshot-{at[0]:016d}-{at[1]:016d}"


def place_of(name: str) -> tuple[int, int] | None:
    """(index, term) by the name of a file; None when it is no snapshot."""
    found = _NAME.fullmatch(name)
    return None if found is None else (int(found[1]), int(found[2]))


class SnapshotFile:
    """An open snapshot. Raises Damaged while it is read."""

    def __init__(self, file: ReadFile) -> None:
        if file.read(0, len(MAGIC)) != MAGIC:
            raise Damaged(0, "it does not begin as a snapshot does")
        self._file = file
        data = read_frame(file.read, len(MAGIC))
        try:
            self.head = msgspec.msgpack.decode(data, type=Head)
        except msgspec.DecodeError as error:
            raise Damaged(len(MAGIC), "its head makes no sense") from error
        self._first = len(MAGIC) + HEAD_BYTES + len(data)
        self.size = self._first

    @property
    def at(self) -> tuple[int, int]:
        """(index, term) of the last entry that it covers."""
        return self.head.last.index, self.head.last.term

    def chunks(self) -> Iterator[bytes]:
        """The state. Afterwards `size` is the length of the whole."""
        at, count, seed = self._first, 0, _seed(self.at)
        while True:
            data = read_frame(self._file.read, at, seed)
            at += HEAD_BYTES + len(data)
            if data[:1] == _END:
                break
            count += 1
            yield data[1:]
        with suppress(msgspec.DecodeError):
            if msgspec.msgpack.decode(data[1:], type=End).chunks == count:
                self.size = at
                return
        raise Damaged(at, "chunks are missing")


def verify(file: ReadFile) -> Iterator[None]:
    """Read all of a snapshot, in steps. Raises Damaged."""
    snapshot = SnapshotFile(file)
    for _ in snapshot.chunks():
        yield
    if file.read(snapshot.size, 1):
        raise Damaged(snapshot.size, "there is something behind its end")


def crc_of(file: ReadFile) -> tuple[int, int]:
    """(length, checksum) of a whole file."""
    size = crc = 0
    while data := file.read(size, READ_BYTES):
        size, crc = size + len(data), zlib.crc32(data, crc)
    return size, crc


def _seed(at: tuple[int, int]) -> int:
    return zlib.crc32(b"%d %d" % at)


class _Growing:
    """A file that is being written: counts, sums up, and syncs now and then."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self.size = self.crc = self._unsynced = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.size, self.crc = self.size + len(data), zlib.crc32(data, self.crc)
        self._unsynced += len(data)
        if self._unsynced >= SYNC_BYTES:
            self.sync()

    def sync(self) -> None:
        self._file.sync()
        self._unsynced = 0

    def close(self) -> None:
        self._file.close()


class SnapshotStore:
    """The snapshots of one directory. Called on the loop; what it does to files, the worker does."""

    def __init__(self, files: Files, worker: Worker, kept: list[Kept]) -> None:
        """`kept`: what is there, the newest first."""
        self._files = files
        self._worker = worker
        self._kept = kept
        self._newest_at = kept[0].at if kept else (0, 0)  # for the worker
        self._incoming: _Growing | None = None  # the worker's

    @property
    def newest(self) -> Kept | None:
        """The newest one that is durable."""
        return self._kept[0] if self._kept else None

    @property
    def needed_from(self) -> int:
        """The log must reach back to this entry, so that the older of the two snapshots is worth something."""
        return self._kept[-1].head.previous.index if len(self._kept) == KEPT else 1

    def open(self, kept: Kept) -> ReadFile:
        """For sending, and for taking its state. Raises OSError when it is gone."""
        return self._files.open(snapshot_name(kept.at))

    def write(self, previous: Entry, last: Entry, chunks: Iterator[bytes], done: Done) -> None:
        """Store an own one. `chunks` is asked for each of them by the worker."""
        head, made = Head(FORMAT, previous, last), list[Kept]()
        self._worker.submit(self._write(head, chunks, made), self._then(made, done))

    def begin(self) -> None:
        """A snapshot of the leader's will come in pieces; what came of another is forgotten."""
        self._worker.submit(self._begin(), lambda _: None)

    def receive(self, data: bytes, done: Done) -> None:
        """The next piece."""
        self._worker.submit(self._receive(data), done)

    def install(self, size: int, crc: int, done: Done) -> None:
        """All pieces are there: check them and keep the snapshot."""
        made = list[Kept]()
        self._worker.submit(self._install(size, crc, made), self._then(made, done))

    def is_newer(self, at: tuple[int, int]) -> bool:
        """K7: never back to an older one. Asked by the worker."""
        return at > self._newest_at

    def _then(self, made: list[Kept], done: Done) -> Done:
        def then(error: Exception | None) -> None:
            self._kept = [*made, *self._kept][:KEPT]
            done(error)

        return then

    # ---- the worker's ---------------------------------------------------------------------------------------------

    def _write(self, head: Head, chunks: Iterator[bytes], made: list[Kept]) -> Iterator[None]:
        at = head.last.index, head.last.term
        name, seed = snapshot_name(at) + TEMPORARY, _seed(at)
        out = _Growing(self._files.create(name))
        try:
            out.write(MAGIC + frame(len(MAGIC), msgspec.msgpack.encode(head)))
            count = 0
            for chunk in chunks:
                out.write(frame(out.size, _CHUNK + chunk, seed))
                count += 1
                yield
            out.write(frame(out.size, _END + msgspec.msgpack.encode(End(count)), seed))
            out.sync()
            yield
        except OSError:
            with suppress(OSError):
                self._files.remove(name)  # makes room for the log
            raise
        finally:
            out.close()
        yield from self._name(name, Kept(at, out.size, out.crc, head), made)

    def _begin(self) -> Iterator[None]:
        if self._incoming is not None:
            self._incoming.close()
        self._incoming = _Growing(self._files.create(INCOMING))
        yield

    def _receive(self, data: bytes) -> Iterator[None]:
        if self._incoming is None:
            raise OSError("the side file of the snapshot is gone")
        try:
            self._incoming.write(data)
        except OSError:
            self._incoming.close()
            self._incoming = None
            with suppress(OSError):
                self._files.remove(INCOMING)  # makes room for the log
            raise
        yield

    def _install(self, size: int, crc: int, made: list[Kept]) -> Iterator[None]:
        incoming, self._incoming = self._incoming, None
        if incoming is None:
            raise OSError("the side file of the snapshot is gone")
        try:
            if (incoming.size, incoming.crc) != (size, crc):
                raise Damaged(incoming.size, "its checksum is not the one that the leader named")
            incoming.sync()
            yield
        finally:
            incoming.close()
        file = self._files.open(INCOMING)
        try:
            yield from verify(file)
            head = SnapshotFile(file).head
        finally:
            file.close()
        yield from self._name(INCOMING, Kept((head.last.index, head.last.term), size, crc, head), made)

    def _name(self, temporary: str, kept: Kept, made: list[Kept]) -> Iterator[None]:
        """Give it its name, durably, and remove what is older than the two newest."""
        if not self.is_newer(kept.at):
            self._files.remove(temporary)
            return
        self._files.rename(temporary, snapshot_name(kept.at))
        yield
        self._files.sync()
        self._newest_at = kept.at
        made.append(kept)
        yield
        places = sorted((at for at in map(place_of, self._files.names()) if at is not None), reverse=True)
        for old in places[KEPT:]:
            self._files.remove(snapshot_name(old))
        for name in [name for name in self._files.names() if name.endswith(DAMAGED)]:
            self._files.remove(name)
        self._files.sync()
