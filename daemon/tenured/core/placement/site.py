"""One host as placement sees it: its row, its pool's and its node's, and what it holds."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from tenured.core.groups import Groups
from tenured.core.model import ZONE_LABEL, Host, Node, Pool, Taint, Toleration
from tenured.core.placement.wish import Wish
from tenured.core.registry import Registry, Usage

SOFT = "PreferNoSchedule"
UNKNOWN_LOAD = 1.0
"""Of a host that reported none while others did: the worst."""


@dataclass(slots=True)
class Site:
    """A host and what placement needs to know of it. `usage` and `added` grow as agents are placed."""

    host: Host
    pool: Pool | None
    node: Node | None
    usage: Usage
    zone: str
    """Empty: unknown. All such hosts count as one zone."""
    silent: bool
    load: float
    """Share of its processors in use as last measured, 0 to 1; 0 for all where nothing was measured."""
    capabilities: AbstractSet[str]
    hard: tuple[Taint, ...]
    """Taints that keep agents away, without those that the pool itself accepts."""
    soft: tuple[Taint, ...]
    """Taints that make it a second choice."""
    salt: int
    """Of the tie-break."""
    limit: int
    """Agents at most; 0: no limit."""
    groups: Groups
    added: dict[str, int] = field(default_factory=dict[str, int])
    """Agents of each group that were placed here a moment ago."""

    @property
    def labels(self) -> dict[str, str]:
        """Of the host and of its node; the node's win."""
        return self.host.labels | (self.node.labels if self.node is not None else {})

    def alike(self, group: str) -> int:
        """Agents of the group that it holds, with those just placed."""
        return self.groups.held(group).get(self.host.incarnation, 0) + self.added.get(group, 0)

    def take(self, wish: Wish) -> None:
        """Count one more agent."""
        self.usage.agents += 1
        self.usage.cpu_milli += wish.cpu_milli
        self.usage.memory_bytes += wish.memory_bytes
        for group in wish.groups:
            self.added[group] = self.added.get(group, 0) + 1

    @property
    def size(self) -> float:
        """Cores; 1 where the capacity is unknown."""
        return self.host.cpu_milli / 1000 or 1.0

    @property
    def known(self) -> bool:
        """Whether it said what it can bear. A host that did not comes after all that did."""
        return self.host.cpu_milli > 0


def sites(
    registry: Registry, avoid: AbstractSet[str] = frozenset(), loads: Mapping[str, float] | None = None
) -> dict[str, Site]:
    """All hosts that are alive, by incarnation.

    `avoid`: incarnations that are suspected beside those whose row says so. `loads`: share of the processors in use, by
    incarnation; where it is given, a host without one counts as fully loaded.
    """
    return {host.incarnation: _site(registry, host, avoid, loads) for host in registry.hosts.values() if not host.ended}


def _site(registry: Registry, host: Host, avoid: AbstractSet[str], loads: Mapping[str, float] | None) -> Site:
    pool = registry.pools.get(host.pool)
    node = registry.nodes.get(host.node)
    now = registry.usage.get(host.incarnation)
    hard, soft = _taints(pool, node)
    return Site(
        host,
        pool,
        node,
        Usage(now.agents, now.cpu_milli, now.memory_bytes) if now is not None else Usage(),
        (node.zone if node is not None else "") or host.labels.get(ZONE_LABEL, ""),
        host.suspect or host.incarnation in avoid,
        min(1.0, max(0.0, loads.get(host.incarnation, UNKNOWN_LOAD))) if loads else 0.0,
        frozenset(host.capabilities) if host.capabilities else _NONE,
        hard,
        soft,
        zlib.crc32(host.incarnation.encode()),
        pool.max_agents_per_host if pool is not None else 0,
        registry.groups,
    )


_NONE: frozenset[str] = frozenset()


def _taints(pool: Pool | None, node: Node | None) -> tuple[tuple[Taint, ...], tuple[Taint, ...]]:
    """What a pool's own pods tolerate of a node is no bar to the agents in them."""
    found: list[Taint] = list(pool.taints) if pool is not None else []
    if node is not None and node.taints:
        accepted = pool.tolerations if pool is not None else ()
        found += [taint for taint in node.taints if not tolerated(taint, accepted)]
    if not found:
        return (), ()
    hard = tuple(taint for taint in found if taint.effect != SOFT)
    return hard, tuple(taint for taint in found if taint.effect == SOFT)


def tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    """Whether one of them lets an agent go there: the same key (empty: every), and the same value (empty: any)."""
    return any(
        (not toleration.key or toleration.key == taint.key) and toleration.value in ("", taint.value)
        for toleration in tolerations
    )
