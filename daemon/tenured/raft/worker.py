"""The thread that writes snapshots. Not the log's: that one must not wait for megabytes."""

import queue
import threading
from collections.abc import Callable, Iterator
from functools import partial

from tenured.raft.snapfiles import Done

PAUSE_S = 0.001
"""Between two steps. A step that encodes holds the interpreter's lock; in the pause the event loop gets its turn."""

_Job = tuple[Iterator[None], Done]


class SnapshotWorker:
    """Runs one job after the other. `post` brings a call to the loop's thread."""

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        self._post = post
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="raft-snapshots", daemon=True)
        self._thread.start()

    def submit(self, steps: Iterator[None], done: Done) -> None:
        """Run `steps` to their end, then call `done` on the loop: with the exception that ended them, or None."""
        self._jobs.put((steps, done))

    def close(self) -> None:
        """End after the step that runs: a snapshot that is not finished is begun anew after the next start."""
        self._closing.set()
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closing.is_set():
            steps, done = job
            error: Exception | None = None
            try:
                for _ in steps:
                    if self._closing.wait(PAUSE_S):
                        return
            except Exception as failure:  # noqa: BLE001  (told on the loop, whatever it is)
                error = failure
            self._post(partial(done, error))
