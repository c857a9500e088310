"""A simulated directory: bytes and names that are durable, what is only written, and what a crash leaves of them.

`tenured.raft` writes its log and its snapshots through `SimFiles`, in their real formats, and reads back what a crash
left: torn tails included.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

from tenured.raft.interface import LogCorrupt
from tenured.raft.opening import open_storage
from tenured.raft.records import LogState
from tenured.raft.snapfiles import place_of, snapshot_name
from tenured.raft.wal import open_log


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
