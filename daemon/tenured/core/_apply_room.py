"""Room on hosts: what an assignment or a reservation may still take, checked where the entry is applied."""

from __future__ import annotations

import msgspec

from tenure_api.reasons import Reason
from tenured.core import commands
from tenured.core._refusing import refused
from tenured.core.model import Host, Reservation, RowKey
from tenured.core.profile import NS
from tenured.core.registry import Registry, Usage
from tenured.core.results import Result

RESERVATIONS_LIMIT = 10_000
"""Reservations at one time."""
RESERVED_NS_MAX = 3600 * NS
"""Cluster time for which one may be asked."""
QUARANTINES_LIMIT = 10_000
"""Names of hosts that are quarantined at one time."""
REASON_LIMIT = 300
"""Characters of the reason of a quarantine."""

replace = msgspec.structs.replace


def shortage(registry: Registry, host: Host, *, agents: int, cpu_milli: int, memory_bytes: int) -> str:
    """Say what a host lacks for as much more; empty when it has room. A capacity of 0 is unknown: no limit."""
    used = registry.usage.get(host.incarnation, Usage())
    pool = registry.pools.get(host.pool)
    limit = pool.max_agents_per_host if pool is not None else 0
    if agents > 0 and limit and used.agents + agents > limit:
        return f"{host.name} has {used.agents} of {limit} agents"
    if cpu_milli > 0 and host.cpu_milli and used.cpu_milli + cpu_milli > host.cpu_milli:
        return f"{host.name} has {used.cpu_milli}m of {host.cpu_milli}m CPU in use, and {cpu_milli}m more are asked for"
    if memory_bytes > 0 and host.memory_bytes and used.memory_bytes + memory_bytes > host.memory_bytes:
        return (
            f"{host.name} has {_mib(used.memory_bytes)} of {_mib(host.memory_bytes)} MiB in use, and "
            f"{_mib(memory_bytes)} MiB more are asked for"
        )
    return ""


def _mib(size: int) -> str:
    return f"{size / 1048576:.4g}"


def reserve(registry: Registry, command: commands.Reserve) -> Result:
    """Keep room on one incarnation until a cluster time."""
    asked = command.reservation
    host = registry.hosts.get(asked.incarnation)
    wrong = _wrong(registry, asked)
    if wrong:
        return refused(Reason.COMMAND_INVALID, wrong)
    if host is None or not host.alive:
        return refused(Reason.INCARNATION_ENDED, f"incarnation {asked.incarnation} is not registered, or has ended")
    old = registry.reservations.get(asked.id)
    new = replace(asked, host=host.name, pool=host.pool, revision=old.revision if old is not None else 0)
    if new == old:
        return Result()
    if old is not None:
        return refused(Reason.NAME_TAKEN, f"there is another reservation {asked.id}: use an id of its own for each")
    short = shortage(registry, host, agents=asked.agents, cpu_milli=asked.cpu_milli, memory_bytes=asked.memory_bytes)
    if short:
        return refused(Reason.NO_ROOM, short)
    registry.put(new)
    return Result()


def _wrong(registry: Registry, asked: Reservation) -> str:
    if not asked.id:
        return "a reservation needs an id"
    if min(asked.agents, asked.cpu_milli, asked.memory_bytes) < 0:
        return f"reservation {asked.id}: what is reserved must not be negative"
    if not registry.cluster_ns < asked.until_ns <= registry.cluster_ns + RESERVED_NS_MAX:
        return f"reservation {asked.id}: its end must lie within the next {RESERVED_NS_MAX // NS} s of cluster time"
    if asked.id not in registry.reservations and len(registry.reservations) >= RESERVATIONS_LIMIT:
        return f"there are {RESERVATIONS_LIMIT} reservations already"
    return ""


def unreserve(registry: Registry, command: commands.Unreserve) -> Result:
    """Give room back."""
    if command.id in registry.reservations:
        registry.drop(RowKey("reservation", command.id))
    return Result()


def use_reservation(registry: Registry, reservation: Reservation, cpu_milli: int, memory_bytes: int) -> None:
    """Let one agent take from a reservation; an empty one goes."""
    left = replace(
        reservation,
        agents=max(0, reservation.agents - 1),
        cpu_milli=max(0, reservation.cpu_milli - cpu_milli),
        memory_bytes=max(0, reservation.memory_bytes - memory_bytes),
    )
    if left.agents or left.cpu_milli or left.memory_bytes:
        registry.put(left)
    else:
        registry.drop(RowKey("reservation", reservation.id))


# --- classes and quarantine of hosts ------------------------------------------------------------------------------


def classify_hosts(registry: Registry, command: commands.ClassifyHosts) -> Result:
    """Write the classes that changed."""
    for item in command.items:
        host = registry.hosts.get(item.incarnation)
        if host is None or not host.alive:
            continue
        silence = item.silence or ("Silent" if item.suspect else "")
        if silence == "Held" and host.silence == "Confirmed":
            continue  # an operator's word stands until the host is heard again, or ends
        since = item.silent_since_wall if silence else 0.0
        new = replace(host, suspect=bool(silence), silence=silence, silent_since_wall=since)
        if new != replace(host, silent_since_wall=since):
            registry.put(new)
    return Result()


def confirm_failover(registry: Registry, command: commands.ConfirmFailover) -> Result:
    """Take an operator's word that silent hosts are gone. Only those that are held back can be confirmed."""
    held = {host.name for host in registry.hosts.values() if host.alive and host.silence == "Held"}
    wrong = sorted(set(command.hosts) - held)
    if wrong:
        return refused(Reason.COMMAND_INVALID, f"the failover of {', '.join(wrong)} is not held back")
    for host in list(registry.hosts.values()):
        if host.alive and host.silence == "Held" and host.name in (command.hosts or held):
            registry.put(replace(host, silence="Confirmed"))
    return Result()


def quarantine_host(registry: Registry, command: commands.QuarantineHost) -> Result:
    """Quarantine a host by name, so that a restart of its daemon does not lift it; an empty reason lifts it."""
    reason = command.reason[:REASON_LIMIT]
    if reason and command.name not in registry.quarantines:
        if command.name not in registry.incarnations:
            return refused(Reason.COMMAND_INVALID, f"there is no host {command.name!r} to quarantine")
        if len(registry.quarantines) >= QUARANTINES_LIMIT:
            return refused(Reason.COMMAND_INVALID, f"{QUARANTINES_LIMIT} hosts are quarantined already")
    if reason:
        registry.quarantines[command.name] = reason
    else:
        registry.quarantines.pop(command.name, None)
    for incarnation in sorted(registry.incarnations.get(command.name, ())):
        host = registry.hosts[incarnation]
        if host.alive and host.quarantined != reason:
            registry.put(replace(host, quarantined=reason))
    return Result()
