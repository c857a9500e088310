"""Which hosts the registry shows as silent: the detector's and the guard's word, written down at a bounded rate."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from tenured.core.commands import HostClass
from tenured.core.detection import Trust
from tenured.core.lease import LeaderLeases
from tenured.core.model import Host, Silence
from tenured.core.profile import NS
from tenured.core.registry import Registry

PACE_NS = NS
"""A host's class is written at most once in this time; one silence that goes on may also go on to its next steps."""

_RANK: dict[Silence, int] = {"": 0, "Silent": 1, "Lapsed": 2, "Held": 3, "Confirmed": 3}


class Classes:
    """Of one leadership: remembers when each incarnation's class was written last."""

    def __init__(self) -> None:
        self._written: dict[str, int] = {}

    def reset(self) -> None:
        """Forget; at each election."""
        self._written.clear()

    def plan(
        self, registry: Registry, leases: LeaderLeases, held: AbstractSet[str], now: int, wall: float
    ) -> tuple[HostClass, ...]:
        """List the classes to write now. `held`: names of hosts whose end the guard holds back."""
        found: list[HostClass] = []
        for host in registry.hosts.values():
            if not host.alive:
                continue
            silence = _silence(host, leases, held, now)
            if silence is None or silence == host.silence or not self._may(host, silence, now):
                continue
            self._written[host.incarnation] = now
            since = wall - leases.detector.silence_ns(now, host.incarnation) / NS if silence else 0.0
            found.append(HostClass(host.incarnation, bool(silence), silence, since))
        if len(self._written) > 2 * len(registry.hosts):
            self._written = {name: at for name, at in self._written.items() if name in registry.hosts}
        return tuple(found)

    def _may(self, host: Host, silence: Silence, now: int) -> bool:
        last = self._written.get(host.incarnation)
        if last is None or now - last >= PACE_NS:
            return True
        return bool(host.silence) and _RANK[silence] > _RANK[host.silence]


def _silence(host: Host, leases: LeaderLeases, held: AbstractSet[str], now: int) -> Silence | None:
    """Say how the host stands; None: this leader does not know yet, so the row stays."""
    match leases.detector.trust(now, host.incarnation):
        case Trust.UNHEARD:
            return None
        case Trust.TRUSTED:
            return ""
        case Trust.SUSPECT:
            return host.silence or "Silent"  # a new leader counts from its own start: it takes nothing back
        case Trust.LAPSED:
            if host.name not in held:
                return "Confirmed" if host.silence == "Confirmed" else "Lapsed"
            return "Held"
