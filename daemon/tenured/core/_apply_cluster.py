"""Entries about hosts, pools, nodes and servers."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tenure_api.reasons import Reason
from tenured.core import commands
from tenured.core._apply_failovers import note_left, open_record
from tenured.core._refusing import refused
from tenured.core.model import Agent, Failover, Host, Pool, RowKey, Server
from tenured.core.registry import Registry
from tenured.core.results import Result

AT_ONCE = 1000
"""Agents that the end of their holder takes along: some 10 ms of each server's loop, all at the same moment. More
would hold up elections and leases.
"""

replace = msgspec.structs.replace


# --- hosts ----------------------------------------------------------------------------------------------------------


def register_host(registry: Registry, command: commands.RegisterHost) -> Result:
    """Register a process start. It does not end an earlier one (protocol 1, no_supersede), unless that is proven
    dead.
    """
    if not command.name or not command.incarnation:
        return refused(Reason.COMMAND_INVALID, "a host needs a name and an incarnation")
    if registry.ended(command.incarnation):
        return refused(
            Reason.INCARNATION_ENDED,
            f"incarnation {command.incarnation} of host {command.name} has ended: register a new one",
        )
    old = registry.hosts.get(command.incarnation)
    if old is not None and old.name != command.name:
        return refused(
            Reason.COMMAND_INVALID, f"incarnation {command.incarnation} belongs to host {old.name}, not {command.name}"
        )
    for dead in command.dead_incarnations:
        proven = registry.hosts.get(dead)
        # Only its own predecessors: the lock that proves a death lies in the pod's own volume (protocol additions 1).
        if proven is not None and proven.alive and proven.name == command.name and dead != command.incarnation:
            end_host(registry, proven, Reason.HOST_LOST, command.wall)
    for incarnation in sorted(registry.incarnations.get(command.name, ())):
        if not registry.hosts[incarnation].alive and incarnation not in registry.held_by:
            registry.drop(RowKey("host", incarnation))
    row = _host_row(registry, command, old)
    if row != old:
        registry.put(row)
    return Result()


def _host_row(registry: Registry, command: commands.RegisterHost, old: Host | None) -> Host:
    """The row of a registration; a repeated one keeps what the host reported since, and its capacity, against which
    agents were placed.
    """
    node = registry.nodes.get(command.node)
    row = Host(
        name=command.name,
        incarnation=command.incarnation,
        pool=command.pool,
        node=command.node,
        address=command.address,
        signals_address=command.signals_address,
        labels=command.labels,
        version=command.version,
        cpu_milli=max(0, command.cpu_milli),
        memory_bytes=max(0, command.memory_bytes),
        registered_wall=command.wall,
        schedulable=node is None or node.schedulable,
        quarantined=registry.quarantines.get(command.name, ""),
        own_capabilities=command.capabilities,
        capabilities=_capabilities(registry.pools.get(command.pool), command.capabilities),
    )
    if old is None:
        return row
    return replace(
        row,
        pool=old.pool,
        node=old.node,
        cpu_milli=old.cpu_milli,
        memory_bytes=old.memory_bytes,
        suspect=old.suspect,
        schedulable=old.schedulable,
        own_capabilities=old.own_capabilities,
        capabilities=old.capabilities,
        registered_wall=old.registered_wall,
        ready=old.ready,
        draining=old.draining,
        classes=old.classes,
        worker_error=old.worker_error,
        worker_reason=old.worker_reason,
        revision=old.revision,
    )


def _capabilities(pool: Pool | None, own: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*own, *(pool.capabilities if pool is not None else ())}))


def report_host(registry: Registry, command: commands.ReportHost) -> Result:
    """Write what a host says of itself, if it differs."""
    old = registry.hosts.get(command.incarnation)
    if old is None or not old.alive:
        return refused(Reason.INCARNATION_ENDED, f"incarnation {command.incarnation} is not registered, or has ended")
    new = replace(
        old,
        ready=command.ready,
        draining=command.draining,
        classes=command.classes,
        worker_error=command.worker_error,
        worker_reason=command.worker_reason,
    )
    if new != old:
        registry.put(new)
    return Result()


def expire_host(registry: Registry, command: commands.ExpireHost) -> Result:
    """End an incarnation whose lease has provably ended (protocol 1, leader 4). Repeated: nothing."""
    host = registry.hosts.get(command.incarnation)
    if host is not None and host.alive:
        end_host(registry, host, command.reason, command.last_heard_wall or command.wall)
    return Result()


def release_host(registry: Registry, command: commands.ReleaseHost) -> Result:
    """End an incarnation by its own word (rule R, a)."""
    host = registry.hosts.get(command.incarnation)
    if host is not None and host.alive:
        end_host(registry, host, Reason.RELEASED, command.wall)
    return Result()


def forget_hosts(registry: Registry, command: commands.ForgetHosts) -> Result:
    """Drop rows of ended incarnations that hold nothing; the tombstones stay."""
    for incarnation in command.incarnations:
        host = registry.hosts.get(incarnation)
        if host is not None and not host.alive and incarnation not in registry.held_by:
            registry.drop(RowKey("host", incarnation))
    return Result()


def end_host(registry: Registry, host: Host, reason: str, wall: float) -> None:
    """End an incarnation for ever and take its agents from it (rule R, b)."""
    registry.put(replace(host, ended=reason, ended_wall=wall, ended_ns=registry.cluster_ns, ready=False))
    for reservation in sorted(registry.reserved.get(host.incarnation, ())):
        registry.drop(RowKey("reservation", reservation))
    agents = [registry.agents[uid] for uid in registry.held_by.get(host.incarnation, ())]
    if reason != Reason.RELEASED:
        staying = [agent for agent in agents if not agent.deleting]
        open_record(registry, host, reason, wall, registry.wall, staying)
    if len(agents) > AT_ONCE:  # the leader names the others, a part at a time; those that go for good are not counted
        agents = [agent for agent in agents if agent.deleting]
    _free(registry, registry.hosts[host.incarnation], sorted(agents, key=lambda agent: int(agent.uid)))


def free_agents(registry: Registry, command: commands.FreeAgents) -> Result:
    """Take agents from an incarnation that has ended; repeated: nothing."""
    host = registry.hosts.get(command.incarnation)
    if host is not None and not host.alive:
        agents = [agent for uid in command.uids if (agent := registry.agents.get(uid)) is not None]
        _free(registry, host, [agent for agent in agents if agent.incarnation == command.incarnation])
    return Result()


def _free(registry: Registry, host: Host, agents: Iterable[Agent]) -> None:
    """Of an incarnation that has ended: only its end makes this right (rule R, b)."""
    lost = host.ended != Reason.RELEASED
    why = Reason.DRAINING if host.draining and not lost else host.ended
    found = (record.id for record in registry.failovers.values() if lost and record.incarnation == host.incarnation)
    record = next(found, 0)
    for agent in agents:
        unhold(registry, agent, why, lost_wall=host.ended_wall if lost else None, record=record)


def unhold(registry: Registry, agent: Agent, reason: str, *, lost_wall: float | None, record: int = 0) -> None:
    """Take an agent from its holder. The caller has established rule R. A deleting one goes for good.

    `lost_wall`: when a lost holder was last heard of; None when it gave the agent up. `record`: of that loss.
    """
    if agent.deleting:
        note_left(registry, agent)
        registry.drop(RowKey("agent", agent.uid))
        return
    failover = agent.last_failover
    if lost_wall is not None:
        note_left(registry, agent)  # of the loss before, if it was not Ready since
        failover = Failover(wall=lost_wall, from_host=agent.host, from_node=agent.node, reason=reason)
    registry.put(
        replace(
            agent,
            host="",
            incarnation="",
            node="",
            last_host=agent.host,
            last_node=agent.node,
            unheld_reason=reason,
            ready=False,
            trouble=None,
            waiting=None,
            last_failover=failover,
            recovered_from=agent.recovered_from if lost_wall is None else f"{agent.host}/{agent.node}",
            failover_id=agent.failover_id if lost_wall is None else record,
        ),
    )


# --- pools, nodes ---------------------------------------------------------------------------------------------------


def apply_pools(registry: Registry, command: commands.ApplyPools) -> Result:
    """Replace the set of pools. Agents of a pool that went keep running where they are."""
    names = [pool.name for pool in command.pools]
    if not all(names) or len(set(names)) != len(names):
        return refused(Reason.SPEC_INVALID, "pools need names, each a different one")
    if any(pool.max_agents_per_host < 0 for pool in command.pools):
        return refused(Reason.SPEC_INVALID, "maxAgentsPerHost must not be negative (0: no limit)")
    for pool in command.pools:
        old = registry.pools.get(pool.name)
        if old is None or replace(pool, revision=old.revision) != old:
            registry.put(pool)
    for name in sorted(set(registry.pools) - set(names)):
        registry.drop(RowKey("pool", name))
    for host in list(registry.hosts.values()):
        capabilities = _capabilities(registry.pools.get(host.pool), host.own_capabilities)
        if host.alive and host.capabilities != capabilities:
            registry.put(replace(host, capabilities=capabilities))
    return Result()


def set_nodes(registry: Registry, command: commands.SetNodes) -> Result:
    """Replace the set of nodes; hosts of a cordoned node receive nothing new."""
    names = [node.name for node in command.nodes]
    if not all(names) or len(set(names)) != len(names):
        return refused(Reason.SPEC_INVALID, "nodes need names, each a different one")
    for node in command.nodes:
        old = registry.nodes.get(node.name)
        if old is None or replace(node, revision=old.revision) != old:
            registry.put(node)
    for name in sorted(set(registry.nodes) - set(names)):
        registry.drop(RowKey("node", name))
    for host in list(registry.hosts.values()):
        row = registry.nodes.get(host.node)
        schedulable = row is None or row.schedulable
        if host.alive and host.schedulable != schedulable:
            registry.put(replace(host, schedulable=schedulable))
    return Result()


# --- servers --------------------------------------------------------------------------------------------------------


def register_server(registry: Registry, command: commands.RegisterServer) -> Result:
    """Note a server and its disk; a disk that the registry does not know for that name is refused (protocol 2, rejoin
    1).
    """
    if not command.name or not command.incarnation:
        return refused(Reason.COMMAND_INVALID, "a server needs a name and a disk incarnation")
    old = registry.servers.get(command.name)
    if old is not None and old.incarnation != command.incarnation:
        return refused(
            Reason.DISK_REPLACED, f"server {command.name} came back with another disk: it must be replaced first"
        )
    new = Server(
        name=command.name,
        incarnation=command.incarnation,
        address=command.address,
        version=command.version,
        joining=old is not None and old.joining,
    )
    if old is None or replace(new, revision=old.revision) != old:
        registry.put(new)
    return Result()


def replace_server(registry: Registry, command: commands.ReplaceServer) -> Result:
    """Accept another disk of a known server: a new view, under which answers of the lost disk do not count (protocol
    2, view).
    """
    old = registry.servers.get(command.name)
    if old is None or not command.incarnation:
        return refused(Reason.COMMAND_INVALID, f"there is no server {command.name} to replace")
    if old.incarnation == command.incarnation:
        return Result()
    other = next((row.name for row in registry.servers.values() if row.joining and row.name != command.name), "")
    if other:
        return refused(
            Reason.SERVER_JOINING,
            f"{command.name} came back with another disk while {other} still reads its own anew: one disk is replaced "
            f"at a time, so {command.name} waits until {other} has joined",
        )
    registry.view += 1
    registry.put(replace(old, incarnation=command.incarnation, joining=True))
    return Result()


def server_joined(registry: Registry, command: commands.ServerJoined) -> Result:
    """Note that a replaced disk holds every record (protocol 2, rejoin 4); one replaced since stays joining."""
    old = registry.servers.get(command.name)
    if old is None or old.incarnation != command.incarnation:
        return refused(Reason.DISK_REPLACED, f"server {command.name} has another disk now")
    if old.joining:
        registry.put(replace(old, joining=False))
    return Result()
