"""What the store answers, and what it has written down before it answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tenured.core.cells import NOTHING, Verdict, Version
from tenured.storage import Register, SealItem, StoreCorrupt, StoreForeign, WriteItem


def whole(uid: str, epoch: int, seq: int, **puts: bytes) -> WriteItem:
    return WriteItem(uid=uid, version=Version(epoch, seq), puts=puts)


async def reopened(store: Register, path: Path) -> Register:
    await store.close()
    again = Register(path)
    await again.open()
    return again


async def test_a_new_disk_must_not_answer_until_it_is_admitted(tmp_path: Path) -> None:
    """protocol 2, [rejoin]: an empty disk says so."""
    store = Register(tmp_path / "state.db")
    await store.open()
    assert store.joining
    incarnation = store.incarnation
    await store.admit()
    assert not store.joining
    store = await reopened(store, tmp_path / "state.db")
    assert not store.joining
    assert store.incarnation == incarnation
    await store.close()


async def test_a_higher_seal_fences_writes_of_lower_epochs(store: Register) -> None:
    """protocol 2, [seal]."""
    (sealed,) = await store.seal_many([SealItem("7", 2)])
    assert (sealed.verdict, sealed.version) == (Verdict.OK, NOTHING)
    (late,) = await store.write_many([whole("7", 1, 9, s=b"old")])
    assert (late.verdict, late.sealed) == (Verdict.FENCED, 2)
    (lower,) = await store.seal_many([SealItem("7", 1)])
    assert (lower.verdict, lower.sealed) == (Verdict.FENCED, 2)


async def test_a_delta_changes_its_keys_on_exactly_its_base(store: Register) -> None:
    """protocol additions 8."""
    await store.write_many([whole("7", 1, 1, a=b"1", b=b"2")])
    delta = WriteItem(uid="7", version=Version(1, 2), base=Version(1, 1), puts={"b": b"3"}, deletes=("a",))
    (written,) = await store.write_many([delta])
    assert (written.verdict, written.version) == (Verdict.OK, Version(1, 2))
    (gap,) = await store.write_many([WriteItem(uid="7", version=Version(1, 4), base=Version(1, 3), puts={"c": b"4"})])
    assert (gap.verdict, gap.version) == (Verdict.NEED_BASE, Version(1, 2))
    (record,) = await store.read_many(["7"])
    assert record.entries == {"b": b"3"}


async def test_a_repeated_write_is_answered_yes_and_an_older_one_is_not(store: Register) -> None:
    """protocol 2, [order]."""
    await store.write_many([whole("7", 1, 2, s=b"two")])
    again, older = await store.write_many([whole("7", 1, 2, s=b"two"), whole("7", 1, 1, s=b"one")])
    assert (again.verdict, older.verdict) == (Verdict.OK, Verdict.STALE)
    (record,) = await store.read_many(["7"])
    assert record.entries == {"s": b"two"}


async def test_later_items_of_a_batch_see_earlier_ones(store: Register) -> None:
    answers = await store.write_many([whole("7", 1, 1, s=b"1"), whole("7", 2, 1, s=b"2"), whole("7", 1, 2, s=b"3")])
    assert [answer.verdict for answer in answers] == [Verdict.OK, Verdict.OK, Verdict.FENCED]


async def test_requests_that_wait_go_into_one_commit(tmp_path: Path) -> None:
    commits: list[int] = []
    store = Register(tmp_path / "state.db", on_commit=lambda _, requests: commits.append(requests))
    await store.open()
    await asyncio.gather(*(store.write_many([whole(str(n), 1, 1, s=b"x")]) for n in range(200)))
    await store.close()
    assert sum(commits) == 200
    assert len(commits) <= 20


async def test_what_was_answered_is_there_after_a_new_start(store: Register, tmp_path: Path) -> None:
    await store.seal_many([SealItem("1", 5)])
    await store.write_many([whole("2", 1, 1, s=b"kept"), whole("3", 1, 1, s=b"x")])
    await store.forget(["3"])
    again = await reopened(store, tmp_path / "state.db")
    (sealed,) = await again.seal_many([SealItem("1", 4)])
    assert sealed.verdict is Verdict.FENCED
    (found,) = await again.seal_many([SealItem("2", 2)], with_records=True)
    assert (found.version, found.entries) == (Version(1, 1), {"s": b"kept"})
    assert sorted(await again.uids()) == ["1", "2"]
    await again.close()


async def test_records_too_large_for_one_answer_are_left_out_of_it(store: Register) -> None:
    big = b"x" * (5 << 20)
    await store.write_many([whole("1", 1, 1, s=big), whole("2", 1, 1, s=big)])
    first, second = await store.seal_many([SealItem("1", 2), SealItem("2", 2)], with_records=True)
    assert first.entries == {"s": big}
    assert (second.verdict, second.entries) == (Verdict.OK, None)
    assert [reading.uid for reading in await store.read_many(["2", "1"])] == ["2"]


async def test_a_second_process_is_refused(store: Register, tmp_path: Path) -> None:
    other = Register(tmp_path / "state.db")
    with pytest.raises(StoreForeign, match="Another process"):
        await other.open()


async def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(StoreCorrupt, match=r"damaged.*Keep a copy"):
        await Register(tmp_path / "state.db").open()


async def test_a_damaged_store_refuses_to_start(store: Register, tmp_path: Path) -> None:
    await store.write_many([whole(str(n), 1, 1, s=b"x" * 2000) for n in range(50)])
    await store.close()
    data = bytearray((tmp_path / "state.db").read_bytes())
    data[4096 * 4 : 4096 * 12] = b"\xff" * (4096 * 8)
    (tmp_path / "state.db").write_bytes(data)
    with pytest.raises(StoreCorrupt, match="damaged"):
        await Register(tmp_path / "state.db").open()


async def test_a_changed_byte_in_a_record_is_unreadable_and_not_empty(store: Register, tmp_path: Path) -> None:
    await store.write_many([whole("7", 1, 1, s=b"0123456789" * 20)])
    await store.close()
    data = (tmp_path / "state.db").read_bytes()
    (tmp_path / "state.db").write_bytes(data.replace(b"0123456789", b"0123456780", 1))
    again = Register(tmp_path / "state.db")
    await again.open()
    (record,) = await again.read_many(["7"])
    assert "damaged" in record.message
    (sealed,) = await again.seal_many([SealItem("7", 2)], with_records=True)
    assert (sealed.verdict, sealed.entries) == (Verdict.FAILED, None)
    await again.close()


async def test_a_store_of_a_later_format_is_refused(store: Register, tmp_path: Path) -> None:
    import sqlite3

    await store.close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreForeign, match="format 99"):
        await Register(tmp_path / "state.db").open()
