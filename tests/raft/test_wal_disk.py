"""The log on real disks, good and bad."""

import asyncio
import fcntl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenured.raft import MANIFEST, Consensus, LogCorrupt, LogForeign, NotApplied, RaftConfig, Unknown
from tenured.raft.files import DiskFile, DiskFiles
from tenured.raft.records import (
    Checkpoint,
    LogState,
)
from tenured.raft.wal import Log, open_log, segment_name
from tenured.raft.writer import NOTHING, Batch, LogWriter
from tests.raft.segments import FIRST, OLD, entry

WAIT_S = 5.0


# ---- on a real disk ----------------------------------------------------------------------------------------------


def test_opening_creates_cuts_and_locks(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "raft"
    files = DiskFiles(directory)
    state, log = open_log(files, "s0")
    assert state == LogState()
    with pytest.raises(LogForeign, match="in use by another process"):
        DiskFiles(directory)
    log.write([entry(1)])
    log.close()
    files.close()
    with (directory / FIRST).open("ab") as file:
        file.write(b"torn")
    files = DiskFiles(directory)
    state, log = open_log(files, "s0")
    assert len(state.entries) == 1
    assert (directory / FIRST).stat().st_size == log.size
    log.rotate(state.checkpoint)
    log.release(2)
    assert files.names() == ["lock", segment_name(2), MANIFEST]
    log.close()
    files.close()


def test_a_log_of_one_file_is_not_taken_from_a_process_that_runs(tmp_path: Path) -> None:
    """Versions before the segments lock the log itself."""
    path = tmp_path / MANIFEST
    path.write_bytes(OLD)
    with path.open() as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        files = DiskFiles(tmp_path)
        with pytest.raises(LogForeign, match="in use by another process"):
            open_log(files, "s0")
        files.close()
    assert path.read_bytes() == OLD


# ---- the writer --------------------------------------------------------------------------------------------------


class FaultyFile:
    """An OpenFile on a real one that fails from a given write or sync on, or holds a sync until it is told to go on."""

    def __init__(self, file: DiskFile, *, writes: int = 10**6, syncs: int = 10**6, error: int = 28) -> None:
        self.file, self.writes, self.syncs, self.error = file, writes, syncs, error
        self.gate = threading.Event()
        self.gate.set()
        self.calls: list[str] = []

    def write(self, data: bytes) -> None:
        self.calls.append("write")
        self.writes -= 1
        if self.writes < 0:
            self.file.write(data[: len(data) // 2])
            raise OSError(self.error, "No space left on device")
        self.file.write(data)

    def sync(self) -> None:
        assert self.gate.wait(WAIT_S)
        self.calls.append("sync")
        self.syncs -= 1
        if self.syncs < 0:
            raise OSError(5, "Input/output error")
        self.file.sync()

    def close(self) -> None:
        self.file.close()


class FaultyFiles(DiskFiles):
    """A directory whose log the test has in its hands."""

    def __init__(self, directory: Path, **fault: int) -> None:
        super().__init__(directory)
        self.fault = fault
        self.faulty: FaultyFile | None = None

    def append(self, name: str) -> FaultyFile:
        self.faulty = FaultyFile(super().append(name), **self.fault)
        return self.faulty


def faulty_log(directory: Path, **fault: int) -> tuple[FaultyFile, Log]:
    """The log of an empty directory: its file fails after the sync of the opening and what `fault` allows."""
    files = FaultyFiles(directory)
    _, log = open_log(files, "s0")
    files.close()
    assert files.faulty is not None
    for name, value in fault.items():
        setattr(files.faulty, name, value)
    files.faulty.calls.clear()
    return files.faulty, log


def test_what_comes_during_a_sync_is_committed_as_one_group(tmp_path: Path) -> None:
    faulty, log = faulty_log(tmp_path)
    faulty.gate.clear()
    reached, done = [], threading.Event()

    def synced(sequence: int) -> None:
        reached.append(sequence)
        if sequence == 100:
            done.set()

    writer = LogWriter(log, synced, lambda error: None)
    for index in range(1, 101):
        assert writer.append(entry(index)) == index
        writer.flush()
    faulty.gate.set()
    assert done.wait(WAIT_S)
    assert faulty.calls.count("sync") <= 2
    assert reached[-1] == 100
    writer.close()
    files = DiskFiles(tmp_path)
    state, log = open_log(files, "s0")
    assert [e.index for e in state.entries] == list(range(1, 101))
    log.close()
    files.close()


def test_what_comes_during_a_sync_keeps_its_segments() -> None:
    first, second = (Checkpoint(1, None, True, 1, 0, 1, end) for end in (2, 4))
    running = Batch([([b"1"], first), ([b"2"], None)], 2, 5)
    later = Batch([([b"3"], second), ([b"4"], None)], 4, 0)
    assert NOTHING.then(running) == running
    assert running.then(later) == Batch([([b"1"], first), ([b"2", b"3"], second), ([b"4"], None)], 4, 5)


@pytest.mark.parametrize("fault", [{"writes": 1}, {"syncs": 1}])
def test_after_an_error_nothing_is_written_or_called_synced(tmp_path: Path, fault: dict[str, int]) -> None:
    faulty, log = faulty_log(tmp_path, **fault)
    reached, errors, first, failed = [], [], threading.Event(), threading.Event()
    writer = LogWriter(
        log,
        lambda sequence: (reached.append(sequence), first.set()),
        lambda error: (errors.append(error), failed.set()),
    )
    writer.append(entry(1))
    writer.flush()
    assert first.wait(WAIT_S)
    writer.append(entry(2))
    writer.flush()
    assert failed.wait(WAIT_S)
    calls = list(faulty.calls)
    writer.append(entry(3))
    writer.flush()
    writer.close()
    assert reached == [1]
    assert len(errors) == 1
    assert faulty.calls == calls


# ---- a server on a bad disk ---------------------------------------------------------------------------------------


class NoMachine:
    """A state machine that counts."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, index: int, command: bytes) -> bytes:
        self.count += 1
        return b""

    def snapshot(self) -> Iterator[bytes]:
        return iter((b"%d" % self.count,))

    def restore(self) -> "NoMachine":
        return self

    def feed(self, chunk: bytes) -> None:
        self.count = int(chunk)

    def finish(self) -> None: ...


class NoLink:
    """No peers."""

    def send(self, peer: str, frame: bytes) -> bool:
        return False


class OnFaultyDisk(Consensus):
    """A server whose file the test has in its hands."""

    files: FaultyFiles

    def open_files(self) -> FaultyFiles:
        self.files = FaultyFiles(self._config.directory)
        return self.files

    @property
    def faulty(self) -> FaultyFile:
        assert self.files.faulty is not None
        return self.files.faulty


async def lone_server(directory: Path) -> OnFaultyDisk:
    server = OnFaultyDisk(RaftConfig("s0", (), directory, 0.15, 0.3), NoMachine(), NoLink())
    ready = asyncio.Event()
    server.on_role = lambda role: ready.set() if role.ready else None
    await server.start()
    await asyncio.wait_for(ready.wait(), WAIT_S)
    return server


async def test_a_full_disk_stops_the_server_without_an_acknowledgement(tmp_path: Path) -> None:
    server = await lone_server(tmp_path)
    fatal: asyncio.Queue[BaseException] = asyncio.Queue()
    server.on_fatal = fatal.put_nowait
    server.faulty.writes = 0
    outcome = await server.propose(b"x", WAIT_S)
    assert isinstance(outcome, Unknown)
    assert isinstance(await asyncio.wait_for(fatal.get(), WAIT_S), OSError)
    assert isinstance(await server.propose(b"y", WAIT_S), NotApplied)
    assert not server.role().ready
    assert not server.role().is_leader
    await server.stop()


async def test_a_lone_server_neither_answers_nor_applies_before_its_sync_ends(tmp_path: Path) -> None:
    """The barrier: committed in memory is not committed."""
    server = await lone_server(tmp_path)
    machine = server._machine
    server.faulty.gate.clear()
    call = asyncio.ensure_future(server.propose(b"x", WAIT_S))
    done, _ = await asyncio.wait((call,), timeout=0.2)
    assert not done
    assert machine.count == 0
    server.faulty.gate.set()
    assert (await call).result == b""
    assert machine.count == 1
    await server.stop()


async def test_a_corrupt_log_refuses_to_start(tmp_path: Path) -> None:
    server = await lone_server(tmp_path)
    for _ in range(3):
        await server.propose(b"x", WAIT_S)
    await server.stop()
    path = tmp_path / FIRST
    data = bytearray(path.read_bytes())
    data[80] ^= 1
    path.write_bytes(data)
    with pytest.raises(LogCorrupt, match="rejoins with an empty disk"):
        await OnFaultyDisk(RaftConfig("s0", (), tmp_path, 0.15, 0.3), NoMachine(), NoLink()).start()
    assert path.read_bytes() == data
