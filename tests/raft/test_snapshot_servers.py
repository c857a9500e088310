"""Snapshots of running servers."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tenured.raft import Applied, Compaction, Consensus, LogCorrupt, RaftConfig
from tenured.raft.files import DiskFile, DiskFiles, OpenFile
from tests.raft.raft_servers import Ledger, MemoryLink, Servers

WAIT_S = 10.0
SHORT = Compaction(entries=20, bytes=1 << 30, keep_entries=5, keep_bytes=1 << 20)


# ---- servers -----------------------------------------------------------------------------------------------------


class ShortLogs(Servers):
    """Servers that write a snapshot every 20 entries."""

    def config(self, name: str) -> RaftConfig:
        others = tuple(n for n in self.names if n != name)
        return RaftConfig(
            name, others, self.directory / name, election_min_s=0.15, election_max_s=0.3, compaction=SHORT
        )


@pytest.fixture
async def short_logs(tmp_path: Path) -> Any:
    cluster = ShortLogs(tmp_path, ("a", "b", "c"))
    yield cluster
    for name in list(cluster.running):
        await cluster.kill(name)
    assert not cluster.fatal


async def write_many(servers: Servers, name: str, first: int, count: int) -> list[bytes]:
    commands = [b"%d" % n for n in range(first, first + count)]
    for command in commands:
        await servers.write(name, command)
    return commands


async def test_the_log_stays_short_and_a_restart_finds_everything(short_logs: ShortLogs) -> None:
    await short_logs.start()
    leader = await short_logs.elected()
    commands = await write_many(short_logs, leader, 0, 150)
    # Of the entries up to there some are no commands: the bootstrap's and each leader's first.
    await short_logs.until(lambda: all(s.snapshots().index > 110 for s in short_logs.running.values()))
    await short_logs.until(lambda: all(s.snapshots().log_entries < 60 for s in short_logs.running.values()))
    await short_logs.until(lambda: not any(s.snapshots().writing for s in short_logs.running.values()))
    for name in short_logs.names:
        await short_logs.kill(name)
    assert len(list((short_logs.directory / leader).glob("snapshot-*"))) == 2
    await short_logs.start()
    assert all(len(machine.commands) > 100 for machine in short_logs.machines.values())  # before anybody leads
    leader = await short_logs.elected()
    await short_logs.until(lambda: all(m.commands == commands for m in short_logs.machines.values()))


async def test_a_follower_that_was_away_gets_a_snapshot(short_logs: ShortLogs) -> None:
    await short_logs.start()
    leader = await short_logs.elected()
    away = next(n for n in short_logs.names if n != leader)
    commands = await write_many(short_logs, leader, 0, 5)
    await short_logs.kill(away)
    commands += await write_many(short_logs, leader, 5, 100)
    await short_logs.until(lambda: short_logs.running[leader].snapshots().index > 80)
    await short_logs.start(away)
    await short_logs.until(lambda: short_logs.machines[away].commands == commands)
    commands += await write_many(short_logs, away, 105, 5)
    await short_logs.kill(away)
    await short_logs.start(away)
    await short_logs.until(lambda: short_logs.machines[away].commands == commands)


async def test_a_replaced_disk_comes_back_by_a_snapshot(short_logs: ShortLogs) -> None:
    """The way out of damage that docs/durability.md names."""
    await short_logs.start()
    leader = await short_logs.elected()
    commands = await write_many(short_logs, leader, 0, 100)
    lost = next(n for n in short_logs.names if n != leader)
    await short_logs.until(lambda: all(s.snapshots().index > 60 for s in short_logs.running.values()))  # whoever leads
    await short_logs.kill(lost)
    segment = max(p for p in (short_logs.directory / lost).iterdir() if p.name.startswith("log-"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    with pytest.raises(LogCorrupt, match="move the directory away and start again"):
        await short_logs.start(lost)
    short_logs.wipe(lost)
    await short_logs.start(lost)
    await short_logs.until(lambda: short_logs.roles()[lost].voter and short_logs.roles()[lost].ready)
    assert short_logs.machines[lost].commands == commands
    assert short_logs.running[lost].snapshots().index > 60


# ---- one server, its disk in the test's hands ---------------------------------------------------------------------


class FullFiles(DiskFiles):
    """No room for snapshots while `full`."""

    full = False

    def create(self, name: str) -> OpenFile:
        return FullFile(super().create(name), self) if name.startswith("snapshot-") else super().create(name)


class FullFile:
    """A file that finds no room after its first write."""

    def __init__(self, file: DiskFile, files: FullFiles) -> None:
        self.file, self.files, self.writes = file, files, 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        if self.files.full and self.writes > 1:
            raise OSError(28, "No space left on device")
        self.file.write(data)

    def sync(self) -> None:
        self.file.sync()

    def close(self) -> None:
        self.file.close()


class SlowLedger(Ledger):
    """A state machine whose chunks wait for `gate`, in whatever thread asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[str] = set()

    def snapshot(self) -> Iterator[bytes]:
        commands = list(self.commands)

        def chunks() -> Iterator[bytes]:
            for command in commands:
                assert self.gate.wait(WAIT_S)
                self.threads.add(threading.current_thread().name)
                yield command

        return chunks()


class Alone(Consensus):
    """A cluster of one, whose clock and disk the test has in its hands."""

    def __init__(self, directory: Path) -> None:
        self.machine = SlowLedger()
        self.ahead = 0.0
        self.stands_at: float | None = None
        self.files: FullFiles | None = None
        config = RaftConfig("s0", (), directory, 0.15, 0.3, compaction=SHORT)
        link: Any = MemoryLink
        super().__init__(config, self.machine, link, clock=self._now)

    def _now(self) -> float:
        return (time.monotonic() if self.stands_at is None else self.stands_at) + self.ahead

    def hold(self) -> None:
        """From here on its clock moves when the test says so, however long the disk of this machine takes."""
        self.stands_at = time.monotonic()

    def open_files(self) -> FullFiles:
        self.files = FullFiles(self._config.directory)
        return self.files

    async def begin(self) -> None:
        ready = asyncio.Event()
        self.on_role = lambda role: ready.set() if role.ready else None
        await self.start()
        await asyncio.wait_for(ready.wait(), WAIT_S)
        await self.barrier(WAIT_S)

    def written(self) -> list[str]:
        """Names of snapshots, finished and not."""
        return sorted(path.name for path in self._config.directory.iterdir() if path.name.startswith("snapshot-"))

    async def write(self, count: int) -> None:
        for n in range(count):
            assert isinstance(await self.propose(b"%d" % n, WAIT_S), Applied)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)


async def test_a_snapshot_is_written_beside_the_loop_and_the_log_is_cut_only_then(tmp_path: Path) -> None:
    server = Alone(tmp_path)
    await server.begin()
    server.machine.gate.clear()
    await server.write(60)
    assert server.snapshots().writing
    assert server.snapshots().index == 0
    assert server.snapshots().log_entries > 60
    server.machine.gate.set()
    await server.until(lambda: server.snapshots().index > 0 and not server.snapshots().writing)
    assert server.machine.threads == {"raft-snapshots"}
    await server.until(lambda: server.snapshots().index > 40)
    await server.stop()
    again = Alone(tmp_path)
    await again.begin()
    assert again.machine.commands == server.machine.commands
    await again.stop()


async def test_a_snapshot_finds_no_room_and_nothing_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = Alone(tmp_path)
    await server.begin()
    server.hold()
    server.files.full = True
    await server.write(60)
    await server.until(lambda: server.snapshots().failures == 1)
    assert "No space left" in server.snapshots().failure
    assert "Nothing is lost" in caplog.text
    assert server.written() == []  # what was written makes room
    await server.write(5)
    assert server.snapshots().failures == 1  # not before the time is over
    server.ahead += 1.5
    await server.until(lambda: server.snapshots().failures == 2)
    server.files.full = False
    server.ahead += 1.5
    await server.write(1)
    assert server.snapshots().failures == 2  # twice as long
    server.ahead += 1.5
    await server.until(lambda: server.snapshots().failures == 0 and server.snapshots().index > 60)
    assert server.snapshots().failure == ""
    assert server.role().is_leader
    commands = server.machine.commands
    await server.stop()
    again = Alone(tmp_path)
    await again.begin()
    assert again.machine.commands == commands
    await again.stop()


async def test_stopping_does_not_wait_for_a_snapshot(tmp_path: Path) -> None:
    """It is begun anew after the next start; the log has everything."""
    server = Alone(tmp_path)
    await server.begin()
    server.machine.gate.clear()
    await server.write(SHORT.entries - server.role().commit_index)
    assert server.snapshots().writing
    server.ahead += 1.5  # the disk learns once a second what is committed; the next start takes that without a vote
    await server.write(SHORT.entries // 2)
    asyncio.get_running_loop().call_later(0.05, server.machine.gate.set)  # the chunk that is being made is waited for
    await server.stop()
    assert all(name.endswith(".new") for name in server.written())
    again = Alone(tmp_path)
    await again.begin()
    assert again.machine.commands == server.machine.commands
    await again.until(lambda: again.snapshots().index >= SHORT.entries)
    await again.stop()
