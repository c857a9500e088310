"""A simulated host: the daemon's own `host.app.Host`. The network, the locks and the worker container are simulated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from tenure_api.identity import Role as CertificateRole
from tenure_proto.v1.calls_pb2 import Call
from tenure_proto.v1.hostlink_pb2 import Load
from tenured.core.lease import HostLease
from tenured.core.owner import Owner
from tenured.core.profile import Profile
from tenured.host import app
from tenured.host.calls import HostCalls
from tenured.host.leasing import Lease
from tenured.host.locks import DeadLocks
from tenured.host.options import Options
from tenured.host.store import Store
from tenured.host.watching import Watcher
from tenured.simulation.links import CALLS, SimLinks, SimWatcher, SimWires, Wildness, identity
from tenured.simulation.machines import Machine, Process, Setting
from tenured.simulation.net import End
from tenured.simulation.worker import WorkerContainer
from tenured.transport.serverlinks import LinkEvents, ServerLinks
from tenured.transport.signals import Wires
from tenured.transport.tls import TlsFiles


@dataclass(kw_only=True)
class HostRules:
    """The rules of a host; mutations replace one."""

    lease: type[HostLease] = HostLease
    owner: type[Owner] = Owner
    shell: type[Lease] = Lease
    new_incarnations: bool = True
    """Every start of a daemon is a new incarnation, and needs new epochs [epoch_once]."""
    beat: Callable[[SimHost], int] | None = None
    """What a heartbeat says of the time of its sending; default: the boot clock's."""


class LockFiles(Protocol):
    """The lock files of one machine's pod: who still holds one."""

    def others(self, incarnation: str) -> list[str]:
        """Incarnations whose files are there."""
        ...

    def free(self, incarnation: str) -> bool:
        """No process holds it."""
        ...

    def remove(self, incarnation: str) -> None:
        """Its end is committed."""
        ...


class SimLocks:
    """In the place of `locks.DeadLocks`."""

    def __init__(self, files: LockFiles, own: str) -> None:
        self._files = files
        self._waiting = files.others(own)
        self._held: list[str] = []

    @property
    def dead(self) -> tuple[str, ...]:
        """Provably dead."""
        return tuple(sorted(self._held))

    @property
    def waiting(self) -> tuple[str, ...]:
        """Some process still lives."""
        return tuple(sorted(self._waiting))

    def poll(self) -> bool:
        """Take what can be taken."""
        for incarnation in [each for each in self._waiting if self._files.free(each)]:
            self._waiting.remove(incarnation)
            self._held.append(incarnation)
        return not self._waiting

    def forget(self, incarnations: Iterable[str]) -> None:
        """Their end is committed."""
        for incarnation in incarnations:
            self._files.remove(incarnation)
            self._held.remove(incarnation)


class CallWatch(Protocol):
    """Who checks that calls are answered in time."""

    def call_took(self, host: SimHost, call: Call, took_ns: int) -> None:
        """A host answered a call, after so long on its own clock."""


@dataclass(frozen=True, kw_only=True)
class HostPlace:
    """What a daemon finds where it starts."""

    setting: Setting
    machine: Machine
    servers: tuple[str, ...]
    profile: Profile
    container: WorkerContainer
    files: LockFiles
    rules: HostRules
    wild: Wildness
    calls: CallWatch


class SimHost(app.Host):
    """One start of the daemon on one machine."""

    def __init__(self, place: HostPlace, incarnation: str) -> None:
        self._place = place
        self.machine, self.container, self.incarnation = place.machine, place.container, incarnation
        self.setting, self.rules = place.setting, place.rules
        self.process = Process(place.setting, place.machine, incarnation)
        self._assembled = False
        super().__init__(_options(place.machine.name, place.servers, place.profile), incarnation)
        self.process.spawn(self._live())

    # --- for the world ----------------------------------------------------------------------------------------------

    @property
    def believes(self) -> bool:
        """It would release results now: it believes that its lease runs."""
        with self.process.loop.running():
            return self._assembled and self._site.lease.held

    def drain(self) -> None:
        """As SIGTERM does."""
        self.process.loop.deliver(self.setting.timeline.now, self._begin_drain)

    @property
    def serves(self) -> bool:
        """It holds its lease, and a worker is there."""
        return self.believes and self._site.pool.ready

    @property
    def holds(self) -> dict[str, int]:
        """uid -> epoch of what runs here."""
        return {uid: holder.epoch for uid, holder in self._activations.holders.items()}

    # --- parts ------------------------------------------------------------------------------------------------------

    def _make_links(self, files: TlsFiles, events: LinkEvents) -> ServerLinks:  # noqa: ARG002 - the real one's
        return SimLinks(self.process, self._options.servers, events, self._place.wild)

    def _make_wires(self, files: TlsFiles) -> Wires:  # noqa: ARG002 - the real one's
        return SimWires(self.process)

    def _jitter(self) -> Callable[[], float]:
        return self.setting.rng.random

    def _make_watcher(self, files: TlsFiles) -> Watcher:  # noqa: ARG002 - the real one's
        return SimWatcher(self.process, self._options.servers, self._site.mirror, self._watched)

    def _load(self) -> Load:
        return Load(agents=len(self._activations.holders), cpu=0.1)

    def _make_lease(self) -> Lease:
        lease = self.rules.lease(self._options.profile, self.incarnation)
        return self.rules.shell(lease, self._renewed, self._gone)

    def _make_store(self) -> Store:
        store = super()._make_store()
        store.owner = self.rules.owner
        return store

    def _now_ns(self) -> int:
        return self.rules.beat(self) if self.rules.beat is not None else super()._now_ns()

    async def _live(self) -> None:
        self._end = asyncio.get_running_loop().create_future()
        self._assemble("lock", cast("TlsFiles", None))
        self._assembled = True
        served = self._calls()
        self._listen(served)
        await self._site.courier.start()
        self.container.connect(cast("Any", self._site.pool), self.process.loop, self.incarnation)
        await self._serve(cast("TlsFiles", None), cast("DeadLocks", SimLocks(self._place.files, self.incarnation)))
        again = await self._end
        self.setting.note(self.incarnation, "ends: its incarnation is gone" if again else "ends: drained")
        self._activations.abort()
        await asyncio.sleep(0)
        self.setting.timeline.after(0, self.process.kill)

    # --- calls ------------------------------------------------------------------------------------------------------

    def _listen(self, served: HostCalls) -> None:
        """Take calls."""
        self.setting.net.listen(self.process.loop, self.machine.name, CALLS, partial(self._caller_connected, served))

    def _caller_connected(self, served: HostCalls, end: End, machine: str) -> None:
        end.on_item = lambda call: self.process.spawn(self._answer(served, end, machine, call))

    async def _answer(self, served: HostCalls, end: End, machine: str, call: Call) -> None:
        before = self.process.boot_ns()
        reply = await served.call(identity(CertificateRole.CLIENT, machine), call)
        self._place.calls.call_took(self, call, self.process.boot_ns() - before)
        reply.seq = call.seq
        end.write(reply)


def _options(name: str, servers: tuple[str, ...], profile: Profile) -> Options:
    nowhere = Path("/nowhere")
    return Options(
        name=name,
        cluster="tenure/sim",
        pool="default",
        node=f"node-{name}",
        servers={server: server for server in servers},
        enrol=(),
        token=nowhere,
        ca=nowhere,
        run=nowhere,
        advertise=name,
        profile=profile,
        exit_deadline_s=3.0,
    )
