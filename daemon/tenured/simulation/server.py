"""A simulated server: the daemon's own parts, put together as `server.process` does, without ports and certificates.

Its own: Consensus with its engine and journal, the registry machine, LeaderLeases and Planner in `Leader`, the link to
hosts, the store's guards, the watch. Simulated: the disk under the log and under the store, and the streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from tenure_api.identity import Role as CertificateRole
from tenure_proto.v1 import store_pb2
from tenure_proto.v1.hostlink_pb2 import ServerFrames
from tenured.core import commands, machine
from tenured.core.changes import Delta
from tenured.core.lease import LeaderLeases
from tenured.core.profile import Profile
from tenured.core.registry import Registry
from tenured.raft import Consensus, RaftConfig, Role
from tenured.raft.engine import Engine
from tenured.raft.files import Files
from tenured.raft.interface import Compaction
from tenured.raft.wal import Log
from tenured.raft.writer import LogWriter
from tenured.server.hosts import Hosts
from tenured.server.joining import Joining
from tenured.server.leading import Leader
from tenured.server.lending import Lender
from tenured.server.replica import Replica
from tenured.server.store import Store
from tenured.server.sweeping import Sweeper
from tenured.server.watching import WatchHub
from tenured.simulation.disk import DiskPlace, Health, SimLogWriter, SimSnapshotWorker, StoreDisk
from tenured.simulation.files import SimDisk, SimFiles
from tenured.simulation.links import (
    HOSTLINK,
    STORE,
    WATCH,
    FrameStream,
    SimPeers,
    StoreLink,
    StoreRequest,
    Wildness,
    identity,
)
from tenured.simulation.machines import Machine, Process, Setting
from tenured.simulation.net import End
from tenured.simulation.register import Guards, SimRegister
from tenured.storage import Register
from tenured.transport import hostlink
from tenured.transport.serving import EncodedStream


class Watching(Setting, Protocol):
    """What servers tell the checker."""

    def entry_applied(self, server: SimServer, index: int, command: bytes) -> None:
        """A committed entry is about to be applied."""

    def snapshot_installed(self, server: SimServer) -> None:
        """The registry was replaced."""


Apply = Callable[[Registry, int, bytes], tuple[bytes, machine.Applied]]


@dataclass(kw_only=True)
class ServerRules:
    """The rules of a server; mutations replace one."""

    apply: Apply = machine.apply_bytes
    leases: type[LeaderLeases] = LeaderLeases
    guards: type[Guards] = Guards
    store: type[Store] = Store
    leader: type[Leader] = Leader
    joining: type[Joining] = Joining
    engine: type[Engine] = Engine


@dataclass
class ServerDisks:
    """What a server's machine keeps when its process dies."""

    log: SimDisk
    store: StoreDisk
    health: Health = field(default_factory=Health)
    compaction: Compaction = field(default_factory=Compaction)
    """When the log is cut."""


class SimConsensus(Consensus):
    """Consensus with its log on a simulated disk."""

    def __init__(self, server: SimServer, config: RaftConfig) -> None:
        super().__init__(
            config, server.replica, server.peers, clock=server.process.loop.slow_clock, rng=server.setting.rng
        )
        self._server = server

    def open_files(self) -> Files:
        """What the last process left. A process that is dead changes nothing."""
        loop = self._server.process.loop
        return SimFiles(self._server.disks.log, lambda: not loop.dead)

    def open_writer(self, log: Log, on_synced: Callable[[int], None], on_error: Callable[[OSError], None]) -> LogWriter:
        """A writer in virtual time."""
        return cast("LogWriter", SimLogWriter(log, self._server.place, on_synced, on_error))

    def open_worker(self, post: Callable[[Callable[[], None]], None]) -> SimSnapshotWorker:
        """Who writes snapshots, in virtual time."""
        return SimSnapshotWorker(self._server.place, post)

    @property
    def engine(self) -> Engine | None:
        """For the checker."""
        return self._engine


class SimReplica(Replica):
    """The registry, with a checker that sees each entry first."""

    def __init__(self, server: SimServer) -> None:
        super().__init__()
        self.rule = server.rules.apply
        self._server = server

    def apply(self, index: int, command: bytes) -> bytes:
        """One committed entry."""
        self._server.setting.entry_applied(self._server, index, command)
        return super().apply(index, command)


class _Snapshots:
    """A replica's listener: tells the checker of snapshots."""

    def __init__(self, server: SimServer) -> None:
        self._server = server

    def changed(self, delta: Delta, /) -> None:
        """The checker has seen the entry."""

    def replaced(self) -> None:
        """A snapshot was installed."""
        self._server.setting.snapshot_installed(self._server)


class SimServer:
    """One process of a server; `disks` outlives it."""

    def __init__(
        self,
        setting: Watching,
        machine: Machine,
        peers: tuple[str, ...],
        disks: ServerDisks,
        profile: Profile,
        rules: ServerRules,
        wild: Wildness,
        life: int,
    ) -> None:
        self.setting, self.disks, self.name, self.life = setting, disks, machine.name, life
        self.process = Process(setting, machine, machine.name)
        self.process.on_death = self._died
        self.place = DiskPlace(self.process.loop, disks.health, setting.rng)
        self._wild, self.rules = wild, rules
        self.replica = SimReplica(self)
        self.peers = SimPeers(self.process, self.name, peers)
        config = RaftConfig(
            self.name,
            peers,
            Path("/nowhere"),
            profile.election_min_s,
            profile.election_max_s,
            compaction=disks.compaction,
        )
        self.consensus = SimConsensus(self, config)
        self.peers.bind(self.consensus)
        self.register = SimRegister(disks.store, self.place, rules.guards())
        register = cast("Register", self.register)
        self.hub = WatchHub(self.replica)
        self.hosts = Hosts(self.name, self.replica, self.consensus, rules.store(self.replica, register), self.hub)
        self.leader = rules.leader(
            profile,
            self.replica,
            self.consensus,
            self.hosts.send_ack,
            clock=self.process.boot_ns,
            wall=self.process.wall_s,
        )
        self.leader.leases = rules.leases(profile)
        self.hosts.bind(self.leader)
        self.sweeper = Sweeper(self.replica, register)
        self.lender = Lender(self.replica, register)
        self.joining = rules.joining(
            commands.RegisterServer(name=self.name, incarnation=""),
            self.replica,
            self.consensus,
            register,
            {peer: partial(StoreLink, self.process, peer) for peer in peers},
        )
        for listener in (_Snapshots(self), self.hub, self.hosts, self.leader, self.sweeper):
            self.replica.listen(listener)
        self._registering = False
        self.process.spawn(self._main())

    @property
    def is_whole(self) -> bool:
        """It votes, and its store answers."""
        return self.consensus.role().voter and not self.register.joining

    async def _main(self) -> None:
        self.consensus.on_role = self._role_changed
        self.consensus.on_fatal = self._fail
        self.consensus.on_place = self.leader.complete
        await self.consensus.start()
        net = self.setting.net
        net.listen(self.process.loop, self.name, HOSTLINK, self._host_connected)
        net.listen(self.process.loop, self.name, WATCH, self._watcher_connected)
        net.listen(self.process.loop, self.name, STORE, self._joining_connected)
        self.peers.start()

    def _role_changed(self, role: Role) -> None:
        if role.is_leader:
            self.setting.note(self.name, f"leads term {role.term}")
        self.leader.role_changed(role)
        self.hosts.role_changed(role)
        if role.ready and not self._registering:
            self._registering = True
            self.hub.open()
            self.process.spawn(self._register_disk())

    async def _register_disk(self) -> None:
        """As server.process does."""
        await self.joining.run()
        self.setting.note(self.name, f"its store answers (disk {self.register.incarnation})")
        self.sweeper.sweep_all()

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, OSError):
            self.setting.problem(self.name, "consensus failed", error)
        self.setting.note(self.name, f"takes no further part: {error}")
        self.process.setting.timeline.after(0, self.process.kill)

    def _died(self, power: bool) -> None:
        self.disks.log.crash(self.setting.rng, power=power)
        self.disks.store.crash(self.setting.rng, power=power)

    # --- streams ----------------------------------------------------------------------------------------------------

    def _host_connected(self, end: End, machine: str) -> None:
        self.process.spawn(self._serve_host(end, machine))

    async def _serve_host(self, end: End, machine: str) -> None:
        stream = FrameStream(end, self._wild, ServerFrames)
        try:
            await hostlink.serve(self.hosts, identity(CertificateRole.HOST, machine), stream)
        except asyncio.InvalidStateError:
            return  # it ended while we wrote
        finally:
            end.close()

    def _joining_connected(self, end: End, machine: str) -> None:
        end.on_item = lambda request: self.process.spawn(self._lend(end, machine, request))

    async def _lend(self, end: End, machine: str, asked: tuple[int, StoreRequest]) -> None:
        number, request = asked
        peer = identity(CertificateRole.SERVER, machine)
        if isinstance(request, store_pb2.ListRecordsRequest):
            end.write((number, await self.lender.list_records(peer, request)))
        else:
            end.write((number, await self.lender.fetch_records(peer, request)))

    def _watcher_connected(self, end: End, _machine: str) -> None:
        self.process.spawn(self._serve_watch(end))

    async def _serve_watch(self, end: End) -> None:
        request = await end.read()
        if request is None:
            return
        context: Any = _Context(end)
        serving = asyncio.ensure_future(self.hub.serve(request, EncodedStream(context)))
        hanging_up = asyncio.ensure_future(end.read())
        try:
            await asyncio.wait({serving, hanging_up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (serving, hanging_up):
                task.cancel()
            end.close()


class _Context:
    """What EncodedStream needs of gRPC."""

    def __init__(self, end: End) -> None:
        self._end = end

    async def write(self, encoded: bytes) -> None:
        """Send."""
        self._end.write(encoded)
