"""A simulated cluster in virtual time: leases, expiry, assignment and failover under faults, checked after every event.

Assumed: the log is atomic (one effective committer, as Raft gives it); a new leader inherits what was chosen and any
prefix of the rest; an old leader goes on believing for a while and may learn late of what was chosen. Everything else
is the core.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable

from core_sim_faults import FAULTS_END, MS, Faults
from core_sim_parts import CLASSES, Change, Entry, Process, Server, some_clock

from tenured.core import commands as c
from tenured.core import machine
from tenured.core.failover import Planner
from tenured.core.lease import Ack, HostLease, LeaderLeases
from tenured.core.model import Pool
from tenured.core.profile import FAST, NS
from tenured.core.registry import Registry

END = 15 * NS


class Violation(AssertionError):
    """An invariant does not hold; the transcript says how it came about."""


class ClusterSim(Faults):
    """One run of 3 servers, 4 hosts and some agents."""

    def __init__(
        self,
        seed: int,
        *,
        leases: type[LeaderLeases] = LeaderLeases,
        planner: type[Planner] = Planner,
        agents: int = 5,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.count = 0
        self.transcript: list[str] = []
        self.term = 0
        self.pending: deque[Entry] = deque()
        self.chosen: list[Entry] = []
        self.changes: list[tuple[Change, ...]] = []
        self.truth = Registry()
        self.known_at: dict[str, int] = {}
        self.ready_at: dict[str, int] = {}
        self.ended_at: dict[str, int] = {}
        self.stalled_until = 0
        self.leases_class = leases
        self.planner_class = planner
        self.servers = {name: self.new_server(name) for name in ("s0", "s1", "s2")}
        self.clocks = {f"h{n}": some_clock(self.rng, FAST) for n in range(4)}
        self.processes: dict[str, Process] = {}
        self.starts = 0
        self.epochs: dict[str, int] = {}
        self.agents = agents
        self.eager = self.rng.random() < 0.3

    # --- the machine ------------------------------------------------------------------------------------------

    def run(self) -> None:
        self.elect("s0")
        self.submit(c.ApplyPools(pools=(Pool(name="default"),)))
        specs = tuple(c.AgentSpec(id=f"shop/c-{n}", class_name="Counter") for n in range(self.agents))
        self.submit(c.ApplyAgents(agents=specs, managed_by="API", command_id="create"))
        for slot in self.clocks:
            self.start_process(slot)
        for server in self.servers.values():
            self.after(self.rng.randrange(FAST.tick_ns), lambda server=server: self.server_tick(server))
        self.after(NS, self.fault)
        while self.queue and self.now < END:
            at, _, event = heapq.heappop(self.queue)
            self.now = max(self.now, at)
            event()
            self.check()
        self.check_end()

    def after(self, delay: int, event: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.queue, (self.now + delay, self.count, event))

    def note(self, text: str) -> None:
        self.transcript.append(f"{self.now / NS:7.3f} {text}")

    def fail(self, text: str) -> None:
        raise Violation(f"seed {self.seed}: {text}\n" + "\n".join(self.transcript[-80:]))

    def delay(self, most_ms: int = 60) -> int:
        """A message's way; now and then it is very late."""
        late = self.rng.random() < 0.03 and self.now < FAULTS_END
        return self.rng.randrange(1, (2500 if late else most_ms)) * MS

    def lost(self) -> bool:
        return self.now < FAULTS_END and self.rng.random() < 0.05

    # --- the log ----------------------------------------------------------------------------------------------

    def propose(self, server: Server, command: c.Command, token: int | None = None) -> None:
        if server.term == self.term:  # what a deposed leader proposes is never chosen
            self.pending.append(Entry(c.encode(command), command, server.name, server.term, token))
            self.after(self.rng.randrange(1, 12) * MS, self.choose)

    def submit(self, command: c.Command) -> None:
        """A client's command, by way of whoever leads."""
        for server in self.servers.values():
            if server.term == self.term:
                self.propose(server, command)

    def choose(self) -> None:
        if self.now < self.stalled_until:
            self.after(self.stalled_until - self.now, self.choose)
        elif self.pending:
            self.commit(self.pending.popleft())

    def commit(self, entry: Entry) -> None:
        self.chosen.append(entry)
        index = len(self.chosen)
        applied = machine.apply(self.truth, index, c.decode(entry.data))
        if not isinstance(entry.command, c.Tick):
            self.note(
                f"chosen {index}: {entry.command} of {entry.server} -> {applied.result.rows or applied.result.ok}"
            )
        found = [key.name for key in (*applied.changed.changed, *applied.changed.gone) if key.kind == "agent"]
        for key in applied.changed.changed:
            if key.kind == "host" and self.truth.ended(key.name):
                self.ended_at.setdefault(key.name, index)
            elif key.kind == "host":
                self.known_at.setdefault(key.name, index)
                if self.truth.hosts[key.name].ready:
                    self.ready_at.setdefault(key.name, index)
        self.changes.append(tuple(self.change(uid) for uid in found))
        for server in self.servers.values():
            # An old leader is cut off, more often than not: it learns late of what was chosen.
            chance = 0.2 if not server.term else 0.0 if server.term == self.term else 0.6
            far = self.now < FAULTS_END and self.rng.random() < chance
            at = max(server.learn_at, self.now + self.rng.randrange(1, 3000 if far else 12) * MS)
            server.learn_at = at
            self.after(at - self.now, lambda server=server: self.learn(server, index))
        for process in self.processes.values():
            self.after(self.delay(), lambda process=process: self.watch(process, index))

    def change(self, uid: str) -> Change:
        row = self.truth.agents.get(uid)
        if row is None:
            return Change(uid, "", 0, False, False, gone=True)
        return Change(uid, row.incarnation, row.epoch, row.deleting, row.ready)

    # --- servers ----------------------------------------------------------------------------------------------

    def new_server(self, name: str) -> Server:
        return Server(name, some_clock(self.rng, FAST), self.leases_class(FAST), self.planner_class(self.seed))

    def elect(self, name: str) -> None:
        """A new leader. It has all that was chosen and any prefix of what was under way."""
        self.term += 1
        for _ in range(self.rng.randrange(len(self.pending) + 1)):
            self.commit(self.pending.popleft())
        self.pending.clear()
        for server in self.servers.values():
            if server.term and server.name != name:  # it goes on believing for a while
                self.after(self.delay(2500), lambda server=server, term=server.term: self.depose(server, term))
        server = self.servers[name]
        self.learn(server, len(self.chosen))
        server.term, server.last_tick = self.term, None
        server.leases.elected()
        server.planner.reset()
        server.known = set(server.registry.hosts)
        self.note(f"{name} leads term {self.term}")
        self.propose(server, c.Tick(step_ns=0))

    def depose(self, server: Server, term: int) -> None:
        if server.term == term:
            server.term = 0

    def learn(self, server: Server, index: int) -> None:
        """The server learns that entries are chosen; its own ticks acknowledge heartbeats, even if it is deposed."""
        while server.applied < index:
            entry = self.chosen[server.applied]
            server.applied += 1
            before = server.registry.placement_version
            applied = machine.apply(server.registry, server.applied, c.decode(entry.data))
            clock = server.clock.at(self.now)
            for key in applied.changed.changed:
                new = key.kind == "host" and key.name not in server.known and server.registry.alive(key.name)
                if server.term and new:
                    server.known.add(key.name)
                    server.leases.registered(clock, key.name)
            if entry.server != server.name:
                continue
            server.planner.settled(entry.command)
            if entry.term == server.term:
                server.leases.first_commit(clock)
            if entry.token is not None:
                for ack in server.leases.tick_committed(entry.token, server.applied, server.registry):
                    self.send_ack(server, ack)
            if server.registry.placement_version != before:
                self.plan(server)

    def plan(self, server: Server) -> None:
        if server.term and self.now >= server.paused_until:
            for command in server.planner.plan(server.registry, server.leases, server.clock.at(self.now), 0.0):
                self.propose(server, command)

    def server_tick(self, server: Server) -> None:
        self.after(int(FAST.tick_ns / server.clock.rate), lambda: self.server_tick(server))
        if not server.term or self.now < server.paused_until:
            return
        clock = server.clock.at(self.now)
        if server.last_tick is not None and clock - server.last_tick > 2.5 * FAST.tick_ns:
            server.leases.stalled(clock)
        step = 0 if server.last_tick is None else clock - server.last_tick
        server.last_tick = clock
        self.propose(server, c.Tick(step_ns=step), server.leases.tick_proposed())
        self.plan(server)

    def send_ack(self, server: Server, ack: Ack) -> None:
        process = self.processes.get(ack.incarnation)
        if process is None or self.cut(process, server) or self.lost():
            return
        for _ in range(2 if self.rng.random() < 0.02 else 1):
            self.after(self.delay(), lambda: self.receive_ack(process, ack))

    # --- host processes -----------------------------------------------------------------------------------------

    def start_process(self, slot: str, dead: tuple[str, ...] = ()) -> None:
        self.starts += 1
        incarnation = f"{slot}.{self.starts}"
        process = Process(slot, incarnation, self.clocks[slot], HostLease(FAST, incarnation), dead_before=dead)
        process.eager = self.eager
        self.processes[incarnation] = process
        self.note(f"{incarnation} starts, names {dead} dead")
        self.after(1, lambda: self.watch(process, len(self.chosen)))
        self.after(self.rng.randrange(FAST.tick_ns), lambda: self.process_tick(process))

    def cut(self, process: Process, server: Server) -> bool:
        return self.now < process.cut_until and server.name in process.cut_from

    def process_tick(self, process: Process) -> None:
        """Heartbeat, and say again whatever the registry does not show yet."""
        if not process.alive or process.stopped:
            return
        self.after(int(FAST.tick_ns / process.clock.rate), lambda: self.process_tick(process))
        if self.now < process.paused_until:
            return
        if process.known or process.eager:
            sent_at = process.clock.at(self.now)
            self.to_servers(process, lambda server: self.heartbeat(server, process, sent_at))
        if not process.registered:
            self.ask(
                process,
                c.RegisterHost(
                    name=process.slot,
                    incarnation=process.incarnation,
                    pool="default",
                    node=process.slot,
                    dead_incarnations=process.dead_before,
                ),
            )
            self.ask(process, c.ReportHost(incarnation=process.incarnation, ready=True, classes=CLASSES))
        reports = [self.report(row) for row in process.mine.values() if row.deleting or not row.ready]
        reports += [
            c.AgentReport(uid=row.uid, epoch=row.epoch, released=True)
            for row in process.view.values()
            if row.incarnation == process.incarnation and process.released.get(row.uid) == row.epoch
        ]
        if reports and self.rng.random() < 0.3:
            self.ask(process, c.AgentReports(incarnation=process.incarnation, reports=tuple(reports)))

    def report(self, row: Change) -> c.AgentReport:
        return c.AgentReport(uid=row.uid, epoch=row.epoch, ready=not row.deleting, stopped=row.deleting)

    def to_servers(self, process: Process, event: Callable[[Server], None]) -> None:
        for server in self.servers.values():
            if not self.cut(process, server) and not self.lost():
                self.after(self.delay(), lambda server=server: self.at_server(server, event))

    def at_server(self, server: Server, event: Callable[[Server], None]) -> None:
        if self.now < server.paused_until:  # it lies unread in the socket
            self.after(server.paused_until - self.now, lambda: self.at_server(server, event))
        elif server.term:
            event(server)

    def heartbeat(self, server: Server, process: Process, sent_at: int) -> None:
        server.leases.heartbeat(server.clock.at(self.now), process.incarnation, sent_at)

    def ask(self, process: Process, command: c.Command) -> None:
        self.to_servers(process, lambda server: self.propose(server, command))

    def receive_ack(self, process: Process, ack: Ack) -> None:
        if self.now < process.paused_until:
            self.after(process.paused_until - self.now, lambda: self.receive_ack(process, ack))
        elif process.alive:
            process.lease.ack(ack)
            if process.lease.gone:
                self.replace(process)

    def watch(self, process: Process, index: int) -> None:
        """The process reads the registry's changes up to `index`."""
        if not process.alive or process.stopped or process.seen >= index:
            return
        wait = max(process.paused_until, process.watch_after) - self.now
        if wait > 0:
            self.after(wait, lambda: self.watch(process, index))
            return
        for changes in self.changes[process.seen : index]:
            for change in changes:
                process.view[change.uid] = change
                if change.gone:
                    del process.view[change.uid]
        process.seen = index
        process.changed()
        process.known = self.known_at.get(process.incarnation, index + 1) <= index
        process.registered = self.ready_at.get(process.incarnation, index + 1) <= index
        if self.ended_at.get(process.incarnation, index + 1) <= index:
            self.replace(process)

    def replace(self, process: Process) -> None:
        """It learned that it ended: it stops everything and starts anew (protocol 1, host 4)."""
        if not process.stopped:
            process.stopped = True
            self.note(f"{process.incarnation} learns that it has ended")
            self.after(self.delay(), lambda: self.start_process(process.slot))

    # --- the invariants -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """After every event (DESIGN.md 3, invariant 1; protocol 1 and 4)."""
        holders: dict[str, tuple[str, int]] = {}
        for process in self.processes.values():
            if not process.alive or process.stopped or not process.lease.held(process.clock.at(self.now)):
                continue
            if self.truth.ended(process.incarnation):
                self.fail(f"{process.incarnation} has ended and still holds a lease by its own clock")
            for uid, epoch in process.serves.items():
                if uid in holders:
                    self.fail(f"agent {uid} is held by {holders[uid]} and by {(process.incarnation, epoch)}")
                holders[uid] = (process.incarnation, epoch)
        for change in self.changes[-1] if self.changes else ():
            if change.epoch < self.epochs.get(change.uid, 0) and not change.gone:
                self.fail(f"the epoch of agent {change.uid} went back to {change.epoch}")
            self.epochs[change.uid] = max(change.epoch, self.epochs.get(change.uid, 0))

    def check_end(self) -> None:
        """The faults stopped a while ago: every host is back, every agent is held by one with a lease, and ready."""
        back = {p.slot for p in self.processes.values() if p.alive and p.lease.held(p.clock.at(self.now))}
        if back != set(self.clocks):
            self.fail(f"only {sorted(back)} are back at the end")
        for uid, row in self.truth.agents.items():
            process = self.processes.get(row.incarnation)
            held = process is not None and process.alive and process.lease.held(process.clock.at(self.now))
            if process is None or not held or process.serves.get(uid) != row.epoch or not row.ready:
                self.fail(f"agent {uid} is not held at the end: {row}")
        for server in self.servers.values():
            self.learn(server, len(self.chosen))
            if server.registry.snapshot() != self.truth.snapshot():
                self.fail(f"the replica of {server.name} differs")
