"""The state machine: one committed entry in, the changed registry and a result out.

Deterministic, and it never raises for any command that decodes: what makes no sense is refused, with a reason and a
sentence. Every compare-and-set and rule R are checked here, where the entry is applied, because only here the order
of all entries is known.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from tenure_api.reasons import Reason
from tenured.core import _apply_failovers as failovers
from tenured.core import _apply_room as room
from tenured.core import commands, results
from tenured.core._apply_agents import (
    agent_reports,
    apply_agents,
    assign,
    delete_agents,
    set_waiting,
)
from tenured.core._apply_cluster import (
    apply_pools,
    expire_host,
    forget_hosts,
    free_agents,
    register_host,
    register_server,
    release_host,
    replace_server,
    report_host,
    server_joined,
    set_nodes,
)
from tenured.core.changes import Delta
from tenured.core.registry import Registry
from tenured.core.results import Result


class Applied(msgspec.Struct, frozen=True):
    """What one entry did."""

    result: Result
    changed: Delta


def apply(registry: Registry, index: int, command: commands.Command) -> Applied:
    """Apply one committed entry. `index` is its place in the log; entries come in order, each once."""
    before = registry.revision
    registry.index = index
    if command.wall > 0:
        registry.wall = command.wall
    first = registry.results.get(command.command_id) if command.command_id else None
    if first is not None:
        return Applied(first, Delta())
    result = _dispatch(registry, command)
    result = msgspec.structs.replace(result, revision=registry.revision)
    if command.command_id:
        registry.remember(command.command_id, result)
    return Applied(result, registry.since(before) or Delta())


def apply_bytes(registry: Registry, index: int, data: bytes) -> tuple[bytes, Applied]:
    """Apply an encoded entry and encode its result: what the engine's state machine does. Damage is refused, not
    raised.
    """
    try:
        command = commands.decode(data)
    except commands.Undecodable as error:
        registry.index = index
        refused = Result(ok=False, reason=Reason.COMMAND_INVALID, message=str(error), revision=registry.revision)
        return results.encode(refused), Applied(refused, Delta())
    applied = apply(registry, index, command)
    return results.encode(applied.result), applied


def _dispatch(registry: Registry, command: commands.Command) -> Result:  # noqa: PLR0911, PLR0912, C901 - one line a command
    match command:
        case commands.Tick():
            registry.tick(command.step_ns)
            return Result()
        case commands.RegisterHost():
            return register_host(registry, command)
        case commands.ReportHost():
            return report_host(registry, command)
        case commands.ExpireHost():
            return expire_host(registry, command)
        case commands.ReleaseHost():
            return release_host(registry, command)
        case commands.FreeAgents():
            return free_agents(registry, command)
        case commands.ForgetHosts():
            return forget_hosts(registry, command)
        case commands.ApplyPools():
            return apply_pools(registry, command)
        case commands.SetNodes():
            return set_nodes(registry, command)
        case commands.ApplyAgents():
            return apply_agents(registry, command)
        case commands.DeleteAgents():
            return delete_agents(registry, command)
        case commands.Assign():
            return assign(registry, command)
        case commands.AgentReports():
            return agent_reports(registry, command)
        case commands.SetWaiting():
            return set_waiting(registry, command)
        case commands.ClassifyHosts():
            return room.classify_hosts(registry, command)
        case commands.ConfirmFailover():
            return room.confirm_failover(registry, command)
        case commands.QuarantineHost():
            return room.quarantine_host(registry, command)
        case commands.MarkUnavailable():
            return failovers.mark_unavailable(registry, command)
        case commands.MarkAvailable():
            return failovers.mark_available(registry, command)
        case commands.Reserve():
            return room.reserve(registry, command)
        case commands.Unreserve():
            return room.unreserve(registry, command)
        case commands.RegisterServer():
            return register_server(registry, command)
        case commands.ReplaceServer():
            return replace_server(registry, command)
        case commands.ServerJoined():
            return server_joined(registry, command)
        case _:
            assert_never(command)
