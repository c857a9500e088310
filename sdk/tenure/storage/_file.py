"""A storage of plain files: one for each checkpoint, one for each journal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import urllib.parse
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tenure.storage._interface import (
    Checkpoint,
    Journal,
    StorageBusy,
    StorageError,
    StorageUnreadable,
    agree,
    checked,
)
from tenure.storage._worker import Worker

T = TypeVar("T")
MAGIC = b"tenure1\n"
_NUMBER = 8
_HEAD = 16
"""Of a record: the length of its body, the CRC-32 of that length, the CRC-32 of the body: 8, 4, 4 bytes, big-endian. A
damaged length would else look like a torn end, and everything behind it would be cut off."""
_NAME_LIMIT = 120
"""Bytes of a file's name before it continues in a directory below: a name has at most 255 of them."""


class FileStorage(Worker):
    """Files below `directory`, which is made when it is first used. One process at a time (a lock file sees to that).

    A checkpoint is written beside the old one, synced, and renamed over it; a journal is appended to and synced. Each
    record carries its length and a CRC. A journal whose last record is incomplete was torn by a power cut while it was
    written, and nobody was told that it is there: that record is cut off. All other damage is StorageUnreadable.
    """

    def __init__(self, directory: str | Path) -> None:
        super().__init__()
        self._directory = Path(directory)
        self._lock = -1

    async def get(self, key: str) -> Checkpoint | None:
        """See `Storage`."""
        path = self._path("checkpoints", key)
        return await self._run(lambda: _read_checkpoint(path))

    async def put(self, key: str, data: bytes, *, expected: int | None = None) -> int:
        """See `Storage`."""
        path = self._path("checkpoints", key)

        def work() -> int:
            before = _read_checkpoint(path)
            revision = before.revision if before is not None else 0
            agree(key, expected, revision)
            _replace(path, MAGIC + _record((revision + 1).to_bytes(_NUMBER) + data))
            return revision + 1

        return await self._run(work)

    async def load(self, key: str, *, after: int = 0) -> Journal:
        """See `Storage`."""
        path = self._path("journals", key)

        def work() -> Journal:
            entries, _ = _read_journal(path)
            return Journal(tuple(entries[after:]), after + 1, len(entries))

        return await self._run(work)

    async def append(self, key: str, entries: Sequence[bytes], *, expected: int | None = None) -> int:
        """See `Storage`. The whole journal is read first: for long ones `SQLiteStorage` is the better choice."""
        path = self._path("journals", key)

        def work() -> int:
            known, size = _read_journal(path)
            agree(key, expected, len(known))
            if entries:
                # One record for all of them: all or none.
                _append(path, size, _record(b"".join(_record(entry) for entry in entries)))
            return len(known) + len(entries)

        return await self._run(work)

    async def delete(self, key: str) -> None:
        """See `Storage`."""
        paths = [self._path(kind, key) for kind in ("checkpoints", "journals")]

        def work() -> None:
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                    _sync_directory(path.parent)

        await self._run(work)

    async def keys(self) -> list[str]:
        """See `Storage`."""

        def work() -> list[str]:
            found: set[str] = set()
            for kind in ("checkpoints", "journals"):
                top = self._directory / kind
                found |= {_key(path.relative_to(top)) for path in top.rglob("*.data")}
            return sorted(found)

        return await self._run(work)

    def _path(self, kind: str, key: str) -> Path:
        """Nothing in a key can lead out of the directory: all but letters, digits, _ and - is escaped, dots too."""
        name = urllib.parse.quote(checked(key), safe="").replace(".", "%2E").replace("~", "%7E")
        parts = [name[at : at + _NAME_LIMIT] for at in range(0, len(name), _NAME_LIMIT)]
        return self._directory.joinpath(kind, *(f"{part}+" for part in parts[:-1]), f"{parts[-1]}.data")

    def _open(self) -> None:
        self._lock = _take_lock(self._directory)

    def _release(self) -> None:
        os.close(self._lock)

    def _work(self, work: Callable[[], T]) -> T:
        try:
            return super()._work(work)
        except OSError as error:
            raise StorageError(f"{self._directory}: {error}") from error


def _take_lock(directory: Path) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise StorageBusy(f"{directory} is in use by another process") from error
    return lock


def _key(path: Path) -> str:
    name = "".join([part.removesuffix("+") for part in path.parts[:-1]]) + path.name.removesuffix(".data")
    return urllib.parse.unquote(name)


def _record(body: bytes) -> bytes:
    length = len(body).to_bytes(8)
    return length + zlib.crc32(length).to_bytes(4) + zlib.crc32(body).to_bytes(4) + body


def _read_checkpoint(path: Path) -> Checkpoint | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    body, end = _read_record(content, len(MAGIC), path) if content.startswith(MAGIC) else (None, 0)
    if body is None or end != len(content) or len(body) < _NUMBER:
        raise StorageUnreadable(f"{path} is no checkpoint, or incomplete")
    return Checkpoint(body[_NUMBER:], int.from_bytes(body[:_NUMBER]))


def _read_journal(path: Path) -> tuple[list[bytes], int]:
    """The entries, and the size of the file without a torn end."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    if not content.startswith(MAGIC):
        if MAGIC.startswith(content):
            return [], 0  # torn in the first write of all
        raise StorageUnreadable(f"{path} is no journal")
    entries: list[bytes] = []
    at = len(MAGIC)
    while at < len(content):
        batch, end = _read_record(content, at, path)
        if batch is None:
            return entries, at
        inner = 0
        while inner < len(batch):
            entry, inner = _read_record(batch, inner, path)
            if entry is None:
                raise StorageUnreadable(f"{path} is damaged at byte {at}")
            entries.append(entry)
        at = end
    return entries, at


def _read_record(content: bytes, at: int, path: Path) -> tuple[bytes | None, int]:
    """The body of the record at `at` and where the next one begins; None if the content ends before it does."""
    body_at = at + _HEAD
    head = content[at:body_at]
    if len(head) < _HEAD or not any(content[at:]):  # zeros: the file had grown, and its bytes were not there yet
        return None, at
    length = int.from_bytes(head[:8])
    if zlib.crc32(head[:8]) != int.from_bytes(head[8:12]):
        raise StorageUnreadable(f"{path} is damaged at byte {at}")
    if body_at + length > len(content):
        return None, at
    body = content[body_at : body_at + length]
    if zlib.crc32(body) != int.from_bytes(head[12:]):
        raise StorageUnreadable(f"{path} is damaged at byte {body_at}")
    return body, body_at + length


def _replace(path: Path, content: bytes) -> None:
    _make_directories(path.parent)
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    _sync_directory(path.parent)


def _append(path: Path, size: int, record: bytes) -> None:
    _make_directories(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        file.truncate(size)  # what a power cut tore
        file.seek(size)
        file.write(record if size else MAGIC + record)
        file.flush()
        os.fsync(file.fileno())
    if not size:
        _sync_directory(path.parent)


def _make_directories(directory: Path) -> None:
    """Make it with those above, each synced in the one that holds it."""
    if directory.is_dir():
        return
    _make_directories(directory.parent)
    directory.mkdir(exist_ok=True)
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
