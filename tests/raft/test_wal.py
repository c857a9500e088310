"""The log's files: torn tails, damage, foreign files, crashes at every step, a full disk, and what an open log says."""

import asyncio
import copy
import fcntl
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from tenured.raft import MANIFEST, Consensus, LogCorrupt, LogForeign, NotApplied, RaftConfig, Unknown
from tenured.raft.files import DiskFile, DiskFiles
from tenured.raft.frames import frame, whole
from tenured.raft.records import (
    Added,
    Ballot,
    Checkpoint,
    CutBelow,
    CutFrom,
    Entry,
    LogState,
    Standing,
    decode_records,
    encode_record,
)
from tenured.raft.wal import Header, Log, group, open_log, segment_name, start_of
from tenured.raft.writer import NOTHING, Batch, LogWriter
from tests.raft.sim.disk import SimDisk, SimFile, SimFiles

FIRST = segment_name(1)
WAIT_S = 5.0


def entry(index: int, size: int = 20) -> bytes:
    return encode_record(Added(Entry(b"\x00" + b"c" * size, index, 1)))


class Segments:
    """A log on a simulated disk, written by the real code, with hands on its bytes."""

    def __init__(self) -> None:
        self.disk = SimDisk("s0")
        self.files = SimFiles(self.disk)
        self.state, self.log = open_log(self.files, "s0", lambda: 7)

    def put(self, *records: bytes) -> int:
        """Write a group; returns the offset at which its frame begins."""
        at = self.log.size
        self.state.play(decode_records(group(records)))
        self.log.write(records)
        self.log.sync()
        return at

    def rotate(self) -> None:
        self.log.rotate(self.state.checkpoint)

    def bytes(self, name: str = FIRST) -> bytearray:
        return self.disk.files[name].durable

    def read(self) -> tuple[LogState, Log]:
        return open_log(self.files, "s0", lambda: 8)


def three_records(size: int = 20) -> tuple[Segments, list[int]]:
    """A log of one segment, and the offsets of its frames and of its end."""
    log = Segments()
    starts = [log.put(entry(1)), log.put(entry(2)), log.put(entry(3, size))]
    return log, [*starts, log.log.size]


def test_records_add_up() -> None:
    log = Segments()
    log.put(encode_record(Standing(True, 7)), entry(1))
    log.put(encode_record(Ballot(3, "s1")), entry(2))
    state, again = log.read()
    assert (state.term, state.vote, state.voter, state.born) == (3, "s1", True, 7)
    assert [e.index for e in state.entries] == [1, 2]
    assert again.size == log.log.size


@pytest.mark.parametrize("size", [20, 2000])
def test_a_tail_torn_at_any_byte_of_the_last_record_is_cut(size: int) -> None:
    log, starts = three_records(size)
    data = bytes(log.bytes())
    for length in range(starts[2], len(data)):
        log.bytes()[:] = data[:length]
        state, again = log.read()
        assert again.size == len(log.bytes()) == starts[2], length
        assert [e.index for e in state.entries] == [1, 2]


@pytest.mark.parametrize("length", range(1, 40))
def test_a_tail_of_zeros_is_cut(length: int) -> None:
    """A file that grew, and whose blocks were never written."""
    log, starts = three_records()
    log.bytes().extend(bytes(length))
    assert log.read()[1].size == len(log.bytes()) == starts[3]


def test_a_last_record_with_a_sector_that_was_never_written_is_cut() -> None:
    log, starts = three_records(4000)
    log.bytes()[1024:1536] = bytes(512)
    assert log.read()[1].size == starts[2]


def test_a_flipped_bit_in_any_byte_of_a_record_before_the_tail_refuses_to_start() -> None:
    log, starts = three_records()
    for at in range(starts[1], starts[2]):
        log.bytes()[at] ^= 0x10
        before = bytes(log.bytes())
        with pytest.raises(LogCorrupt, match=f"{FIRST} is damaged at offset {starts[1]}: .* move the directory away"):
            log.read()
        assert bytes(log.bytes()) == before
        log.bytes()[at] ^= 0x10


def test_a_flipped_bit_in_the_last_record_refuses_to_start() -> None:
    """It may have been acknowledged: a complete record with a wrong checksum is not a torn one."""
    log, starts = three_records()
    for at in range(starts[2], starts[3]):
        log.bytes()[at] ^= 0x10
        with pytest.raises(LogCorrupt):
            log.read()
        log.bytes()[at] ^= 0x10


def test_a_record_that_was_copied_to_another_place_is_not_believed() -> None:
    log, starts = three_records()
    log.bytes().extend(log.bytes()[starts[1] :])
    with pytest.raises(LogCorrupt):
        log.read()


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: b"x" * 100, lambda d: d[:4]])
@pytest.mark.parametrize("name", [MANIFEST, FIRST])
def test_a_file_that_is_no_log_is_not_touched(name: str, damage: Callable[[bytes], bytes]) -> None:
    log, _ = three_records()
    log.bytes(name)[:] = damage(log.bytes(name))
    with pytest.raises(LogForeign, match="not a Raft log"):
        log.read()


def test_the_log_of_another_server_is_refused() -> None:
    log, _ = three_records()
    with pytest.raises(LogForeign, match="belongs to server s0, this is s1"):
        open_log(log.files, "s1")


def test_records_that_do_not_fit_on_each_other_refuse_to_start() -> None:
    log = Segments()
    log.put(entry(1))
    log.log.write([entry(3)])
    log.log.sync()
    with pytest.raises(LogCorrupt, match="make no sense"):
        log.read()


# ---- segments ----------------------------------------------------------------------------------------------------


def chain() -> Segments:
    """Three segments: entries 1 and 2, 3 and 4, 5."""
    log = Segments()
    log.put(encode_record(Standing(True, 7)), entry(1), entry(2))
    log.rotate()
    log.put(encode_record(Ballot(2, "s1")), entry(3), entry(4))
    log.rotate()
    log.put(entry(5))
    return log


def test_segments_add_up() -> None:
    log = chain()
    state, again = log.read()
    assert [e.index for e in state.entries] == [1, 2, 3, 4, 5]
    assert (state.term, state.vote, state.voter, state.born) == (2, "s1", True, 7)
    assert (again.number, again.size) == (3, log.log.size)


def test_a_segment_that_a_snapshot_covers_is_removed_and_its_ballots_are_not_forgotten() -> None:
    log = chain()
    log.put(encode_record(CutBelow(5)))
    log.log.release(5)
    assert segment_name(2) not in log.disk.files
    state, _ = log.read()
    assert [e.index for e in state.entries] == [5]
    assert (state.first, state.term, state.vote, state.voter, state.born) == (5, 2, "s1", True, 7)


def test_a_segment_with_one_entry_that_is_needed_stays() -> None:
    log = chain()
    log.put(encode_record(CutBelow(4)))
    log.log.release(4)
    assert FIRST not in log.disk.files
    state, _ = log.read()
    state.forget_below(state.first)
    assert [e.index for e in state.entries] == [4, 5]


def test_a_cut_of_a_conflict_that_reaches_into_a_removed_segment_is_read() -> None:
    log = chain()
    log.put(encode_record(CutFrom(4)), entry(4), entry(5))
    log.rotate()
    log.put(entry(6), encode_record(CutBelow(5)))
    log.log.release(5)
    state, _ = log.read()
    state.forget_below(state.first)
    assert [e.index for e in state.entries] == [5, 6]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_missing_segment_refuses_to_start(number: int) -> None:
    log = chain()
    del log.disk.files[segment_name(number)]
    with pytest.raises(LogCorrupt, match=r"log-\d{16} is damaged at offset 0: .*missing.*move the directory away"):
        log.read()


def test_exchanged_segments_refuse_to_start() -> None:
    log = chain()
    one, two = segment_name(1), segment_name(2)
    log.disk.files[one], log.disk.files[two] = log.disk.files[two], log.disk.files[one]
    with pytest.raises(LogCorrupt, match="segment 2 of another log, or was exchanged"):
        log.read()


def test_a_segment_of_another_log_of_the_same_server_refuses_to_start() -> None:
    """A disk that was replaced, and a file of the old one copied back."""
    log, other = chain(), Segments()
    other.log._log = 9
    other.put(entry(1), entry(2))
    other.rotate()
    log.disk.files[segment_name(2)] = other.disk.files[segment_name(2)]
    with pytest.raises(LogCorrupt, match=f"{segment_name(2)} is damaged .* another log"):
        log.read()


@pytest.mark.parametrize("number", [1, 2])
def test_a_complete_segment_has_no_torn_tail(number: int) -> None:
    """Cut at any byte, also between two records, or filled with zeros: it was synced before the next was begun."""
    log = chain()
    name = segment_name(number)
    data = bytes(log.bytes(name))
    log.bytes(name).extend(bytes(100))
    with pytest.raises(LogCorrupt, match=name):
        log.read()
    for length in range(len(data) - 1, len(data) - 80, -1):
        log.bytes(name)[:] = data[:length]
        with pytest.raises(LogCorrupt):
            log.read()


@pytest.mark.parametrize("number", [1, 2])
def test_a_flipped_bit_in_any_byte_of_a_complete_segment_refuses_to_start(number: int) -> None:
    log = chain()
    data = log.bytes(segment_name(number))
    for at in range(len(data)):
        data[at] ^= 4
        with pytest.raises((LogCorrupt, LogForeign)):
            log.read()
        data[at] ^= 4


def test_a_missing_raft_log_beside_segments_refuses_to_start() -> None:
    log = chain()
    del log.disk.files[MANIFEST]
    with pytest.raises(LogCorrupt, match="it is missing, and its segments are there"):
        log.read()


# ---- crashes at every step ---------------------------------------------------------------------------------------


class PowerCut(Exception):
    """Nothing happens after it."""


class Fuse:
    """Lets `k` changes of the disk happen, and none after."""

    def __init__(self, k: int) -> None:
        self.left = k

    def __call__(self) -> bool:
        self.left -= 1
        if self.left < 0:
            raise PowerCut
        return True


def crashes(prepare: Callable[[], Segments], work: Callable[[Segments], None]) -> Iterator[Segments]:
    """What is left when the process is killed, or the power goes, at the k-th change of the disk, for every k."""
    for power in (False, True):
        for k in itertools.count():
            log, fuse = prepare(), Fuse(k)
            log.files.effect = fuse
            log.log.resume(log.log.number, log.log.size, log.log._crc)  # with the fuse
            with suppress(PowerCut):
                work(log)
            log.files.effect = lambda: True
            for seed in range(4):
                left = copy.deepcopy(log)
                left.disk.crash(random.Random(seed), power=power)
                yield left
            if fuse.left >= 0:
                break


def test_a_crash_at_any_step_of_a_rotation_loses_nothing() -> None:
    def work(log: Segments) -> None:
        log.rotate()
        log.put(entry(6))

    for left in crashes(chain, work):
        state, again = left.read()
        assert [e.index for e in state.entries][:5] == [1, 2, 3, 4, 5]
        assert (state.term, state.vote, state.voter) == (2, "s1", True)
        left.state, left.log = state, again
        left.put(entry(state.end))
        left.rotate()
        assert left.read()[0].end == state.end


def test_a_crash_at_any_step_of_a_removal_loses_nothing() -> None:
    def prepare() -> Segments:
        log = chain()
        log.put(encode_record(CutBelow(5)))
        return log

    for left in crashes(prepare, lambda log: log.log.release(5)):
        state, _ = left.read()
        state.forget_below(state.first)
        assert [e.index for e in state.entries] == [5]
        assert (state.term, state.vote, state.voter) == (2, "s1", True)


def test_a_crash_at_any_step_of_the_creation_leaves_a_log_that_opens() -> None:
    for power in (False, True):
        for k in range(12):
            disk = SimDisk("s0")
            files = SimFiles(disk, Fuse(k))
            with suppress(PowerCut):
                open_log(files, "s0", lambda: 7)
            disk.crash(random.Random(k), power=power)
            state, _ = open_log(SimFiles(disk), "s0", lambda: 8)
            assert state == LogState()


def test_what_a_killed_process_did_not_sync_is_synced_before_it_is_believed() -> None:
    """Else the next process would acknowledge what a power cut then takes."""
    log = chain()
    log.log.write([entry(6)])
    log.disk.crash(random.Random(1), power=False)
    assert log.read()[0].end == 7
    for seed in range(8):
        left = copy.deepcopy(log)
        left.disk.crash(random.Random(seed), power=True)
        assert left.read()[0].end == 7


# ---- the log of one file -----------------------------------------------------------------------------------------


def one_file(*groups: list[bytes]) -> bytes:
    """A log as versions before the segments wrote it: format 1, no seed, one file."""
    data = b"TNRRAFT\n"
    data += frame(len(data), msgspec.msgpack.encode([1, "s0"]))
    for records in groups:
        data += frame(len(data), group(records))
    return data


OLD = one_file([encode_record(Standing(True, 7)), entry(1)], [encode_record(Ballot(3, "s1")), entry(2)], [entry(3)])


def old_disk(data: bytes = OLD) -> SimDisk:
    disk = SimDisk("s0")
    disk.files[MANIFEST] = file = SimFile()
    file.durable += data
    disk.durable = dict(disk.files)
    return disk


def is_taken_over(disk: SimDisk, entries: int = 3) -> None:
    state, log = open_log(SimFiles(disk), "s0", lambda: 7)
    assert [e.index for e in state.entries] == list(range(1, entries + 1))
    assert (state.term, state.vote, state.voter, state.born) == (3, "s1", True, 7)
    assert log.number == 1
    log.write([entry(entries + 1)])
    log.sync()
    assert open_log(SimFiles(disk), "s0")[0].end == entries + 2


def test_a_log_of_one_file_is_taken_over() -> None:
    is_taken_over(old_disk())


def test_a_torn_log_of_one_file_is_taken_over_without_its_tail() -> None:
    is_taken_over(old_disk(OLD[:-3]), entries=2)


def test_a_log_of_one_file_that_is_damaged_is_not_touched() -> None:
    disk = old_disk(OLD[:70] + b"?" + OLD[71:])
    for _ in range(2):
        with pytest.raises(LogCorrupt, match="whole records behind it"):
            open_log(SimFiles(disk), "s0")


@pytest.mark.parametrize("power", [False, True])
def test_a_crash_at_any_step_of_the_taking_over_loses_nothing(power: bool) -> None:
    for k in range(16):
        disk = old_disk()
        with suppress(PowerCut):
            open_log(SimFiles(disk, Fuse(k)), "s0", lambda: 6)
        disk.crash(random.Random(k), power=power)
        is_taken_over(disk)


def test_an_older_version_refuses_a_log_of_segments() -> None:
    """It read `raft.log` as the log, took format 1 alone, and would have started from the past."""
    disk = old_disk()
    open_log(SimFiles(disk), "s0", lambda: 7)
    data = disk.files[MANIFEST].content()
    assert data[:8] == b"TNRRAFT\n"
    assert msgspec.msgpack.decode(whole(data, 8))[0] == 2


def test_the_log_of_a_newer_version_is_refused() -> None:
    log = chain()
    log.bytes(MANIFEST)[:] = start_of(Header(3, "s0", 7, 3))
    with pytest.raises(LogForeign, match="has format 3, this version reads up to 2; run the version that wrote it"):
        log.read()


def test_a_log_of_one_file_beside_segments_is_refused() -> None:
    log = chain()
    log.bytes(MANIFEST)[:] = OLD
    with pytest.raises(LogForeign, match="these are two logs"):
        log.read()


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
