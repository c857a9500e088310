"""The threads beside the event loop, as `Consensus` needs them: simulations bring their own."""

from typing import Protocol

from tenured.raft.journal import RecordSink
from tenured.raft.snapfiles import Worker


class LogThread(RecordSink, Protocol):
    """Who writes the log."""

    def flush(self) -> None:
        """The turn is over: what it appended may be written."""
        ...

    def close(self) -> None:
        """Write and sync what is queued, and end. Blocks."""
        ...


class SnapshotThread(Worker, Protocol):
    """Who writes snapshots."""

    def close(self) -> None:
        """End soon. Blocks."""
        ...
