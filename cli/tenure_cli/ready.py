"""Waiting until agents are Ready, and saying why when they do not become so."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from difflib import get_close_matches

from tenure_cli.errors import CliError
from tenure_cli.ports import Cluster, Rows
from tenure_cli.wire import class_of
from tenure_proto.v1 import registry_pb2

HOPELESS = ("ClassNotFound", "PoolNotFound", "StateInvalid", "SpecInvalid", "ImportFailed", "VersionSkew", "Ended")
"""Reasons that do not pass by waiting: the user has to change something."""
TICK_S = 0.5
SETTLED_S = 1.0
"""How long a hopeless reason must stand before it is believed: at the start, hosts come one after the other."""


async def wait_until_ready(cluster: Cluster, names: Sequence[str], timeout_s: float) -> Rows:
    """The registry once all of `names` are Ready.

    Raises CliError with the first one's reason when `timeout_s` seconds pass, or when that cannot pass by waiting.
    """
    rows = Rows()
    hopeless_since: dict[str, float] = {}
    try:
        async with asyncio.timeout(timeout_s):
            async for rows in _ticking(cluster.watch()):
                by_name = {row.spec.id: row for row in rows.agents.values()}
                waiting = [row for name in names if (row := by_name.get(name)) is None or not row.ready]
                if not waiting:
                    return rows
                _check_hope([row for row in waiting if row is not None], rows, hopeless_since)
    except TimeoutError:
        pass
    raise _late(rows, names, timeout_s)


def _check_hope(waiting: Sequence[registry_pb2.AgentRow], rows: Rows, since: dict[str, float]) -> None:
    """Raises CliError when a hopeless reason has stood for `SETTLED_S`."""
    now = time.monotonic()
    for row in waiting:
        if row.reason not in HOPELESS:
            since.pop(row.uid, None)
        elif now - since.setdefault(row.uid, now) > SETTLED_S:
            raise why_not(row, rows)


async def _ticking(source: AsyncIterator[Rows]) -> AsyncGenerator[Rows]:
    """What `source` yields, and the same again every `TICK_S` while nothing comes."""
    rows: Rows | None = None
    pending = asyncio.ensure_future(anext(source))
    try:
        while True:
            await asyncio.wait([pending], timeout=TICK_S)
            if pending.done():
                try:
                    rows = pending.result()
                except StopAsyncIteration:
                    return
                pending = asyncio.ensure_future(anext(source))
            if rows is not None:
                yield rows
    finally:
        pending.cancel()


def _late(rows: Rows, names: Sequence[str], timeout_s: float) -> CliError:
    late = [row for name in names if (row := rows.agent(name)) is not None and not row.ready]
    if late:
        return why_not(late[0], rows, len(late) - 1)
    return CliError(f"{names[0]} did not appear in the registry within {timeout_s:g} s.", "Look with `tenure doctor`.")


def why_not(row: registry_pb2.AgentRow, rows: Rows, others: int = 0) -> CliError:
    """Why an agent is not Ready, with the near name where a name is wrong."""
    summary = row.summary or row.phase or "Pending"
    more = f" ({others} more are not Ready)" if others > 0 else ""
    hint = near_class(row, rows) or row.next_action or f"Look with `tenure describe agent {row.spec.id}`."
    return CliError(f"{row.spec.id} is not Ready: {summary}{more}.", hint)


def near_class(row: registry_pb2.AgentRow, rows: Rows) -> str:
    """For an unknown class: the one that was probably meant, or those that there are."""
    if row.reason != "ClassNotFound":
        return ""
    known = sorted({info.name for host in rows.live_hosts() if host.pool == row.spec.pool for info in host.classes})
    close = get_close_matches(class_of(row.spec), known, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"The pool {row.spec.pool!r} has: {', '.join(known)}." if known else ""
