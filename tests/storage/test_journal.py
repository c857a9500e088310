"""The journal beside the state store's database: what it must bring back, what it must refuse, and that it stays short.

docs/adr/0033; protocol 2, [sync_seal, sync_write].
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenured.core.cells import Cell, Verdict, Version
from tenured.storage import Register, SealItem, StoreCorrupt, WriteItem, keeping
from tenured.storage.database import Database
from tenured.storage.journal import Change

SMALL = 20_000


STEPS = threading.Lock()
"""Held while the journal is taken into SQLite: a picture of the files shows the moments between the steps."""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a store whose journal is short."""
    real = keeping.Keeper.copy

    def copy(self: keeping.Keeper) -> None:
        with STEPS:
            real(self)

    monkeypatch.setattr(keeping, "COPY_BYTES", SMALL)
    monkeypatch.setattr(keeping, "COPY_AT_ONCE", 20)
    monkeypatch.setattr(keeping.Keeper, "copy", copy)
    return tmp_path / "live" / "state.db"


async def opened(path: Path) -> Register:
    path.parent.mkdir(exist_ok=True)
    store = Register(path)
    await store.open()
    if store.joining:
        await store.admit()
    return store


def write(uid: str, seq: int, puts: Mapping[str, bytes], *deletes: str) -> WriteItem:
    """A delta, or the first version."""
    base = Version(1, seq - 1) if seq > 1 else None
    return WriteItem(uid=uid, version=Version(1, seq), base=base, puts=puts, deletes=deletes)


async def put(store: Register, *items: WriteItem) -> None:
    assert {answer.verdict for answer in await store.write_many(items)} == {Verdict.OK}


async def killed(path: Path, to: str) -> Path:
    """What a process that dies now would leave. No commit may be under way."""
    target = path.parent.with_name(to)
    with STEPS:
        shutil.copytree(path.parent, target)
    return target / path.name


def size(path: Path) -> int:
    with STEPS:
        return sum(file.stat().st_size for file in journals(path))


def journals(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.journal-*"))


async def entries(path: Path, *uids: str) -> list[dict[str, bytes]]:
    store = await opened(path)
    found = [dict(reading.entries) for reading in await store.read_many(uids)]
    await store.close()
    return found


async def test_a_process_that_dies_leaves_what_was_answered(path: Path) -> None:
    """At any number of writes, whatever SQLite has of them by then; deletions too, and records that were forgotten."""
    store = await opened(path)
    await put(store, write("gone", 1, {"s": b"x"}))
    for seq in range(1, 301):
        await put(store, write("7", seq, {"s": b"%d" % seq, f"k/{seq}": b"x" * 100}, f"k/{seq - 3}"))
        if seq == 150:
            await store.forget(["gone"])
        if seq % 60 == 0:
            kept = {"s": b"%d" % seq} | {f"k/{at}": b"x" * 100 for at in range(seq - 2, seq + 1)}
            left = await killed(path, f"at-{seq}")
            assert await entries(left, "7", "gone") == [kept, {"s": b"x"} if seq < 150 else {}]
            assert await entries(left, "7") == [kept], "a second start found something else"
    await store.close()
    assert (await entries(path, "7"))[0]["s"] == b"300"


async def test_the_journal_stays_short(path: Path) -> None:
    """With pauses and without them."""
    store = await opened(path)
    sizes: list[int] = []
    for seq in range(1, 400):
        await put(store, write("7", seq, {"s": b"x" * 1000}))
        sizes.append(size(path))
    assert max(sizes) <= 6 * SMALL
    writers = [asyncio.ensure_future(_many(store, str(uid))) for uid in range(8)]
    while not all(writer.done() for writer in writers):
        sizes.append(size(path))
        await asyncio.sleep(0)
    await asyncio.gather(*writers)
    assert max(sizes) <= 6 * SMALL
    await store.close()


async def _many(store: Register, uid: str) -> None:
    for seq in range(1, 150):
        await put(store, write(f"many-{uid}", seq, {"s": b"y" * 500}))


async def test_reads_see_what_only_the_journal_has(path: Path) -> None:
    """A seal answers with the record as the last write left it [seal]."""
    store = await opened(path)
    await put(store, write("7", 1, {"a": b"1", "b": b"2"}), write("7", 2, {"b": b"3"}, "a"))
    first = store.write_many([write("7", 3, {"c": b"4"})])
    sealed, _ = await asyncio.gather(store.seal_many([SealItem("7", 2)], with_records=True), first)
    assert sealed[0].version in (Version(1, 2), Version(1, 3))
    (reading,) = await store.read_many(["7"])
    assert reading.version == (await store.seal_many([SealItem("7", 3)]))[0].version
    assert reading.entries == ({"b": b"3", "c": b"4"} if reading.version.seq == 3 else {"b": b"3"})
    await store.close()


async def test_a_torn_tail_is_left_out(path: Path) -> None:
    """The last append, of which nobody was told, may be there in part."""
    store = await opened(path)
    await put(store, write("7", 1, {"s": b"one"}))
    size = journals(path)[-1].stat().st_size
    await put(store, write("7", 2, {"s": b"two"}))
    left = await killed(path, "left")
    whole = journals(left)[-1].read_bytes()
    for cut in (size, size + 1, size + 11, size + 13, len(whole) - 1):
        journals(left)[-1].write_bytes(whole[:cut])
        again = await killed(left, f"cut-{cut}")
        assert await entries(again, "7") == [{"s": b"one"}]
    assert await entries(left, "7") == [{"s": b"one"}]
    await store.close()


@pytest.mark.parametrize("at", [3, 20, 60, 200])
async def test_a_changed_byte_in_what_was_synced_refuses_to_start(path: Path, at: int) -> None:
    """Never "start with less": this server has answered "yes" for it."""
    store = await opened(path)
    for seq in range(1, 12):
        await put(store, write("7", seq, {"s": b"%d" % seq * 50}))
    left = await killed(path, "left")
    await store.close()
    data = bytearray(journals(left)[-1].read_bytes())
    data[at] ^= 1
    journals(left)[-1].write_bytes(data)
    with pytest.raises(StoreCorrupt, match=r"journal-\d+ is damaged.*Keep a copy"):
        await Register(left).open()


@pytest.mark.parametrize("change", ["missing", "shorter", "of another store"])
async def test_a_file_that_is_not_as_it_was_refuses_to_start(path: Path, change: str) -> None:
    store = await opened(path)
    await put(store, write("7", 1, {"s": b"one"}))
    left = await killed(path, "left")
    await store.close()
    (first,) = journals(left)
    data = first.read_bytes()
    database = Database(left)  # begins the next file; then the machine fails, and the older one is still there
    database.close()
    left_again = left.parent.with_name("again")
    shutil.copytree(left.parent, left_again)
    number = int(first.name[-10:])
    with sqlite3.connect(left_again / left.name) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'journal'", (str(number),))
    connection.close()
    target = left_again / first.name
    if change == "shorter":
        target.write_bytes(data[:-5])
    elif change == "of another store":
        other = await opened(path.parent.with_name("other") / "state.db")
        shutil.copy(journals(path.parent.with_name("other") / "state.db")[-1], target)
        await other.close()
    with pytest.raises(StoreCorrupt, match="is damaged: it"):
        await Register(left_again / left.name).open()


async def test_a_sync_that_fails_ends_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk holds is not known then, and a second sync may lie."""
    store = await opened(path)
    await put(store, write("7", 1, {"s": b"one"}))
    real = os.fdatasync

    def fails(_: int) -> None:
        monkeypatch.setattr(os, "fdatasync", real)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    (answer,) = await store.write_many([write("7", 2, {"s": b"two"})])
    assert answer.verdict is Verdict.FAILED
    (later,) = await store.write_many([write("7", 2, {"s": b"two"})])
    assert "until this server is restarted" in later.message
    await store.close()
    assert await entries(path, "7") in ([{"s": b"one"}], [{"s": b"two"}])


async def test_a_full_disk_refuses_and_goes_on_when_there_is_room(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an append is taken out again: what follows is found after a new start."""
    store = await opened(path)
    await put(store, write("7", 1, {"s": b"one"}))
    real = os.write

    def half(descriptor: int, data: memoryview) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    (answer,) = await store.write_many([write("7", 2, {"s": b"two"})])
    assert answer.verdict is Verdict.FAILED
    assert "disk of the state store is full" in answer.message
    monkeypatch.setattr(os, "write", real)
    await put(store, write("7", 2, {"s": b"again"}))
    assert await entries(await killed(path, "left"), "7") == [{"s": b"again"}]
    await store.close()


async def test_a_database_that_takes_nothing_is_told_before_memory_is_full(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal alone goes on for a while; then writes are refused, until SQLite takes it again."""
    monkeypatch.setattr(keeping, "FULL_BYTES", 3 * SMALL)
    store = await opened(path)
    real = Database.apply

    def refused(self: Database, changes: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Database, "apply", refused)
    monkeypatch.setattr(Database, "_failed", lambda self, _: self.refused(OSError(errno.ENOSPC, "")))
    answers = [(await store.write_many([write("7", seq, {"s": b"x" * 1000})]))[0] for seq in range(1, 200)]
    kept = [answer for answer in answers if answer.verdict is Verdict.OK]
    assert len(kept) >= 50
    refusal = next(answer for answer in answers if answer.verdict is not Verdict.OK)
    assert "disk of the state store is full" in refusal.message
    monkeypatch.setattr(Database, "apply", real)
    (reading,) = await store.read_many(["7"])
    assert reading.version == Version(1, len(kept))
    await store.close()


async def test_a_store_without_a_journal_is_taken(path: Path) -> None:
    """As versions before it wrote them (format 1); those refuse what has one."""
    store = await opened(path)
    await put(store, write("7", 1, {"s": b"old"}))
    await store.close()
    for file in journals(path):
        file.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM meta WHERE key = 'journal'")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    assert await entries(path, "7") == [{"s": b"old"}]
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()


async def test_a_journal_whose_database_is_gone_counts_for_nothing(path: Path) -> None:
    """protocol 2, [rejoin]: an empty disk says so, whatever lies beside it."""
    store = await opened(path)
    await put(store, write("7", 1, {"s": b"old"}))
    left = await killed(path, "left")
    await store.close()
    for file in left.parent.glob("state.db*"):
        if "journal-" not in file.name:
            file.unlink()
    again = Register(left)
    await again.open()
    assert again.joining
    assert await again.uids() == []
    await again.close()


CHANGES = st.lists(
    st.one_of(
        st.builds(lambda uid: Change(uid, None), st.sampled_from("ab")),
        st.builds(
            Change,
            st.sampled_from("ab"),
            st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
            st.booleans(),
            st.dictionaries(st.sampled_from("xyz"), st.binary(max_size=2), max_size=2),
            st.lists(st.sampled_from("xyz"), max_size=2).map(tuple),
        ),
    ),
    max_size=12,
)


@given(CHANGES, st.integers(0, 12))
def test_many_changes_at_once_come_to_the_same_as_one_by_one(changes: list[Change], again: int) -> None:
    """Also when some were applied before: the journal is played from its beginning."""
    expected: dict[str, tuple[Cell, dict[str, bytes]]] = {}
    for change in changes:
        _, old = expected.get(change.uid, (Cell(), {}))
        if change.cell is None:
            expected.pop(change.uid, None)
            continue
        left = {} if change.whole else {name: value for name, value in old.items() if name not in change.deletes}
        expected[change.uid] = (change.kept, {**left, **change.puts})
    with tempfile.TemporaryDirectory() as directory:
        database = Database(Path(directory) / "state.db")
        for some in (changes[:again], changes):
            with database.transaction():
                database.apply(some)
        cells = database.cells()
        found = {uid: (cell, database.entries(uid)) for uid, cell in cells.items()}
        database.close()
    assert found == expected
