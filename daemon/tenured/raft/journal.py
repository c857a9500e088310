"""The log as the engine sees it: in memory, every change written ahead. Takes the place of pysyncobj.journal."""

# ruff: noqa: N802  (PySyncObj names these methods and calls them by position in the log)

from collections import deque
from typing import Protocol, overload

from tenured.raft.records import (
    Added,
    Ballot,
    Checkpoint,
    Committed,
    CutBelow,
    CutFrom,
    Entry,
    LogState,
    Record,
    Replaced,
    Standing,
    encode_record,
)
from tenured.raft.wal import SEGMENT_BYTES


class RecordSink(Protocol):
    """Where records go: the writer's thread, or a simulated disk."""

    @property
    def sequence(self) -> int:
        """Sequence number of the last record appended; 0 before the first."""
        ...

    def append(self, record: bytes) -> int:
        """Queue an encoded record, return its sequence number."""
        ...

    def rotate(self, checkpoint: Checkpoint) -> None:
        """Begin a segment behind the records so far, which add up to `checkpoint`."""
        ...

    def release(self, index: int) -> None:
        """Once the records so far are on the disk, drop the segments with nothing but entries below `index`."""
        ...


class Journal:
    """Entries, ballot and standing. Never empty once the engine has started: it holds at least the bootstrap entry."""

    def __init__(
        self, state: LogState, sink: RecordSink, *, segment_size: int = 0, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        """Take `state` over. The newest segment has `segment_size` bytes; one of `segment_bytes` is full."""
        self._entries = state.entries
        self._sink = sink
        self._floor, self._segment_size, self._segment_bytes = state.first, segment_size, segment_bytes
        self.bytes = sum(len(entry.command) for entry in self._entries)
        """Of all commands in the log."""
        self._commit = self._commit_written = state.commit
        self.term, self.vote = state.term, state.vote
        self.voter, self.born = state.voter, state.born
        self._unsynced: deque[tuple[int, int]] = deque()  # (sequence of the record, index of its entry)
        self.durable_index = self._entries[-1].index if self._entries else 0

    # ---- ours ----------------------------------------------------------------------------------------------------

    @property
    def sequence(self) -> int:
        """Sequence number of the last record that the log was given."""
        return self._sink.sequence

    @property
    def first(self) -> Entry:
        """The oldest entry that is still here. It is committed: the bootstrap entry or part of a snapshot."""
        return self._entries[0]

    @property
    def last(self) -> Entry:
        """The newest entry."""
        return self._entries[-1]

    def at(self, index: int) -> Entry | None:
        """The entry at `index`, None when the log does not hold it."""
        position = index - self._entries[0].index
        return self._entries[position] if 0 <= position < len(self._entries) else None

    def between(self, index: int, limit: int) -> list[Entry]:
        """Up to `limit` entries from `index` on; none when `index` lies below the log."""
        position = index - self._entries[0].index
        return self._entries[position : position + limit] if position >= 0 else []

    def cut_from(self, index: int) -> None:
        """Drop the entries at `index` and above."""
        self.deleteEntriesFrom(index - self._entries[0].index)

    def replace(self, entries: list[Entry]) -> None:
        """Make the log exactly `entries`, in one record (K5, K7)."""
        self._entries = list(entries)
        self._floor = entries[0].index
        self.bytes = sum(len(entry.command) for entry in entries)
        self._unsynced.clear()
        self._note_unsynced(self._put(Replaced(self._entries)), self._entries[-1].index)
        self.durable_index = min(self.durable_index, self._entries[-1].index)

    def set_standing(self, *, voter: bool, born: int) -> None:
        """Write down whether this disk votes, and when it was born."""
        self.voter, self.born = voter, born
        self._put(Standing(voter, born))

    def synced(self, sequence: int) -> None:
        """Everything up to this record is on the disk."""
        while self._unsynced and self._unsynced[0][0] <= sequence:
            self.durable_index = self._unsynced.popleft()[1]

    def release(self, index: int) -> None:
        """Nobody will need entries below `index` from the disk. Only for what the log itself no longer holds."""
        self._sink.release(min(index, self._floor, self._entries[0].index))

    def _put(self, record: Record) -> int:
        data = encode_record(record)
        sequence = self._sink.append(data)
        self._segment_size += len(data)
        if self._segment_size >= self._segment_bytes:
            self._segment_size = 0
            self._sink.rotate(self._checkpoint())
        return sequence

    def _checkpoint(self) -> Checkpoint:
        end = self._entries[-1].index + 1 if self._entries else 0
        return Checkpoint(self.term, self.vote, self.voter, self.born, self._commit_written, self._floor, end)

    def _note_unsynced(self, sequence: int, index: int) -> None:
        self._unsynced.append((sequence, index))

    # ---- what PySyncObj calls ------------------------------------------------------------------------------------

    def add(self, command: bytes, idx: int, term: int) -> None:
        entry = Entry(command, idx, term)
        self._floor = self._floor or idx
        self._entries.append(entry)
        self.bytes += len(command)
        self._note_unsynced(self._put(Added(entry)), idx)

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N803
        if entryFrom >= len(self._entries):
            return
        index = self._entries[entryFrom].index
        self.bytes -= sum(len(entry.command) for entry in self._entries[entryFrom:])
        del self._entries[entryFrom:]
        self._put(CutFrom(index))
        self.durable_index = min(self.durable_index, index - 1)
        while self._unsynced and self._unsynced[-1][1] >= index:
            self._unsynced.pop()

    def deleteEntriesTo(self, entryTo: int) -> None:  # noqa: N803
        if entryTo > 0:
            index = self._entries[entryTo].index
            self.bytes -= sum(len(entry.command) for entry in self._entries[:entryTo])
            del self._entries[:entryTo]
            if index > self._floor:  # else the records say it already: entries came back with an older snapshot
                self._floor = index
                self._put(CutBelow(index))

    def setCurrentTerm(self, term: int, vote: str | None) -> None:
        self.term, self.vote = term, vote
        self._put(Ballot(term, vote))

    def getCurrentTerm(self) -> int:
        return self.term

    def getVotedForNodeId(self) -> str | None:
        return self.vote

    def setRaftCommitIndex(self, index: int) -> None:
        self._commit = index

    def getRaftCommitIndex(self) -> int:
        return self._commit

    def onOneSecondTimer(self) -> None:
        if self._commit != self._commit_written:
            self._commit_written = self._commit
            self._put(Committed(self._commit))

    def _destroy(self) -> None:
        """The owner of the file closes it."""

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, item: int) -> Entry: ...
    @overload
    def __getitem__(self, item: slice) -> list[Entry]: ...
    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        return self._entries[item]
