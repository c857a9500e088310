"""Records of agents that sleep or rest, in as few bytes as they can be kept.

Of an agent that nothing is asked of its host keeps what its owner had committed [sleep_settled], to go on with. As a
map of Python's that takes several times the bytes of what is in it, so a small one is kept as one string of bytes; to
pack and to unpack it takes a microsecond or two. A large one stays as it is: to copy it would take longer, and save
little.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tenured.core.cells import Version
from tenured.core.frames import Known

PACKED_BYTES = 8 * 1024
"""Of entries; more of them are kept as they are."""
ENTRY_BYTES = 150
"""What a record that is packed takes beside its bytes, and each entry of one that is not."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, bytes]).decode


class Folded(msgspec.Struct, frozen=True, gc=False):
    """What one owner had committed."""

    epoch: int
    """Of the version: it may be an earlier one, if nothing has been written since."""
    seq: int
    record: bytes | Mapping[str, bytes] | None
    """As it is stored, packed or not; None: it is not kept, and is read again."""

    @property
    def known(self) -> Known:
        """To open the record with."""
        packed = self.record
        return Known(Version(self.epoch, self.seq), _decode(packed) if isinstance(packed, bytes) else packed)

    @property
    def packed(self) -> bool:
        """Whether it is all here, in few bytes."""
        return isinstance(self.record, bytes)

    @property
    def bytes(self) -> int:
        """That the record takes."""
        if self.record is None:
            return 0
        if isinstance(self.record, bytes):
            return len(self.record) + ENTRY_BYTES
        return sum(len(data) + ENTRY_BYTES for data in self.record.values())

    @property
    def bare(self) -> Folded:
        """The same without the record: its version is enough to read it again."""
        return Folded(self.epoch, self.seq, None)


def fold(known: Known) -> Folded:
    """What an owner had committed, all of it."""
    entries = known.entries
    if not entries:
        return Folded(known.version.epoch, known.version.seq, None)
    small = sum(map(len, entries.values())) <= PACKED_BYTES
    return Folded(known.version.epoch, known.version.seq, _encode(entries) if small else entries)
