"""`tenure state import`: check everything, create what is missing, then give each agent its state."""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from tenure.errors import CallError
from tenure_cli import statefiles
from tenure_cli.errors import CliError
from tenure_cli.plain import NotPlain, to_plain
from tenure_cli.ports import Cluster, Rows, snapshot
from tenure_cli.ready import wait_until_ready
from tenure_cli.runtime import Runtime, explain
from tenure_cli.statefiles import Line
from tenure_proto.v1 import registry_pb2

TIMEOUT_S = 15.0
AT_ONCE = 16
CREATED_AT_ONCE = 200
"""Agents of one request."""


@dataclass
class Summary:
    """What became of the lines. `created` ones are in `changed` or `unchanged` only if they were there before."""

    total: int
    created: int = 0
    changed: int = 0
    unchanged: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


async def run_import(
    shell: Runtime, cluster: Cluster, file: str, lines: Sequence[Line], wait: float, *, dry_run: bool
) -> Summary:
    """Raises UsageError before anything is changed; what fails later is in the summary."""
    rows = await snapshot(cluster)
    statefiles.check(file, lines, rows.agents.values(), _classes(rows))
    there = {row.spec.id for row in rows.agents.values()}
    missing = [line for line in lines if line.id not in there]
    summary = Summary(len(lines), created=len(missing))
    if dry_run:
        summary.changed = len(lines) - len(missing)
        return summary
    await _create(cluster, missing, wait, summary)
    lost = {name for name, _ in summary.failed}
    new = {line.id for line in missing}
    gate = asyncio.Semaphore(AT_ONCE)

    async def bring(line: Line) -> None:
        async with gate:
            await _bring(cluster, line, summary, new=line.id in new)
        advance()

    with shell.progress("Importing", len(lines)) as advance:
        await asyncio.gather(*(bring(line) for line in lines if line.id not in lost))
    return summary


def _classes(rows: Rows) -> dict[tuple[str, str], registry_pb2.ClassInfo]:
    return {(host.pool, info.name): info for host in rows.live_hosts() if host.ready for info in host.classes}


async def _create(cluster: Cluster, missing: Sequence[Line], wait: float, summary: Summary) -> None:
    """Those that are refused are noted; of the others all have to become Ready. Notes, too, when they do not."""
    made: list[str] = []
    for start in range(0, len(missing), CREATED_AT_ONCE):
        part = missing[start : start + CREATED_AT_ONCE]
        for line, result in zip(part, await cluster.apply_agents([line.spec for line in part]), strict=True):
            if result.outcome == "refused":
                summary.created -= 1
                summary.failed.append((line.id, result.error.message))
            else:
                made.append(line.id)
    if made and wait:
        with contextlib.suppress(CliError):  # each says for itself what it waits for, when it is to get its state
            await wait_until_ready(cluster, made, wait)


def _text(state: object) -> str:
    """Equal texts: the same state. Python itself finds 1, 1.0 and True equal."""
    return json.dumps(to_plain(state), sort_keys=True)


async def _bring(cluster: Cluster, line: Line, summary: Summary, *, new: bool) -> None:
    """The state of one agent, unless it has it already."""
    try:
        found = cast("dict[str, Any]", await cluster.control(line.id, "state.get", {}, TIMEOUT_S))
        same = _text(found["state"]) == _text(line.state)
        if not same:
            await cluster.control(line.id, "state.put", {"state": line.state, "at": None}, TIMEOUT_S)
    except (CallError, NotPlain) as error:
        summary.created -= new
        why = explain(error)[0] if isinstance(error, CallError) else f"{error}"
        summary.failed.append((f"{line.id} (line {line.number})", why))
        return
    if not new:
        summary.unchanged += same
        summary.changed += not same
