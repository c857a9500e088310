"""Tables with kubectl's columns. A table is a list of columns and rows of plain text."""

from collections.abc import Sequence
from dataclasses import dataclass

from tenure_cli.ports import Rows
from tenure_cli.wire import class_of
from tenure_proto.v1 import registry_pb2

GAP = "   "
NONE = "<none>"


@dataclass(frozen=True)
class Table:
    """Columns in capitals, and the cells of each row."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def lines(self) -> list[str]:
        """Aligned as kubectl aligns: left, three spaces between."""
        cells = [self.columns, *self.rows]
        widths = [max(len(row[index]) for row in cells) for index in range(len(self.columns))]
        return [GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def age(since: float, now: float) -> str:
    """Seconds as kubectl writes them: 12s, 3m5s, 2h, 4d."""
    seconds = max(0, int(now - since))
    if since <= 0:
        return "<unknown>"
    if seconds < 120:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = minutes // 60
    if hours < 48:
        return f"{hours}h"
    return f"{hours // 24}d"


def agents(rows: Rows, now: float, *, namespace: str = "", wide: bool = False) -> Table:
    """NAME READY STATUS NODE EPOCH RESTARTS AGE; wide adds CLASS POOL HOST DEAD-LETTERS REASON LAST-FAILOVER.

    With `namespace` only its agents and their bare names, as kubectl shows them.
    """
    chosen = [row for row in rows.agents.values() if not namespace or row.spec.id.startswith(f"{namespace}/")]
    columns: tuple[str, ...] = ("NAME", "READY", "STATUS", "NODE", "EPOCH", "RESTARTS", "AGE")
    if wide:
        columns += ("CLASS", "POOL", "HOST", "DEAD-LETTERS", "REASON", "LAST-FAILOVER")
    return Table(
        columns,
        tuple(
            _agent(row, now, bare=bool(namespace)) + (_agent_wide(row, now) if wide else ())
            for row in sorted(chosen, key=lambda row: row.spec.id)
        ),
    )


def _agent(row: registry_pb2.AgentRow, now: float, *, bare: bool) -> tuple[str, ...]:
    name = row.spec.id.partition("/")[2] if bare else row.spec.id
    return (
        name,
        str(row.ready and row.phase != "FailingOver"),  # its host may have fallen silent since it said so
        row.summary or row.phase or "Pending",
        row.node or NONE,
        str(row.epoch),
        str(row.restarts),
        age(row.created_wall, now),
    )


def _agent_wide(row: registry_pb2.AgentRow, now: float) -> tuple[str, ...]:
    where = (class_of(row.spec), row.spec.pool, row.host or NONE)
    return (*where, str(row.dead_letters), row.reason or NONE, failover(row, now))


def failover(row: registry_pb2.AgentRow, now: float) -> str:
    """The last failover in a few words."""
    last = row.last_failover
    if not last.wall_time:
        return NONE
    took = f"{last.duration_ms} ms" if last.duration_ms else "under way"
    return f"{age(last.wall_time, now)} ago, {took}, {last.reason}"


def hosts(rows: Rows, now: float, *, wide: bool = False) -> Table:
    """NAME READY STATUS POOL NODE AGENTS VERSION AGE; wide adds ADDRESS CLASSES INCARNATION."""
    columns: tuple[str, ...] = ("NAME", "READY", "STATUS", "POOL", "NODE", "AGENTS", "VERSION", "AGE")
    if wide:
        columns += ("ADDRESS", "CLASSES", "INCARNATION")
    ordered = sorted(rows.hosts.values(), key=lambda row: (row.name, row.registered_wall))
    return Table(columns, tuple(_host(row, now) + (_host_wide(row) if wide else ()) for row in ordered))


def host_status(row: registry_pb2.HostRow) -> str:  # noqa: PLR0911 - one phrase each
    """One phrase: what keeps this host from taking agents, or that nothing does."""
    if row.expired:
        return "Lost"
    if row.worker_error:
        return f"{row.worker_reason or 'Worker'}: {row.worker_error}"
    if row.draining:
        return "Draining"
    if not row.ready:
        return "Starting"
    if row.quarantined:
        return f"Quarantined: {row.quarantined}"
    if row.suspect:
        return _silent(row)
    return "Ready" if row.schedulable else "Ready, takes no new agents"


def _silent(row: registry_pb2.HostRow) -> str:
    match row.silence:
        case "Held":
            return "Silent, failover held back"
        case "Lapsed" | "Confirmed":
            return "Silent, its lease ends"
        case _:
            return "Silent, takes no new agents"


def _host(row: registry_pb2.HostRow, now: float) -> tuple[str, ...]:
    ready = str(row.ready and not row.expired)
    held, since = str(row.agents), age(row.registered_wall, now)
    return (row.name, ready, host_status(row), row.pool, row.node, held, row.version or NONE, since)


def _host_wide(row: registry_pb2.HostRow) -> tuple[str, ...]:
    return (row.address, ",".join(info.name for info in row.classes) or NONE, row.incarnation)


def servers(status: registry_pb2.StatusResponse) -> Table:
    """NAME ROLE STORE LAG ADDRESS VERSION."""
    ordered: Sequence[registry_pb2.ServerStatus] = sorted(status.servers, key=lambda server: server.name)
    return Table(
        ("NAME", "ROLE", "STORE", "LAG", "ADDRESS", "VERSION"),
        tuple(
            (row.name, row.role, row.store or NONE, str(row.lag), row.address or NONE, row.version or NONE)
            for row in ordered
        ),
    )


def pools(rows: Rows) -> Table:
    """NAME READY AGENTS CLASSES MODULES: ready hosts of those there are, agents, classes that a ready host offers."""
    return Table(
        ("NAME", "READY", "AGENTS", "CLASSES", "MODULES"),
        tuple(_pool(rows, name) for name in sorted(rows.pools)),
    )


def _pool(rows: Rows, name: str) -> tuple[str, ...]:
    members = [host for host in rows.live_hosts() if host.pool == name]
    ready = [host for host in members if host.ready]
    classes = sorted({info.name for host in ready for info in host.classes})
    held = sum(1 for agent in rows.agents.values() if agent.spec.pool == name)
    modules = ",".join(rows.pools[name].spec.modules)
    return (name, f"{len(ready)}/{len(members)}", str(held), ",".join(classes) or NONE, modules or NONE)
