"""The log's files: torn tails, damage, foreign files, crashes at every step, a full disk, and what an open log says."""

import copy
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
import pytest

from tenured.raft import MANIFEST, LogCorrupt, LogForeign
from tenured.raft.frames import whole
from tenured.raft.records import (
    Ballot,
    CutBelow,
    CutFrom,
    LogState,
    Standing,
    decode_records,
    encode_record,
)
from tenured.raft.wal import Header, Log, group, open_log, segment_name, start_of
from tests.raft.segments import FIRST, OLD, Fuse, PowerCut, entry
from tests.raft.sim.disk import SimDisk, SimFile, SimFiles


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
