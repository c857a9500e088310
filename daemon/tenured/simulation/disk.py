"""Simulated disks: what is durable, what is only written, and what a crash leaves of it.

The Raft log lies in a directory (files.py). `StoreDisk` holds the state store as transactions, which is what
SQLite promises of its file: each is there or not, and they vanish from the end only.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from tenured.core.cells import Cell
from tenured.raft.records import Checkpoint
from tenured.raft.snapfiles import Done
from tenured.raft.writer import LogQueue, WritableLog
from tenured.simulation.timeline import NS, ProcessLoop


@dataclass
class Health:
    """How a machine's disk does."""

    sync_ns: int = 500_000
    """The longest that a sync takes, as a rule."""
    full: bool = False
    """Writes fail until there is room again."""
    lies: bool = False
    """The log's disk says "synced" before it is: what the log's barrier is against."""


@dataclass
class DiskPlace:
    """Where a disk is: whose process writes, and how the disk does."""

    loop: ProcessLoop
    health: Health
    rng: random.Random


class SimLogWriter(LogQueue):
    """In the place of `raft.writer.LogWriter`: its steps are events, and the process may die between them."""

    def __init__(
        self,
        log: WritableLog,
        place: DiskPlace,
        on_synced: Callable[[int], None],
        on_error: Callable[[OSError], None],
    ) -> None:
        super().__init__(log, on_synced)
        self._place = place
        self._told = on_synced
        self._on_error = on_error
        self._running: Iterator[None] | None = None
        self._kicked = False
        self._failed = False

    def append(self, record: bytes) -> int:
        """Queue an encoded record."""
        self._kick()
        return super().append(record)

    def rotate(self, checkpoint: Checkpoint) -> None:
        """Begin a segment."""
        self._kick()
        super().rotate(checkpoint)

    def release(self, index: int) -> None:
        """Remove segments."""
        self._kick()
        super().release(index)

    def close(self) -> None:
        """Write and sync what is queued."""
        for steps in (self._running, None):
            for _ in steps or self._steps():
                pass
        self._log.close()

    def _fail(self, error: OSError) -> None:
        self._failed, self._running = True, None
        self._on_error(error)

    def _steps(self) -> Iterator[None]:
        batch = self.take()
        if batch is not None:
            yield from self.steps(batch)

    def _kick(self) -> None:
        loop = self._place.loop
        if not self._kicked and self._running is None and not self._failed and not loop.dead:
            self._kicked = True
            loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._kicked = False
        batch = self.take()
        if batch is None:
            return
        if self._place.health.lies:
            self._told(batch.sequence)
        self._running = self.steps(batch)
        self._go_on()

    def _go_on(self) -> None:
        if self._running is None:
            return
        if self._place.health.full:
            self._fail(OSError(28, "No space left on device"))
            return
        try:
            next(self._running)
        except StopIteration:
            self._running = None
            self._begin()
        except OSError as error:
            self._fail(error)
        else:
            self._place.loop.call_later(self._place.health.sync_ns * self._place.rng.random() / NS, self._go_on)


class SimSnapshotWorker:
    """In the place of `raft.worker.SnapshotWorker`: its steps are events, and the process may die between them."""

    def __init__(self, place: DiskPlace, post: Callable[[Callable[[], None]], None]) -> None:
        self._place = place
        self._post = post
        self._jobs: deque[tuple[Iterator[None], Done]] = deque()

    def submit(self, steps: Iterator[None], done: Done) -> None:
        """Run the steps, then call `done`."""
        self._jobs.append((steps, done))
        if len(self._jobs) == 1:
            self._later()

    def close(self) -> None:
        """What is not finished stays so."""
        self._jobs.clear()

    def _later(self) -> None:
        place = self._place
        place.loop.call_later(place.health.sync_ns * place.rng.random() / NS, self._step)

    def _step(self) -> None:
        if not self._jobs:
            return
        steps, done = self._jobs[0]
        error: Exception | None = None
        try:
            if not self._place.health.full:
                if next(steps, self) is not self:
                    self._later()
                    return
            else:
                error = OSError(28, "No space left on device")
        except Exception as failure:  # noqa: BLE001  (told, as the thread does)
            error = failure
        self._jobs.popleft()
        self._post(partial(done, error))
        if self._jobs:
            self._later()


@dataclass(frozen=True)
class Stored:
    """One record on a disk."""

    cell: Cell = field(default_factory=Cell)
    entries: Mapping[str, bytes] = field(default_factory=dict[str, bytes])


Change = tuple[str, Stored | None]
"""(uid, what it is now; None: gone)"""


class StoreDisk:
    """The state store of one server."""

    def __init__(self, incarnation: str) -> None:
        self.incarnation = incarnation
        self.joining = True
        self.joined: tuple[int, str] = (0, "")
        """View under which it was reading the others, and the last uid that it has (rejoin 4)."""
        self.records: dict[str, Stored] = {}
        self.unsynced: list[list[Change]] = []

    def crash(self, rng: random.Random, *, power: bool) -> None:
        """Transactions that were not synced vanish from the end."""
        if power:
            del self.unsynced[rng.randint(0, len(self.unsynced)) :]
        self.sync(len(self.unsynced))

    def sync(self, count: int) -> None:
        """The first `count` transactions are durable."""
        for changes in self.unsynced[:count]:
            for uid, stored in changes:
                if stored is None:
                    self.records.pop(uid, None)
                else:
                    self.records[uid] = stored
        del self.unsynced[:count]
