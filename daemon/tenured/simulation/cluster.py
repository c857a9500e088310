"""The whole cluster in one process, in virtual time: a function of its seed.

    Cluster(seed).run()      # raises Breach with the seed and a transcript when an invariant does not hold

Servers and hosts are the daemon's own code (server.py and host.py beside this file say what is simulated). Every
number is drawn from the seed (swarm testing: each seed has its own subset of the faults), unless it is given.
"""

from __future__ import annotations

import asyncio
import gc
import random
import traceback
import zlib
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tenured import clocks
from tenured.core import commands
from tenured.core.agentspec import AgentSpec
from tenured.core.model import Pool
from tenured.core.profile import FAST, Profile
from tenured.raft.core import State
from tenured.simulation.clients import Client, Operator
from tenured.simulation.faults import FAULTS, ON_SERVERS
from tenured.simulation.host import HostPlace, HostRules, SimHost
from tenured.simulation.invariants import Breach, Checker
from tenured.simulation.links import Wildness
from tenured.simulation.machines import Machine
from tenured.simulation.net import MS, Net
from tenured.simulation.server import ServerRules, SimServer
from tenured.simulation.slots import HostSlot, ServerSlot
from tenured.simulation.timeline import NS, Clock, ProcessLoop, Timeline
from tenured.simulation.worker import WorkerContainer

TRANSCRIPT_LINES = 150


@dataclass(kw_only=True)
class Settings:
    """What a seed draws, unless it is given."""

    servers: int = 3
    hosts: int = 4
    agents: int = 6
    clients: int = 2
    rate: float = 12.0
    """Calls a second and client."""
    faults_s: float = 5.0
    """Something goes wrong for so long, after a quiet second."""
    settle_s: float = 12.0
    """Within this everything works again, once the faults have healed."""
    gap_s: float = 0.4
    """Mean time between faults."""
    fault_names: tuple[str, ...] = tuple(FAULTS)
    profile: Profile = FAST
    drift: float = 0.99
    """Share of the clock error that the profile's margin bears."""
    delay_ms: float = 1.0
    jitter_ms: float = 1.0
    loss: float = 0.0
    doubles: float = 0.0
    late: float = 0.0
    turn_ms: float = 1.0
    sync_ms: float = 0.5
    compact_entries: int = 50_000
    """After so many a server cuts its log."""
    lies: bool = False
    """Every log's disk says "synced" too soon."""


def drawn(rng: random.Random) -> Settings:
    """The numbers of one world."""
    wild = rng.random() < 0.3
    return Settings(
        servers=3,
        hosts=rng.choice((3, 4)),
        agents=rng.choice((4, 8)),
        rate=rng.choice((5.0, 10.0, 20.0)),
        gap_s=rng.choice((0.2, 0.4, 0.8)),
        fault_names=_some_faults(rng),
        delay_ms=rng.choice((0.2, 1.0, 10.0)),
        jitter_ms=rng.choice((0.5, 2.0, 40.0)),
        loss=rng.choice((0.02, 0.1)) if wild else 0.0,
        doubles=rng.choice((0.02, 0.2)) if wild else 0.0,
        late=rng.choice((0.01, 0.05)) if wild else 0.0,
        turn_ms=rng.choice((1.0, 20.0)),
        sync_ms=rng.choice((0.5, 5.0, 20.0)),
        compact_entries=rng.choice((20, 60, 50_000)),
    )


def _some_faults(rng: random.Random) -> tuple[str, ...]:
    """Half of them; in a third of the worlds the servers are left alone, so that hosts are expired and agents move."""
    calm = rng.random() < 1 / 3
    names = [name for name in FAULTS if rng.random() < 0.5 and not (calm and name in ON_SERVERS)]
    return tuple(names) or tuple(FAULTS)


@dataclass(kw_only=True)
class Rules:
    """The rules of this world; mutations replace one."""

    server: ServerRules = field(default_factory=ServerRules)
    host: HostRules = field(default_factory=HostRules)


class Observer:
    """Passes on what user code shows to the checker, which is made later."""

    def __init__(self, world: Cluster) -> None:
        self._world = world

    def activated(self, machine: str, uid: str, epoch: int, state: bytes | None) -> None:
        """A state became visible."""
        self._world.check.activated(machine, uid, epoch, state)

    def committed(self, machine: str, uid: str, epoch: int, state: bytes) -> None:
        """A turn became durable."""
        self._world.check.turn_committed(machine, uid, epoch, state)


class Cluster:
    """One world. `settings` fixes what the seed would draw, `rules` what is checked where."""

    def __init__(self, seed: int, settings: Settings | None = None, rules: Rules | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)  # noqa: S311 - repeatable is what it has to be
        self.settings = settings or drawn(self.rng)
        self.rules = rules or Rules()
        self.timeline = Timeline()
        self.net = Net(self.timeline, self.rng)
        self.net.delay_ns = int(self.settings.delay_ms * MS)
        self.net.jitter_ns = int(self.settings.jitter_ms * MS)
        self.wild = Wildness(self.rng)
        self.check = Checker(self)
        self.observer = Observer(self)
        self.coverage: Counter[str] = Counter()
        self.trace = 0
        """Checksum of the transcript: the same seed gives the same one."""
        self._lines: deque[str] = deque(maxlen=TRANSCRIPT_LINES)
        self._disturbed: dict[str, int] = {}
        self.lives = 0
        self.over = False
        self.loading = False
        self.server_names = [f"s{n}" for n in range(self.settings.servers)]
        self.servers: dict[str, SimServer] = {}
        self.processes: dict[str, SimHost] = {}
        """By incarnation, the dead ones too."""
        self.slots = {name: ServerSlot(self, name) for name in self.server_names}
        self.hosts = {f"h{n}": HostSlot(self, f"h{n}") for n in range(self.settings.hosts)}
        self.clients = [Client(self, self.new_machine(f"c{n}")) for n in range(self.settings.clients)]
        self.operator = Operator(self, self.new_machine("operator"))
        self.stable = [f"shop/c-{n}" for n in range(self.settings.agents)]
        """Agents that are called."""
        self.passing: list[str] = []
        """Agents that come and go."""

    def new_machine(self, name: str) -> Machine:
        """With clocks at either end of what the margin bears, mostly."""
        rho = self.settings.profile.drift * self.settings.drift
        rate = self.rng.choice((1 - rho, 1 - rho, 1.0, 1 + rho, 1 + rho))
        return Machine(name, Clock(rate, self.rng.randrange(10**12)))

    def new_container(self, machine: Machine) -> WorkerContainer:
        """What runs agents on a host's machine."""
        return WorkerContainer(self, machine, self.observer, int(self.settings.turn_ms * MS))

    def new_host(self, place: HostPlace, incarnation: str) -> SimHost:
        """A daemon starts."""
        return SimHost(place, incarnation)

    def server_started(self, server: SimServer) -> None:
        """A server's process is up, and reads its disks."""

    # --- the transcript ---------------------------------------------------------------------------------------------

    def note(self, who: str, what: str) -> None:
        """One line."""
        line = f"{self.timeline.now / NS:9.4f} {who:9} {what}"
        self.trace = zlib.crc32(line.encode(), self.trace)
        self._lines.append(line)

    def transcript(self) -> list[str]:
        """The last lines."""
        return [f"  {self.settings}", *self._lines]

    def problem(self, who: str, message: str, error: BaseException | None) -> None:
        """An exception that nobody handled is a finding."""
        if not self.over and self.check.found is None:
            where = traceback.format_exception(error)[-3:] if error is not None else []
            with suppress(Breach):
                self.check.fail("nothing is raised", f"{who}: {message}: {error!r} {' '.join(where)}")

    # --- clocks.Clocks: of the process that runs ------------------------------------------------------------------

    def boot_ns(self) -> int:
        """Of its machine."""
        return self._loop().clock.boot_ns(self.timeline.now)

    def wall_s(self) -> float:
        """Of its machine."""
        return self._loop().clock.wall_s(self.timeline.now)

    @staticmethod
    def _loop() -> ProcessLoop:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, ProcessLoop):
            raise TypeError("a clock was read outside of a simulated process")
        return loop

    # --- what others ask --------------------------------------------------------------------------------------------

    def uid(self, agent: str) -> str:
        """Of the present agent of that name; empty: there is none."""
        return self.check.truth.by_id.get(agent, "")

    def route(self, agent: str) -> str:
        """Where some server believes the agent to be."""
        if not self.servers:
            return ""
        server = self.rng.choice([self.servers[name] for name in sorted(self.servers)])
        row = server.replica.registry.agent(agent)
        return row.host if row is not None else ""

    def leader(self) -> str | None:
        """Who leads the highest term."""
        found: tuple[int, str | None] = (0, None)
        for name in sorted(self.servers):
            engine = self.servers[name].consensus.engine
            if engine is not None and engine.state == State.LEADER:
                found = max(found, (engine.current_term, name), key=lambda each: each[0])
        return found[1]

    def disturbed(self, machine: str, length_ns: int) -> None:
        """Its answers may be late for a while."""
        self._disturbed[machine] = max(self._disturbed.get(machine, 0), self.timeline.now + length_ns + 8 * NS)

    def was_disturbed(self, machine: str) -> bool:
        """Whether it may be late."""
        return self._disturbed.get(machine, 0) > self.timeline.now

    def entry_applied(self, server: SimServer, index: int, command: bytes) -> None:
        """server.Watching"""
        self.check.entry(server, index, command)

    def snapshot_installed(self, server: SimServer) -> None:
        """server.Watching"""
        self.coverage["snapshot installed"] += 1
        self.note(server.name, "takes a snapshot")

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> Cluster:
        """All of it. Raises Breach."""
        collecting = gc.isenabled()
        gc.disable()  # finalizers at random moments would be events that the seed does not know
        try:
            with clocks.replaced(self):
                self._begin()
                self.until(NS)
                self._go_wild()
                self.until(int((1 + self.settings.faults_s) * NS))
                self.no_more_faults()
                self._settle()
                self.check.final()
        finally:
            self._end()
            if collecting:
                gc.enable()
        return self

    def until(self, when: int) -> None:
        """Let it happen up to that time."""
        timeline = self.timeline
        while (at := timeline.next_at) is not None and at <= when:
            self.step()
        timeline.now = max(timeline.now, when)

    def step(self) -> None:
        """One event, and what must hold after it."""
        loop = self.timeline.step()
        if self.check.found is not None:
            raise self.check.found
        if loop is None:
            return
        name = loop.name
        server = self.servers.get(name)
        if server is not None:
            self.check.after_server(server)
        elif name in self.processes:
            self.check.after_host(self.processes[name])

    def _begin(self) -> None:
        for slot in self.slots.values():
            self.timeline.after(self.rng.random() * 50 * MS, slot.start)
        for host in self.hosts.values():
            self.timeline.after((100 + self.rng.random() * 400) * MS, host.start)
        specs = tuple(AgentSpec(id=name, class_name="Counter") for name in self.stable)
        self.operator.want(commands.ApplyPools(pools=(Pool(name="default"),)))
        self.operator.want(commands.ApplyAgents(agents=specs, managed_by="API"))
        self.loading = True
        for client in self.clients:
            self.timeline.after(900 * MS, partial(client.load, self.settings.rate))

    def _go_wild(self) -> None:
        self.wild.loss, self.wild.doubles, self.wild.late = (
            self.settings.loss,
            self.settings.doubles,
            self.settings.late,
        )
        self._misfortune()

    def _misfortune(self) -> None:
        if self.loading:
            name = self.rng.choice(self.settings.fault_names)
            self.coverage[name] += 1
            FAULTS[name](self)
            self.timeline.after(self.rng.expovariate(1 / self.settings.gap_s) * NS, self._misfortune)

    def no_more_faults(self) -> None:
        """By chance. What was going to mend itself still does."""
        self.note("world", "no more faults")
        self.loading = False
        self.wild.loss = self.wild.doubles = self.wild.late = 0.0
        self.operator.want(commands.SetNodes(nodes=()))

    def _settle(self) -> None:
        """Everything works again within a bound, and says so itself: a call to each agent."""
        deadline = self.timeline.now + int(self.settings.settle_s * NS)
        answered: set[str] = set()
        asking: set[str] = set()

        async def probe(agent: str) -> None:
            if await self.clients[0].call(agent, 2.0):
                answered.add(agent)
            asking.discard(agent)

        target = 0
        while self.timeline.now < deadline:
            for agent in self.stable:
                if agent not in answered and agent not in asking:
                    asking.add(agent)
                    self.clients[0].process.spawn(probe(agent))
            self.until(self.timeline.now + 250 * MS)
            if len(answered) == len(self.stable):
                target = target or self.check.truth.index
                if self._is_level(target):
                    return
        agents = [self.check.truth.agent(name) for name in self.stable if name not in answered]
        self.check.fail("progress after the faults", f"no answer of {agents}; {self._standing()}")

    def _is_level(self, target: int) -> bool:
        if len(self.servers) < len(self.slots) or self.operator.open or any(c.open for c in self.clients):
            return False
        if any(server.replica.registry.index < target for server in self.servers.values()):
            return False
        return all(row.ready for row in self.check.truth.agents.values())

    def _standing(self) -> str:
        roles = {name: server.consensus.role() for name, server in self.servers.items()}
        pending = f"operator {self.operator.open}, clients {[client.open for client in self.clients]}"
        indexes = {name: server.replica.registry.index for name, server in self.servers.items()}
        return f"{pending}, indexes {indexes} of {self.check.truth.index}, roles {roles}"

    def _end(self) -> None:
        self.over = True
        everybody: list[Any] = [*self.servers.values(), *(s.daemon for s in self.hosts.values()), *self.clients]
        for each in [*everybody, self.operator]:
            if each is not None:
                each.process.kill(power=True)
