"""A simulated disk: bytes that are durable, bytes that are only written, and what a crash leaves of them.

The log is the real format: what a crash leaves is read back by `tenured.raft.wal.recover`, torn tails included.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from tenured.raft.journal import Journal
from tenured.raft.records import LogState
from tenured.raft.wal import frame, group, new_log, recover

if TYPE_CHECKING:
    from tests.raft.sim.host import Host


class SimDisk:
    """Survives its host. A kill keeps what was written, a power loss keeps a random prefix of what was not synced."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.durable = bytearray(new_log(name))
        self.written = bytearray()
        self.snapshot: tuple[tuple[int, int], bytes] | None = None

    def crash(self, rng: random.Random, *, power: bool) -> None:
        if power:
            del self.written[rng.randint(0, len(self.written)) :]
        self.sync()

    def sync(self, count: int | None = None) -> None:
        count = len(self.written) if count is None else count
        self.durable += self.written[:count]
        del self.written[:count]

    def open(self) -> LogState:
        """What a starting process finds. Cuts the torn tail as the real one does."""
        assert not self.written
        state, end = recover(bytes(self.durable), self.name, self.name)
        del self.durable[end:]
        return state


class SimWriter:
    """In place of LogWriter: what comes in while one sync runs is the next frame. Time is virtual."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.disk = host.disk
        self.waiting: list[bytes] = []
        self.sequence = 0
        self.syncing = False

    def append(self, record: bytes) -> int:
        self.sequence += 1
        if self.host.one_more_effect():
            self.waiting.append(record)
        return self.sequence

    def write(self) -> None:
        """What the writer's thread took with it before the process died."""
        if self.waiting:
            offset = len(self.disk.durable) + len(self.disk.written)
            self.disk.written += frame(offset, group(self.waiting))
            self.waiting = []

    def pump(self) -> None:
        """Begin a sync if there is something and none runs. A dead process writes nothing."""
        if self.syncing or not self.waiting or self.host.engine is None or self.host.writer is not self:
            return
        self.write()
        sequence, count, world = self.sequence, len(self.disk.written), self.host.world
        self.syncing = True
        duration = world.sync_time * world.rng.random()

        def done() -> None:
            self.syncing = False
            self.disk.sync(count)
            self.host.synced(sequence)
            self.pump()

        if duration:
            world.at(duration, done, self.host, quiet=True)
        else:
            done()


class SimStore:
    """SnapshotStore: writing takes a random time, then the rename makes it durable. Never back to an older one."""

    goes_back = False  # for a mutant

    def __init__(self, host: Host) -> None:
        self.host = host

    def read(self) -> tuple[tuple[int, int], bytes] | None:
        self.host.world.spend(self.host.world.chunk_time)
        return self.host.disk.snapshot

    def write(self, at: tuple[int, int], data: bytes, done: Callable[[bool], None]) -> None:
        world = self.host.world
        world.at(world.rng.random() * world.snapshot_time, lambda: done(self._store(at, data)), self.host)

    def put(self, at: tuple[int, int], data: bytes) -> None:
        self._store(at, data)

    def _store(self, at: tuple[int, int], data: bytes) -> bool:
        old = self.host.disk.snapshot
        if (old is not None and old[0] >= at and not self.goes_back) or not self.host.one_more_effect():
            return False
        self.host.disk.snapshot = (at, data)
        return True


class WatchedJournal(Journal):
    """Tells the checker of every change."""

    def __init__(self, host: Host, state: LogState) -> None:
        self.host = host
        super().__init__(state, host.writer)

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
