"""Detection: which hosts are probably gone, well before any lease ends (DESIGN.md section 5).

It is apart from expiry: a suspected host gets nothing new and traffic avoids it, and it keeps what it holds. Only the
end of a lease, a release or a proof of death moves agents (protocol 4, rule R), so a wrong suspicion costs next to
nothing, and a lost one costs time.

Phi-accrual: N. Hayashibara, X. Défago, R. Yared, T. Katayama, "The phi accrual failure detector", SRDS 2004.
phi = -log10 P(the next heartbeat comes later than now), from the mean and the deviation of the last arrivals'
distances, taken as normal, as in the paper. Not exponential, as others simplify it: arrivals of a sender with a fixed
period are not memoryless, and phi 8 would need 18 periods of silence, more than a lease. The tail of real networks is
heavier than normal; a floor under the deviation and the bound above (`ttl`) stand for that.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from enum import Enum, auto

from tenured.core.profile import NS_PER_MS, Profile

WINDOW = 64
"""Distances kept of each host: 16 s at a tick of 0.25 s. A network that becomes slow is learned within that time."""
LEAST_DEVIATION_NS = 50 * NS_PER_MS
"""A host's loop and a busy processor alone make this much, however short the tick is."""
DEVIATION_TICKS = 3
"""The floor of the deviation is a tick divided by this, or `LEAST_DEVIATION_NS` if that is more."""
THRESHOLDS = {"Fast": 10.0, "Balanced": 8.0, "Calm": 8.0}
"""phi at which a host is suspected, by profile. 8: one wrong suspicion in 10^8 heartbeats if distances were normal.
Fast has ticks as short as what a busy machine lets a process wait, so it asks for more.
"""
DEFAULT_THRESHOLD = 8.0
PHI_MOST = 300.0
"""Beyond it the probability is no longer a number."""
_SEED_SHARES = (2, 6)
"""Quarters of a tick: two made-up distances that a new window begins with, so that the first ones are not believed."""


class Trust(Enum):
    """What the leader believes of a live incarnation."""

    UNHEARD = auto()
    """Nothing yet in this leadership, and not for long enough to suspect it: nothing new is placed there."""
    TRUSTED = auto()
    SUSPECT = auto()
    """Silent for so long that it is probably gone: nothing new, and traffic avoids it."""
    LAPSED = auto()
    """Silent for a whole lease: by its own clock it serves nothing any more, unless an answer is on its way."""


class _Arrivals:
    """Distances between one host's heartbeats: their sums are kept exactly, in integers."""

    __slots__ = ("_distances", "_squares", "_sum", "heard", "last", "limit_ns")

    def __init__(self, tick_ns: int, now: int) -> None:
        self.last = now
        self.heard = False
        self.limit_ns = 0
        self._distances: deque[int] = deque()
        self._sum = 0
        self._squares = 0
        for share in _SEED_SHARES:
            self.add(tick_ns * share // 4)

    def add(self, distance: int) -> None:
        self._distances.append(distance)
        self._sum += distance
        self._squares += distance * distance
        if len(self._distances) > WINDOW:
            old = self._distances.popleft()
            self._sum -= old
            self._squares -= old * old

    def mean_ns(self) -> int:
        return self._sum // len(self._distances)

    def deviation_ns(self) -> int:
        count = len(self._distances)
        return math.isqrt(max(0, self._squares * count - self._sum * self._sum)) // count


class Detector:
    """Of one leadership, in memory only. Times are nanoseconds of the leader's boot clock."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self.threshold = THRESHOLDS.get(profile.name, DEFAULT_THRESHOLD)
        self._sigmas = sigmas(self.threshold)
        self._floor_ns = max(profile.tick_ns // DEVIATION_TICKS, LEAST_DEVIATION_NS)
        self._hosts: dict[str, _Arrivals] = {}
        self._since: int | None = None

    def reset(self) -> None:
        """A new leadership: whatever was learned was learned over other connections."""
        self._hosts.clear()
        self._since = None

    def begin(self, now: int) -> None:
        """Count silence from here at the earliest: the first commit, or the end of a time in which the own loop stood
        still.

        The distance that spans it says nothing of the host and is not learned.
        """
        self._since = now

    def expect(self, now: int, incarnation: str) -> None:
        """Count the silence of an incarnation that has just registered from now."""
        if incarnation not in self._hosts:
            self._add(now, incarnation)

    def heard(self, now: int, incarnation: str) -> None:
        """A heartbeat has arrived."""
        known = self._hosts.get(incarnation)
        if known is None:
            known = self._add(now, incarnation)
        elif known.heard and (self._since is None or known.last >= self._since):
            # One outage teaches at most what would have been the end of the lease.
            known.add(min(max(0, now - known.last), self._profile.expiry_ns))
            known.limit_ns = self._limit_ns(known)
        known.last, known.heard = max(known.last, now), True

    def limit_ns(self, incarnation: str) -> int:
        """Silence after which the incarnation is suspected."""
        known = self._hosts.get(incarnation)
        return self.first_limit_ns if known is None else known.limit_ns

    @property
    def first_limit_ns(self) -> int:
        """Silence after which a host that was never heard of is suspected."""
        return self._limit_ns(_Arrivals(self._profile.tick_ns, 0))

    def silence_ns(self, now: int, incarnation: str) -> int:
        """How long nothing was heard of it, as far as this leader could hear; 0 before the first commit."""
        if self._since is None:
            return 0
        known = self._hosts.get(incarnation)
        return max(0, now - (self._since if known is None else max(known.last, self._since)))

    def trust(self, now: int, incarnation: str) -> Trust:
        """Say what to believe of a live incarnation. Cheap: an integer is compared."""
        silence = self.silence_ns(now, incarnation)
        if silence >= self._profile.ttl_ns:
            return Trust.LAPSED
        if silence >= self.limit_ns(incarnation):
            return Trust.SUSPECT
        known = self._hosts.get(incarnation)
        return Trust.TRUSTED if known is not None and known.heard else Trust.UNHEARD

    def phi(self, now: int, incarnation: str) -> float:
        """The suspicion as a number, for metrics and people: 1 is wrong once in 10, 8 once in 10^8."""
        known = self._hosts.get(incarnation) or _Arrivals(self._profile.tick_ns, 0)
        z = (self.silence_ns(now, incarnation) - known.mean_ns()) / max(known.deviation_ns(), self._floor_ns)
        return phi_of(z)

    def forget(self, known: Iterable[str]) -> None:
        """Drop all but these incarnations: it bounds the memory."""
        kept = set(known)
        self._hosts = {name: arrivals for name, arrivals in self._hosts.items() if name in kept}

    def _add(self, now: int, incarnation: str) -> _Arrivals:
        made = self._hosts[incarnation] = _Arrivals(self._profile.tick_ns, now)
        made.limit_ns = self._limit_ns(made)
        return made

    def _limit_ns(self, known: _Arrivals) -> int:
        deviation = max(known.deviation_ns(), self._floor_ns)
        # A host that was silent for a lease is fenced by its own clock, however slow its network is.
        return min(known.mean_ns() + round(self._sigmas * deviation), self._profile.ttl_ns)


def phi_of(z: float) -> float:
    """-log10 of the probability that a normal variable is more than `z` deviations above its mean."""
    later = 0.5 * math.erfc(z / math.sqrt(2))
    return PHI_MOST if later <= 0 else min(PHI_MOST, -math.log10(later))


def sigmas(phi: float) -> float:
    """Invert `phi_of` by bisection: deviations above the mean at which the suspicion reaches `phi`."""
    low, high = 0.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if phi_of(middle) < phi else (low, middle)
    return high
