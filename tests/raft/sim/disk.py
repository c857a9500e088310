"""The log and the snapshots of a simulated host, on a simulated directory (`tenured.simulation.files`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tenured.raft.journal import Journal
from tenured.raft.records import LogState
from tenured.raft.snapfiles import Done
from tenured.raft.wal import Log
from tenured.raft.writer import LogQueue
from tenured.simulation.files import SimDisk, SimFile, SimFiles

if TYPE_CHECKING:
    from tests.raft.sim.host import Host


__all__ = ["SimDisk", "SimFile", "SimFiles", "SimWorker", "SimWriter", "WatchedJournal"]


class SimWriter(LogQueue):
    """In place of LogWriter: its steps are events; the process may die between and within them."""

    def __init__(self, host: Host, log: Log) -> None:
        super().__init__(log, host.synced)
        self.host = host
        self.running: Iterator[None] | None = None
        self.syncing = False  # True: the next sync takes until the script says otherwise

    @property
    def waiting(self) -> list[bytes]:
        """Records that nothing was done about yet."""
        return self._waiting

    @waiting.setter
    def waiting(self, records: list[bytes]) -> None:
        self._waiting = records

    def append(self, record: bytes) -> int:
        if self.host.one_more_effect():
            return super().append(record)
        self._sequence += 1
        return self._sequence

    def take_over(self) -> None:
        """What the writer's thread took with it before the process died: it may have written the next group."""
        if self.running is None and (batch := self.take()) is not None:
            next(self.steps(batch), None)

    def pump(self) -> None:
        """Begin a round if there is something and none runs. A dead process writes nothing."""
        if self.syncing or self.running is not None or self.host.engine is None or self.host.writer is not self:
            return
        batch = self.take()
        if batch is not None:
            self.running = self.steps(batch)
            self.go_on()

    def go_on(self) -> None:
        world = self.host.world
        while self.running is not None:
            over = next(self.running, self) is self
            if self.host.dead:
                self.host.die()
                return
            if over:
                self.running = None
                self.pump()
            elif world.sync_time:
                world.at(world.rng.random() * world.sync_time, self.go_on, self.host, quiet=True)
                return


class SimWorker:
    """In place of SnapshotWorker: its steps are events in virtual time; the process may die between and within them."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.jobs: deque[tuple[Iterator[None], Done]] = deque()

    def submit(self, steps: Iterator[None], done: Done) -> None:
        self.jobs.append((steps, done))
        if len(self.jobs) == 1:
            self.later()

    def writes(self) -> bool:
        """Whether the first job is an own snapshot."""
        return self.jobs[0][0].__name__ == "_write"

    def later(self) -> None:
        world = self.host.world
        world.at(world.rng.random() * world.snapshot_time / 10, self.work, self.host)

    def work(self) -> None:
        """A step of the first job; all of them at once where the disk takes no time."""
        steps, done = self.jobs[0]
        error = None
        try:
            while next(steps, self) is not self:
                if self.host.world.snapshot_time or self.host.dead:
                    self.later()
                    return
        except Exception as failure:  # noqa: BLE001  (as the thread does)
            error = failure
        if not self.host.dead:
            done(error)  # it may submit more: the job is still there, so that nobody else begins
        self.jobs.popleft()
        if self.jobs:
            self.later()


class WatchedJournal(Journal):
    """Tells the checker of every change."""

    def __init__(self, host: Host, state: LogState, log: Log) -> None:
        self.host = host
        super().__init__(state, host.writer, segment_size=log.size, segment_bytes=host.world.segment_bytes)

    def add(self, command: bytes, idx: int, term: int) -> None:
        before = self[-1] if len(self) else None
        super().add(command, idx, term)
        self.host.world.check.added(self.host, self[-1], before)

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803
        if entryFrom < len(self):
            self.host.world.coverage["cut of a conflict"] += 1
            self.host.world.check.cut(self.host, self[entryFrom].index)
        super().deleteEntriesFrom(entryFrom)

    def set_standing(self, *, voter: bool, born: int) -> None:
        if voter and self.host.disks > 1:
            self.host.world.coverage["a lost disk has its vote back"] += 1
        super().set_standing(voter=voter, born=born)
