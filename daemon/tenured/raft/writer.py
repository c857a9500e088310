"""The writer thread: the only place that writes and syncs the log. The event loop never waits for it."""

import logging
import threading
from collections.abc import Callable

from tenured.raft.wal import LogFile, frame, group

logger = logging.getLogger(__name__)


class LogWriter:
    """Group commit: what came in while one sync ran is written with one write and one sync as the next.

    `on_synced(sequence)` and `on_error(error)` are called on the writer's thread; hand them over to the loop. After an
    error nothing is written any more: what the disk holds is not known then, and a second fdatasync may lie.
    """

    def __init__(
        self,
        file: LogFile,
        offset: int,
        on_synced: Callable[[int], None],
        on_error: Callable[[OSError], None],
    ) -> None:
        self._file = file
        self._offset = offset
        self._on_synced = on_synced
        self._on_error = on_error
        self._ready = threading.Condition()
        self._waiting: list[bytes] = []
        self._sequence = 0  # records ever appended; 0 <= synced sequence <= _sequence
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="raft-log", daemon=True)
        self._thread.start()

    def append(self, record: bytes) -> int:
        """Queue an encoded record; returns its sequence number (1, 2, ...), which `on_synced` will reach."""
        with self._ready:
            self._waiting.append(record)
            self._sequence += 1
            self._ready.notify()
            return self._sequence

    @property
    def sequence(self) -> int:
        """Sequence number of the last record appended."""
        return self._sequence

    def close(self) -> None:
        """Write and sync what is queued, then end the thread. Blocking: call it in a thread."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._thread.join()
        self._file.close()

    def _run(self) -> None:
        while batch := self._next():
            records, sequence = batch
            data = frame(self._offset, group(records))
            try:
                self._file.write(data)
                self._file.sync()
            except OSError as error:
                logger.critical("the Raft log cannot be written: %s", error)
                self._on_error(error)
                return
            self._offset += len(data)
            self._on_synced(sequence)

    def _next(self) -> tuple[list[bytes], int] | None:
        with self._ready:
            self._ready.wait_for(lambda: self._waiting or self._closing)
            records, self._waiting = self._waiting, []
            return (records, self._sequence) if records else None
