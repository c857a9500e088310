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


class Checkpoint(msgspec.Struct, frozen=True, array_like=True):
    """What all records before a segment add up to, but for the entries: what makes older segments dispensable.

    The log holds the entries from `first` up to `end`, without it.
    """

    term: int
    vote: str | None
    voter: bool
    born: int
    commit: int
    first: int
    end: int


class LogState(msgspec.Struct):
    """The sum of the records. An empty disk is `born == 0`.

    `entries` are those whose records are still there, one after the other and the last of them at `end - 1`. The log
    begins at `first`; entries in front of it are spare: a snapshot covers them, and should that be damaged, they and
    the snapshot before it give the same state.
    """

    entries: list[Entry] = msgspec.field(default_factory=list[Entry])
    term: int = 0
    vote: str | None = None
    voter: bool = False
    born: int = 0
    commit: int = 1
    first: int = 0
    """0: nothing was ever in the log."""
    end: int = 0

    @classmethod
    def since(cls, checkpoint: Checkpoint) -> "LogState":
        """The state where a segment begins that has none before it."""
        return cls(**msgspec.structs.asdict(checkpoint))

    @property
    def checkpoint(self) -> Checkpoint:
        """This state without its entries."""
        return Checkpoint(self.term, self.vote, self.voter, self.born, self.commit, self.first, self.end)

    @property
    def oldest(self) -> int:
        """Index of the oldest entry whose record is there; `end` when there is none."""
        return self.end - len(self.entries)

    def forget_below(self, index: int) -> None:
        """Drop spare entries below `index`."""
        del self.entries[: max(0, index - self.oldest)]

    def play(self, records: Iterable[Record]) -> None:
        """Apply records in order. Raises ValueError when one does not fit on those before it."""
        for record in records:
            self._play(record)

    def _play(self, record: Record) -> None:
        match record:
            case Added(entry):
                self._add(entry)
            case CutFrom(index):
                self._check(index)
                del self.entries[max(0, index - self.oldest) :]
                self.end = index
            case CutBelow(index):
                self._check(index)
                self.first = index
            case Replaced(entries):
                self.entries, self.first, self.end = [], 0, 0
                for entry in entries:
                    self._add(entry)
            case Ballot(term, vote):
                self.term, self.vote = term, vote
            case Standing(voter, born):
                self.voter, self.born = voter, born
            case Committed(index):
                self.commit = index

    def _add(self, entry: Entry) -> None:
        if not self.end:
            self.first = self.end = entry.index
        if entry.index != self.end:
            raise ValueError(f"entry {entry.index} follows entry {self.end - 1}")
        self.entries.append(entry)
        self.end += 1

    def _check(self, index: int) -> None:
        if not self.first <= index <= self.end:
            raise ValueError(f"a cut at {index} outside of the log")


encode_record = msgspec.msgpack.Encoder().encode
decode_records = msgspec.msgpack.Decoder(list[Record]).decode
