"""What goes wrong in the simulated cluster, and how: part of `core_cluster_sim.ClusterSim`."""

from __future__ import annotations

from collections import deque

from core_sim_parts import Process

from tenured.core import commands as c
from tenured.core.profile import FAST, NS

MS = 1_000_000
FAULTS_END = 8 * NS


class Faults:
    """One random fault after the other until `FAULTS_END`; then everything heals by itself."""

    def fault(self) -> None:
        if self.now >= FAULTS_END:
            self.note("no more faults")
            return
        self.after(self.rng.randrange(50, 900) * MS, self.fault)
        running = [p for p in self.processes.values() if p.alive and not p.stopped]
        kinds = [self.kill, self.pause, self.cut_off, self.second, self.leave, self.give_up]
        if self.rng.random() < 0.35 or not running:
            self.rng.choice([self.new_leader, self.pause_server, self.stall, self.crash_server, self.change_agents])()
        else:
            self.rng.choice(kinds)(self.rng.choice(running))

    def kill(self, process: Process) -> None:
        """The process dies; the next one holds its lock (proof of death) or, with the volume gone, does not."""
        process.alive = False
        dead = (process.incarnation,) if self.rng.random() < 0.6 else ()
        self.note(f"{process.incarnation} is killed")
        self.after(self.rng.randrange(50, 1500) * MS, lambda: self.start_process(process.slot, dead))

    def pause(self, process: Process) -> None:
        process.paused_until = self.now + self.rng.randrange(100, 3000) * MS
        process.watch_after = process.paused_until + self.rng.randrange(600) * MS
        self.note(f"{process.incarnation} is frozen until {process.paused_until / NS:.3f}")

    def cut_off(self, process: Process) -> None:
        process.cut_until = self.now + self.rng.randrange(100, 4000) * MS
        process.watch_after = process.cut_until + self.rng.randrange(600) * MS
        names = sorted(self.servers)
        process.cut_from = frozenset(self.rng.sample(names, self.rng.choice([2, 2, 3])))
        self.note(
            f"{process.incarnation} is cut off from {sorted(process.cut_from)} until {process.cut_until / NS:.3f}"
        )

    def second(self, process: Process) -> None:
        """A forced pod delete: a second process of the same name, while the first goes on."""
        if sum(p.alive and not p.stopped for p in self.processes.values()) < 7:
            self.start_process(process.slot)

    def leave(self, process: Process) -> None:
        """A shutdown: it serves no more, then releases everything."""
        process.stopped = True
        self.note(f"{process.incarnation} leaves")
        self.ask(process, c.ReleaseHost(incarnation=process.incarnation))
        self.after(self.delay(1000), lambda: self.start_process(process.slot))

    def give_up(self, process: Process) -> None:
        """It gives one agent up: it serves it no more, then says so until the registry shows it."""
        mine = process.mine
        if mine and self.now >= process.paused_until:
            uid = self.rng.choice(sorted(mine))
            process.released[uid] = mine[uid].epoch
            process.changed()
            self.note(f"{process.incarnation} gives up {uid} at epoch {mine[uid].epoch}")

    def new_leader(self) -> None:
        self.elect(self.rng.choice(sorted(self.servers)))

    def pause_server(self) -> None:
        server = self.servers[self.rng.choice(sorted(self.servers))]
        server.paused_until = self.now + self.rng.randrange(100, 2500) * MS
        self.note(f"{server.name} is frozen until {server.paused_until / NS:.3f}")
        if server.term == self.term and self.rng.random() < 0.7:
            self.after(self.rng.randrange(150, 600) * MS, self.new_leader)

    def stall(self) -> None:
        """No majority for a while: nothing is chosen."""
        self.stalled_until = self.now + self.rng.randrange(100, 2000) * MS
        self.note(f"no quorum until {self.stalled_until / NS:.3f}")

    def crash_server(self) -> None:
        """A server forgets what it has in memory; its replica comes back from the log."""
        name = self.rng.choice(sorted(self.servers))
        old = self.servers[name]
        leading = old.term == self.term
        old.term = 0
        old.leases, old.planner = self.leases_class(FAST), self.planner_class(self.seed)
        self.note(f"{name} crashes")
        if leading:
            self.pending = deque(entry for entry in self.pending if self.rng.random() < 0.5 or entry.server != name)
            self.elect(self.rng.choice(sorted(set(self.servers) - {name})))

    def change_agents(self) -> None:
        """Delete one agent, create another."""
        if self.truth.by_id:
            self.submit(c.DeleteAgents(ids=(self.rng.choice(sorted(self.truth.by_id)),), managed_by="API"))
        spec = c.AgentSpec(id=f"shop/n-{self.count}", class_name="Counter")
        self.submit(c.ApplyAgents(agents=(spec,), managed_by="API"))
