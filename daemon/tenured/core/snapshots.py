"""The registry as a snapshot keeps it: a frozen value, and its chunks.

A chunk is one version byte and a `Snapshot` in msgpack that holds some of the rows; all of them together are the
registry. Each is small enough to be encoded, or taken, within a few milliseconds. Version 1 had everything in one, and
is read like a chunk. Unknown fields are ignored, missing ones have defaults, as in commands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from tenured.core.commands import Undecodable
from tenured.core.model import Agent, Decision, FailoverRecord, Host, Node, Pool, Reservation, Server
from tenured.core.results import Result

VERSION = 2
READS = (1, 2)
ROWS = {"agents": 500, "decisions": 1000, "hosts": 50, "failovers": 10}
"""Rows in a chunk, where it is not 500: hosts carry the schemas of their classes, failovers up to 200 agents each."""
RESULT_ROWS = 1000
"""Row results in a chunk of results."""

_AGENT_NAMES = (
    "managed_by", "host", "incarnation", "node", "assigned_reason", "unheld_reason", "last_host", "last_node",
)  # fmt: skip
_SPEC_NAMES = ("class_name", "pool", "strategy", "durability", "reads", "on_exhausted")
_SPEC_MAPS = ("node_selector", "labels")
_NOTHING: dict[str, str] = {}
"""Rows are values: nobody changes it."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept across restarts: everything but what can be derived from it."""

    revision: int = 0
    index: int = 0
    cluster_ns: int = 0
    wall: float = 0.0
    view: int = 1
    agents: tuple[Agent, ...] = ()
    hosts: tuple[Host, ...] = ()
    pools: tuple[Pool, ...] = ()
    nodes: tuple[Node, ...] = ()
    servers: tuple[Server, ...] = ()
    tombstones: dict[str, int] = {}
    results: dict[str, Result] = {}
    reservations: tuple[Reservation, ...] = ()
    failovers: tuple[FailoverRecord, ...] = ()
    decisions: tuple[Decision, ...] = ()
    quarantines: dict[str, str] = {}


def encode(kept: Snapshot) -> bytes:
    """One chunk with everything in it."""
    return bytes([VERSION]) + msgspec.msgpack.encode(kept)


def decode(chunk: bytes) -> Snapshot:
    """Reverse `encode`.

    Raises:
        Undecodable: another version, or damage.

    """
    if not chunk or chunk[0] not in READS:
        known = " and ".join(str(version) for version in READS)
        raise Undecodable(f"a snapshot of schema version {chunk[0] if chunk else 'none'}; this server reads {known}")
    try:
        return msgspec.msgpack.decode(memoryview(chunk)[1:], type=Snapshot)
    except msgspec.DecodeError as error:
        raise Undecodable(str(error)) from error


def share(agents: Iterable[Agent], strings: dict[str, str]) -> None:
    """Let equal names in rows that were just decoded be one object: with 100,000 agents that is a fifth of the memory.

    `strings` is what was seen so far. Rows that anybody else has seen must not be given.
    """
    for agent in agents:
        _share(agent, _AGENT_NAMES, strings)
        _share(agent.spec, _SPEC_NAMES, strings)
        for name in _SPEC_MAPS:
            if not getattr(agent.spec, name):
                msgspec.structs.force_setattr(agent.spec, name, _NOTHING)


def _share(row: msgspec.Struct, names: tuple[str, ...], strings: dict[str, str]) -> None:
    for name in names:
        value: str = getattr(row, name)
        if value:
            msgspec.structs.force_setattr(row, name, strings.setdefault(value, value))


def chunks(kept: Snapshot) -> Iterator[bytes]:
    """The snapshot in parts. The same state gives the same bytes."""
    head = {name: getattr(kept, name) for name in ("revision", "index", "cluster_ns", "wall", "view")}
    yield encode(Snapshot(**head, tombstones=kept.tombstones, quarantines=kept.quarantines))
    for name in ("hosts", "pools", "nodes", "servers", "agents", "reservations", "failovers", "decisions"):
        rows, count = getattr(kept, name), ROWS.get(name, 500)
        for start in range(0, len(rows), count):
            yield encode(Snapshot(**head, **{name: rows[start : start + count]}))
    for results in _results(kept.results):
        yield encode(Snapshot(**head, results=results))


def _results(results: dict[str, Result]) -> Iterator[dict[str, Result]]:
    """In order: the oldest is forgotten first."""
    part: dict[str, Result] = {}
    rows = 0
    for command_id, result in results.items():
        part[command_id] = result
        rows += 1 + len(result.rows)
        if rows >= RESULT_ROWS:
            yield part
            part, rows = {}, 0
    if part:
        yield part
