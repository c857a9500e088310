"""Losses of hosts, and what became of their agents, as tables."""

from collections.abc import Sequence

from tenure_cli.render.tables import NONE, Table, age
from tenure_proto.v1 import registry_pb2


def took(record: registry_pb2.FailoverRecord, now: float) -> str:
    """From the last sign of life to the end of the failover, in seconds."""
    if not record.agents:
        return NONE
    began = record.last_heard_wall or record.ended_wall
    if record.done_wall:
        return f"{max(0.0, record.done_wall - began):.1f} s"
    return f"under way for {max(0.0, now - began):.1f} s"


def failovers(records: Sequence[registry_pb2.FailoverRecord], now: float, *, wide: bool = False) -> Table:
    """AGO HOST NODE CAUSE AGENTS READY UNAVAILABLE TOOK, the newest last; wide adds where each agent went."""
    columns: tuple[str, ...] = ("ID", "AGO", "HOST", "NODE", "CAUSE", "AGENTS", "READY", "UNAVAILABLE", "TOOK")
    if wide:
        columns += ("WENT",)
    ordered = sorted(records, key=lambda record: record.id)
    return Table(columns, tuple(_row(record, now) + ((_went(record),) if wide else ()) for record in ordered))


def _row(record: registry_pb2.FailoverRecord, now: float) -> tuple[str, ...]:
    return (
        str(record.id),
        age(record.ended_wall, now),
        record.host,
        record.node,
        record.cause,
        str(record.agents),
        str(record.ready),
        str(record.marked_unavailable),
        took(record, now),
    )


def _went(record: registry_pb2.FailoverRecord) -> str:
    said = [f"{item.id} -> {item.to_host or item.unavailable or 'waiting'}" for item in record.items]
    more = record.agents - len(record.items)
    return ", ".join([*said, *([f"and {more} more"] if more > 0 else [])]) or NONE
