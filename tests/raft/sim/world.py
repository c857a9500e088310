"""One simulated run: virtual time, a seeded event queue, hosts, network, client, faults; a function of its seed.

No thread, no socket, no file, no sleep: all that happens is an event. Every number is drawn from the seed (swarm
testing), unless it is given.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tenured.raft.core import NEVER, State, settings
from tenured.raft.engine import Engine
from tenured.raft.interface import Applied, Compaction, Outcome, RaftConfig
from tests.raft.sim.checker import Check, Operation
from tests.raft.sim.faults import FAULTS
from tests.raft.sim.host import Command, Host
from tests.raft.sim.net import Net

Event = tuple[float, int, Host | None, int, Callable[[], object], bool]
LOOK_S = 0.0005
"""The clock moves when it is read: some loops of the parent end by the clock only."""
HEAL_S = 15.0


class World:
    """`World(seed).run()` returns what the checker found. Keyword arguments fix what the seed would choose."""

    letters: str | None = None
    """Names of the servers, where a reader is to tell them apart."""

    def __init__(self, seed: int, engine_class: type[Engine] = Engine, **fixed: Any) -> None:
        self.seed, self.engine_class = seed, engine_class
        self.rng = random.Random(seed)
        self.now = self.spent = 0.0
        self.events = 0
        self.queue: list[Event] = []
        self.serial = itertools.count()
        self.coverage: Counter[str] = Counter()
        self.trace: list[Any] | None = None
        self.draw()
        for name, value in fixed.items():
            assert hasattr(self, name), name
            setattr(self, name, value)
        self.names = [f"n{i}" if self.letters is None else self.letters[i] for i in range(self.size)]
        self.check = Check(self)
        self.net = Net(self)
        self.hosts = {name: Host(self, name) for name in self.names}
        self.operations: dict[str, Operation] = {}

    def draw(self) -> None:
        """The numbers of this world."""
        r = self.rng
        self.size = r.choice((3, 3, 3, 5))
        self.patient = self.seed % 2 == 1  # no draw: seeds keep their worlds
        self.barrier, self.send_first, self.hostile = True, True, r.random() < 0.3
        self.tick, self.delay = r.choice((0.01, 0.02, 0.04)), r.choice((0.002, 0.01, 0.04))
        self.loss, self.duplicates = r.choice((0, 0.02, 0.1)), r.choice((0, 0.05, 0.3))
        self.sync_time, self.snapshot_time = r.choice((0, 0, 0.01, 0.05)), r.choice((0, 0, 0.3, 1.0))
        self.chunk_time, self.part_bytes = r.choice((0, 0.01)), r.choice((200, 1000, 1 << 16))
        self.batch_bytes, self.segment_bytes = r.choice((64, 256, 1 << 16)), r.choice((300, 2000, 1 << 20))
        self.compact_entries, self.compact_bytes = r.choice((8, 30, 100, 10**6)), r.choice((2000, 10**9))
        self.fallback = r.choice((0.6, 0.6, 30))
        self.big, self.big_size = r.choice((0, 0, 0.1)), r.choice((300, 700, 1500))
        self.bad_apply, self.bad_callback = r.choice((0, 0.01)), r.choice((0, 0.01))
        self.stagger, self.first_fault = r.choice((0, 0.3, 1.5)), r.choice((0.0, 0.8))
        self.rate, self.until, self.gap = r.choice((15, 40, 100)), 4.0, r.choice((0.1, 0.3, 0.6))
        self.fault_names = [name for name in FAULTS if r.random() < 0.7] or list(FAULTS)

    def config(self, name: str) -> RaftConfig:
        others = tuple(other for other in self.names if other != name)
        entries, size = self.compact_entries, self.compact_bytes
        short = Compaction(entries=entries, bytes=size, keep_entries=entries // 2, keep_bytes=size // 2)
        return RaftConfig(name, others, Path("/nowhere"), election_min_s=0.3, election_max_s=0.6, compaction=short)

    def parameters(self) -> Any:
        conf = settings(self.config(self.names[0]))
        conf.leaderFallbackTimeout = self.fallback
        conf.appendEntriesBatchSizeBytes = NEVER
        return conf

    # ---- time ----------------------------------------------------------------------------------------------------

    def clock(self) -> float:
        self.spend(LOOK_S)
        return self.now + self.spent

    def spend(self, seconds: float) -> None:
        self.spent += seconds

    def at(self, delay: float, event: Callable[[], object], host: Host | None = None, *, quiet: bool = False) -> None:
        """Run `event` after `delay`; one of a host dies with its process. Quiet: not a step of the engine."""
        self.at_time(self.now + delay, event, host, quiet=quiet)

    def at_time(
        self,
        time: float,
        event: Callable[[], object],
        host: Host | None = None,
        *,
        quiet: bool = False,
    ) -> None:
        incarnation = host.incarnation if host is not None else 0
        heapq.heappush(self.queue, (time, next(self.serial), host, incarnation, event, quiet))

    def turn(self) -> None:
        """The next event. A paused host's events come back at the end of its pause, in their old order."""
        time, serial, host, incarnation, event, quiet = heapq.heappop(self.queue)
        self.now = max(self.now, time)
        self.events += 1
        if host is None:
            event()
        elif host.incarnation != incarnation or host.engine is None:
            return
        elif host.paused_until > self.now:
            heapq.heappush(self.queue, (host.paused_until, serial, host, incarnation, event, quiet))
        elif quiet:
            event()
        else:
            host.step(event)

    def log(self, *what: object) -> None:
        if self.trace is not None:
            self.trace.append((round(self.now, 4), *what))

    def alive(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.engine is not None]

    # ---- the run -------------------------------------------------------------------------------------------------

    def run(self) -> list[tuple[str, float, tuple[object, ...]]]:
        self.begin()
        while self.now < self.until and not self.check.fatal:
            self.turn()
        self.heal()
        level = self.settle_down()
        self.check.final(level)
        return self.check.found

    def begin(self) -> None:
        for host in self.hosts.values():
            self.at(self.rng.random() * self.stagger, host.boot)
        self.at(0.3, self.load)
        self.at(self.first_fault, self.chaos)

    def load(self) -> None:
        live = [host for host in self.alive() if host.paused_until <= self.now]
        leaders = [host for host in live if host.engine.state == State.LEADER]
        if live:
            self.call(self.rng.choice(leaders if leaders and self.rng.random() < 0.4 else live))
        if self.now < self.until:
            self.at(self.rng.expovariate(self.rate), self.load)

    def chaos(self) -> None:
        if self.now < self.until:
            FAULTS[self.rng.choice(self.fault_names)](self)
            self.at(self.rng.expovariate(1 / self.gap), self.chaos)

    def heal(self) -> None:
        """No more faults: only now is progress asked for."""
        self.loss = self.duplicates = 0
        for stream in self.net.streams:
            self.net.block(*stream, False)
        for host in self.hosts.values():
            host.fuse = None  # a pause ends by itself: what waits for its end must not be overtaken
            host.boot()
        for stream in self.net.streams:
            self.net.connect(*stream)

    def settle_down(self) -> bool:
        """Every server must answer a call, then all must become equal. False when the time is over first."""
        probes: dict[str, list[Operation]] = {name: [] for name in self.names}
        again = self.now + 1
        while self.now < self.until + HEAL_S and not self.check.fatal:
            self.turn()
            if self.now < again:
                continue
            again = self.now + 0.5
            if all(any(isinstance(o.outcome, Applied) for o in asked) for asked in probes.values()):
                if self.check.level():
                    return True
            else:
                for host in self.alive():
                    probes[host.name].append(self.call(host))
        return False

    def call(self, host: Host) -> Operation:
        """A client's command at `host`."""
        cid = f"c{len(self.operations)}"
        r = self.rng
        kind = "bad" if r.random() < self.bad_apply else r.choice(("add", "add", "set", "get"))
        padding = b"x" * (self.big_size if r.random() < self.big else 8)
        operation = self.operations[cid] = Operation(cid, kind, host.name, host.incarnation, self.now)
        rude = r.random() < self.bad_callback

        def answered(outcome: Outcome) -> None:
            self.check.answered(operation, outcome)
            if rude:
                raise ValueError("a bug in the caller")

        self.log(host.name, "call", cid, kind)
        host.step(lambda: host.call(Command(cid, kind, padding), answered))
        return operation
