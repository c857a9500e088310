"""What the store has promised and SQLite does not hold for certain yet: one append and one sync a commit (ADR 0033).

    state.db.journal-0000000007    magic (8 bytes), frame (`Header`), frame ...; frames are those of the Raft log
    payload of a frame             a msgpack array of `Change`: one commit

Changes say what is, not what to do with what was: played again, from any moment on and to the end, they come to the
same. So a journal is removed only after SQLite has synced all of it, and every opening plays what is there into SQLite,
syncs that, and begins a new file: nothing is ever appended to a file that was read.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from tenured.core.cells import Cell, Version
from tenured.raft.files import TEMPORARY, sync_directory
from tenured.raft.frames import HEAD_BYTES, Damaged, frame, frames, whole
from tenured.storage.errors import StoreCorrupt

MAGIC = b"TNRSTOR\n"
_encode = msgspec.msgpack.Encoder().encode
_log = logging.getLogger(__name__)


class Change(msgspec.Struct, frozen=True, array_like=True):
    """Of one record: how it stands after a request."""

    uid: str
    cell: tuple[int, int, int] | None
    """Sealed epoch, and epoch and seq of its version; None: the record is gone."""
    whole: bool = False
    """`puts` are all of its entries."""
    puts: Mapping[str, bytes] = {}
    deletes: tuple[str, ...] = ()

    @property
    def kept(self) -> Cell:
        """Of a record that is not gone."""
        sealed, epoch, seq = self.cell or (0, 0, 0)
        return Cell(sealed, Version(epoch, seq))


def cell_of(cell: Cell) -> tuple[int, int, int]:
    """As a change says it."""
    return cell.sealed, cell.version.epoch, cell.version.seq


class Header(msgspec.Struct, frozen=True, array_like=True):
    """First frame of a file."""

    disk: str
    """Incarnation of the store: a journal of another one does not belong here."""
    number: int
    before: int
    """Bytes of the file before this one when it was complete; 0: there was none."""


_changes = msgspec.msgpack.Decoder(list[Change]).decode
_header = msgspec.msgpack.Decoder(Header).decode


class Journal:
    """The files beside a database. Synchronous; used by one thread at a time. All may raise OSError."""

    def __init__(self, database: Path, disk: str) -> None:
        """`disk`: the incarnation of the store."""
        self._directory = database.parent
        self._stem = f"{database.name}.journal-"
        self._disk = disk
        self._file = -1
        self.number = 0
        """Of the file that is written."""
        self.size = 0
        """Bytes of it."""

    @property
    def there(self) -> bool:
        """Whether there is any file."""
        return bool(self._numbers())

    def replay(self, first: int) -> Iterator[list[Change]]:
        """The commits in the files from number `first` on, in order; then `begin` is due.

        Raises StoreCorrupt when something that was synced is missing or is not as it was written.
        """
        numbers = [number for number in self._numbers() if number >= first]
        last = max(numbers, default=first)
        for number in range(first, last + 1):
            if number not in numbers:
                raise self._corrupt(number, "it is missing")
            data, until = self._path(number).read_bytes(), None
            if number < last:  # what was behind that was torn, and nobody heard of it
                until = self._start(number + 1, self._path(number + 1).read_bytes())[0].before
            end = yield from self._played(number, data, until)
            self.number, self.size = number, end
            if end < len(data):
                _log.warning("%s: a torn tail of %d bytes is left out", self._path(number), len(data) - end)

    def begin(self) -> int:
        """A new file, synced with its name. Everything in the ones before must be synced. Answers its number.

        After Torn nothing may be appended to either.
        """
        number = self.number + 1
        start = MAGIC + frame(len(MAGIC), _encode(Header(self._disk, number, self.size)))
        temporary = self._temporary(number)
        descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC | os.O_APPEND, 0o644)
        try:
            _write(descriptor, start)
            os.fdatasync(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        try:
            temporary.rename(self._path(number))
            sync_directory(self._directory)
        except OSError as error:  # it may be there, and say that the file before it ends here
            os.close(descriptor)
            raise Torn(error.errno, os.strerror(error.errno or 0)) from error
        self.close()
        self._file, self.number, self.size = descriptor, number, len(start)
        return number

    def append(self, changes: list[Change]) -> None:
        """Write a commit. After an OSError nothing of it is in the file; raises Torn when even that is not sure."""
        data = frame(self.size, _encode(changes), self.number)
        try:
            _write(self._file, data)
        except OSError as error:
            try:
                os.ftruncate(self._file, self.size)
            except OSError as second:
                raise Torn(second.errno, os.strerror(second.errno or 0)) from error
            raise
        self.size += len(data)

    def sync(self) -> None:
        """Return when all of it is on the disk. After an OSError nothing is known of the last commits."""
        os.fdatasync(self._file)

    def remove(self, below: int) -> None:
        """Files with a lower number, which SQLite has synced."""
        for number in self._numbers():
            if number < below:
                self._path(number).unlink(missing_ok=True)
                self._temporary(number).unlink(missing_ok=True)

    def close(self) -> None:
        """Release the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _played(self, number: int, data: bytes, until: int | None) -> Generator[list[Change], None, int]:
        """Answers how many bytes are whole. `until`: so many were when the next file was begun; None: it is last."""
        _, at = self._start(number, data)
        if until is not None and len(data) < until:
            raise self._corrupt(number, f"it has {len(data)} bytes, and had {until}")
        try:
            for end, payload in frames(data[:until], at, number, sealed=until is not None):
                yield _changes(payload)
                at = end
        except Damaged as damage:
            raise self._corrupt(number, f"offset {damage.at}: {damage}") from damage
        except msgspec.DecodeError as error:
            raise self._corrupt(number, f"a whole frame makes no sense: {error}") from error
        return at

    def _start(self, number: int, data: bytes) -> tuple[Header, int]:
        """The header of a file, and where it ends. Raises StoreCorrupt."""
        payload = whole(data, len(MAGIC)) if data[: len(MAGIC)] == MAGIC else None
        try:
            header = _header(payload or b"")
        except msgspec.DecodeError as error:
            raise self._corrupt(number, "it does not begin as a journal does") from error
        if (header.disk, header.number) != (self._disk, number):
            raise self._corrupt(number, f"it is file {header.number} of the store {header.disk}")
        return header, len(MAGIC) + HEAD_BYTES + len(payload or b"")

    def _corrupt(self, number: int, why: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"{self._path(number)} is damaged: {why}. Keep a copy of it. Every acknowledged record is on the other "
            "servers too: give this server an empty volume, and it joins again."
        )

    def _path(self, number: int) -> Path:
        return self._directory / f"{self._stem}{number:010d}"

    def _temporary(self, number: int) -> Path:
        return self._directory / f"{self._stem}{number:010d}{TEMPORARY}"

    def _numbers(self) -> list[int]:
        pattern = re.compile(re.escape(self._stem) + r"(\d{10})")
        found = (pattern.fullmatch(path.name) for path in self._directory.iterdir())
        return sorted(int(match[1]) for match in found if match is not None)


class Torn(OSError):
    """What is on the disk is not known, and cannot be undone."""


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def folded(changes: Iterable[Change]) -> dict[str, Change]:
    """What they come to, by record: applying that is applying the changes in order. Pure.

    Of a record that was gone in between, what comes after begins with nothing: `whole`.
    """
    last: dict[str, Change] = {}
    for change in changes:
        before = last.get(change.uid)
        if before is None or change.whole or change.cell is None:
            last[change.uid] = change
        elif before.cell is None:
            last[change.uid] = msgspec.structs.replace(change, whole=True)
        else:
            puts = {name: value for name, value in before.puts.items() if name not in change.deletes}
            deletes = () if before.whole else (*before.deletes, *change.deletes)
            last[change.uid] = Change(change.uid, change.cell, before.whole, {**puts, **change.puts}, deletes)
    return last
