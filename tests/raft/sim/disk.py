"""A simulated disk: files and names that are durable, what is only written, and what a crash leaves of them.

The log and the snapshots are the real ones: `tenured.raft` writes through `SimFiles` and reads back what a crash left,
torn tails included.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tenured.raft.interface import LogCorrupt
from tenured.raft.journal import Journal
from tenured.raft.opening import open_storage
from tenured.raft.records import LogState
from tenured.raft.snapfiles import Done, place_of, snapshot_name
from tenured.raft.wal import Log, open_log
from tenured.raft.writer import LogQueue

if TYPE_CHECKING:
    from tests.raft.sim.host import Host


class SimFile:
    """Bytes on the disk, and bytes that only the kernel has."""

    def __init__(self) -> None:
        self.durable = bytearray()
        self.written = bytearray()

    def content(self) -> bytes:
        return bytes(self.durable + self.written)

    def sync(self) -> None:
        self.durable += self.written
        self.written.clear()


class SimDisk:
    """Survives its host. A kill keeps what the kernel has, a power loss a random part of it: a prefix of the bytes of
    each file, a prefix of the changes of names.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.files: dict[str, SimFile] = {}
        self.durable: dict[str, SimFile] = {}
        self.changes: list[tuple[str, SimFile | None, str]] = []  # (name, file, name that it lost)

    def crash(self, rng: random.Random, *, power: bool) -> None:
        if not power:
            return
        for change in self.changes[: rng.randint(0, len(self.changes))]:
            self._change(self.durable, *change)
        self.changes = []
        self.files = dict(self.durable)
        for file in self.files.values():
            del file.written[rng.randint(0, len(file.written)) :]
            file.sync()

    def change(self, name: str, file: SimFile | None, lost: str = "") -> None:
        self.changes.append((name, file, lost))
        self._change(self.files, name, file, lost)

    @staticmethod
    def _change(names: dict[str, SimFile], name: str, file: SimFile | None, lost: str) -> None:
        names.pop(lost, None)
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file

    def sync(self) -> None:
        for change in self.changes:
            self._change(self.durable, *change)
        self.changes = []

    @property
    def snapshot(self) -> tuple[tuple[int, int], SimFile] | None:
        """The newest that bears its name."""
        found = [(at, file) for name, file in self.files.items() if (at := place_of(name)) is not None]
        return max(found, key=lambda pair: pair[0], default=None)

    @snapshot.setter
    def snapshot(self, snapshot: tuple[tuple[int, int], SimFile]) -> None:
        self.files[snapshot_name(snapshot[0])] = self.durable[snapshot_name(snapshot[0])] = snapshot[1]

    def rot(self, rng: random.Random) -> bool:
        """Flip a bit of the newest snapshot, if what is before it gives the same state; else the server is lost."""
        found = self.snapshot
        if found is None:
            return False
        data = found[1].durable
        at, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
        data[at] ^= bit
        try:
            open_storage(SimFiles(copy.deepcopy(self)), self.name)
        except LogCorrupt:
            data[at] ^= bit
            return False
        return True

    def state(self) -> LogState:
        """What a starting process would find."""
        return open_log(SimFiles(copy.deepcopy(self)), self.name, lambda: 1)[0]


class SimFiles:
    """`tenured.raft.files.Files` on a SimDisk. `effect` tells whether a change happens: a dead process makes none;
    `room` whether a snapshot finds any.
    """

    def __init__(
        self, disk: SimDisk, effect: Callable[[], bool] = lambda: True, room: Callable[[], bool] = lambda: True
    ) -> None:
        self.disk, self.effect, self.room = disk, effect, room

    def hold(self, name: str) -> None:
        """One process a disk."""

    def names(self) -> list[str]:
        return sorted(self.disk.files)

    def where(self, name: str) -> str:
        return f"{self.disk.name}/{name}"

    def read(self, name: str) -> bytes:
        return self.disk.files[name].content()

    def open(self, name: str) -> SimReadFile:
        return SimReadFile(self.disk.files[name])

    def create(self, name: str) -> SimOpenFile:
        file = SimFile()
        if self.effect():
            self.disk.change(name, file)
        return SimOpenFile(file, self.effect, self.room if name.startswith("snapshot-") else lambda: True)

    def append(self, name: str) -> SimOpenFile:
        return SimOpenFile(self.disk.files.get(name, SimFile()), self.effect)

    def cut(self, name: str, size: int) -> None:
        if self.effect():
            file = self.disk.files[name]
            file.sync()
            del file.durable[size:]

    def link(self, old: str, new: str) -> None:
        if self.effect():
            self.disk.change(new, self.disk.files[old])

    def rename(self, old: str, new: str) -> None:
        if self.effect() and old in self.disk.files:
            self.disk.change(new, self.disk.files[old], old)

    def remove(self, name: str) -> None:
        if self.effect() and name in self.disk.files:
            self.disk.change(name, None)

    def sync(self) -> None:
        if self.effect():
            self.disk.sync()

    def close(self) -> None:
        """Nothing is held."""


class SimOpenFile:
    """An OpenFile."""

    def __init__(self, file: SimFile, effect: Callable[[], bool], room: Callable[[], bool] = lambda: True) -> None:
        self.file, self.effect, self.room = file, effect, room

    def write(self, data: bytes) -> None:
        if not self.room():
            raise OSError(28, "No space left on device")
        if self.effect():
            self.file.written += data

    def sync(self) -> None:
        if self.effect():
            self.file.sync()

    def close(self) -> None:
        """Nothing is held."""


class SimReadFile:
    """A ReadFile."""

    def __init__(self, file: SimFile) -> None:
        self.file = file

    def read(self, position: int, count: int) -> bytes:
        return self.file.content()[position : position + count]

    def close(self) -> None:
        """Nothing is held."""


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
