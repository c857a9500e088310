"""The writer thread: the only place that writes and syncs the log. The event loop never waits for it."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import NamedTuple, Protocol

from tenured.raft.records import Checkpoint

logger = logging.getLogger(__name__)


class WritableLog(Protocol):
    """What the thread does to the log (wal.Log). All may raise OSError."""

    def write(self, records: Sequence[bytes]) -> None:
        """Append a group."""
        ...

    def sync(self) -> None:
        """Return when it is on the disk."""
        ...

    def rotate(self, checkpoint: Checkpoint) -> None:
        """Begin the next segment."""
        ...

    def release(self, index: int) -> None:
        """Remove segments with nothing but entries below `index`."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class Batch(NamedTuple):
    """What one round of the writer does: parts, each synced before the next segment begins; then the removal."""

    parts: list[tuple[list[bytes], Checkpoint | None]]
    sequence: int
    release: int
    """Index below which no entry is needed; 0: nothing is to be removed."""

    def then(self, later: "Batch") -> "Batch":
        """Both as one: what belongs to one segment is written at once."""
        *parts, (records, _) = self.parts
        (more, checkpoint), *rest = later.parts
        parts += [([*records, *more], checkpoint), *rest]
        return Batch(parts, later.sequence, max(self.release, later.release))


NOTHING = Batch([([], None)], 0, 0)


class LogQueue:
    """What waits to be written, and how it is written. Whoever drives it runs the `steps` of one `take` at a time."""

    def __init__(self, log: WritableLog, on_synced: Callable[[int], None]) -> None:
        self._log = log
        self._on_synced = on_synced
        self._parts: list[tuple[list[bytes], Checkpoint | None]] = []
        self._waiting: list[bytes] = []
        self._release = 0
        self._sequence = 0  # records ever appended; 0 <= synced sequence <= _sequence

    @property
    def sequence(self) -> int:
        """Sequence number of the last record appended."""
        return self._sequence

    def append(self, record: bytes) -> int:
        """Queue an encoded record; returns its sequence number (1, 2, ...), which `on_synced` will reach."""
        self._waiting.append(record)
        self._sequence += 1
        return self._sequence

    def flush(self) -> None:
        """The turn is over: what it appended may be written."""

    def rotate(self, checkpoint: Checkpoint) -> None:
        """Begin a segment behind what was appended so far, which adds up to `checkpoint`."""
        self._parts.append((self._waiting, checkpoint))
        self._waiting = []

    def release(self, index: int) -> None:
        """Once all that was appended so far is synced, remove the segments that hold nothing from `index` on."""
        self._release = index

    def take(self) -> Batch | None:
        """All that waits; None when nothing does."""
        if not (self._waiting or self._parts or self._release):
            return None
        batch = Batch([*self._parts, (self._waiting, None)], self._sequence, self._release)
        self._parts, self._waiting, self._release = [], [], 0
        return batch

    def steps(self, batch: Batch) -> Iterator[None]:
        """Write and sync a batch; a power cut may come wherever this yields, and within each step. Raises OSError."""
        for records, checkpoint in batch.parts:
            if records:
                self._log.write(records)
                yield
                self._log.sync()
            if checkpoint is not None:
                yield
                self._log.rotate(checkpoint)
        self._on_synced(batch.sequence)
        if batch.release:
            yield
            self._remove(batch.release)

    def _remove(self, index: int) -> None:
        try:
            self._log.release(index)
        except OSError as error:  # nothing is lost by a segment too many; the next snapshot asks again
            logger.warning("segments of the Raft log that are no longer needed could not be removed: %s", error)


class LogWriter(LogQueue):
    """Group commit: what came in while one sync ran is written with one write and one sync as the next.

    `on_synced(sequence)` and `on_error(error)` are called on the writer's thread; hand them over to the loop. After an
    error nothing is written any more: what the disk holds is not known then, and a second fdatasync may lie. All but
    `close` are called on one thread.
    """

    def __init__(self, log: WritableLog, on_synced: Callable[[int], None], on_error: Callable[[OSError], None]) -> None:
        super().__init__(log, on_synced)
        self._on_error = on_error
        # One word to the thread costs one wake-up. A Condition wakes it while its lock is still held, and once more.
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="raft-log", daemon=True)
        self._thread.start()

    def flush(self) -> None:
        """Begin to write what was appended. Not before the turn has sent: both want the interpreter."""
        if batch := self.take():
            self._batches.put(batch)

    def close(self) -> None:
        """Write and sync what was appended, then end the thread. Blocking: call it in a thread, after the last turn."""
        self.flush()
        self._batches.put(None)
        self._thread.join()
        self._log.close()

    def _run(self) -> None:
        closing = False
        while not closing:
            batch, closing = self._next()
            try:
                for _ in self.steps(batch) if batch is not NOTHING else ():
                    pass
            except OSError as error:
                logger.critical("the Raft log cannot be written: %s", error)
                self._on_error(error)
                return

    def _next(self) -> tuple[Batch, bool]:
        """All that was flushed by now, at least one; and whether it is the last."""
        batch = NOTHING
        found = self._batches.get()
        while found is not None:
            batch = batch.then(found)
            if self._batches.empty():
                return batch, False
            found = self._batches.get()
        return batch, True
