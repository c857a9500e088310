"""A simulated machine: it keeps its disk and loses its process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from tenured.raft.consensus import TELL_COMMIT_S
from tenured.raft.core import Seams
from tenured.raft.engine import Engine
from tenured.raft.interface import Outcome
from tenured.raft.opening import open_storage, restoring
from tenured.raft.outbox import Outbox
from tenured.raft.snapfiles import SnapshotStore
from tenured.raft.snapshots import Snapshots
from tests.raft.sim.disk import SimDisk, SimFiles, SimWorker, SimWriter, WatchedJournal

if TYPE_CHECKING:
    from tests.raft.sim.world import World

NEVER = 1 << 60
CHUNK = 20
"""Commands in a chunk of a snapshot."""


class Command(msgspec.Struct, array_like=True):
    """What clients ask for: add to the list, or set or read a register as well; `bad` raises after it was listed."""

    cid: str
    kind: str
    padding: bytes


class History:
    """The state machine: the list of all commands in the order of application, and a register."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.commands: list[str] = []
        self.register: str | None = None
        self.restored = False

    def apply(self, _index: int, command: bytes) -> bytes:
        request = msgspec.msgpack.decode(command, type=Command)
        self.host.world.check.applied(self.host, len(self.commands), request.cid)
        self.commands.append(request.cid)
        before = self.register
        if request.kind == "bad":
            raise ValueError("a bug in the state machine")
        if request.kind == "set":
            self.register = request.cid
        return msgspec.msgpack.encode((len(self.commands) - 1, before))

    def snapshot(self) -> Iterator[bytes]:
        commands, register = list(self.commands), self.register
        chunks = [commands[i : i + CHUNK] for i in range(0, len(commands), CHUNK)]
        return (msgspec.msgpack.encode(chunk) for chunk in [[register], *chunks])

    def restore(self) -> Restoring:
        return Restoring(self)


class Restoring:
    """The state that a snapshot gives, in the making."""

    def __init__(self, machine: History) -> None:
        self.machine = machine
        self.chunks: list[list[Any]] = []

    def feed(self, chunk: bytes) -> None:
        self.machine.host.world.spend(self.machine.host.world.chunk_time)
        self.chunks.append(msgspec.msgpack.decode(chunk))

    def finish(self) -> None:
        (self.machine.register,), *rest = self.chunks
        self.machine.commands = [command for chunk in rest for command in chunk]
        self.machine.restored = True


class Host:
    """One server. Output leaves only after what the log got before it is durable, which is the engine's own outbox."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.incarnation = 0  # events of an earlier one die
        self.engine: Engine | None = None
        self.paused_until = self.full_until = 0.0
        self.disks = 0
        self.reign = self.matched = None
        self.new_disk()

    def new_disk(self) -> None:
        self.disk = SimDisk(self.name)
        self.disks += 1

    # ---- life ----------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        if self.engine is not None:
            return
        self.incarnation += 1
        self.fuse: int | None = None
        self.fuse_power = False
        self.dead = False
        self.commit = self.applied = 0
        self.machine = History(self)
        self.step(self._make)
        if self.engine is not None:
            self.world.at(self.world.rng.random() * 0.1, self.periodic, self)
            self.world.net.booted(self.name)

    def _make(self) -> None:
        world, life = self.world, self.incarnation
        files = SimFiles(
            self.disk,
            lambda: self.incarnation == life and self.one_more_effect(),
            lambda: world.now >= self.full_until,
        )
        self.began_with = self.disk.snapshot
        found = open_storage(files, self.name, lambda: world.rng.getrandbits(60) + 1)
        for _ in restoring(files, found, self.machine):
            world.spend(world.chunk_time)
        self.writer, self.worker = SimWriter(self, found.log), SimWorker(self)
        outbox = Outbox(self.send, send_first=world.send_first)
        if not world.barrier:
            outbox.synced(NEVER)
        seams = Seams(
            machine=self.machine,
            journal=WatchedJournal(self, found.state, found.log),
            snapshots=Snapshots(SnapshotStore(files, self.worker, found.kept), world.part_bytes),
            outbox=outbox,
            clock=world.clock,
            rng=world.rng,
            birth=lambda: int(world.clock() * 1e9) + 1,
        )
        self.engine = world.engine_class(world.config(self.name), seams, world.parameters())
        self.engine.batch_bytes = world.batch_bytes
        self.engine.patient = world.patient

    def crash(self, *, power: bool) -> None:
        if self.engine is None:
            return
        self.world.log(self.name, "power loss" if power else "kill")
        self.world.coverage["crash in an event" if self.dead else "power loss" if power else "kill"] += 1
        if self.world.rng.random() < 0.5:
            self.writer.take_over()
        self.engine = None
        self.incarnation += 1
        self.disk.crash(self.world.rng, power=power)
        self.world.net.dropped(self.name)

    def lose_disk(self) -> None:
        self.crash(power=True)
        self.new_disk()
        self.world.coverage["disk lost"] += 1

    def is_voter(self) -> bool:
        return self.engine.log.voter if self.engine is not None else self.disk.state().voter

    # ---- events --------------------------------------------------------------------------------------------------

    def one_more_effect(self) -> bool:
        """A crash in the middle of an event: later effects of it do not happen, and nothing notices."""
        if self.fuse is not None:
            self.fuse -= 1
            self.dead |= self.fuse < 0
        return not self.dead

    def step(self, event: Callable[[], object]) -> None:
        """Run one event, let the checker look, bind the output to the log."""
        self.world.spent = 0.0
        try:
            event()
            if self.engine is not None and not self.dead:
                self.world.check.after(self)
                self.engine.end_turn()
                if self.engine.tells_later:
                    self.world.at(TELL_COMMIT_S, self.tell_commit, self)
        except Exception as error:  # noqa: BLE001  (whatever an engine raises is a finding)
            if not self.dead:
                self.world.check.exception(self, error)
        if self.dead:
            self.die()
        elif self.engine is not None:
            self.writer.pump()

    def die(self) -> None:
        """The fuse has burnt."""
        self.crash(power=self.fuse_power)

    def synced(self, sequence: int) -> None:
        if self.engine is not None:
            self.engine.synced(sequence)
            if self.dead:
                self.die()
            elif self.engine.behind:
                self.world.at(0, self.tick, self)

    def tick(self) -> None:
        assert self.engine is not None
        self.engine.tick()

    def tell_commit(self) -> None:
        assert self.engine is not None
        self.engine.tell_commit()
        self.tick()

    def periodic(self) -> None:
        self.world.at(self.world.rng.uniform(0.2, 1.8) * self.world.tick, self.periodic, self)
        self.tick()

    def received(self, peer: str, frame: bytes) -> None:
        self.step(lambda: self.engine and self.engine.received(peer, frame))
        if self.world.rng.random() < 0.5:
            self.world.at(0, self.tick, self)

    def send(self, peer: str, frame: bytes) -> bool:
        """The engine's link."""
        if not self.world.net.is_up(self.name, peer):
            return False
        if self.one_more_effect():
            self.world.check.sent(self, peer, frame)
            self.world.net.send(self.name, peer, frame)
        return True

    def call(self, command: Command, answered: Callable[[Outcome], None]) -> None:
        assert self.engine is not None
        self.engine.propose(msgspec.msgpack.encode(command), answered)
