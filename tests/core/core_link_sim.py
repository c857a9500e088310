"""Heartbeats and acknowledgements over a bad network, on virtual time: one leader at a time, some hosts, no log.

Pure: an hour of a cluster takes about a second. A tick's entry commits after `commit_ms`; everything else is the core.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from core_world import World

from tenured.core.detection import Trust
from tenured.core.lease import Ack, HostLease, LeaderLeases
from tenured.core.profile import NS, NS_PER_MS, Profile

Cut = tuple[int, int, str, str]
"""From, to, host, direction ("up": its heartbeats are lost, "down": its acknowledgements are)."""


@dataclass
class Host:
    """One incarnation, its clock and what became of its lease."""

    name: str
    lease: HostLease
    offset: int
    lapses: list[int] = field(default_factory=list)
    held: bool = False
    gone: bool = False


class Links:
    """See the module. `expired`, `suspected` and `lapses` say what happened."""

    def __init__(
        self,
        profile: Profile,
        *,
        hosts: int = 4,
        seed: int = 1,
        loss: float = 0.0,
        jitter_ms: int = 2,
        commit_ms: int = 5,
        cuts: Iterable[Cut] = (),
        frozen: Iterable[tuple[int, int, str]] = (),
        stalls: Iterable[tuple[int, int]] = (),
        elections: Iterable[int] = (),
    ) -> None:
        self.profile = profile
        self.rng = random.Random(seed)
        self.loss, self.jitter, self.commit = loss, jitter_ms * NS_PER_MS, commit_ms * NS_PER_MS
        self.cuts, self.frozen, self.stalls = list(cuts), list(frozen), list(stalls)
        self.world = World()
        self.leases = LeaderLeases(profile)
        self.hosts: dict[str, Host] = {}
        self.now = 0
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.count = 0
        self.last_tick = 0
        self.expired: list[tuple[str, int]] = []
        self.suspected: list[tuple[str, int]] = []
        """When a trusted host began to be suspected."""
        self._believed: dict[str, Trust] = {}
        for number in range(hosts):
            incarnation = self.world.host(f"h{number}")
            lease = HostLease(profile, incarnation)
            self.hosts[incarnation] = Host(incarnation, lease, self.rng.randrange(10**12))
            self.at(self.rng.randrange(profile.tick_ns), lambda name=incarnation: self.beat(name))
        self.elect()
        for when in elections:
            self.at(when, self.elect)
        self.at(profile.tick_ns, self.tick)

    def run(self, until: int) -> Links:
        while self.queue and self.queue[0][0] <= until:
            self.now, _, event = heapq.heappop(self.queue)
            event()
        return self

    def at(self, when: int, event: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.queue, (when, self.count, event))

    def way(self, name: str, direction: str) -> int | None:
        """How long a message takes; None: it is lost."""
        cut = any(a <= self.now < b and host == name and way == direction for a, b, host, way in self.cuts)
        if cut or self.rng.random() < self.loss:
            return None
        return NS_PER_MS + self.rng.randrange(self.jitter + 1)

    def stands_until(self, name: str) -> int:
        return max((b for a, b, host in self.frozen if host == name and a <= self.now < b), default=0)

    def stalled_until(self) -> int:
        return max((b for a, b in self.stalls if a <= self.now < b), default=0)

    # --- hosts --------------------------------------------------------------------------------------------------

    def beat(self, name: str) -> None:
        host = self.hosts[name]
        frozen = self.stands_until(name)
        if frozen:
            self.at(frozen, lambda: self.beat(name))
            return
        self.look(host)
        if not host.lease.gone:
            self.at(self.now + self.profile.tick_ns, lambda: self.beat(name))
            sent_at = host.offset + self.now
            delay = self.way(name, "up")
            if delay is not None:
                self.at(self.now + delay, lambda: self.arrive(name, sent_at))

    def look(self, host: Host) -> None:
        """The host asks whether it holds its lease, as it does before each release of a result."""
        held = host.lease.held(host.offset + self.now)
        if host.held and not held:
            host.lapses.append(self.now)
        host.held = held

    def acked(self, name: str, ack: Ack) -> None:
        frozen = self.stands_until(name)
        if frozen:
            self.at(frozen, lambda: self.acked(name, ack))
            return
        self.look(self.hosts[name])
        self.hosts[name].lease.ack(ack)
        self.look(self.hosts[name])

    # --- the leader -----------------------------------------------------------------------------------------------

    def elect(self) -> None:
        self.leases.elected()
        self._believed.clear()
        self.leases.first_commit(self.now)

    def arrive(self, name: str, sent_at: int) -> None:
        stalled = self.stalled_until()
        if stalled:  # it lies unread in the socket
            self.at(stalled + 1, lambda: self.arrive(name, sent_at))
            return
        self.leases.heartbeat(self.now, name, sent_at)

    def tick(self) -> None:
        stalled = self.stalled_until()
        if stalled:
            self.at(stalled, self.tick)
            return
        self.at(self.now + self.profile.tick_ns, self.tick)
        if self.now - self.last_tick > 2 * self.profile.tick_ns:
            self.leases.stalled(self.now)
        self.last_tick = self.now
        token = self.leases.tick_proposed()
        self.at(self.now + self.commit, lambda: self.committed(token))
        self.judge()

    def committed(self, token: int) -> None:
        for ack in self.leases.tick_committed(token, 1, self.world.registry):
            delay = self.way(ack.incarnation, "down")
            if delay is not None:
                self.at(self.now + delay, lambda ack=ack: self.acked(ack.incarnation, ack))

    def judge(self) -> None:
        registry = self.world.registry
        for name in self.hosts:
            trust = self.leases.detector.trust(self.now, name)
            bad = (Trust.SUSPECT, Trust.LAPSED)
            if registry.alive(name) and trust in bad and self._believed.get(name) is Trust.TRUSTED:
                self.suspected.append((name, self.now))
            self._believed[name] = trust
        for silence in self.leases.expirable(self.now, registry):
            host = self.hosts[silence.incarnation]
            if host.lease.held(host.offset + self.now):
                raise AssertionError(f"{silence.incarnation} still holds a lease at {self.now / NS:.3f}")
            self.world.expire(silence.incarnation)
            self.expired.append((silence.incarnation, self.now))
