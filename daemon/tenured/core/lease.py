"""Leases (protocol 1): a host may serve while its lease runs; the leader may expire it only when the lease has
provably ended.

All times are nanoseconds of the caller's own boot clock (`CLOCK_BOOTTIME`), which runs on in suspend [boottime]. The
two sides never compare clocks: the host counts from the sending of a heartbeat, the leader from its arrival, and
`margin` bears the difference of their rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from tenured.core.detection import Detector, Trust
from tenured.core.profile import Profile
from tenured.core.registry import Registry

OPEN_TICKS = 64
"""Ticks that may be under way at once; older ones are given up (their heartbeats are repeated by the hosts anyway)."""
UNKNOWN_KEPT = 1000
"""Incarnations without a row that are remembered before they are forgotten."""


class Load(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a heartbeat says of its host; kept in the leader's memory only."""

    agents: int = 0
    cpu: float = 0.0
    """Share of the host's processor limit in use, 0 to 1."""
    memory_bytes: int = 0
    calls_per_second: float = 0.0
    loop_lag_ms: float = 0.0


class Ack(msgspec.Struct, frozen=True):
    """To send to one host. `gone`: that incarnation has ended and never comes back; else its lease is renewed from
    `sent_at_ns`.
    """

    incarnation: str
    sent_at_ns: int
    index: int
    gone: bool = False


class Silence(msgspec.Struct, frozen=True):
    """An incarnation that may be expired now."""

    incarnation: str
    last_heard_ns: int
    """On the leader's clock; its own first commit if it never heard from it."""


class LeaderLeases:
    """What a server knows of hosts while it leads: in memory only, begun anew with each leadership.

    Call `elected` at each election won, `first_commit` when the first entry of the own term is committed, then
    `tick_proposed` for each tick, in the same loop turn as the proposal and before it, and `tick_committed` or
    `tick_lost` when its fate is known.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.detector = Detector(profile)
        """Hears the same heartbeats and decides nothing here: `expirable` does not ask it."""
        self._since: int | None = None
        self._last: dict[str, int] = {}
        self._registered: dict[str, int] = {}
        self._loads: dict[str, Load] = {}
        self._wait: dict[str, int] = {}
        self._open: dict[int, dict[str, int]] = {}
        self._token = 0

    def elected(self) -> None:
        """Begin anew: what an earlier leadership heard does not count for expiry, and nothing can be expired before
        `first_commit`.
        """
        self._since = None
        self.detector.reset()
        self._last.clear()
        self._registered.clear()
        self._loads.clear()
        self._wait.clear()

    def first_commit(self, now: int) -> None:
        """Start the wait of a new leader: leases that the old one gave must end first (protocol 1, leader 4
        [wait_new]).
        """
        if self._since is None:
            self._since = now
            self.detector.begin(now)

    def stalled(self, now: int) -> None:
        """Start the wait anew: the own loop stood still for more than 2 ticks, and heartbeats may lie unread (leader
        6).
        """
        if self._since is not None:
            self._since = now
            self.detector.begin(now)

    def registered(self, now: int, incarnation: str) -> None:
        """Count the silence of an incarnation that registers under this leader from now: it had no lease before. For
        availability: it would be expired before its first heartbeat arrives.
        """
        self._registered.setdefault(incarnation, now)
        self.detector.expect(now, incarnation)

    def heartbeat(self, now: int, incarnation: str, sent_at_ns: int, load: Load | None = None) -> None:
        """Note a heartbeat at its arrival, acknowledged or not (leader 1 [received]); it waits for the next tick."""
        self._last[incarnation] = now
        self.detector.heard(now, incarnation)
        self._wait[incarnation] = max(sent_at_ns, self._wait.get(incarnation, sent_at_ns))
        if load is not None:
            self._loads[incarnation] = load

    def tick_proposed(self) -> int:
        """Remember that the tick proposed now covers the heartbeats that wait now (leader 2 [after]); returns its
        token.
        """
        self._token += 1
        self._open[self._token] = self._wait
        self._wait = {}
        while len(self._open) > OPEN_TICKS:
            del self._open[next(iter(self._open))]
        return self._token

    def tick_lost(self, token: int) -> None:
        """Forget a tick that was not committed, or whose fate is unknown."""
        self._open.pop(token, None)

    def tick_committed(self, token: int, index: int, registry: Registry) -> tuple[Ack, ...]:
        """Acknowledge what the tick covered (leader 3 [commit]), even if deposed meanwhile: it was proposed after the
        arrival.

        `registry` has applied `index` (or more: an incarnation that ended since is not acknowledged either
        [ack_state]).
        """
        acks: list[Ack] = []
        for incarnation, sent_at in self._open.pop(token, {}).items():
            if registry.ended(incarnation):
                acks.append(Ack(incarnation, sent_at, index, gone=True))
            elif registry.alive(incarnation):
                acks.append(Ack(incarnation, sent_at, index))
        if len(self._last) > len(registry.hosts) + UNKNOWN_KEPT:
            self.forget(registry)
        return tuple(acks)

    def expirable(self, now: int, registry: Registry) -> list[Silence]:
        """List incarnations whose leases have provably ended (leader 4 [margin, wait_new, received]), the longest
        silent first.
        """
        if self._since is None:
            return []
        found = [
            Silence(host.incarnation, self._last.get(host.incarnation, self._since))
            for host in registry.hosts.values()
            if host.alive and now >= self._ends_ns(host.incarnation, self._since)
        ]
        return sorted(found, key=lambda silence: (silence.last_heard_ns, silence.incarnation))

    def next_end_ns(self, now: int, registry: Registry) -> int | None:
        """Return when the next incarnation may be expired if it stays silent; None: nothing that is not due already."""
        since = self._since
        if since is None:
            return None
        ends = (self._ends_ns(host.incarnation, since) for host in registry.hosts.values() if host.alive)
        return min((end for end in ends if end > now), default=None)

    def _ends_ns(self, incarnation: str, since: int) -> int:
        first = self._registered.get(incarnation, since)
        return max(since, self._last.get(incarnation, first)) + self.profile.expiry_ns

    def suspects(self, now: int, registry: Registry) -> frozenset[str]:
        """Name live incarnations that are suspected, or not heard of yet: they get nothing new (`core.detection`)."""
        trust = self.detector.trust
        return frozenset(
            host.incarnation
            for host in registry.hosts.values()
            if host.alive and trust(now, host.incarnation) is not Trust.TRUSTED
        )

    def forget(self, registry: Registry) -> None:
        """Drop what is kept of incarnations that have no row: it bounds the memory."""
        for incarnation in [name for name in (*self._last, *self._registered) if name not in registry.hosts]:
            self._last.pop(incarnation, None)
            self._registered.pop(incarnation, None)
            self._loads.pop(incarnation, None)
        self.detector.forget(registry.hosts)

    @property
    def leading(self) -> bool:
        """Whether the own first commit has happened: before it nothing is expired or placed."""
        return self._since is not None

    @property
    def since_ns(self) -> int | None:
        """Start of the leader's wait, None before its first commit."""
        return self._since

    def loads(self) -> Mapping[str, Load]:
        """Return the last load of each incarnation heard of in this leadership."""
        return MappingProxyType(self._loads)


class HostLease:
    """The lease of one incarnation, at the host: in memory only."""

    def __init__(self, profile: Profile, incarnation: str) -> None:
        self.profile = profile
        self.incarnation = incarnation
        self.until_ns = 0
        """On the host's boot clock; also sent to the workers' PID 1 at each renewal (protocol additions 4)."""
        self.gone = False
        """Expired: stop every activation and register as a new incarnation (host 4)."""

    def ack(self, ack: Ack) -> bool:
        """Renew by an acknowledgement of the own incarnation (host 1 [incarnation, sent_at]); returns whether the
        lease grew.
        """
        if ack.incarnation != self.incarnation:
            return False
        if ack.gone:
            self.gone = True
            return False
        until = ack.sent_at_ns + self.profile.ttl_ns
        if until <= self.until_ns:
            return False
        self.until_ns = until
        return True

    def held(self, now: int) -> bool:
        """Tell whether results may be released: ask after the read or the commit, before the release (host 2, host
        3).
        """
        return not self.gone and now < self.until_ns
