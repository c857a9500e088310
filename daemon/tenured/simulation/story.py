"""A world around a story that a user tells: the user's agents on simulated hosts, the user's calls through the SDK's
own client, faults by name and by chance. `tenure.testing.simulate` stands on it.

The SDK may not know the daemon, nor the daemon the SDK: they meet in `Program` (frames of the worker link) and in
`rpc.Channel` (what generated stubs ask for), which the SDK's side takes as protocols of its own.
"""

from __future__ import annotations

import gc
import logging
import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tenure_proto.v1.registry_pb2 import StatusResponse
from tenured import clocks
from tenured.core import commands
from tenured.core.model import Agent, Pool
from tenured.host.calls import HostCalls
from tenured.server.api import Api
from tenured.server.passing import Passing
from tenured.simulation import rpc
from tenured.simulation.cluster import Cluster, Rules, Settings, drawn
from tenured.simulation.controls import STORY, Controls
from tenured.simulation.faults import FAULTS
from tenured.simulation.host import HostPlace, SimHost
from tenured.simulation.links import CLUSTER
from tenured.simulation.machines import Machine, Process
from tenured.simulation.net import MS
from tenured.simulation.programs import Program, UserContainer, shown
from tenured.simulation.server import SimServer
from tenured.simulation.timeline import NS, Clock
from tenured.simulation.usertime import virtual
from tenured.simulation.worker import WorkerContainer
from tenured.transport import calls, registry

BOOT_S = 20.0
SETTLE_S = 30.0
STANDSTILL = 100_000
LOOK_NS = 20 * MS
KEPT_LINES = 10_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What goes wrong by chance while the story is told."""

    names: tuple[str, ...] = ()
    """Of `faults.FAULTS`; none: nothing."""
    gap_s: float = 1.0
    """Mean time between two."""
    wild: bool = False
    """Slow networks and disks, lost and doubled frames, as the seed draws them."""


_HOST_FAULTS = ("kill_daemon", "power_host", "pause_host", "crash_worker", "drain_host")
_NOT_HERE = frozenset({"change_agents", "cordon", "cut_clients"})
"""Made for the stand-ins."""

CHANCES = tuple(name for name in FAULTS if name not in _NOT_HERE)
PLANS: dict[str, Plan] = {
    "none": Plan(),
    "calm": Plan(names=(*_HOST_FAULTS, "kill_server", "cut_connections", "step_wall_clock"), gap_s=2.0),
    "rough": Plan(names=CHANCES, gap_s=0.5, wild=True),
}


class _Host(SimHost):
    """A host that the SDK's client can call."""

    def _listen(self, served: HostCalls) -> None:
        rpc.listen(self.process, calls.methods(served), self._place.servers)


class World(Cluster):
    """One story's world."""

    def __init__(
        self,
        seed: int,
        program: Program,
        *,
        servers: int = 3,
        hosts: int = 3,
        plan: Plan | None = None,
        rules: Rules | None = None,
    ) -> None:
        self.program = program
        self.plan = plan or Plan()
        super().__init__(seed, _settings(seed, servers, hosts, self.plan), rules)
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.faults = Controls(self)
        # Its clock is right: leases are not its business, and people reckon with its seconds.
        self.story = Process(self, Machine(STORY, Clock(1.0, self.rng.randrange(10**12))), STORY)

    # --- parts ------------------------------------------------------------------------------------------------------

    def new_container(self, machine: Machine) -> WorkerContainer:
        return UserContainer(self, machine, self.observer, int(self.settings.turn_ms * MS), self.program)

    def new_host(self, place: HostPlace, incarnation: str) -> SimHost:
        return _Host(place, incarnation)

    def server_started(self, server: SimServer) -> None:
        """It has an API, too."""
        api = Api(CLUSTER, server.replica, server.consensus, server.hub, StatusResponse)
        passing = Passing(
            CLUSTER, server.replica, server.consensus, lambda address, _: rpc.Passed(server.process, address)
        )
        rpc.listen(server.process, [*registry.methods(api), *calls.methods(passing)])

    def problem(self, who: str, message: str, error: BaseException | None) -> None:
        """What user code leaves unhandled is its author's business."""
        if who == STORY or ".w" in who:
            self.note(who, f"{message}: {error!r}")
        else:
            super().problem(who, message, error)

    def transcript(self) -> list[str]:
        """All lines, up to 10,000."""
        return list(self._lines)

    # --- for the SDK's side -----------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """True time since the beginning."""
        return self.timeline.now / NS

    def channel(self, machine: str) -> rpc.Channel:
        """From the story's process."""
        return rpc.Channel(self.story, machine)

    def row(self, agent: str) -> Agent | None:
        """As committed."""
        return self.check.truth.agent(agent)

    def committed(self, agent: str) -> tuple[list[str], bytes] | None:
        """The calls that made an agent's last committed state, and that state, at its holder; None: nobody has it."""
        row = self.row(agent)
        slot = self.hosts.get(row.host) if row is not None and row.ready else None
        container = slot.container if slot is not None else None
        return container.committed(row.uid) if row is not None and isinstance(container, UserContainer) else None

    def acknowledged_before(self, agent: str) -> tuple[str, list[str]]:
        """The agent's uid, and the calls that a query which is asked now has to know."""
        uid = self.uid(agent)
        return uid, list(self.check.chain(uid).acknowledged)

    def answered(self, reply: bytes, epoch: int, before: tuple[str, list[str]]) -> tuple[bytes, bool]:
        """What the agent itself replied, and whether it was a query; the checker sees the rest. Raises Breach."""
        seen = shown(reply)
        if seen.call:
            self.check.acknowledged(seen.uid, seen.call, epoch, len(seen.effects))
        elif before[0] == seen.uid:
            self.check.read(seen.uid, seen.effects, before[1])
        return seen.reply, not seen.call

    def refused(self, call: str) -> None:
        """A call ended, and had no effect, as its client was told."""
        self.check.refused(call)

    def unsettled(self) -> str:
        """What is not as it should be now; empty: every agent is Ready on a host that works."""
        leader = self.leader()
        if leader is None or leader not in self.servers or not self.servers[leader].consensus.role().ready:
            return "no server leads"
        if self.operator.open:
            return "a change of the cluster is not decided"
        return next((why for row in self.check.truth.agents.values() if (why := self._unserved(row))), "")

    def _unserved(self, row: Agent) -> str:
        host = self.processes.get(row.incarnation)
        if host is None or not row.ready:
            why = row.trouble.message if row.trouble is not None else "nobody holds it"
            return f"{row.spec.id} is not Ready: {why}"
        machine = host.machine
        if not host.process.alive or host.process.paused or not host.serves:
            return f"{row.spec.id} is on {machine.name}, which is down"
        if self.committed(row.spec.id) is None and row.hibernation is None:
            return f"{row.spec.id} is not in a worker of {machine.name} yet"
        ways = [(machine.name, server) for server in self.servers]
        heard = [way for way in ways if not (self.net.way(*way).blocked or self.net.way(*reversed(way)).blocked)]
        if len(heard) <= len(self.slots) // 2:
            return f"{row.spec.id} is on {machine.name}, which is cut off"
        return ""

    # --- the run ----------------------------------------------------------------------------------------------------

    def play(self, story: Callable[[], Coroutine[Any, Any, None]], limit_s: float) -> None:
        """Boot, tell the story, mend everything, and look. Raises Breach, TimeoutError, and what the story raises."""
        collecting = gc.isenabled()
        gc.disable()  # finalizers at random moments would be events that the seed does not know
        try:
            with clocks.replaced(self), virtual(self.timeline, self.seed), _silent():
                self._begin()
                self._wait(lambda: not self._booted(), BOOT_S)
                self._tell(story, limit_s)
                self.faults.heal()
                self._settle()
                self._forget_deleted()
                self.check.final()
        finally:
            self._end()
            if collecting:
                gc.enable()

    def _begin(self) -> None:
        for slot in self.slots.values():
            self.timeline.after(self.rng.random() * 10 * MS, slot.start)
        for host in self.hosts.values():
            self.timeline.after((20 + self.rng.random() * 50) * MS, host.start)
        self.operator.want(commands.ApplyPools(pools=(Pool(name="default"),)))

    def _booted(self) -> str:
        if self.unsettled():
            return self.unsettled()
        up = [slot for slot in self.hosts.values() if slot.daemon is not None and slot.daemon.serves]
        return "" if len(up) == len(self.hosts) else f"{len(up)} of {len(self.hosts)} hosts are up"

    def _tell(self, story: Callable[[], Coroutine[Any, Any, None]], limit_s: float) -> None:
        self.note(STORY, "begins")
        loop = self.story.loop
        with loop.running():
            task = loop.create_task(story())
        loop.call_soon(_nothing)
        self.loading = True
        if self.plan.names:
            self._go_wild()
        timeline, end = self.timeline, self.timeline.now + int(limit_s * NS)
        moved_at, moved = timeline.now, timeline.events
        while not task.done():
            if timeline.now > end:
                raise TimeoutError(f"the story has not ended within {limit_s} s of its own time (limit)")
            if timeline.now > moved_at:
                moved_at, moved = timeline.now, timeline.events
            elif timeline.events > moved + STANDSTILL:
                raise TimeoutError(f"{STANDSTILL} things happened at one time, and time does not go on")
            self.step()
        if task.cancelled():
            raise RuntimeError("the story cancelled itself")
        task.result()
        self.note(STORY, "ends")

    def _settle(self) -> None:
        if why := self._wait(self._all_well, SETTLE_S):
            self.check.fail("progress after the faults", why)

    def _all_well(self) -> bool:
        """Everybody is up and level, and serves every agent whose own code can be served."""
        truth = self.check.truth
        if self._booted() and any(self._unserved(row) for row in truth.agents.values() if row.trouble is None):
            return False
        level = all(server.replica.registry.index >= truth.index for server in self.servers.values())
        return level and len(self.servers) == len(self.slots)

    def _wait(self, holds: Callable[[], bool], within_s: float) -> str:
        """Until it holds; else what is wrong."""
        end = self.timeline.now + int(within_s * NS)
        while not holds():
            if self.timeline.now >= end:
                return self._booted() or self._standing()
            self.until(self.timeline.now + LOOK_NS)
        return ""

    def _forget_deleted(self) -> None:
        """Nobody shows the effects of an agent that is gone."""
        for uid in [uid for uid in self.check.chains if uid not in self.check.truth.agents]:
            del self.check.chains[uid]

    def _end(self) -> None:
        super()._end()
        self.story.kill(power=True)
        for slot in self.hosts.values():
            slot.container.power_off()


def _settings(seed: int, servers: int, hosts: int, plan: Plan) -> Settings:
    rng = random.Random(seed)  # noqa: S311 - repeatable is what it has to be
    numbers = drawn(rng)
    if not plan.wild:
        numbers = Settings(
            delay_ms=rng.choice((0.2, 1.0)),
            jitter_ms=rng.choice((0.5, 2.0)),
            turn_ms=rng.choice((1.0, 5.0)),
            sync_ms=rng.choice((0.5, 2.0)),
            compact_entries=rng.choice((60, 50_000)),
        )
    names = plan.names or ("cut_connections",)
    return replace(numbers, servers=servers, hosts=hosts, agents=0, clients=0, gap_s=plan.gap_s, fault_names=names)


@contextmanager
def _silent() -> Generator[None]:
    """The daemon's log is full of the faults that were asked for."""
    log = logging.getLogger("tenured")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)


def _nothing() -> None:
    """Wakes the story's loop."""
