"""Records of a log, the log of one file that versions before the segments wrote, and a power cut at any step."""

import msgspec

from tenured.raft.frames import frame
from tenured.raft.records import (
    Added,
    Ballot,
    Entry,
    Standing,
    encode_record,
)
from tenured.raft.wal import group, segment_name

FIRST = segment_name(1)


def entry(index: int, size: int = 20) -> bytes:
    return encode_record(Added(Entry(b"\x00" + b"c" * size, index, 1)))


def one_file(*groups: list[bytes]) -> bytes:
    """A log as versions before the segments wrote it: format 1, no seed, one file."""
    data = b"TNRRAFT\n"
    data += frame(len(data), msgspec.msgpack.encode([1, "s0"]))
    for records in groups:
        data += frame(len(data), group(records))
    return data


OLD = one_file([encode_record(Standing(True, 7)), entry(1)], [encode_record(Ballot(3, "s1")), entry(2)], [entry(3)])


class PowerCut(Exception):
    """Nothing happens after it."""


class Fuse:
    """Lets `k` changes of the disk happen, and none after."""

    def __init__(self, k: int) -> None:
        self.left = k

    def __call__(self) -> bool:
        self.left -= 1
        if self.left < 0:
            raise PowerCut
        return True
