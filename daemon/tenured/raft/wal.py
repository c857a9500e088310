"""The write-ahead log on disk: a chain of segments, how it is opened and checked, written and made shorter.

    raft.log                what this directory is: format, server, id of the log, number of a segment that exists
    log-0000000000000001    a segment: magic (8 bytes), frame (header), frame ... ; see frames.py
    payload of a frame      a msgpack array of records: one group commit

The header of a segment says how long the one before it was and its checksum, and what all records before it add up to
(`Checkpoint`). So a segment is begun only when the one before it is complete and synced; a missing, exchanged or
shortened one is seen; and the oldest ones can be removed once no entry in them is needed. Only the newest segment has a
torn tail, and only that is ever cut. Everything else that is not as it was written refuses to start: **LogCorrupt**.

Before there were segments, `raft.log` was the whole log. It becomes segment 0 and is read as it is; the new `raft.log`
makes an older version refuse to start rather than take the past for the present.
"""

import logging
import re
import secrets
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from tenured.raft.files import TEMPORARY, Files, OpenFile, put_whole
from tenured.raft.frames import HEAD_BYTES, Damaged, frame, frames, whole
from tenured.raft.interface import LogCorrupt, LogForeign
from tenured.raft.records import Checkpoint, LogState, decode_records

logger = logging.getLogger(__name__)

MANIFEST = "raft.log"
MAGIC = b"TNRRAFT\n"
FORMAT = 2
ONE_FILE_FORMAT = 1
SEGMENT_BYTES = 16 << 20
"""A segment that has reached this size is followed by the next."""
_SEGMENT = re.compile(r"log-(\d{16})")


class Header(msgspec.Struct, frozen=True, array_like=True):
    """First frame of `raft.log` and of every segment."""

    format: int
    name: str
    log: int = 0
    """Random, drawn when the log was created: segments of another one do not belong here."""
    number: int = 0
    before: tuple[int, int] | None = None
    """Length and CRC of the segment before."""
    checkpoint: Checkpoint | None = None


class Segment(NamedTuple):
    """A complete segment. `highest`: no entry in it has a higher index."""

    number: int
    highest: int


def segment_name(number: int) -> str:
    """File name of a segment."""
    return f"log-{number:016d}"


def is_log_file(name: str) -> bool:
    """Whether the log made a file of that name."""
    return name.removesuffix(TEMPORARY) == MANIFEST or _SEGMENT.fullmatch(name.removesuffix(TEMPORARY)) is not None


def group(records: Sequence[bytes]) -> bytes:
    """Encoded records as the payload of one frame."""
    return b"\xdd" + len(records).to_bytes(4, "big") + b"".join(records)


def start_of(header: Header) -> bytes:
    """Magic and header, as every file of the log begins."""
    return MAGIC + frame(len(MAGIC), msgspec.msgpack.encode(header))


def seed_of(log: int, number: int) -> int:
    """Makes a frame of one segment nothing in another. 0 in a log of one file."""
    return zlib.crc32(b"%d %d" % (log, number)) if log else 0


class Log:
    """The log, open for writing at its end. Used by one thread at a time."""

    def __init__(self, files: Files, name: str, log: int) -> None:
        """`open_log` makes one."""
        self._files = files
        self._name = name
        self._log = log
        self._file: OpenFile | None = None
        self.complete: list[Segment] = []
        self.number = 0
        self.size = 0
        """Of the newest segment, in bytes."""
        self._crc = 0

    def write(self, records: Sequence[bytes]) -> None:
        """Append a group of encoded records. Durable after `sync`. Raises OSError: then never call it again."""
        self._write(frame(self.size, group(records), seed_of(self._log, self.number)))

    def sync(self) -> None:
        """Return when everything written is on the disk."""
        if self._file is not None:
            self._file.sync()

    def rotate(self, checkpoint: Checkpoint) -> None:
        """Begin the next segment. Everything before must be synced; `checkpoint` is what it adds up to."""
        self.close()
        number, before = self.number + 1, (self.size, self._crc)
        start = start_of(Header(FORMAT, self._name, self._log, number, before, checkpoint))
        put_whole(self._files, segment_name(number), start)
        put_whole(self._files, MANIFEST, start_of(Header(FORMAT, self._name, self._log, number)))
        self.complete.append(Segment(self.number, checkpoint.end - 1))
        self.resume(number, len(start), zlib.crc32(start))

    def release(self, index: int) -> None:
        """Remove the segments, oldest first, that hold nothing but entries below `index`.

        The record that says so must be synced, or the log would seem to miss them.
        """
        while self.complete and self.complete[0].highest < index:
            self._files.remove(segment_name(self.complete[0].number))
            self._files.sync()
            del self.complete[0]

    def resume(self, number: int, size: int, crc: int) -> None:
        """Go on at the end of a segment."""
        self.number, self.size, self._crc = number, size, crc
        self._file = self._files.append(segment_name(number))

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, data: bytes) -> None:
        if self._file is None:
            raise OSError("the log is closed")
        self._file.write(data)
        self.size += len(data)
        self._crc = zlib.crc32(data, self._crc)


def open_log(files: Files, name: str, new_id: Callable[[], int] | None = None) -> tuple[LogState, Log]:
    """Open or create the log of server `name`; cut a torn tail. Blocking: call it in a thread.

    `new_id` draws the id of a log that is created. Raises LogCorrupt, LogForeign and OSError.
    """
    names = files.names()
    for leftover in (n for n in names if n.endswith(TEMPORARY) and is_log_file(n)):
        files.remove(leftover)
    draw = _draw if new_id is None else new_id
    if MANIFEST not in names:
        _create(files, name, draw(), _numbers(names))
    elif _header(files, MANIFEST, name).format == ONE_FILE_FORMAT:
        _migrate(files, name, draw(), _numbers(names))
    files.sync()  # names that a killed process made and did not sync must not be believed and then lost
    return _Replay(files, name, _header(files, MANIFEST, name)).run(_numbers(files.names()))


def _draw() -> int:
    return secrets.randbits(60) + 1


def _numbers(names: Sequence[str]) -> list[int]:
    return [int(found[1]) for found in map(_SEGMENT.fullmatch, names) if found is not None]


def _create(files: Files, name: str, log: int, numbers: list[int]) -> None:
    """`raft.log` comes last: without it nothing was ever promised, and an empty first segment is begun anew."""
    if numbers:
        only = files.read(segment_name(numbers[0]))
        if numbers != [1] or _end_of_header(only) != len(only):
            raise corrupt(files, MANIFEST, 0, "it is missing, and its segments are there")
    blank = LogState().checkpoint
    put_whole(files, segment_name(1), start_of(Header(FORMAT, name, log, 1, None, blank)))
    put_whole(files, MANIFEST, start_of(Header(FORMAT, name, log, 1)))


def _migrate(files: Files, name: str, log: int, numbers: list[int]) -> None:
    """A log of one file becomes segment 0. Until `raft.log` has its new content, nothing has happened."""
    files.hold(MANIFEST)
    if any(numbers):
        raise LogForeign(
            f"{files.where(MANIFEST)} is a log of one file, and beside it are segments of a newer version: "
            "these are two logs. Move away the one that is older"
        )
    logger.info("%s: the log of one file becomes the first segment", files.where(MANIFEST))
    files.remove(segment_name(0))
    files.link(MANIFEST, segment_name(0))
    files.sync()
    put_whole(files, MANIFEST, start_of(Header(FORMAT, name, log, 0)))


class _Replay:
    """Reads all segments and checks each against the one before it."""

    def __init__(self, files: Files, name: str, manifest: Header) -> None:
        self.files, self.name, self.manifest = files, name, manifest
        self.log = Log(files, name, manifest.log)
        self.state: LogState | None = None
        self.before: tuple[int, int] | None = None
        self.complete: list[Segment] = []

    def run(self, numbers: list[int]) -> tuple[LogState, Log]:
        newest = max(numbers, default=-1)
        if newest < self.manifest.number:
            raise corrupt(self.files, segment_name(self.manifest.number), 0, "this segment is missing")
        for number, expected in zip(numbers, range(numbers[0], newest + 1), strict=False):
            if number != expected:
                raise corrupt(self.files, segment_name(expected), 0, "this segment is missing")
            self.read(number, sealed=number < newest)
        state = LogState() if self.state is None else self.state
        if state.oldest > state.first and state.end:
            why = f"the entries {state.first} to {state.oldest - 1} are missing, which were in the segment before it"
            raise corrupt(self.files, segment_name(numbers[0]), 0, why)
        if newest == 0:
            self.log.rotate(state.checkpoint)
        return state, self.log

    def read(self, number: int, *, sealed: bool) -> None:
        """One segment; the newest is left open for writing."""
        file, log = segment_name(number), self.log
        data = self.files.read(file)
        try:
            size = self.play(number, data, sealed=sealed)
        except Damaged as damage:
            raise corrupt(self.files, file, damage.at, str(damage)) from damage
        self.before = (size, zlib.crc32(memoryview(data)[:size]))
        if sealed:
            log.complete.append(Segment(number, self.end() - 1))
            return
        if size < len(data):
            tail = len(data) - size
            logger.warning("%s: cut a torn tail of %d bytes at offset %d", self.files.where(file), tail, size)
        # Written anew, not only synced: pages that a failed sync was to cover pass for written ever after, and on the
        # disk they are not (docs/adr/0014). What was read must be on the disk before it is believed.
        put_whole(self.files, file, data[:size])
        log.resume(number, *self.before)

    def end(self) -> int:
        return 0 if self.state is None else self.state.end

    def play(self, number: int, data: bytes, *, sealed: bool) -> int:
        """Returns how many bytes are whole."""
        header = read_header(data, self.files.where(segment_name(number)), self.name)
        self.check(number, header)
        state = self.state
        if state is None:
            state = self.state = LogState() if header.checkpoint is None else LogState.since(header.checkpoint)
        end = _end_of_header(data)
        for at, payload in frames(data, end, seed_of(header.log, number), sealed=sealed):
            try:
                state.play(decode_records(payload))
            except (msgspec.DecodeError, ValueError) as error:
                raise Damaged(end, f"a whole frame holds records that make no sense ({error})") from error
            end = at
        return end

    def check(self, number: int, header: Header) -> None:
        """Whether this segment follows the one before it. Raises Damaged."""
        if number and (header.log, header.number) != (self.manifest.log, number):
            raise Damaged(len(MAGIC), f"it is segment {header.number} of another log, or was exchanged")
        if self.state is None:
            return
        if self.before != header.before:
            raise Damaged(len(MAGIC), "the segment before it is not the one that it was written after")
        if header.checkpoint != self.state.checkpoint:
            raise Damaged(len(MAGIC), "the segment before it does not add up to what this one was begun with")


def _end_of_header(data: bytes) -> int:
    return len(MAGIC) + HEAD_BYTES + len(whole(data, len(MAGIC)) or b"")


def _header(files: Files, file: str, name: str) -> Header:
    return read_header(files.read(file), files.where(file), name)


def read_header(data: bytes, source: str, name: str) -> Header:
    """The first frame of a file of the log. Raises LogForeign, LogCorrupt."""
    if data[: len(MAGIC)] != MAGIC:
        raise LogForeign(f"{source} is not a Raft log of Tenure; move it away if this server shall start empty")
    try:
        header = msgspec.msgpack.decode(whole(data, len(MAGIC)) or b"", type=Header)
    except msgspec.DecodeError as error:
        raise damaged(source, len(MAGIC), "the header is damaged") from error
    if header.format > FORMAT:
        raise LogForeign(
            f"{source} has format {header.format}, this version reads up to {FORMAT}; run the version that wrote it"
        )
    if header.name != name:
        raise LogForeign(f"{source} belongs to server {header.name}, this is {name}; check which volume is mounted")
    return header


def corrupt(files: Files, file: str, at: int, why: str) -> LogCorrupt:
    """The error for a damaged file."""
    return damaged(files.where(file), at, why)


def damaged(source: str, at: int, why: str) -> LogCorrupt:
    """The error for a damaged file, and the way out."""
    return LogCorrupt(
        f"{source} is damaged at offset {at}: {why}. Nothing was changed. If the other servers are healthy, move the "
        "directory away and start again: the server rejoins with an empty disk and copies the log from them "
        "(docs/durability.md, Replacing a disk).",
    )
