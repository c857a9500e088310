"""The parts of the simulated cluster: a log with one effective committer, servers with replicas, host processes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tenured.core import commands as c
from tenured.core.failover import Planner
from tenured.core.lease import HostLease, LeaderLeases
from tenured.core.model import AgentClass
from tenured.core.profile import Profile
from tenured.core.registry import Registry

CLASSES = (AgentClass(name="Counter"),)


@dataclass
class Clock:
    """A boot clock that starts anywhere and runs too fast or too slow."""

    rate: float
    offset: int

    def at(self, now: int) -> int:
        return int(self.offset + now * self.rate)


@dataclass
class Entry:
    """Of the log."""

    data: bytes
    command: c.Command
    server: str
    term: int
    token: int | None


@dataclass
class Change:
    """What one entry did to one agent's row, as a watcher reads it."""

    uid: str
    incarnation: str
    epoch: int
    deleting: bool
    ready: bool
    gone: bool = False


@dataclass
class Server:
    """A voter; `term` is not 0 while it believes that it leads, rightly or not."""

    name: str
    clock: Clock
    leases: LeaderLeases
    planner: Planner
    term: int = 0
    registry: Registry = field(default_factory=Registry)
    applied: int = 0
    learn_at: int = 0
    paused_until: int = 0
    last_tick: int | None = None
    known: set[str] = field(default_factory=set)
    """Incarnations with a row, in this leadership."""


@dataclass
class Process:
    """One start of a host."""

    slot: str
    incarnation: str
    clock: Clock
    lease: HostLease
    alive: bool = True
    stopped: bool = False
    """It has ended itself, or was told that it ended: it serves nothing more."""
    paused_until: int = 0
    cut_until: int = 0
    cut_from: frozenset[str] = frozenset()
    """Servers that it cannot reach until then."""
    watch_after: int = 0
    """After a pause or a cut the watch comes back later than the heartbeats."""
    dead_before: tuple[str, ...] = ()
    seen: int = 0
    view: dict[str, Change] = field(default_factory=dict)
    eager: bool = False
    """It beats before it is registered."""
    known: bool = False
    """It has read that it is registered."""
    registered: bool = False
    """And that its worker is known to be ready."""
    released: dict[str, int] = field(default_factory=dict)
    """uid -> epoch that it gave up."""

    mine: dict[str, Change] = field(default_factory=dict)
    """What it believes to be its own, fewer what it gave up; kept by `changed`."""
    serves: dict[str, int] = field(default_factory=dict)
    """uid -> epoch that it answers for while its lease runs."""

    def changed(self) -> None:
        """Look again at what is its own."""
        self.mine = {
            uid: row
            for uid, row in self.view.items()
            if row.incarnation == self.incarnation and self.released.get(uid) != row.epoch
        }
        self.serves = {uid: row.epoch for uid, row in self.mine.items() if not row.deleting}


def some_clock(rng: random.Random, profile: Profile) -> Clock:
    """Mostly rates at both ends of what the margin bears."""
    rho = profile.drift * 0.99
    return Clock(rng.choice([1 - rho, 1 - rho, 1.0, 1 + rho, 1 + rho]), rng.randrange(10**12))
