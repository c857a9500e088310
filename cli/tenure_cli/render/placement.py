"""What `tenure place`, `explain` and `resources` print."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches

from tenure_cli.render.tables import NONE, Table, age
from tenure_proto.v1 import registry_pb2

MIB = 1 << 20
GIB = 1 << 30


def trial(name: str, answer: registry_pb2.DryRunResponse, *, wide: bool = False) -> list[str]:
    """Where one agent would go, and every host's verdict."""
    if answer.host:
        lines = [f"{name} would go to {answer.host} ({answer.node}), by {answer.strategy}."]
    else:
        lines = [f"{name} fits nowhere. {answer.message}", f"Next: {answer.next_action}" if answer.next_action else ""]
    lines += verdicts(answer.verdicts, wide=wide).lines() if answer.verdicts else ["There is no host."]
    return [line for line in [*lines, _blind(answer.answered_by, known=answer.loads_known)] if line]


def verdicts(found: Iterable[registry_pb2.Verdict], *, wide: bool = False) -> Table:
    """RANK HOST NODE SCORE REJECTED-BY WHY; wide adds ZONE POOL SCORE-PARTS."""
    columns: tuple[str, ...] = ("RANK", "HOST", "NODE", "SCORE", "REJECTED-BY", "WHY")
    if wide:
        columns += ("ZONE", "POOL", "SCORE-PARTS")
    return Table(columns, tuple(_verdict(one, wide=wide) for one in found))


def _verdict(one: registry_pb2.Verdict, *, wide: bool) -> tuple[str, ...]:
    rank = str(one.rank) if one.fits else "-"
    cells = (rank, one.host, one.node, one.score or "-", one.rejected or "-", one.why or "-")
    return (*cells, one.zone or NONE, one.pool, one.detail or "-") if wide else cells


def explanation(answer: registry_pb2.ExplainResponse, now: float, *, wide: bool = False) -> list[str]:
    """Why an agent is where it is, or nowhere."""
    fields = [
        ("Agent", answer.id),
        ("Status", answer.summary),
        ("Where", f"{answer.host} ({answer.node}), epoch {answer.epoch}" if answer.host else "nowhere"),
    ]
    if answer.host:
        since = f"{moment(answer.since_wall)} ({age(answer.since_wall, now)} ago)" if answer.since_wall else ""
        fields += [
            ("Since", since or "longer than the cluster remembers"),
            ("Because", answer.assigned_reason or NONE),
        ]
    else:
        fields += [("Waits", answer.reason)]
    fields += [("Strategy", answer.strategy)]
    if answer.explanation:
        fields += [("Chosen" if answer.host else "Last chosen", answer.explanation)]
    if answer.last_host:
        fields += [("Before", f"{answer.last_host} ({answer.last_node})")]
    if answer.previous_explanation:
        fields += [("Chosen then", answer.previous_explanation)]
    if answer.last_failover.wall_time:
        fields += [("Last failover", _failover(answer.last_failover))]
    if answer.next_action:
        fields += [("Next step", answer.next_action)]
    return [*aligned(fields), *_history(answer), *_hosts(answer, wide=wide)]


def _history(answer: registry_pb2.ExplainResponse) -> list[str]:
    rows = tuple((str(one.epoch), moment(one.wall), one.host, one.reason, one.explanation) for one in answer.decisions)
    return ["", *Table(("EPOCH", "TIME", "HOST", "REASON", "CHOSEN"), rows).lines()] if rows else []


def decisions(answer: registry_pb2.DecisionsResponse) -> Table:
    """TIME AGENT EPOCH HOST REASON CHOSEN."""
    rows = tuple(
        (moment(one.wall), one.id, str(one.epoch), one.host, one.reason, one.explanation) for one in answer.decisions
    )
    return Table(("TIME", "AGENT", "EPOCH", "HOST", "REASON", "CHOSEN"), rows)


def _hosts(answer: registry_pb2.ExplainResponse, *, wide: bool) -> list[str]:
    if not answer.verdicts:
        return []
    blind = _blind(answer.answered_by, known=answer.loads_known)
    return ["", *verdicts(answer.verdicts, wide=wide).lines(), *([blind] if blind else [])]


def resources(answer: registry_pb2.ResourcesResponse, *, wide: bool = False) -> Table:
    """NODE STATUS HOSTS AGENTS and, for CPU and memory, capacity, used, reserved, free; LOAD; wide adds ZONE."""
    columns: tuple[str, ...] = ("NODE", "STATUS", "HOSTS", "AGENTS")
    columns += tuple(f"{what}{part}" for what in ("CPU", "MEMORY") for part in ("", "-USED", "-RESERVED", "-FREE"))
    columns += ("LOAD", "ZONE") if wide else ("LOAD",)
    rows = [_node(node, wide=wide) for node in answer.nodes]
    if rows:
        hosts = sum(node.hosts for node in answer.nodes if node.available)
        rows.append(("TOTAL", "", str(hosts), *_room(answer.total), "", *([""] if wide else [])))
    return Table(columns, tuple(rows))


def _node(node: registry_pb2.NodeRoom, *, wide: bool) -> tuple[str, ...]:
    status = "Available" if node.available else "Unavailable"
    load = f"{node.load:.0%}" if node.load >= 0 else "?"
    cells = (node.node, f"{status}: {node.why}" if node.why else status, str(node.hosts), *_room(node.room), load)
    return (*cells, node.zone or NONE) if wide else cells


def _room(room: registry_pb2.Room) -> tuple[str, ...]:
    return (
        str(room.agents),
        cores(room.cpu_capacity) if room.cpu_capacity else "?",
        cores(room.cpu_used),
        cores(room.cpu_reserved),
        cores(room.cpu_free) if room.cpu_capacity else "?",
        size(room.memory_capacity) if room.memory_capacity else "?",
        size(room.memory_used),
        size(room.memory_reserved),
        size(room.memory_free) if room.memory_capacity else "?",
    )


def cores(milli: int) -> str:
    """As Kubernetes writes them: 1500m, 4."""
    return f"{milli}m" if milli % 1000 else str(milli // 1000)


def size(count: int) -> str:
    """Bytes as 512Mi or 1.5Gi."""
    return f"{count / GIB:.4g}Gi" if count >= GIB else f"{count / MIB:.4g}Mi"


def moment(wall: float) -> str:
    """2026-06-01T12:00:00Z"""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if wall else NONE


def aligned(fields: Sequence[tuple[str, str]]) -> list[str]:
    """`Name:  value`, the values one below the other."""
    width = max(len(name) for name, _ in fields) + 3
    return [f"{name + ':':<{width}}{value}" for name, value in fields]


def near(name: str, names: Sequence[str]) -> str:
    """`Did you mean 'x'?`, if one is like it."""
    close = get_close_matches(name, names, n=1)
    return f"Did you mean {close[0]!r}?" if close else ""


def _failover(last: registry_pb2.Failover) -> str:
    took = f"{last.duration_ms} ms" if last.duration_ms else "under way"
    return f"{moment(last.wall_time)}: {last.reason}, from {last.from_host} to {last.to_host or 'nobody yet'}, {took}"


def _blind(server: str, *, known: bool) -> str:
    return "" if known else f"({server} answered, which does not lead: measured load is not in this.)"
