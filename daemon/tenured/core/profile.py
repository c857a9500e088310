"""Profiles: how long a lease lasts and how soon its end is believed (protocol 1, "the inequality")."""

from __future__ import annotations

from dataclasses import dataclass

NS = 1_000_000_000
"""Nanoseconds in a second."""
NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Times of leases and elections. All hosts and servers of a cluster use the same one.

    Raises:
        ValueError: a lease that healthy heartbeats could not keep, or margins and election times that make no sense.

    """

    name: str
    ttl_ns: int
    """A lease runs so long from the sending of the heartbeat that was acknowledged."""
    margin_ns: int
    """The leader waits so much longer; bears clock rates within rho where margin >= ttl * 2 rho / (1 - rho)."""
    tick_ns: int
    """Between heartbeats of a host, and between ticks of the leader."""
    election_min_s: float
    election_max_s: float

    def __post_init__(self) -> None:
        if not 0 < self.election_min_s < self.election_max_s or self.margin_ns <= 0 or self.tick_ns <= 0:
            raise ValueError(f"profile {self.name}: times must be positive and the election range not empty")
        least = self.least_ttl_ns
        if self.ttl_ns <= least:
            raise ValueError(
                f"profile {self.name}: a lease of {self.ttl_ns} ns must be longer than {least} ns "
                "(heartbeat + tick + worst election + 0.2 s)",
            )

    @property
    def least_ttl_ns(self) -> int:
        """Heartbeat + tick + worst election + 0.2 s: a lease must outlast them, or one election would fence every
        host.
        """
        return 2 * self.tick_ns + round(self.election_max_s * NS) + NS // 5

    @property
    def expiry_ns(self) -> int:
        """Silence after which the leader may expire an incarnation."""
        return self.ttl_ns + self.margin_ns

    @property
    def drift(self) -> float:
        """The clock-rate error (rho) that the margin bears."""
        ratio = self.margin_ns / self.ttl_ns
        return ratio / (2 + ratio)


def _profile(name: str, ttl_ms: int, margin_ms: int, tick_ms: int, election_ms: tuple[int, int]) -> Profile:
    return Profile(
        name=name,
        ttl_ns=ttl_ms * NS_PER_MS,
        margin_ns=margin_ms * NS_PER_MS,
        tick_ns=tick_ms * NS_PER_MS,
        election_min_s=election_ms[0] / 1000,
        election_max_s=election_ms[1] / 1000,
    )


FAST = _profile("Fast", 1000, 200, 100, (150, 300))
BALANCED = _profile("Balanced", 2000, 400, 250, (300, 600))
CALM = _profile("Calm", 5000, 1000, 500, (500, 1000))
PROFILES = {profile.name: profile for profile in (FAST, BALANCED, CALM)}
