"""One host as placement sees it: its row, its pool's and its node's, and what it holds."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from tenured.core.agentspec import Toleration
from tenured.core.groups import Groups
from tenured.core.model import ZONE_LABEL, Host, Node, Pool, Taint
from tenured.core.placement.wish import Wish
from tenured.core.registry import Registry, Usage

SOFT = "PreferNoSchedule"


@dataclass(slots=True, eq=False)
class Site:
    """A host and what placement needs to know of it. The rows stay as they are; the last part is of one question
    (`book`).
    """

    host: Host
    pool: Pool | None
    node: Node | None
    zone: str
    """Empty: unknown. All such hosts count as one zone."""
    capabilities: AbstractSet[str]
    hard: tuple[Taint, ...]
    """Taints that keep agents away, without those that the pool itself accepts."""
    soft: tuple[Taint, ...]
    """Taints that make it a second choice."""
    salt: int
    """Of the tie-break."""
    limit: int
    """Agents at most; 0: no limit."""
    size: float
    """Cores; 1 where the capacity is unknown."""
    known: bool
    """Whether it said what it can bear. A host that did not comes after all that did."""
    groups: Groups

    usage: Usage
    """What its agents and the reservations ask for, with what was placed here a moment ago."""
    added: dict[str, int]
    """Agents of each group that were placed here a moment ago."""
    silent: bool = False
    busy: bool = False
    """It starts as many agents as it may at once."""
    load: float = 0.0
    """Share of its processors in use as last measured, 0 to 1; 0 for all where nothing was measured."""
    taken: bool = False
    """Something was placed here a moment ago: usage and added are its own."""

    @property
    def labels(self) -> dict[str, str]:
        """Of the host and of its node; the node's win."""
        return self.host.labels | (self.node.labels if self.node is not None else {})

    def alike(self, group: str) -> int:
        """Agents of the group that it holds, with those just placed."""
        return self.groups.held(group).get(self.host.incarnation, 0) + self.added.get(group, 0)

    def take(self, wish: Wish) -> None:
        """Count one more agent. The registry's own count is never touched."""
        if not self.taken:
            usage = self.usage
            self.usage, self.added = Usage(usage.agents, usage.cpu_milli, usage.memory_bytes), {}
            self.taken = True
        self.usage.agents += 1
        self.usage.cpu_milli += wish.cpu_milli
        self.usage.memory_bytes += wish.memory_bytes
        for group in wish.groups:
            self.added[group] = self.added.get(group, 0) + 1


_NO_CAPABILITY: frozenset[str] = frozenset()
NOTHING_USED = Usage()
"""Of a host that holds nothing. Never changed: `Site.take` makes its own."""
NOTHING_ADDED: dict[str, int] = {}


def site_of(registry: Registry, host: Host) -> Site:
    """A host that is alive, as its rows are now."""
    pool, node = registry.pools.get(host.pool), registry.nodes.get(host.node)
    hard, soft = _taints(pool, node)
    return Site(
        host=host,
        pool=pool,
        node=node,
        zone=(node.zone if node is not None else "") or host.labels.get(ZONE_LABEL, ""),
        capabilities=frozenset(host.capabilities) if host.capabilities else _NO_CAPABILITY,
        hard=hard,
        soft=soft,
        salt=zlib.crc32(host.incarnation.encode()),
        limit=pool.max_agents_per_host if pool is not None else 0,
        size=host.cpu_milli / 1000 or 1.0,
        known=host.cpu_milli > 0,
        groups=registry.groups,
        usage=NOTHING_USED,
        added=NOTHING_ADDED,
    )


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
