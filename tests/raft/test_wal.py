"""The log's file: torn tails, damage, foreign files, a disk that is full, and what an open log says."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenured.raft import Consensus, LogCorrupt, LogForeign, NotApplied, RaftConfig, Unknown
from tenured.raft.records import Added, Ballot, Entry, LogState, Standing, encode_record
from tenured.raft.wal import FILE_NAME, DiskFile, frame, group, new_log, open_log, recover
from tenured.raft.writer import LogWriter

WAIT_S = 5.0


def entry(index: int, size: int = 20) -> bytes:
    return encode_record(Added(Entry(b"\x00" + b"c" * size, index, 1)))


def log_of(*groups: list[bytes]) -> tuple[bytes, list[int]]:
    """A log file and the offsets at which its frames begin, its end included."""
    data = new_log("s0")
    starts = []
    for records in groups:
        starts.append(len(data))
        data += frame(len(data), group(records))
    return data, [*starts, len(data)]


def read(data: bytes) -> tuple[LogState, int]:
    return recover(data, "s0", "raft.log")


def test_records_add_up() -> None:
    data, _ = log_of(
        [encode_record(Standing(True, 7)), entry(1)],
        [encode_record(Ballot(3, "s1")), entry(2)],
    )
    state, end = read(data)
    assert (state.term, state.vote, state.voter, state.born) == (3, "s1", True, 7)
    assert [e.index for e in state.entries] == [1, 2]
    assert end == len(data)


@pytest.mark.parametrize("size", [20, 2000])
def test_a_tail_torn_at_any_byte_of_the_last_record_is_cut(size: int) -> None:
    data, starts = log_of([entry(1)], [entry(2)], [entry(3, size)])
    for length in range(starts[2], len(data)):
        state, end = read(data[:length])
        assert end == starts[2], length
        assert [e.index for e in state.entries] == [1, 2]


@pytest.mark.parametrize("length", range(1, 40))
def test_a_tail_of_zeros_is_cut(length: int) -> None:
    """A file that grew, and whose blocks were never written."""
    data, starts = log_of([entry(1)])
    assert read(data + bytes(length))[1] == starts[1]


def test_a_last_record_with_a_sector_that_was_never_written_is_cut() -> None:
    data, starts = log_of([entry(1)], [entry(2, 4000)])
    hole = bytearray(data)
    hole[1024:1536] = bytes(512)
    assert read(bytes(hole))[1] == starts[1]


def test_a_flipped_bit_in_any_byte_of_a_record_before_the_tail_refuses_to_start() -> None:
    data, starts = log_of([entry(1)], [entry(2)], [entry(3)])
    for at in range(starts[1], starts[2]):
        broken = bytearray(data)
        broken[at] ^= 0x10
        with pytest.raises(LogCorrupt, match=f"offset {starts[1]}: .* move the directory away"):
            read(bytes(broken))


def test_a_flipped_bit_in_the_last_record_refuses_to_start() -> None:
    """It may have been acknowledged: a complete record with a wrong checksum is not a torn one."""
    data, starts = log_of([entry(1)], [entry(2)])
    for at in range(starts[1], starts[2]):
        broken = bytearray(data)
        broken[at] ^= 0x10
        with pytest.raises(LogCorrupt):
            read(bytes(broken))


def test_a_record_that_was_copied_to_another_place_is_not_believed() -> None:
    data, starts = log_of([entry(1)], [entry(2)])
    with pytest.raises(LogCorrupt):
        read(data + data[starts[1] :])


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: b"x" * 100, lambda d: d[:4]])
def test_a_file_that_is_no_log_is_not_touched(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(LogForeign, match="not a Raft log"):
        read(damage(new_log("s0")))


def test_the_log_of_another_server_is_refused() -> None:
    with pytest.raises(LogForeign, match="belongs to server s1, this is s0"):
        read(new_log("s1"))


def test_records_that_do_not_fit_on_each_other_refuse_to_start() -> None:
    data, _ = log_of([entry(1)], [entry(3)])
    with pytest.raises(LogCorrupt, match="make no sense"):
        read(data)


def test_opening_creates_cuts_and_locks(tmp_path: Path) -> None:
    path = tmp_path / "deep" / FILE_NAME
    state, file, size = open_log(path, "s0")
    assert state == LogState()
    with pytest.raises(LogForeign, match="in use by another process"):
        open_log(path, "s0")
    file.write(frame(size, group([entry(1)])) + b"torn")
    file.close()
    state, file, size = open_log(path, "s0")
    assert len(state.entries) == 1
    assert path.stat().st_size == size
    file.close()


# ---- the writer --------------------------------------------------------------------------------------------------


class FaultyFile:
    """A LogFile on a real one, that fails from a given write or sync on, or holds a sync until it is told to go on."""

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


def test_what_comes_during_a_sync_is_committed_as_one_group(tmp_path: Path) -> None:
    _, file, size = open_log(tmp_path / FILE_NAME, "s0")
    faulty = FaultyFile(file)
    faulty.gate.clear()
    reached, done = [], threading.Event()

    def synced(sequence: int) -> None:
        reached.append(sequence)
        if sequence == 100:
            done.set()

    writer = LogWriter(faulty, size, synced, lambda error: None)
    for index in range(1, 101):
        assert writer.append(entry(index)) == index
    faulty.gate.set()
    assert done.wait(WAIT_S)
    assert faulty.calls.count("sync") <= 2
    assert reached[-1] == 100
    writer.close()
    state, file, _ = open_log(tmp_path / FILE_NAME, "s0")
    assert [e.index for e in state.entries] == list(range(1, 101))
    file.close()


@pytest.mark.parametrize("fault", [{"writes": 1}, {"syncs": 1}])
def test_after_an_error_nothing_is_written_or_called_synced(tmp_path: Path, fault: dict[str, int]) -> None:
    _, file, size = open_log(tmp_path / FILE_NAME, "s0")
    faulty = FaultyFile(file, **fault)
    reached, errors, first, failed = [], [], threading.Event(), threading.Event()
    writer = LogWriter(
        faulty,
        size,
        lambda sequence: (reached.append(sequence), first.set()),
        lambda error: (errors.append(error), failed.set()),
    )
    writer.append(entry(1))
    assert first.wait(WAIT_S)
    writer.append(entry(2))
    assert failed.wait(WAIT_S)
    calls = list(faulty.calls)
    writer.append(entry(3))
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

    def snapshot(self) -> bytes:
        return b""

    def restore(self, data: bytes) -> None: ...


class NoLink:
    """No peers."""

    def send(self, peer: str, frame: bytes) -> bool:
        return False


class OnFaultyDisk(Consensus):
    """A server whose file the test has in its hands."""

    faulty: FaultyFile

    def open_log(self) -> Any:
        state, file, size = super().open_log()
        self.faulty = FaultyFile(file)
        return state, self.faulty, size


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
    path = tmp_path / FILE_NAME
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(LogCorrupt, match="rejoins with an empty disk"):
        await OnFaultyDisk(RaftConfig("s0", (), tmp_path, 0.15, 0.3), NoMachine(), NoLink()).start()
    assert path.read_bytes() == data
