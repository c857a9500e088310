"""Snapshots: their files, what a crash, damage or a full disk makes of them, and their way to another server."""

import copy
import itertools
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tenured.raft import LogCorrupt, LogForeign
from tenured.raft.messages import SnapshotPart
from tenured.raft.opening import Found, open_storage, restoring
from tenured.raft.records import Added, CutBelow, Entry, LogState, encode_record
from tenured.raft.snapfiles import DAMAGED, INCOMING, Done, SnapshotStore, snapshot_name
from tenured.raft.snapshots import RESEND_S, WINDOW_BYTES, Snapshots
from tests.raft.raft_servers import chunks
from tests.raft.segments import Fuse, PowerCut
from tests.raft.sim.disk import SimDisk, SimFiles


class AtOnce:
    """A worker that runs a job when it is submitted."""

    def submit(self, steps: Iterator[None], done: Done) -> None:
        error = None
        try:
            for _ in steps:
                pass
        except Exception as failure:
            if isinstance(failure, PowerCut):
                raise
            error = failure
        done(error)


def entry(index: int) -> Entry:
    return Entry(b"\x00%d" % index, index, 1)


class Server:
    """A disk with a log of 30 entries, five a segment, and snapshots, each with the log cut behind it."""

    def __init__(self, *snapshots: int) -> None:
        self.disk = SimDisk("s0")
        self.files = SimFiles(self.disk)
        self.found = open_storage(self.files, "s0", lambda: 7)
        self.told: list[Exception | None] = []
        self.store = SnapshotStore(self.files, AtOnce(), self.found.kept)
        self.state = LogState()
        for index in range(1, 31):
            self.log([Added(entry(index))])
            if index % 5 == 0:
                self.found.log.rotate(self.state.checkpoint)
        for index in snapshots:
            self.snapshot(index)
            self.log([CutBelow(index - 1)])
            self.found.log.release(self.store.needed_from)

    def log(self, records: list[Any]) -> None:
        self.found.log.write([encode_record(record) for record in records])
        self.found.log.sync()
        self.state.play(records)

    def snapshot(self, index: int) -> None:
        self.store.write(entry(index - 1), entry(index), iter(state(index)), self.told.append)

    def content(self, index: int) -> bytearray:
        return self.disk.files[snapshot_name((index, 1))].durable

    def reopen(self) -> Found:
        return open_storage(self.files, "s0", lambda: 8)


def state(index: int) -> list[bytes]:
    """The chunks of the state after `index`."""
    return [b"state after %d, chunk %d" % (index, n) for n in range(3)]


def snapshots_of(disk: SimDisk) -> list[str]:
    return sorted(name for name in disk.files if name.startswith("snapshot-"))


def first_of(found: Found) -> int:
    return found.state.entries[0].index


# ---- the files ---------------------------------------------------------------------------------------------------


def test_the_newest_two_are_kept_and_the_log_reaches_back_to_the_older() -> None:
    server = Server(10, 20, 25)
    assert server.told == [None, None, None]
    assert snapshots_of(server.disk) == [snapshot_name((20, 1)), snapshot_name((25, 1))]
    found = server.reopen()
    assert [kept.at for kept in found.kept] == [(25, 1), (20, 1)]
    assert chunks(server.files, (25, 1)) == state(25)
    assert found.state.oldest == first_of(found) == 24  # what is spare is on the disk only
    assert "log-0000000000000004" in server.disk.files  # entries 16 to 20
    assert "log-0000000000000003" not in server.disk.files


def test_nothing_is_removed_for_the_first_snapshot() -> None:
    """Should it be damaged, the log alone gives the state."""
    server = Server(20)
    assert server.store.needed_from == 1
    assert "log-0000000000000001" in server.disk.files


def test_an_older_snapshot_does_not_replace_a_newer_one() -> None:
    """K7: own ones and the leader's come in any order."""
    server = Server(10, 20)
    server.snapshot(15)
    assert server.store.newest.at == (20, 1)
    assert snapshots_of(server.disk) == [snapshot_name((10, 1)), snapshot_name((20, 1))]


def test_a_crash_at_any_step_leaves_the_state_before_or_after() -> None:
    """K5: written, synced, renamed, the name synced, the oldest removed, the log cut, its segments removed."""

    def work(server: Server) -> None:
        server.snapshot(25)
        server.log([CutBelow(24)])
        server.found.log.release(server.store.needed_from)

    seen = set()
    for power in (False, True):
        for k in itertools.count():
            server = Server(10, 20)
            fuse = server.files.effect = Fuse(k)
            server.found.log.resume(server.found.log.number, server.found.log.size, server.found.log._crc)
            with suppress(PowerCut):
                work(server)
            server.files.effect = lambda: True
            for seed in range(4):
                left = copy.deepcopy(server)
                left.disk.crash(random.Random(seed), power=power)
                found = left.reopen()
                newest = found.kept[0].at[0]
                seen.add(newest)
                assert newest in (20, 25)
                assert chunks(left.files, (newest, 1)) == state(newest)
                assert first_of(found) <= newest - 1
                assert found.state.end == 31
                assert not any(name.endswith(".new") for name in left.disk.files)
            if fuse.left >= 0:
                break
    assert seen == {20, 25}


def test_a_flipped_bit_anywhere_in_the_newest_is_survived_by_the_one_before_it_and_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(10, 20)
    for at in range(len(server.content(20))):
        damaged = copy.deepcopy(server)
        damaged.content(20)[at] ^= 0x10
        found = damaged.reopen()
        assert [kept.at for kept in found.kept] == [(10, 1)]
        assert first_of(found) == 9
        assert found.state.end == 31
        assert snapshot_name((20, 1)) + DAMAGED in damaged.disk.files
    assert "is damaged at offset" in caplog.text


def test_a_snapshot_that_is_cut_short_is_damaged() -> None:
    server = Server(10, 20)
    whole = bytes(server.content(20))
    for length in range(len(whole)):
        server.content(20)[:] = whole[:length]
        assert copy.deepcopy(server).reopen().kept[0].at == (10, 1)
    server.content(20)[:] = whole + b"x"
    assert server.reopen().kept[0].at == (10, 1)


def test_a_damaged_only_snapshot_is_survived_by_a_log_that_has_everything() -> None:
    server = Server(20)
    server.content(20)[40] ^= 1
    found = server.reopen()
    assert found.kept == []
    assert [e.index for e in found.state.entries] == list(range(1, 31))


def test_a_snapshot_that_was_removed_by_hand_is_survived() -> None:
    server = Server(10, 20)
    del server.disk.files[snapshot_name((20, 1))]
    found = server.reopen()
    assert found.kept[0].at == (10, 1)
    assert first_of(found) == 9


def test_two_damaged_snapshots_refuse_to_start() -> None:
    server = Server(10, 20, 25)
    for index in (20, 25):
        server.content(index)[40] ^= 1
    before = {name: file.content() for name, file in server.disk.files.items()}
    with pytest.raises(LogCorrupt, match=rf"{snapshot_name((25, 1))} is damaged at offset \d+: .*no longer reaches.*"):
        server.reopen()
    assert {name: file.content() for name, file in server.disk.files.items()} == before


def test_no_snapshot_and_a_log_that_was_cut_refuse_to_start() -> None:
    server = Server(10, 20, 25)
    for index in (20, 25):
        del server.disk.files[snapshot_name((index, 1))]
    with pytest.raises(LogCorrupt, match=r"no snapshot reaches up to there.*move the directory away"):
        server.reopen()


def test_a_snapshot_under_the_name_of_another_is_damaged() -> None:
    server = Server(10, 20)
    server.disk.files[snapshot_name((28, 1))] = server.disk.files[snapshot_name((20, 1))]
    assert server.reopen().kept[0].at == (20, 1)


def test_a_state_that_this_version_cannot_read_refuses_to_start() -> None:
    class Newer:
        def restore(self) -> "Newer":
            return self

        def feed(self, chunk: bytes) -> None:
            raise ValueError("a snapshot of schema version 9; this server reads 1")

        def finish(self) -> None: ...

    server = Server(10)
    with pytest.raises(LogForeign, match=r"snapshot-\d.* schema version 9; .* run the version that wrote it"):
        list(restoring(server.files, server.reopen(), Newer()))


# ---- pieces ------------------------------------------------------------------------------------------------------


def parts_of(server: Server, index: int, size: int = 10) -> list[SnapshotPart]:
    data, kept = bytes(server.content(index)), server.store.newest
    return [SnapshotPart(kept.at, kept.size, kept.crc, at, data[at : at + size]) for at in range(0, len(data), size)]


def receiver() -> tuple[Server, Snapshots, list[Exception | None]]:
    server, ended = Server(), []
    return server, Snapshots(server.store), ended


def test_a_snapshot_in_pieces_is_kept_when_all_are_there() -> None:
    server, snapshots, ended = receiver()
    for part in parts_of(Server(20), 20):
        assert not ended
        snapshots.take(part, lambda: None, ended.append)
    assert ended == [None]
    assert server.store.newest.at == (20, 1)
    assert chunks(server.files, (20, 1)) == state(20)
    assert server.reopen().kept[0].at == (20, 1)


def test_pieces_that_come_twice_or_too_early_are_not_taken() -> None:
    _, snapshots, ended = receiver()
    parts = parts_of(Server(20), 20)
    assert snapshots.take(parts[3], lambda: None, ended.append) == 0  # its beginning is missing
    for part in (parts[0], parts[1], parts[1], parts[3], parts[0]):
        written = snapshots.take(part, lambda: None, ended.append)
    assert written == 20
    for part in parts[2:]:
        snapshots.take(part, lambda: None, ended.append)
    assert ended == [None]


def test_a_damaged_piece_keeps_nothing() -> None:
    """N5: the checksum of the whole decides."""
    server, snapshots, ended = receiver()
    for part in parts_of(Server(20), 20):
        data = bytes(b ^ 1 for b in part.data) if part.position == 30 else part.data
        snapshots.take(SnapshotPart(part.at, part.size, part.crc, part.position, data), lambda: None, ended.append)
    assert len(ended) == 1
    assert "checksum" in str(ended[0])
    assert server.store.newest is None
    assert not snapshots_of(server.disk) or snapshots_of(server.disk) == [INCOMING]


def test_pieces_that_find_no_room_make_room_for_the_log() -> None:
    server, snapshots, ended = receiver()
    parts = parts_of(Server(20), 20)
    snapshots.take(parts[0], lambda: None, ended.append)
    server.files.room = lambda: False
    server.store._incoming._file.room = server.files.room
    snapshots.take(parts[1], lambda: None, ended.append)
    assert "No space left" in str(ended[0])
    assert INCOMING not in server.disk.files
    snapshots.stop_receiving()
    server.files.room = lambda: True
    for part in parts:
        snapshots.take(part, lambda: None, ended.append)
    assert ended[1:] == [None]


def test_a_leader_that_begins_another_snapshot_is_followed() -> None:
    server, snapshots, ended = receiver()
    for part in parts_of(Server(20), 20)[:3]:
        snapshots.take(part, lambda: None, ended.append)
    for part in parts_of(Server(25), 25):
        snapshots.take(part, lambda: None, ended.append)
    assert ended == [None]
    assert server.store.newest.at == (25, 1)


def test_what_came_before_a_crash_is_forgotten() -> None:
    server, snapshots, ended = receiver()
    for part in parts_of(Server(20), 20)[:3]:
        snapshots.take(part, lambda: None, ended.append)
    assert INCOMING in server.disk.files
    assert server.reopen().kept == []
    assert INCOMING not in server.disk.files


def sender(size: int) -> Snapshots:
    server = Server()
    server.store.write(entry(19), entry(20), iter([b"x" * size]), lambda _: None)
    return Snapshots(server.store)


def drain(snapshots: Snapshots, now: float = 0.0) -> list[SnapshotPart]:
    parts = []
    while (part := snapshots.next_part("b", 0, now)).data:
        parts.append(part)
    return parts


def test_a_window_is_sent_and_no_more_until_the_follower_has_written_it() -> None:
    snapshots = sender(3 * WINDOW_BYTES)
    first = drain(snapshots)
    assert sum(len(part.data) for part in first) == WINDOW_BYTES
    assert not snapshots.has_room("b")
    snapshots.acked("b", first[0].at, first[0].crc, WINDOW_BYTES // 2, now=0.1)
    assert sum(len(part.data) for part in drain(snapshots, 0.1)) == WINDOW_BYTES // 2


def test_pieces_are_sent_again_after_a_silence_from_where_the_follower_is() -> None:
    snapshots = sender(3 * WINDOW_BYTES)
    first = drain(snapshots)
    snapshots.acked("b", first[0].at, first[0].crc, first[1].position, now=0.1)
    assert drain(snapshots, 0.1)[0].position == WINDOW_BYTES
    assert drain(snapshots, 0.2 + RESEND_S)[0].position == first[1].position


def test_a_follower_that_lost_what_it_had_gets_it_from_the_beginning() -> None:
    snapshots = sender(3 * WINDOW_BYTES)
    first = drain(snapshots)
    snapshots.acked("b", first[0].at, first[0].crc, WINDOW_BYTES, now=0.1)
    snapshots.acked("b", first[0].at, first[0].crc, 0, now=0.2)
    assert drain(snapshots, 0.2)[0].position == 0


def test_an_ack_of_another_snapshot_says_nothing() -> None:
    snapshots = sender(3 * WINDOW_BYTES)
    first = drain(snapshots)
    snapshots.acked("b", first[0].at, first[0].crc ^ 1, WINDOW_BYTES, now=0.1)
    assert not drain(snapshots, 0.1)
