"""The records of the write-ahead log and what they add up to. Pure: values in, values out.

Term, vote, standing and entries share one order. A vote that became durable before the entries written ahead of it
would be a promise about a log that is not there (K6).
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec


class Entry(NamedTuple):
    """One entry. The order of the fields is that of PySyncObj's journal, which reads them by position."""

    command: bytes
    index: int  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride]  # tuple.index is not used
    term: int


class Added(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The log grew by one entry."""

    entry: Entry


class CutFrom(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """All entries at `index` and above are gone: they were in conflict with the leader's."""

    index: int


class CutBelow(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """All entries below `index` are gone: a durable snapshot holds them."""

    index: int


class Replaced(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The log is exactly these entries, in one record: no crash can leave it empty (K5, K7)."""

    entries: list[Entry]


class Ballot(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The current term, and whom this server voted for in it."""

    term: int
    vote: str | None


class Standing(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Whether this disk carries a vote, and its birth stamp (see rejoin.py)."""

    voter: bool
    born: int


class Committed(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """A commit index once known. Only for a quicker start: losing it costs nothing."""

    index: int


Record = Added | CutFrom | CutBelow | Replaced | Ballot | Standing | Committed


class LogState(msgspec.Struct):
    """The sum of the records. An empty disk is `born == 0`."""

    entries: list[Entry] = msgspec.field(default_factory=list[Entry])
    term: int = 0
    vote: str | None = None
    voter: bool = False
    born: int = 0
    commit: int = 1

    def play(self, records: Iterable[Record]) -> None:
        """Apply records in order. Raises ValueError when one does not fit on those before it."""
        for record in records:
            self._play(record)

    def _play(self, record: Record) -> None:
        match record:
            case Added(entry):
                if self.entries and entry.index != self.entries[-1].index + 1:
                    raise ValueError(f"entry {entry.index} follows entry {self.entries[-1].index}")
                self.entries.append(entry)
            case CutFrom(index):
                del self.entries[self._position(index) :]
            case CutBelow(index):
                del self.entries[: self._position(index)]
            case Replaced(entries):
                self.entries = list(entries)
            case Ballot(term, vote):
                self.term, self.vote = term, vote
            case Standing(voter, born):
                self.voter, self.born = voter, born
            case Committed(index):
                self.commit = index

    def _position(self, index: int) -> int:
        if not self.entries or not self.entries[0].index <= index <= self.entries[-1].index + 1:
            raise ValueError(f"a cut at {index} outside of the log")
        return index - self.entries[0].index


encode_record = msgspec.msgpack.Encoder().encode
decode_records = msgspec.msgpack.Decoder(list[Record]).decode
