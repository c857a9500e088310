"""Capacity, use and reservations, by node and in all. A node that cannot be reached is shown as such, not left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

import msgspec

from tenured.core.lookup import LOST
from tenured.core.model import ZONE_LABEL, Host
from tenured.core.registry import Registry, Usage


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """Of one host, of a node, of all. CPU in thousandths of a core, memory in bytes."""

    cpu_capacity: int = 0
    cpu_used: int = 0
    """What agents ask for."""
    cpu_reserved: int = 0
    """What reservations keep beside that."""
    memory_capacity: int = 0
    memory_used: int = 0
    memory_reserved: int = 0
    agents: int = 0
    cpu_free: int = 0
    """Capacity less what is used and reserved; of hosts whose capacity is unknown, nothing."""
    memory_free: int = 0
    capacity_known: bool = True
    """Of every host in it."""


class NodeRoom(msgspec.Struct, frozen=True, kw_only=True):
    """One node."""

    node: str
    zone: str = ""
    available: bool
    """A host lives there and is not silent."""
    why: str = ""
    """It is not available, or takes nothing new."""
    hosts: int = 0
    room: Room = Room()
    load: float = -1.0
    """Share of its hosts' processors in use as last measured; -1: not known."""


class Rooms(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster."""

    nodes: tuple[NodeRoom, ...]
    total: Room
    """Of the nodes that are available."""
    waiting: int
    """Agents that nobody holds."""
    agents: int
    """Rows."""


def rooms(
    registry: Registry, *, avoid: AbstractSet[str] = frozenset(), loads: Mapping[str, float] | None = None
) -> Rooms:
    """All nodes that have a row, a host, or an agent that was lost with them, by name. `avoid`, `loads`: as `place`."""
    hosts: dict[str, list[Host]] = {name: [] for name in registry.nodes}
    for host in registry.hosts.values():
        hosts.setdefault(host.node, []).append(host)
    for uid in registry.unheld:
        agent = registry.agents[uid]
        if agent.unheld_reason in LOST and agent.last_node:
            hosts.setdefault(agent.last_node, [])
    nodes = tuple(_node(registry, name, here, avoid, loads or {}) for name, here in sorted(hosts.items()))
    return Rooms(
        nodes=nodes,
        total=_sum(node.room for node in nodes if node.available),
        waiting=len(registry.unheld),
        agents=len(registry.agents),
    )


def _node(
    registry: Registry, name: str, hosts: list[Host], avoid: AbstractSet[str], loads: Mapping[str, float]
) -> NodeRoom:
    row = registry.nodes.get(name)
    alive = sorted((host for host in hosts if host.alive), key=lambda host: host.name)
    heard = [host for host in alive if not host.suspect and host.incarnation not in avoid]
    measured = [loads[host.incarnation] for host in alive if host.incarnation in loads]
    labelled = (host.labels[ZONE_LABEL] for host in hosts if ZONE_LABEL in host.labels)
    return NodeRoom(
        node=name,
        zone=(row.zone if row is not None else "") or next(labelled, ""),
        available=bool(heard),
        why=_closed(heard, schedulable=row is None or row.schedulable) if heard else _lost(hosts, alive),
        hosts=len(alive),
        room=_sum(_room(registry, host) for host in alive),
        load=sum(measured) / len(measured) if measured else -1.0,
    )


def _lost(hosts: list[Host], alive: list[Host]) -> str:
    if alive:
        return f"{alive[0].name} is silent"
    ended = sorted((host for host in hosts if not host.alive), key=lambda host: host.ended_ns)
    return f"{ended[-1].name} ended ({ended[-1].ended})" if ended else "it has no host"


def _closed(heard: list[Host], *, schedulable: bool) -> str:
    """Why a node that is available takes nothing new; empty when some host there does."""
    if not schedulable:
        return "cordoned"
    reasons = [_host_closed(host) for host in heard]
    return reasons[0] if all(reasons) else ""


def _host_closed(host: Host) -> str:
    if host.quarantined:
        return f"{host.name} is quarantined: {host.quarantined}"
    if host.draining:
        return f"{host.name} is draining"
    return "" if host.ready else f"{host.name} has no worker"


def _room(registry: Registry, host: Host) -> Room:
    held = registry.held_by.get(host.incarnation, ())
    usage = registry.usage.get(host.incarnation, Usage())
    kept = [registry.reservations[name] for name in registry.reserved.get(host.incarnation, ())]
    cpu_reserved = sum(row.cpu_milli for row in kept)
    memory_reserved = sum(row.memory_bytes for row in kept)
    return Room(
        cpu_capacity=host.cpu_milli,
        cpu_used=usage.cpu_milli - cpu_reserved,
        cpu_reserved=cpu_reserved,
        cpu_free=max(0, host.cpu_milli - usage.cpu_milli),
        memory_capacity=host.memory_bytes,
        memory_used=usage.memory_bytes - memory_reserved,
        memory_reserved=memory_reserved,
        memory_free=max(0, host.memory_bytes - usage.memory_bytes),
        agents=len(held),
        capacity_known=bool(host.cpu_milli and host.memory_bytes),
    )


def _sum(rooms: Iterable[Room]) -> Room:
    parts = list(rooms)
    return Room(
        cpu_capacity=sum(part.cpu_capacity for part in parts),
        cpu_used=sum(part.cpu_used for part in parts),
        cpu_reserved=sum(part.cpu_reserved for part in parts),
        cpu_free=sum(part.cpu_free for part in parts),
        memory_capacity=sum(part.memory_capacity for part in parts),
        memory_used=sum(part.memory_used for part in parts),
        memory_reserved=sum(part.memory_reserved for part in parts),
        memory_free=sum(part.memory_free for part in parts),
        agents=sum(part.agents for part in parts),
        capacity_known=all(part.capacity_known for part in parts),
    )
