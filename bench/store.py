"""The engine under the state store: SQLite as it is used, LMDB, and an append-only log with its index in memory.

    python -m bench.store [--json] [--runs 5]

Each stands under the store's own writer thread and group commit (`tenured.storage.Register`), in turns, in one
directory. A write is what a small turn writes, as a delta: three entries of some 60 bytes, and one that is deleted.
Lines: one write after the other; writes a second with 64 in flight, each to a record of its own; the processor time of
one of these. The floor is an append of 256 bytes with fdatasync.

The log is the least that could work: no compaction, no check of its own at opening, every record in memory. LMDB is
left out where its module is not installed (`pip install lmdb`; it is no dependency).
"""

import asyncio
import contextlib
import importlib
import os
import tempfile
import time
import zlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench.harness import Line, arguments, emit, percentile, say
from tenured.core.cells import Cell, Version
from tenured.storage import Register, SealItem, WriteItem, register
from tenured.storage.database import Database

RECORDS = 64
SEQUENTIAL = 500
ROUND_S = 2.0
FLOOR = "SQLite, same run"


class _Other:
    """What `Register` asks of an engine, as far as this bench goes."""

    incarnation, joining, joined = "bench", True, (0, "")

    def cells(self) -> dict[str, Cell]:
        """Nothing is kept between runs."""
        return {}

    def admit(self) -> None:
        """It is a bench."""

    def tidy(self, *, idle: bool) -> None:
        """Nothing to tidy."""

    def size(self, uid: str) -> int:  # noqa: ARG002 - as the engine's
        """Nobody asks for records here."""
        return 0

    def entries(self, uid: str) -> dict[str, bytes]:  # noqa: ARG002 - as the engine's
        """Nobody asks for records here."""
        return {}


class Log(_Other):
    """One file, appended to; what it says is also in a dict."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._records: dict[str, dict[str, bytes]] = {}
        self._pending: list[tuple[Any, ...]] = []
        self._encode = msgspec.msgpack.Encoder().encode

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        """One append and one sync."""
        yield
        pending, self._pending = self._pending, []
        body = self._encode(pending)
        os.write(self._file, len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body)
        os.fdatasync(self._file)

    def put_cell(self, uid: str, cell: Cell) -> None:
        """Within a transaction."""
        self._pending.append((uid, cell.sealed, cell.version.epoch, cell.version.seq))

    def put_entries(self, uid: str, puts: Mapping[str, bytes], deletes: tuple[str, ...], *, whole: bool) -> None:
        """Within a transaction."""
        record = self._records.setdefault(uid, {})
        if whole:
            record.clear()
        for key in deletes:
            record.pop(key, None)
        record.update(puts)
        self._pending.append((uid, puts, deletes, whole))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Lmdb(_Other):
    """Keys `uid/entry` in one tree."""

    def __init__(self, path: Path) -> None:
        lmdb = importlib.import_module("lmdb")
        self._environment = lmdb.open(str(path), map_size=1 << 30, subdir=False, metasync=True, sync=True)
        self._transaction: Any = None

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        """One write transaction, synced."""
        with self._environment.begin(write=True) as self._transaction:
            yield

    def put_cell(self, uid: str, cell: Cell) -> None:
        """Within a transaction."""
        packed = msgspec.msgpack.encode((cell.sealed, cell.version.epoch, cell.version.seq))
        self._transaction.put(f"c/{uid}".encode(), packed)

    def put_entries(self, uid: str, puts: Mapping[str, bytes], deletes: tuple[str, ...], *, whole: bool) -> None:  # noqa: ARG002 - deltas only
        """Within a transaction."""
        for key in deletes:
            self._transaction.delete(f"e/{uid}/{key}".encode())
        for key, value in puts.items():
            self._transaction.put(f"e/{uid}/{key}".encode(), zlib.crc32(value).to_bytes(4, "big") + value)

    def close(self) -> None:
        """Close the file."""
        self._environment.close()


ENGINES: dict[str, Any] = {"SQLite": Database, "log": Log}
with contextlib.suppress(ImportError):
    importlib.import_module("lmdb")
    ENGINES["LMDB"] = Lmdb


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


async def one_round(engine: Any, directory: Path) -> tuple[list[float], float, float]:
    """(milliseconds one after the other, writes a second in flight, processor milliseconds of one of these)."""
    register.Database = engine
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
        register.Database = Database
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
        beside = percentile(values["SQLite"], 0.5)
        lines += [
            Line(f"{name}: {title}", percentile(each, 0.5), unit, each, FLOOR, beside) for name, each in values.items()
        ]
    return lines


def main() -> None:
    """`python -m bench.store`."""
    given = arguments(__doc__ or "", runs=5)
    emit(uvloop.run(measure(given.runs)), as_json=given.json)


if __name__ == "__main__":
    main()
