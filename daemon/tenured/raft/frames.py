"""The unit in which the log and the snapshots are written and checked. Pure: bytes in, bytes out.

    frame = length, crc of the payload, crc of (seed, offset, length, crc of the payload); 4 bytes each, little endian;
            payload

A frame is written only after the one before it was synced. So a damaged frame that has a whole frame somewhere behind
it is damage to synced data, whatever it looks like. A damaged frame with nothing whole behind it is a torn write if it
is shorter than its length says or has a sector of zeros (a block that was never written). Anything else in the last
frame may be damage to an acknowledged entry: the road of an empty disk (rejoin.py) is safe, a guess is not. The offset
in the checksum keeps an old frame in a new place from being taken for real, the seed one of another file.
"""

import struct
import zlib
from collections.abc import Callable, Iterator

from tenured.raft.files import SECTOR

_FRAME = struct.Struct("<III")
_PLACE = struct.Struct("<QII")
HEAD_BYTES = _FRAME.size


class Damaged(Exception):
    """Synced bytes are not what was written: `at` is the offset of the frame, the text says why."""

    def __init__(self, at: int, why: str) -> None:
        super().__init__(why)
        self.at = at


def frame(offset: int, payload: bytes, seed: int = 0) -> bytes:
    """A frame as it stands at `offset` of a file with that seed."""
    crc = zlib.crc32(payload)
    return _FRAME.pack(len(payload), crc, zlib.crc32(_PLACE.pack(offset, len(payload), crc), seed)) + payload


def whole(data: bytes, at: int, seed: int = 0) -> bytes | None:
    """The payload of the frame at `at` when it is whole and belongs there."""
    head = _head(data, at, seed)
    if head is None:
        return None
    body = data[at + HEAD_BYTES : at + HEAD_BYTES + head[0]]
    return body if len(body) == head[0] and zlib.crc32(body) == head[1] else None


def frames(data: bytes, at: int, seed: int = 0, *, sealed: bool = False) -> Iterator[tuple[int, bytes]]:
    """Each whole frame from `at` on as (offset of its end, payload); ends at a torn tail.

    A sealed file was complete before anything else was written: it has no torn tail. Raises Damaged.
    """
    while at < len(data):
        body = whole(data, at, seed)
        if body is None:
            if sealed:
                raise Damaged(at, "it was complete and synced, and no longer is")
            _judge(data, at, seed)
            return
        at += HEAD_BYTES + len(body)
        yield at, body


def read_frame(read: Callable[[int, int], bytes], at: int, seed: int = 0) -> bytes:
    """The payload of the frame at `at` of a file that `read(position, count)` reads. Raises Damaged."""
    head = read(at, HEAD_BYTES)
    if len(head) == HEAD_BYTES:
        length, crc, place = _FRAME.unpack(head)
        if place == zlib.crc32(_PLACE.pack(at, length, crc), seed):
            body = read(at + HEAD_BYTES, length)
            if len(body) == length and zlib.crc32(body) == crc:
                return body
    raise Damaged(at, "it was complete and synced, and no longer is")


def _head(data: bytes, at: int, seed: int) -> tuple[int, int] | None:
    """(length, crc) of the frame at `at` when its head is whole and belongs there."""
    if at + HEAD_BYTES > len(data):
        return None
    length, crc, place = _FRAME.unpack_from(data, at)
    return (length, crc) if place == zlib.crc32(_PLACE.pack(at, length, crc), seed) else None


def _judge(data: bytes, at: int, seed: int) -> None:
    """Return when the bytes from `at` on are a torn write, else raise Damaged. See the top of this module."""
    head = _head(data, at, seed)
    behind = at + 1 if head is None else at + HEAD_BYTES + head[0]
    if any(whole(data, offset, seed) is not None for offset in range(behind, len(data) - HEAD_BYTES + 1)):
        raise Damaged(at, "there are whole records behind it")
    short = len(data) - at < HEAD_BYTES if head is None else behind > len(data)
    if not short and not _has_hole(data, at):
        raise Damaged(at, "the last record is complete and its checksum is wrong")


def _has_hole(data: bytes, at: int) -> bool:
    """Whether a sector from `at` on (the first counts from `at`) is all zeros."""
    starts = (at, *range((at // SECTOR + 1) * SECTOR, len(data), SECTOR))
    return any(not any(data[start : (start // SECTOR + 1) * SECTOR]) for start in starts)
