"""Marks: which lost agents are not moved for now, and when that ends (FAIL-05, FAIL-09).

An agent that is not critical waits for its node. It is free again when the node is back, when its pool has as many
ready hosts as before the loss (a node that was replaced by one of another name), or when it is made critical. A
critical one for which nothing fits is marked, too, after a while, and goes on being tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet

from tenure_api.reasons import Reason
from tenured.core.commands import UnavailableItem
from tenured.core.failover.queue import Queue, tied, was_lost
from tenured.core.model import Agent, Host
from tenured.core.profile import NS
from tenured.core.registry import Registry

UNPLACED_NS = 10 * NS
"""A critical agent that was lost and fits nowhere is marked after so long."""


def takes_agents(host: Host, avoid: AbstractSet[str]) -> bool:
    """Tell whether a host may get agents now, as far as its own row says."""
    return (
        host.alive
        and host.ready
        and host.schedulable
        and not host.draining
        and not host.quarantined
        and host.incarnation not in avoid
    )


def to_mark(registry: Registry, queue: Queue, avoid: AbstractSet[str], now: int) -> list[UnavailableItem]:
    """List agents to mark now."""
    ready, living = _ready_hosts(registry, avoid), _living(registry)
    found: list[UnavailableItem] = []
    for uid in registry.unheld:
        agent = registry.agents[uid]
        if agent.unavailable:
            continue
        if tied(agent):
            # A daemon that was restarted at once is back in a moment: nothing is said of it.
            if (agent.spec.pool, agent.last_node) not in living and not _capacity_is_back(registry, agent, ready):
                message = f"{agent.last_node} was lost, and an agent that is not critical waits for it"
                found.append(UnavailableItem(uid=uid, epoch=agent.epoch, reason=Reason.NODE_LOST, message=message))
        elif (
            agent.waiting is not None
            and uid in queue.stuck
            and was_lost(agent)
            and queue.waited_ns(uid, now) >= UNPLACED_NS
        ):
            message = agent.waiting.message.removeprefix("Waiting: ")
            found.append(UnavailableItem(uid=uid, epoch=agent.epoch, reason=agent.waiting.reason, message=message))
    return found


def to_free(registry: Registry, avoid: AbstractSet[str]) -> list[str]:
    """List marked agents that need not wait for their node any more."""
    marked = [agent for uid in registry.unheld if (agent := registry.agents[uid]).unavailable == str(Reason.NODE_LOST)]
    if not marked:
        return []
    ready, living = _ready_hosts(registry, avoid), _living(registry)
    return [
        agent.uid
        for agent in marked
        if agent.spec.critical
        or ((agent.spec.pool, agent.last_node) not in living and _capacity_is_back(registry, agent, ready))
    ]


def _living(registry: Registry) -> AbstractSet[tuple[str, str]]:
    """(pool, node) of hosts that are there, ready or not: their agents wait for them."""
    return {(host.pool, host.node) for host in registry.hosts.values() if host.alive and not host.suspect}


def _ready_hosts(registry: Registry, avoid: AbstractSet[str]) -> Counter[str]:
    return Counter(host.pool for host in registry.hosts.values() if takes_agents(host, avoid))


def _capacity_is_back(registry: Registry, agent: Agent, ready: Counter[str]) -> bool:
    record = registry.failovers.get(str(agent.failover_id))
    return record is not None and 0 < record.hosts <= ready[record.pool]
