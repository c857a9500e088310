"""The machines of servers and hosts: what stays when their processes come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenured.raft import Applied
from tenured.raft.interface import Compaction
from tenured.simulation.clients import API
from tenured.simulation.disk import StoreDisk
from tenured.simulation.files import SimDisk
from tenured.simulation.host import HostPlace, SimHost
from tenured.simulation.net import MS, End
from tenured.simulation.server import ServerDisks, SimServer
from tenured.simulation.worker import WorkerContainer

if TYPE_CHECKING:
    from tenured.simulation.cluster import Cluster

RESTART_NS = 50 * MS
"""A supervisor starts the next daemon so soon."""
PROPOSE_TIMEOUT_S = 2.0


class ServerSlot:
    """A server's machine: its disks stay, its processes come and go."""

    def __init__(self, world: Cluster, name: str) -> None:
        self.world, self.name = world, name
        self.machine = world.new_machine(name)
        self.disks = ServerDisks(SimDisk(name), StoreDisk(f"disk-{name}"), compaction=self._compaction())
        self.disks.health.sync_ns = int(world.settings.sync_ms * MS)
        self.disks.health.lies = world.settings.lies

    def start(self) -> None:
        """Boot, unless it runs."""
        if self.name in self.world.servers:
            return
        peers = tuple(name for name in self.world.server_names if name != self.name)
        rules, settings = self.world.rules.server, self.world.settings
        self.world.lives += 1
        server = SimServer(
            self.world, self.machine, peers, self.disks, settings.profile, rules, self.world.wild, self.world.lives
        )
        self.world.servers[self.name] = server
        before = server.process.on_death

        def died(power: bool) -> None:
            if before is not None:
                before(power)
            if self.world.servers.get(self.name) is server:
                del self.world.servers[self.name]
                if not power and not self.world.over:
                    self.world.timeline.after(RESTART_NS, self.start)

        server.process.on_death = died
        self.world.net.listen(server.process.loop, self.name, API, lambda end, _: self._serve(server, end))
        self.world.server_started(server)

    def stop(self, *, power: bool) -> None:
        """Its process, or its power, goes. Stays down until `start`."""
        server = self.world.servers.pop(self.name, None)
        if server is not None:
            server.process.kill(power=power)

    def lose_disk(self) -> None:
        """Its volume is gone: what starts next finds an empty one."""
        self.stop(power=True)
        self.world.lives += 1
        health = self.disks.health
        self.disks = ServerDisks(
            SimDisk(self.name), StoreDisk(f"disk-{self.name}-{self.world.lives}"), health, self._compaction()
        )

    def _compaction(self) -> Compaction:
        entries = self.world.settings.compact_entries
        return Compaction(entries=entries, keep_entries=entries // 2)

    @staticmethod
    def _serve(server: SimServer, end: End) -> None:
        async def propose(command: bytes) -> None:
            outcome = await server.consensus.propose(command, PROPOSE_TIMEOUT_S)
            if not isinstance(outcome, Applied):
                server.setting.note(server.name, f"could not place an entry: {outcome.reason}")
            end.write(outcome)

        end.on_item = lambda command: server.process.spawn(propose(command))


class HostSlot:
    """A node with a host pod on it."""

    def __init__(self, world: Cluster, name: str) -> None:
        self.world, self.name = world, name
        self.machine = world.new_machine(name)
        self.daemon: SimHost | None = None
        self.container = self._new_container()
        self.up = True
        self._files: list[str] = []
        """Lock files in the pod's volume."""

    def _new_container(self) -> WorkerContainer:
        return self.world.new_container(self.machine)

    def start(self) -> None:
        """Start a daemon."""
        if self.daemon is not None or not self.up or self.world.over:
            return
        world = self.world
        world.lives += 1
        incarnation = f"{self.name}.{world.lives if world.rules.host.new_incarnations else 0}"
        self._files = [name for name in self._files if name != incarnation] + [incarnation]
        place = HostPlace(
            setting=world,
            machine=self.machine,
            servers=tuple(world.server_names),
            profile=world.settings.profile,
            container=self.container,
            files=self,
            rules=world.rules.host,
            wild=world.wild,
            calls=world.check,
        )
        daemon = world.new_host(place, incarnation)
        self.daemon = world.processes[incarnation] = daemon
        world.note(self.name, f"starts incarnation {incarnation}")
        daemon.process.on_death = self._died

    def _died(self, power: bool) -> None:
        self.daemon = None
        if not power:
            self.container.daemon_died()
            self.world.timeline.after(RESTART_NS, self.start)

    def power_off(self) -> None:
        """The node and its pod are gone."""
        self.up = False
        self.container.power_off()
        self._files.clear()
        if self.daemon is not None:
            self.daemon.process.kill(power=True)

    def power_on(self) -> None:
        """A new pod on the node."""
        if not self.up:
            self.up = True
            self.container = self._new_container()
            self.start()

    # --- host.LockFiles ---------------------------------------------------------------------------------------------

    def others(self, incarnation: str) -> list[str]:
        """Files of earlier incarnations."""
        return [name for name in self._files if name != incarnation]

    def free(self, incarnation: str) -> bool:
        """Its daemon and its workers are dead."""
        running = self.daemon is not None and self.daemon.incarnation == incarnation
        return not running and incarnation not in self.container.holds

    def remove(self, incarnation: str) -> None:
        """Proven and committed."""
        if incarnation in self._files:
            self._files.remove(incarnation)
