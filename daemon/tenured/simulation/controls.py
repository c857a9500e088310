"""Faults by name, for stories that a user tells (`tenure.testing.Faults` is what is promised of them)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tenured.simulation.net import MS
from tenured.simulation.slots import HostSlot, ServerSlot
from tenured.simulation.timeline import NS

if TYPE_CHECKING:
    from tenured.simulation.cluster import Cluster

STORY = "story"
"""Name of the story's own machine."""


class Controls:
    """Of one world. Hosts are h0, h1, …, servers s0, s1, …; times in seconds. Raises ValueError for any other name."""

    def __init__(self, world: Cluster) -> None:
        self._world = world
        self._cut: list[tuple[str, str]] = []

    # --- hosts ------------------------------------------------------------------------------------------------------

    def kill_host(self, host: str, *, back_after: float | None = None) -> None:
        """A power cut."""
        slot = self._host(host)
        self._world.note(host, "loses its power")
        slot.power_off()
        self._later(back_after, slot.power_on)

    def start_host(self, host: str) -> None:
        """Power is back."""
        self._world.note(host, "has power")
        self._host(host).power_on()

    def kill_daemon(self, host: str) -> None:
        """SIGKILL to `tenured host`."""
        daemon = self._host(host).daemon
        self._world.note(host, "its daemon is killed")
        if daemon is not None:
            daemon.process.kill()

    def kill_worker(self, host: str) -> None:
        """SIGKILL to a worker process."""
        self._world.note(host, "its worker is killed")
        self._host(host).container.crash()

    def drain(self, host: str) -> None:
        """SIGTERM to the daemon."""
        daemon = self._host(host).daemon
        self._world.note(host, "is told to drain")
        if daemon is not None:
            daemon.drain()

    # --- servers ----------------------------------------------------------------------------------------------------

    def kill_server(self, server: str, *, power: bool = False, back_after: float | None = 1.0) -> None:
        """Its process, or its power, is gone."""
        slot = self._server(server)
        self._world.note(server, "loses its power" if power else "is killed")
        slot.stop(power=power)
        self._later(back_after, slot.start)

    def start_server(self, server: str) -> None:
        """It boots."""
        self._world.note(server, "is started")
        self._server(server).start()

    def slow_disk(self, server: str, *, sync: float = 0.05, lasts: float | None = None) -> None:
        """Each sync takes up to so long."""
        health = self._server(server).disks.health
        health.sync_ns = int(sync * NS)
        self._world.note(server, f"has a slow disk: {sync} s a sync")
        self._later(lasts, lambda: self._usual_disk(server))

    def full_disk(self, server: str, *, lasts: float = 1.0) -> None:
        """Nothing can be written."""
        slot = self._server(server)
        slot.disks.health.full = True
        self._world.note(server, "has a full disk")

        def mend() -> None:
            slot.disks.health.full = False
            slot.stop(power=False)
            slot.start()

        self._later(lasts, mend)

    # --- any machine ------------------------------------------------------------------------------------------------

    def freeze(self, name: str, lasts: float) -> None:
        """Everything on it stands still."""
        slot = self._any(name)
        self._world.note(name, f"is frozen for {lasts} s")
        slot.machine.pause(self._world.timeline.now + int(lasts * NS))
        self._world.disturbed(name, int(lasts * NS))

    def step_clock(self, name: str, seconds: float) -> None:
        """Its wall clock is set."""
        self._world.note(name, f"its wall clock is set by {seconds} s")
        self._any(name).machine.clock.wall_offset_s += seconds

    def partition(self, names: Sequence[str], others: Sequence[str] = (), *, lasts: float | None = None) -> None:
        """Nothing passes between them."""
        everybody = [*self._world.server_names, *self._world.hosts, STORY]
        here, there = list(names), list(others) or [name for name in everybody if name not in names]
        for name in (*here, *there):
            if name != STORY:
                self._any(name)
        ways = [way for a in here for b in there for way in ((a, b), (b, a))]
        self._world.note("world", f"{', '.join(here)} cut off from {', '.join(there)}")
        for way in ways:
            self._world.net.block(*way)
        self._cut += ways
        self._later(lasts, lambda: self._unblock(ways))

    def slow_link(self, source: str, target: str, *, factor: float = 50.0, lasts: float | None = None) -> None:
        """One direction takes so many times as long."""
        way = self._world.net.way(self._any(source).name, self._any(target).name)
        way.factor = factor
        self._world.note("world", f"the way from {source} to {target} is {factor} times as slow")

        def mend() -> None:
            way.factor = 1.0

        self._later(lasts, mend)

    def heal(self) -> None:
        """Everything works again, what is down starts, and nothing goes wrong by chance any more."""
        self._world.no_more_faults()
        self._world.note("world", "everything is mended")
        self._unblock(self._cut)
        self._world.net.heal()
        for host in self._world.hosts.values():
            host.power_on()
        for name, slot in self._world.slots.items():
            self._usual_disk(name)
            if slot.disks.health.full:
                slot.disks.health.full = False
                slot.stop(power=False)
            slot.start()

    # --- names ------------------------------------------------------------------------------------------------------

    def _host(self, name: str) -> HostSlot:
        if name not in self._world.hosts:
            raise ValueError(f"there is no host {name!r}; there are {', '.join(self._world.hosts)}")
        return self._world.hosts[name]

    def _server(self, name: str) -> ServerSlot:
        if name not in self._world.slots:
            raise ValueError(f"there is no server {name!r}; there are {', '.join(self._world.slots)}")
        return self._world.slots[name]

    def _any(self, name: str) -> HostSlot | ServerSlot:
        return self._server(name) if name in self._world.slots else self._host(name)

    def _usual_disk(self, server: str) -> None:
        self._server(server).disks.health.sync_ns = int(self._world.settings.sync_ms * MS)

    def _unblock(self, ways: list[tuple[str, str]]) -> None:
        for way in ways:
            self._world.net.unblock(*way)
        self._cut = [way for way in self._cut if way not in ways]

    def _later(self, seconds: float | None, event: Callable[[], object]) -> None:
        if seconds is not None:
            self._world.timeline.after(seconds * NS, event)
