"""Servers of one process: real engines, real logs on disk, streams in memory."""

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from tenured.raft import Applied, Consensus, Outcome, RaftConfig, Role
from tenured.raft.files import Files
from tenured.raft.snapfiles import SnapshotFile, snapshot_name

DEADLINE_S = 10.0


class Ledger:
    """A state machine: the list of all commands."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply(self, index: int, command: bytes) -> bytes:
        self.commands.append(command)
        return b"%d" % len(self.commands)

    def snapshot(self) -> Iterator[bytes]:
        return iter(list(self.commands))

    def restore(self) -> "LedgerRestore":
        return LedgerRestore(self)


class LedgerRestore:
    """A ledger in the making: a chunk is a command."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.commands: list[bytes] = []

    def feed(self, chunk: bytes) -> None:
        self.commands.append(chunk)

    def finish(self) -> None:
        self.ledger.commands = self.commands


class MemoryLink:
    """PeerLink of one server: frames arrive in a later turn of the loop, in order, unless the stream was cut."""

    def __init__(self, servers: "Servers", name: str) -> None:
        self.servers, self.name = servers, name

    def send(self, peer: str, frame: bytes) -> bool:
        key = (self.name, peer)
        if key not in self.servers.streams:
            return False
        epoch = self.servers.streams[key]
        asyncio.get_running_loop().call_soon(self._arrive, key, epoch, frame)
        return True

    def _arrive(self, key: tuple[str, str], epoch: int, frame: bytes) -> None:
        if self.servers.streams.get(key) == epoch and key[1] in self.servers.running:
            self.servers.running[key[1]].received(key[0], frame)


class Servers:
    """Start, stop, kill, wipe; wait for conditions on roles."""

    def __init__(self, directory: Path, names: tuple[str, ...]) -> None:
        self.directory, self.names = directory, names
        self.running: dict[str, Consensus] = {}
        self.machines: dict[str, Ledger] = {}
        self.streams: dict[tuple[str, str], int] = {}
        self.epochs = 0
        self.changed = asyncio.Event()
        self.fatal: list[BaseException] = []

    def config(self, name: str) -> RaftConfig:
        others = tuple(n for n in self.names if n != name)
        return RaftConfig(name, others, self.directory / name, election_min_s=0.15, election_max_s=0.3)

    async def start(self, *names: str) -> None:
        for name in names or self.names:
            self.machines[name] = Ledger()
            server = Consensus(self.config(name), self.machines[name], MemoryLink(self, name), rng=random.Random(name))
            server.on_role = lambda _: self.changed.set()
            server.on_fatal = self.fatal.append
            await server.start()
            self.running[name] = server
            for other in self.running:
                if other != name:
                    self.connect(name, other)
                    self.connect(other, name)

    def connect(self, source: str, target: str) -> None:
        self.epochs += 1
        self.streams[source, target] = self.epochs
        self.running[source].connected(target)

    def cut(self, source: str, target: str) -> None:
        if self.streams.pop((source, target), None) is not None and source in self.running:
            self.running[source].disconnected(target)

    async def stop(self, name: str) -> None:
        await self.running[name].stop()
        self._forget(name)

    async def kill(self, name: str) -> None:
        """Silence at once: what was not said by then is never said. Only the thread and the file are put away."""
        server = self.running[name]
        self._forget(name)
        server._config = RaftConfig(name, (), self.directory / name, 0.15, 0.3)  # nobody to hand over to
        await server.stop()

    def _forget(self, name: str) -> None:
        self.running.pop(name)
        for source, target in list(self.streams):
            if name in (source, target):
                self.cut(source, target)

    def wipe(self, name: str) -> None:
        for path in (self.directory / name).iterdir():
            path.unlink()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition on roles or machines, looked at whenever a role changes or an entry is applied."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self.changed.clear()
                poll = asyncio.get_running_loop().call_later(0.02, self.changed.set)
                await self.changed.wait()
                poll.cancel()

    def roles(self) -> dict[str, Role]:
        return {name: server.role() for name, server in self.running.items()}

    def leader(self) -> str | None:
        leaders = [role.name for role in self.roles().values() if role.is_leader]
        return leaders[0] if len(leaders) == 1 else None

    async def elected(self) -> str:
        """A leader that all running servers follow and that is ready."""
        await self.until(
            lambda: (
                self.leader() is not None and all(r.leader == self.leader() and r.ready for r in self.roles().values())
            ),
        )
        leader = self.leader()
        assert leader is not None
        return leader

    async def write(self, name: str, command: bytes) -> Applied:
        outcome: Outcome = await self.running[name].propose(command, DEADLINE_S)
        assert isinstance(outcome, Applied), outcome
        return outcome


def chunks(files: Files, at: tuple[int, int]) -> list[bytes]:
    """The whole state in a snapshot's file."""
    return list(SnapshotFile(files.open(snapshot_name(at))).chunks())
