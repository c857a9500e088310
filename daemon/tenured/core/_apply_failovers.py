"""The record of a loss, kept while its agents move, and marks of agents that are not to move.

A record counts: `moved` (assigned again), `ready`, `marked_unavailable` (still so), `left` (deleted or lost once more
before they were Ready). It is done when every agent is ready, marked, or has left.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest

import msgspec

from tenure_api.reasons import Reason
from tenured.core import commands
from tenured.core.model import Agent, FailoverItem, FailoverRecord, Host, RowKey
from tenured.core.registry import FAILOVERS_LIMIT, Registry
from tenured.core.results import Result

ITEMS_LIMIT = 200
"""Agents that one record names; its counts are of all."""
MESSAGE_LIMIT = 300
"""Characters of the sentence with which an agent is marked."""

replace = msgspec.structs.replace


def open_record(
    registry: Registry, host: Host, cause: str, last_heard_wall: float, wall: float, agents: Sequence[Agent]
) -> int:
    """Note the end of an incarnation that nobody asked for; return the record's id."""
    number = registry.revision + 1
    first = nsmallest(ITEMS_LIMIT, (int(agent.uid) for agent in agents if agent.spec.critical))
    if len(first) < ITEMS_LIMIT:
        first += nsmallest(ITEMS_LIMIT - len(first), (int(agent.uid) for agent in agents if not agent.spec.critical))
    named = (registry.agents[str(uid)] for uid in first)
    items = tuple(FailoverItem(uid=agent.uid, id=agent.id, critical=agent.spec.critical) for agent in named)
    registry.put(
        FailoverRecord(
            id=number,
            host=host.name,
            node=host.node,
            incarnation=host.incarnation,
            cause=cause,
            last_heard_wall=last_heard_wall,
            ended_wall=wall,
            pool=host.pool,
            hosts=1 + _others(registry, host),
            agents=len(agents),
            items=items,
            done_wall=0.0 if agents else wall,
        )
    )
    while len(registry.failovers) > FAILOVERS_LIMIT:
        registry.drop(RowKey("failover", next(iter(registry.failovers))))
    return number


def note_moved(registry: Registry, agent: Agent) -> None:
    """Count an agent of an open loss as assigned again; `agent` is the row after it."""
    record = _record(registry, agent)
    if record is not None:
        record = replace(record, moved=record.moved + 1)
        _keep(registry, record, agent, to_host=agent.host, to_node=agent.node, unavailable="")


def note_ready(registry: Registry, agent: Agent) -> Agent:
    """Count an agent as Ready elsewhere; return its row without the reference."""
    record = _record(registry, agent)
    if record is not None:
        _keep(registry, replace(record, ready=record.ready + 1), agent, ready_wall=registry.wall)
    return replace(agent, failover_id=0) if agent.failover_id else agent


def note_left(registry: Registry, agent: Agent) -> None:
    """Count an agent that is deleted, or lost again, before it was Ready."""
    record = _record(registry, agent)
    if record is None:
        return
    if agent.unavailable:
        record = replace(record, marked_unavailable=record.marked_unavailable - 1)
    _keep(registry, replace(record, left=record.left + 1), agent)


def note_returned(registry: Registry, agent: Agent) -> Agent:
    """Lift the mark of an agent, if it has one; return its row without it. The caller stores it."""
    if not agent.unavailable:
        return agent
    record = _record(registry, agent)
    if record is not None:
        _keep(registry, replace(record, marked_unavailable=record.marked_unavailable - 1), agent, unavailable="")
    return replace(agent, unavailable="", unavailable_message="")


# --- entries --------------------------------------------------------------------------------------------------------


def mark_unavailable(registry: Registry, command: commands.MarkUnavailable) -> Result:
    """Mark agents that nobody holds; an item of another epoch, or of a held agent, is late and changes nothing."""
    for item in command.items:
        agent = registry.agents.get(item.uid)
        if agent is None or agent.held or agent.ended or agent.epoch != item.epoch or not item.reason:
            continue
        message = item.message[:MESSAGE_LIMIT]
        marked = replace(agent, unavailable=item.reason, unavailable_message=message, waiting=None)
        if marked == agent:
            continue
        registry.put(marked)
        record = _record(registry, agent)
        if record is not None:
            more = not agent.unavailable
            record = replace(record, marked_unavailable=record.marked_unavailable + more)
            _keep(registry, record, agent, unavailable=item.reason)
    return Result()


def mark_available(registry: Registry, command: commands.MarkAvailable) -> Result:
    """Lift marks; an agent without one is left alone."""
    for uid in command.uids:
        agent = registry.agents.get(uid)
        if agent is not None and agent.unavailable:
            freed = note_returned(registry, agent)
            if agent.unavailable == str(Reason.NODE_LOST) and not agent.spec.critical:
                freed = replace(freed, unheld_reason=str(Reason.CAPACITY_RETURNED))  # it may go anywhere now
            registry.put(freed)
    return Result()


# --- inside ---------------------------------------------------------------------------------------------------------


def _others(registry: Registry, lost: Host) -> int:
    """Count ready hosts of the same pool beside the lost one."""
    return sum(
        host.alive and host.ready and host.pool == lost.pool and host.name != lost.name
        for host in registry.hosts.values()
    )


def _record(registry: Registry, agent: Agent) -> FailoverRecord | None:
    return registry.failovers.get(str(agent.failover_id)) if agent.failover_id else None


def _keep(registry: Registry, record: FailoverRecord, agent: Agent, **fields: str | float) -> None:
    """Store a record with one item changed, and its end if this was the last agent."""
    at = next((at for at, item in enumerate(record.items) if item.uid == agent.uid), None) if fields else None
    if at is not None:  # most agents of a large host are not named: nothing is copied for them
        item = replace(record.items[at], **fields)
        record = replace(record, items=(*record.items[:at], item, *record.items[at + 1 :]))
    settled = record.ready + record.marked_unavailable + record.left
    if settled >= record.agents and not record.done_wall:
        record = replace(record, done_wall=registry.wall)
    registry.put(record)
