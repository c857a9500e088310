"""Pacing of a mass failover: how many agents each host may be starting at a time, so that a lost rack does not melt the
rest.

Whether an agent *fits* (its requests against what the host has left of CPU and memory) is placement's filter, checked
again where the assignment is applied. Here is bounded how many are on their way at once: sealed, read and activated,
and not Ready yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from tenured.core.failover.marks import takes_agents
from tenured.core.lease import Load
from tenured.core.model import Host
from tenured.core.registry import Registry

STARTING_PER_CORE = 32
"""Agents that a host may be starting at a time, for each of its cores; hosts of unknown capacity count as one core."""
BUSY_CPU = 0.9
BUSY_LAG_MS = 100.0
BUSY_SHARE = 4
"""A host whose daemon is that busy, or whose loop is that late, gets this part of its places only (at least one)."""


def places(host: Host, load: Load | None) -> int:
    """Return how many agents a host may be starting at a time."""
    most = STARTING_PER_CORE * max(1, host.cpu_milli // 1000)
    if load is not None and (load.cpu >= BUSY_CPU or load.loop_lag_ms >= BUSY_LAG_MS):
        return max(1, most // BUSY_SHARE)
    return most


def free_places(registry: Registry, loads: Mapping[str, Load], avoid: AbstractSet[str]) -> dict[str, int]:
    """Return, for each host that may get agents now, how many more it may start."""
    return {
        host.incarnation: max(0, places(host, loads.get(host.incarnation)) - registry.starting.get(host.incarnation, 0))
        for host in registry.hosts.values()
        if takes_agents(host, avoid)
    }
