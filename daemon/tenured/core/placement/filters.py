"""Filters: each says of one host whether an agent may go there, and if not, why, in the words of the explanations.

A filter is a pure function from (wish, site) to a phrase; an empty one lets the host pass. Those in `STANDING` depend
on rows alone, those in `ROOM` on what was placed a moment ago, too. Spread compares hosts with each other: `spread`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tenured.core.model import Taint
from tenured.core.placement.site import Site, tolerated
from tenured.core.placement.wish import Wish


class Filter(NamedTuple):
    """A filter's name, as dry runs print it, and the function."""

    name: str
    judge: Callable[[Wish, Site], str]


def pool(wish: Wish, site: Site) -> str:
    """Only hosts of the agent's pool."""
    return "" if site.host.pool == wish.pool else "of another pool"


def readiness(_: Wish, site: Site) -> str:
    """A worker must be connected."""
    return "" if site.host.ready else "without a worker"


def agent_class(wish: Wish, site: Site) -> str:
    """The worker must offer the class."""
    for known in site.host.classes:
        if known.name == wish.class_name:
            return ""
    return "without the class"


def quarantine(_: Wish, site: Site) -> str:
    """Somebody said that nothing new is to go there."""
    return "quarantined" if site.host.quarantined else ""


def draining(_: Wish, site: Site) -> str:
    """It is handing its agents over."""
    return "draining" if site.host.draining else ""


def cordoned(_: Wish, site: Site) -> str:
    """Its node takes nothing new."""
    return "" if site.host.schedulable else "cordoned"


def suspect(_: Wish, site: Site) -> str:
    """It missed heartbeats: its lease has not ended, but it may."""
    return "silent" if site.silent else ""


def pacing(_: Wish, site: Site) -> str:
    """It is taking over as many agents as it can at once (`failover.pacing`): others come when those are Ready."""
    return "busy starting others" if site.busy else ""


def lost_node(wish: Wish, site: Site) -> str:
    """An agent that is not critical waits for the node that was lost."""
    return "on another node" if wish.node and site.host.node != wish.node else ""


def capabilities(wish: Wish, site: Site) -> str:
    """It must have every capability that is required."""
    for needed in wish.requires:
        if needed not in site.capabilities:
            return f"without capability {needed}"
    return ""


def node_selector(wish: Wish, site: Site) -> str:
    """Labels of host and node must be as asked for."""
    if wish.selector:
        labels = site.labels
        for name, value in wish.selector:
            if labels.get(name) != value:
                return "not selected"
    return ""


def taints(wish: Wish, site: Site) -> str:
    """Every taint must be tolerated, except those of effect PreferNoSchedule."""
    for taint in site.hard:
        if not tolerated(taint, wish.tolerations):
            return f"tainted {written(taint)}"
    return ""


def max_agents(_: Wish, site: Site) -> str:
    """The pool's maxAgentsPerHost, reservations included."""
    return "full" if site.limit and site.usage.agents >= site.limit else ""


def cpu(wish: Wish, site: Site) -> str:
    """What is held and reserved there, and this agent, within the capacity; an unknown one bears anything."""
    capacity, asked = site.host.cpu_milli, wish.cpu_milli
    return "short of cpu" if capacity and asked and site.usage.cpu_milli + asked > capacity else ""


def memory(wish: Wish, site: Site) -> str:
    """The same for memory."""
    capacity, asked = site.host.memory_bytes, wish.memory_bytes
    return "short of memory" if capacity and asked and site.usage.memory_bytes + asked > capacity else ""


STANDING = (
    Filter("pool", pool),
    Filter("readiness", readiness),
    Filter("class", agent_class),
    Filter("quarantine", quarantine),
    Filter("draining", draining),
    Filter("cordoned", cordoned),
    Filter("suspect", suspect),
    Filter("pacing", pacing),
    Filter("node", lost_node),
    Filter("capabilities", capabilities),
    Filter("nodeSelector", node_selector),
    Filter("taints", taints),
)
ROOM = (Filter("maxAgents", max_agents), Filter("cpu", cpu), Filter("memory", memory))
SPREAD = "spread"
"""The name of the last filter, which is not a function of one host."""


def first(filters: tuple[Filter, ...], wish: Wish, site: Site) -> tuple[str, str]:
    """(name, phrase) of the first filter that the host does not pass; empty when it passes all."""
    for name, judge in filters:
        phrase = judge(wish, site)
        if phrase:
            return name, phrase
    return "", ""


def reluctant(wish: Wish, site: Site) -> bool:
    """Whether it is a second choice: a taint of effect PreferNoSchedule that is not tolerated."""
    return bool(site.soft) and not all(tolerated(taint, wish.tolerations) for taint in site.soft)


def written(taint: Taint) -> str:
    """`key=value`, or the key alone."""
    return f"{taint.key}={taint.value}" if taint.value else taint.key
