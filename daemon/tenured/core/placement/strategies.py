"""Strategies: which of the hosts that pass the filters. One row a strategy in `STRATEGIES`.

A strategy gives each host a key; the least wins. The key says how the host would stand *with* the agent, so that the
next one of a batch sees it. Two things come before every strategy's own measure: a taint of effect PreferNoSchedule
(`filters.reluctant`), and, except where chance or seniority decides, a host of unknown capacity counts as worst.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import mul
from types import MappingProxyType
from typing import NamedTuple

from tenured.core.placement.site import Site
from tenured.core.placement.wish import Wish

Key = tuple[float, ...]

LOAD_WEIGHT = 0.5
"""Of the measured load in `LoadBalanced`: a host whose processors are all busy counts as half as full again. Not more:
a heartbeat's figure is of a moment, and what is placed by it stays.
"""
AGENTS_THRESHOLD = 1000
"""Agents of a host that count as full load for `Optimal` where the pool sets no limit."""
WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"cpu": 0.3, "memory": 0.3, "agents": 0.2, "locality": 0.1, "spread": 0.05, "capability": 0.05}
)
"""Of `Optimal`; they add up to 1. Each part lies between 0 (best) and 1."""
DISTANCES = ("same host", "same node", "same zone", "elsewhere")


class Strategy(NamedTuple):
    """One strategy."""

    name: str
    optimises: str
    """A sentence for users."""
    key: Callable[[Wish, Site], Key]
    say: Callable[[Key], str]
    """The key in explanations."""
    chance: bool = False
    """Each host's key is a clock that `draw.pause` moves on; `key` gives where it starts."""


def ratio(site: Site) -> float:
    """Agents for the host's size, one more included, and more so the busier it was last measured."""
    return (site.usage.agents + 1) / site.size * (1.0 + LOAD_WEIGHT * site.load)


def distance(wish: Wish, site: Site) -> int:
    """Index into DISTANCES."""
    near = wish.near
    if near.incarnation and site.host.incarnation == near.incarnation:
        return 0
    if near.node and site.host.node == near.node:
        return 1
    return 2 if near.zone and site.zone == near.zone else 3


def unasked(wish: Wish, site: Site) -> int:
    """Capabilities of the host that the agent does not require."""
    return len(site.capabilities) - len(wish.requires) if site.capabilities else 0


def parts(wish: Wish, site: Site) -> tuple[float, ...]:
    """What `Optimal` weighs, in the order of WEIGHTS. Unknown capacity counts as used up."""
    host, usage = site.host, site.usage
    cpu = (usage.cpu_milli + wish.cpu_milli) / host.cpu_milli if host.cpu_milli else 1.0
    memory = (usage.memory_bytes + wish.memory_bytes) / host.memory_bytes if host.memory_bytes else 1.0
    agents = (usage.agents + 1) / (site.limit or AGENTS_THRESHOLD)
    alike = site.alike(wish.groups[0])
    spare = unasked(wish, site)
    return (
        max(cpu, site.load),
        memory,
        min(1.0, agents),
        distance(wish, site) / 3,
        alike / (alike + 1),
        spare / (spare + 1),
    )


def detail(strategy: Strategy, wish: Wish, site: Site) -> str:
    """What a score is made of, for dry runs; empty where the score says it all."""
    if strategy.name == "Optimal":
        found = zip(WEIGHTS.items(), parts(wish, site), strict=True)
        return ", ".join(f"{name} {part:.2f} x {weight:g}" for (name, weight), part in found)
    if strategy.name == "LoadBalanced" and site.load:
        return f"measured load {site.load:.0%}"
    return ""


# --- the keys -------------------------------------------------------------------------------------------------------


def _load_balanced(_: Wish, site: Site) -> Key:
    return (not site.known, ratio(site))


def _capability_matched(wish: Wish, site: Site) -> Key:
    return (unasked(wish, site), not site.known, ratio(site))


def _leader_only(_: Wish, site: Site) -> Key:
    return (site.host.registered_wall, site.salt)


def _random(_: Wish, __: Site) -> Key:
    return ()


def _local_preferred(wish: Wish, site: Site) -> Key:
    return (distance(wish, site), not site.known, ratio(site))


def _optimal(wish: Wish, site: Site) -> Key:
    return (not site.known, sum(map(mul, WEIGHTS.values(), parts(wish, site))))


# --- in words -------------------------------------------------------------------------------------------------------


def _last(key: Key) -> str:
    return f"{key[-1]:.2f}"


def _unasked(key: Key) -> str:
    return f"{key[-3]:.0f} unasked, {key[-1]:.2f}"


def _far(key: Key) -> str:
    return f"{DISTANCES[int(key[-3])]}, {key[-1]:.2f}"


def _by_chance(_: Key) -> str:
    return "by chance"


def _clock(key: Key) -> str:
    seconds = int(key[-2])
    return f"since {seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}Z"


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        strategy.name: strategy
        for strategy in (
            Strategy(
                "LoadBalanced",
                "The same number of agents for the size of each host, fewer on the busier ones.",
                _load_balanced,
                _last,
            ),
            Strategy(
                "CapabilityMatched",
                "Hosts with nothing beyond what is required first, so that scarce ones stay free; then LoadBalanced.",
                _capability_matched,
                _unasked,
            ),
            Strategy(
                "LeaderOnly",
                "All on one host: the one that serves longest. The next in seniority takes over when it goes.",
                _leader_only,
                _clock,
            ),
            Strategy("Random", "Each host with equal probability.", _random, _by_chance, chance=True),
            Strategy(
                "LocalPreferred",
                "Close to another agent or a node: same host, node, zone, in this order; then LoadBalanced.",
                _local_preferred,
                _far,
            ),
            Strategy(
                "Optimal",
                "The least weighted sum of cpu, memory, agents, distance, like agents and unasked capabilities.",
                _optimal,
                _last,
            ),
        )
    }
)
