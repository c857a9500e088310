"""The guard against a wide blast: when many hosts fall silent at once, nothing is moved before that is confirmed (ADR
0017).

The likelier causes of half a cluster falling silent are the leader's own links, a switch, or a power cut that takes
minutes: to move everything at once onto what is left would make an outage of what may pass. Leases end all the same
by their own clocks; what is held back is the entry that ends an incarnation for ever, so a host that comes back goes
on under its old incarnation, with its agents where they are. It is about moving, not about safety: rule R stands
without it.

Confirmed is a host once the leader went on hearing *some* host for a further grace period and it still was not among
them, or by an operator's word (`tenure failover confirm`). A leader that hears nobody confirms nothing: its links are
the suspect, and there would be nowhere to go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

import msgspec

from tenure_api.reasons import Reason
from tenured.core.detection import Trust
from tenured.core.lease import LeaderLeases
from tenured.core.profile import NS, Profile
from tenured.core.registry import Registry

DEFAULT_SHARE = 0.5
"""More than this share of the hosts, silent at once, is a wide blast. 1: the guard is off."""
LEAST_HOSTS = 2
"""Fewer are never held back: the loss of one host is what failover is for."""
AT_ONCE_NS = 10 * NS
"""Hosts that ended within this time (cluster time) count with those that are silent now."""
GRACE_LEASES = 3
"""The grace period, in lease ends (`ttl + margin`): 3.6 s, 7.2 s, 18 s for Fast, Balanced, Calm."""


class Seen(msgspec.Struct, frozen=True):
    """What the leader sees of one host (one name), at one time."""

    name: str
    silent: bool
    """For a whole lease, under every living incarnation."""
    heard: bool = False
    """Some incarnation is not even suspected."""
    ended: bool = False
    """It ended by silence a moment ago, and nothing has come in its place."""
    confirmed: bool = False
    """By an operator."""


class Held(msgspec.Struct, frozen=True):
    """What the guard remembers between two looks, and says: hosts whose end waits, and since when."""

    since: Mapping[str, int] = {}
    """name -> leader's boot clock in ns. The grace period of each runs from there."""
    hears: bool = True
    """Whether some host is heard without doubt right now."""
    silent: int = 0
    """Hosts that are silent, or ended a moment ago."""
    total: int = 0

    def __bool__(self) -> bool:
        """Whether anything is held back."""
        return bool(self.since)


NOTHING_HELD = Held()


def grace_ns(profile: Profile) -> int:
    """Return how much longer a host must be silent to be believed when many are."""
    return GRACE_LEASES * profile.expiry_ns


def look(before: Held, seen: Iterable[Seen], now: int, *, share: float = DEFAULT_SHARE) -> Held:
    """Judge the hosts as they are now. Pure: call it at each plan with what it returned last."""
    hosts = list(seen)
    silent = [host for host in hosts if host.silent or host.ended]
    deaf = len(silent) == len(hosts)
    if len(silent) < LEAST_HOSTS or len(silent) <= share * len(hosts):
        return Held(silent=len(silent), total=len(hosts))
    since: dict[str, int] = {}
    for host in silent:
        if host.ended or host.confirmed:
            continue
        # While nobody is heard at all no time counts: it would be the silence of the leader's own links.
        since[host.name] = now if deaf else before.since.get(host.name, now)
    return Held(since=since, hears=any(host.heard for host in hosts), silent=len(silent), total=len(hosts))


def waiting(held: Held, now: int, grace: int) -> AbstractSet[str]:
    """Name the hosts that are not to be ended now: silent, among many, and not confirmed yet."""
    return {name for name, began in held.since.items() if not held.hears or now - began < grace}


def hosts_seen(registry: Registry, leases: LeaderLeases, now: int) -> list[Seen]:
    """Read the registry and the detector: each host once, whatever number of its incarnations live."""
    oldest = registry.cluster_ns - AT_ONCE_NS
    silent: dict[str, bool] = {}
    heard: set[str] = set()
    ended: set[str] = set()
    confirmed: set[str] = set()
    for host in registry.hosts.values():
        if host.alive:
            trust = leases.detector.trust(now, host.incarnation)
            silent[host.name] = trust is Trust.LAPSED and silent.get(host.name, True)
            if trust is Trust.TRUSTED:
                heard.add(host.name)
            if host.silence == "Confirmed":
                confirmed.add(host.name)
        elif host.ended == Reason.LEASE_EXPIRED and host.ended_ns >= oldest:
            ended.add(host.name)
    seen = [Seen(name, lapsed, name in heard, confirmed=name in confirmed) for name, lapsed in silent.items()]
    return seen + [Seen(name, silent=True, ended=True) for name in sorted(ended - silent.keys())]
