"""`tenure topology`: who sees whom."""

from typing import Any

import typer

from tenure_cli.errors import CliError
from tenure_cli.output import Format, FormatOption, NamespaceOption, emit
from tenure_cli.ports import snapshot
from tenure_cli.render.tables import Table
from tenure_cli.runtime import Runtime, runtime
from tenure_cli.topology import Topology, picture


def topology(context: typer.Context, output: FormatOption = Format.TABLE, namespace: NamespaceOption = "") -> None:
    """Show every server and host, and which of them have a connection to each other.

    One column for each server that answers from here: + it has a connection, - it has none. Behind a port-forward only
    one server answers, so there is one column. What is cut off from the rest is listed below, and who leads where.

    Examples:

        tenure topology

        tenure topology -o json
    """
    shell = runtime(context)
    shell.run(_topology(shell, output, namespace))


async def _topology(shell: Runtime, output: Format, namespace: str) -> None:
    async with shell.cluster(namespace) as cluster:
        views = await cluster.statuses()
        if not views:
            raise CliError("No server answers.", "`tenure doctor` says where it breaks.")
        found = picture(views, await snapshot(cluster))
    emit(output, lambda wide: _table(found, wide=wide), lambda: _values(found), "There is nobody.")
    if output in (Format.TABLE, Format.WIDE):
        _sentences(found)


def _table(found: Topology, *, wide: bool) -> Table:
    """NAME ROLE NODE AGENTS and a column for each observer; wide adds ADDRESS VERSION."""
    columns = ("NAME", "ROLE", "NODE", "AGENTS", *found.leaders)
    rows = [
        (
            daemon.name,
            daemon.role,
            daemon.node or "-",
            str(daemon.agents) if daemon.role == "host" else "-",
            *("+" if found.seen[observer, daemon.name] else "-" for observer in found.leaders),
            *((daemon.address, daemon.version) if wide else ()),
        )
        for daemon in found.daemons
    ]
    return Table((*columns, *(("ADDRESS", "VERSION") if wide else ())), tuple(rows))


def _sentences(found: Topology) -> None:
    leaders = sorted(set(found.leaders.values()) - {""})
    alone = [observer for observer, leader in found.leaders.items() if not leader]
    print(f"Leader: {' and '.join(leaders) or 'nobody'}. Agents held: {found.total_agents}.")
    if alone:
        print(f"Knows no leader: {', '.join(alone)}.")
    for part in found.partitions:
        print(f"Connected with each other only: {', '.join(part)}.")


def _values(found: Topology) -> dict[str, Any]:
    return {
        "nodes": [
            {"name": one.name, "role": one.role, "node": one.node, "address": one.address, "version": one.version}
            | ({"agents": one.agents} if one.role == "host" else {})
            for one in found.daemons
        ],
        "connections": {
            observer: {daemon.name: found.seen[observer, daemon.name] for daemon in found.daemons}
            for observer in found.leaders
        },
        "partitions": [list(part) for part in found.partitions],
        "leaders": dict(found.leaders),
        "totalAgents": found.total_agents,
    }
