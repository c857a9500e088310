"""How the state store commits: a journal before SQLite as it is used, SQLite alone, and the journal alone.

    python -m bench.store [--json] [--runs 5]

Each stands under the store's own writer thread and group commit (`tenured.storage.Register`), in turns, in one
directory. A write is what a small turn writes, as a delta: three entries of some 60 bytes, and one that is deleted.
Lines: one write after the other; writes a second with 64 in flight, each to a record of its own; the processor time of
one of these. The floor is an append of 256 bytes with fdatasync. The journal alone grows for ever and can answer no
read: it is what taking it into SQLite costs.
"""

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.harness import Line, arguments, emit, percentile, say
from tenured.core.cells import Version
from tenured.storage import Register, SealItem, WriteItem, register
from tenured.storage.journal import Change
from tenured.storage.keeping import Keeper

RECORDS = 64
SEQUENTIAL = 500
ROUND_S = 2.0
AS_USED = "journal and SQLite"
ALONE = "SQLite alone, same run"


class Alone(Keeper):
    """SQLite without a journal: each commit is synced there."""

    def keep(self, changes: list[Change]) -> None:
        """One transaction and one sync."""
        database = self.database
        database._db.execute("PRAGMA synchronous = FULL")  # noqa: SLF001 - as the store was before docs/adr/0034
        with database.transaction():
            database.apply(changes)

    @property
    def due(self) -> bool:
        """Nothing to copy."""
        return False

    overdue = due


class Lasting(Keeper):
    """The journal alone, which nobody takes into SQLite: the least that could work."""

    due = overdue = Alone.due


ENGINES: dict[str, type[Keeper]] = {AS_USED: Keeper, "SQLite alone": Alone, "the journal alone": Lasting}


class Writer:
    """Writes of one record, each a delta on the one before."""

    def __init__(self, store: Register, uid: str) -> None:
        self._store, self._uid = store, uid
        self._seq = 0

    async def write(self) -> None:
        """The next one."""
        self._seq += 1
        seq = self._seq
        puts = {"s": b"s" * 60, f"r/c/{seq}": b"r" * 40, "m/c": b"m" * 60}
        base = Version(1, seq - 1) if seq > 1 else None
        deletes = (f"r/c/{seq - 16}",) if seq > 16 else ()
        item = WriteItem(uid=self._uid, version=Version(1, seq), base=base, puts=puts, deletes=deletes)
        (answer,) = await self._store.write_many([item])
        if answer.verdict != "OK":
            raise RuntimeError(f"{answer.verdict}: {answer.message}")


async def one_round(engine: type[Keeper], directory: Path) -> tuple[list[float], float, float]:
    """(milliseconds one after the other, writes a second in flight, processor milliseconds of one of these)."""
    module: Any = register
    module.Keeper = engine
    store = Register(directory / "state.db")
    await store.open()
    try:
        await store.admit()
        await store.seal_many([SealItem(str(number), 1) for number in range(RECORDS)])
        writers = [Writer(store, str(number)) for number in range(RECORDS)]
        times: list[float] = []
        for _ in range(SEQUENTIAL):
            began = time.perf_counter()
            await writers[0].write()
            times.append((time.perf_counter() - began) * 1000)
        count, until = 0, time.perf_counter() + ROUND_S

        async def loop(writer: Writer) -> None:
            nonlocal count
            while time.perf_counter() < until:
                await writer.write()
                count += 1

        began, used = time.perf_counter(), time.process_time()
        await asyncio.gather(*map(loop, writers))
        took, used = time.perf_counter() - began, time.process_time() - used
    finally:
        await store.close()
        module.Keeper = Keeper
    return times, count / took, used / count * 1000


def floor(directory: Path) -> list[float]:
    """Milliseconds of appends with fdatasync."""
    times: list[float] = []
    with (directory / "floor").open("ab", buffering=0) as file:
        for _ in range(SEQUENTIAL):
            began = time.perf_counter()
            file.write(b"x" * 256)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - began) * 1000)
    return times


async def measure(rounds: int) -> list[Line]:
    """All engines in turns."""
    found: dict[str, list[tuple[list[float], float, float]]] = {name: [] for name in ENGINES}
    floors: list[float] = []
    for number in range(rounds):
        for name, engine in ENGINES.items():
            with tempfile.TemporaryDirectory(prefix="tenure-bench-store-", dir=Path.cwd()) as directory:
                floors.append(percentile(floor(Path(directory)), 0.5))
                found[name].append(await one_round(engine, Path(directory)))
        said = ", ".join(f"{name} {runs[-1][1]:.0f}/s" for name, runs in found.items())
        say(f"round {number + 1} of {rounds}: {said} (load {os.getloadavg()[0]:.1f})")
    lines = [Line("floor: append of 256 bytes and fdatasync, p50", percentile(floors, 0.5), "ms", floors)]
    columns = (
        ("one write after the other, p50", "ms", lambda run: percentile(run[0], 0.5)),
        (f"writes with {RECORDS} in flight", "1/s", lambda run: run[1]),
        ("processor time of one of these", "ms", lambda run: run[2]),
    )
    for title, unit, value in columns:
        values = {name: [value(run) for run in runs] for name, runs in found.items()}
        beside = percentile(values["SQLite alone"], 0.5)
        lines += [
            Line(f"{name}: {title}", percentile(each, 0.5), unit, each, ALONE, beside) for name, each in values.items()
        ]
    return lines


def main() -> None:
    """`python -m bench.store`."""
    given = arguments(__doc__ or "", runs=5)
    emit(uvloop.run(measure(given.runs)), as_json=given.json)


if __name__ == "__main__":
    main()
