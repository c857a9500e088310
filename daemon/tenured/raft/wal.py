"""The file format of the write-ahead log, its opening and its repair.

    file    = magic (8 bytes), frame (the header: format version, server name), frame ... frame   = length, crc of the
    payload, crc of (offset, length, crc of the payload); 4 bytes each, little endian; payload payload = a msgpack
    array of records: one group commit

A frame is written only after the one before it was synced. So a damaged frame that has a whole frame somewhere behind
it is damage to synced data: **LogCorrupt**, whatever it looks like. A damaged frame with nothing whole behind it is a
torn write, and cut off, if it is shorter than its length says or has a sector of zeros (a block that was never
written). Anything else in the last frame may be damage to an acknowledged entry and refuses to start too: the road of
an empty disk (rejoin.py) is safe, a guess is not. The offset in the checksum keeps an old frame in a new place from
being taken for real.
"""

import fcntl
import logging
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from tenured.raft.interface import LogCorrupt, LogForeign
from tenured.raft.records import LogState, decode_records

logger = logging.getLogger(__name__)

FILE_NAME = "raft.log"
MAGIC = b"TNRRAFT\n"
FORMAT = 1
SECTOR = 512
_FRAME = struct.Struct("<III")
_PLACE = struct.Struct("<QII")


class LogHeader(msgspec.Struct, frozen=True, array_like=True):
    """First frame of the file: who may read it."""

    format: int
    name: str


class LogFile(Protocol):
    """The three things the writer does to a file. All may raise OSError; after one error none is called again."""

    def write(self, data: bytes) -> None:
        """Append all of `data`."""
        ...

    def sync(self) -> None:
        """Return when everything written is on the disk."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class DiskFile:
    """A LogFile on a real disk. Holds an exclusive lock: two processes must not write one log."""

    def __init__(self, path: Path, size: int) -> None:
        """Open for writing at `size`; the caller has read the file. Raises LogForeign when another process has it."""
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._fd)
            raise LogForeign(f"{path} is in use by another process; stop that server first") from error
        os.lseek(self._fd, size, os.SEEK_SET)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def frame(offset: int, payload: bytes) -> bytes:
    """A frame as it stands at `offset` of the file."""
    crc = zlib.crc32(payload)
    return _FRAME.pack(len(payload), crc, zlib.crc32(_PLACE.pack(offset, len(payload), crc))) + payload


def group(records: Sequence[bytes]) -> bytes:
    """Encoded records as the payload of one frame."""
    return b"\xdd" + len(records).to_bytes(4, "big") + b"".join(records)


def new_log(name: str) -> bytes:
    """The content of a log that was just created."""
    return MAGIC + frame(len(MAGIC), msgspec.msgpack.encode(LogHeader(FORMAT, name)))


def recover(data: bytes, name: str, source: str) -> tuple[LogState, int]:
    """What the log says, and how many bytes of it are whole: the rest is a torn tail to be cut.

    Raises LogCorrupt and LogForeign, with sentences that name `source`.
    """
    frames = _frames(data, source)
    end, header = next(frames, (0, b""))
    _check_header(header, name, source)
    state = LogState()
    for at, payload in frames:
        try:
            state.play(decode_records(payload))
        except (msgspec.DecodeError, ValueError) as error:
            raise _corrupt(source, end, f"a whole frame holds records that make no sense ({error})") from error
        end = at
    return state, end


def open_log(path: Path, name: str) -> tuple[LogState, DiskFile, int]:
    """Open or create the log of server `name`; cut a torn tail. Blocking: call it in a thread.

    Returns the state, the file and its length. Raises LogCorrupt, LogForeign and OSError.
    """
    if not path.exists():
        _create(path, name)
    data = path.read_bytes()
    state, end = recover(data, name, str(path))
    file = DiskFile(path, end)
    if end < len(data):
        logger.warning("%s: cut a torn tail of %d bytes at offset %d", path, len(data) - end, end)
        os.truncate(path, end)
        file.sync()
    return state, file, end


def _create(path: Path, name: str) -> None:
    """Make the log appear whole or not at all, and survive a power cut with its name."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
        sync_directory(path.parent.parent)
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(new_log(name))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _frames(data: bytes, source: str) -> Iterator[tuple[int, bytes]]:
    """Each whole frame as (offset of its end, payload). Ends at a torn tail, raises LogCorrupt at damage."""
    if data[: len(MAGIC)] != MAGIC:
        raise LogForeign(f"{source} is not a Raft log of Tenure; move it away if this server shall start empty")
    at = len(MAGIC)
    while at < len(data):
        body = _whole(data, at)
        if body is None:
            _judge(data, at, source)
            return
        at += _FRAME.size + len(body)
        yield at, body


def _head(data: bytes, at: int) -> tuple[int, int] | None:
    """(length, crc) of the frame at `at` when its head is whole and belongs there."""
    if at + _FRAME.size > len(data):
        return None
    length, crc, place = _FRAME.unpack_from(data, at)
    return (length, crc) if place == zlib.crc32(_PLACE.pack(at, length, crc)) else None


def _whole(data: bytes, at: int) -> bytes | None:
    head = _head(data, at)
    if head is None:
        return None
    body = data[at + _FRAME.size : at + _FRAME.size + head[0]]
    return body if len(body) == head[0] and zlib.crc32(body) == head[1] else None


def _judge(data: bytes, at: int, source: str) -> None:
    """Return when the bytes from `at` on are a torn write, else raise LogCorrupt. See the top of this module."""
    head = _head(data, at)
    behind = at + 1 if head is None else at + _FRAME.size + head[0]
    if any(_whole(data, offset) is not None for offset in range(behind, len(data) - _FRAME.size + 1)):
        raise _corrupt(source, at, "there are whole records behind it")
    short = len(data) - at < _FRAME.size if head is None else behind > len(data)
    if not short and not _has_hole(data, at):
        raise _corrupt(source, at, "the last record is complete and its checksum is wrong")


def _has_hole(data: bytes, at: int) -> bool:
    """Whether a sector from `at` on (the first counts from `at`) is all zeros."""
    starts = (at, *range((at // SECTOR + 1) * SECTOR, len(data), SECTOR))
    return any(not any(data[start : (start // SECTOR + 1) * SECTOR]) for start in starts)


def _check_header(payload: bytes, name: str, source: str) -> None:
    try:
        header = msgspec.msgpack.decode(payload, type=LogHeader)
    except msgspec.DecodeError as error:
        raise _corrupt(source, len(MAGIC), "the header is damaged") from error
    if header.format != FORMAT:
        raise LogForeign(
            f"{source} has format {header.format}, this version reads {FORMAT}; run the version that wrote it"
        )
    if header.name != name:
        raise LogForeign(f"{source} belongs to server {header.name}, this is {name}; check which volume is mounted")


def _corrupt(source: str, at: int, why: str) -> LogCorrupt:
    return LogCorrupt(
        f"{source} is damaged at offset {at}: {why}. Nothing was changed. If the other servers are healthy, move the "
        "directory away and start again: the server rejoins with an empty disk and copies the log from them.",
    )
