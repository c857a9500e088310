"""The store in PostgreSQL: its guards in SQL, its tables, and what it says of a server that is not durable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from local_servers import until
from postgres_server import PostgresServer, Standby
from store_places import CLUSTER, PostgresPlace, postgresql

from tenured.core.cells import NOTHING, Verdict, Version
from tenured.storage import SealItem, WriteItem, postgres_sql
from tenured.storage import postgres as storage
from tenured.storage.errors import StoreFailed, StoreForeign
from tenured.storage.postgres import Postgres

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def place(postgres: PostgresServer) -> AsyncIterator[PostgresPlace]:
    async with postgresql(postgres) as found:
        yield found


@pytest.fixture
async def database(place: PostgresPlace) -> AsyncIterator[Postgres]:
    made = connection(place)
    await made.connect()
    yield made
    made.close()


def connection(place: PostgresPlace, cluster: str = CLUSTER) -> Postgres:
    return Postgres(lambda: place.server.url_at(place.server.port, place.schema), cluster)


def delta(seq: int, epoch: int = 1, base: Version | None = None, **puts: bytes) -> WriteItem:
    """On the version before it, unless told otherwise."""
    base = Version(epoch, seq - 1) if base is None else base
    return WriteItem(uid="7", version=Version(epoch, seq), base=base, puts=puts)


async def wrote(database: Postgres, *items: WriteItem) -> list[tuple[Verdict, Version]]:
    """One statement each."""
    return [(each.verdict, each.version) for item in items for each in await database.write_many([item])]


async def begun(database: Postgres) -> None:
    """Epoch 1 is sealed and has written two versions."""
    await database.seal_many([SealItem("7", 1)])
    assert await wrote(database, delta(1, base=NOTHING, s=b"one"), delta(2, c=b"2")) == [
        (Verdict.OK, Version(1, 1)),
        (Verdict.OK, Version(1, 2)),
    ]


# --- guards -----------------------------------------------------------------------------------------------------------


async def test_the_guards_of_a_write(place: PostgresPlace, database: Postgres) -> None:
    """protocol 2, Write: [seal], [order], [delta_base], [delta_epoch]; what is refused changes nothing."""
    await begun(database)
    assert await wrote(database, delta(1, base=NOTHING, s=b"no")) == [(Verdict.STALE, Version(1, 2))]
    assert await wrote(database, delta(4, s=b"no")) == [(Verdict.NEED_BASE, Version(1, 2))]
    assert await wrote(database, delta(3, epoch=2, s=b"no")) == [(Verdict.NEED_BASE, Version(1, 2))]
    assert await wrote(database, delta(3, epoch=2, base=Version(2, 2), s=b"no")) == [(Verdict.NEED_BASE, Version(1, 2))]
    assert await wrote(database, delta(2, s=b"other bytes")) == [(Verdict.OK, Version(1, 2))], "repeated: it is here"
    await database.seal_many([SealItem("7", 5)])
    (refused,) = await database.write_many([delta(3, s=b"no")])
    assert (refused.verdict, refused.sealed, refused.version) == (Verdict.FENCED, 5, Version(1, 2))
    assert await place.stored("7") == {"s": b"one", "c": b"2"}


async def test_a_whole_record_replaces_what_was_there(place: PostgresPlace, database: Postgres) -> None:
    """And seals its epoch as it goes."""
    await begun(database)
    whole = WriteItem(uid="7", version=Version(3, 9), puts={"s": b"new", "k": b""})
    other = WriteItem(uid="8", version=Version(1, 1), puts={"s": b"of another"})
    answers = await database.write_many([other, whole])
    assert [(each.uid, each.verdict, each.sealed) for each in answers] == [("8", Verdict.OK, 1), ("7", Verdict.OK, 3)]
    assert (await place.stored("7"), await place.stored("8")) == ({"s": b"new", "k": b""}, {"s": b"of another"})
    assert await wrote(database, delta(3, s=b"no")) == [(Verdict.FENCED, Version(3, 9))]


async def test_a_key_that_is_put_and_deleted_in_one_write_is_put(place: PostgresPlace, database: Postgres) -> None:
    """As the owner has it in memory."""
    await begun(database)
    item = WriteItem(uid="7", version=Version(1, 3), base=Version(1, 2), puts={"s": b"3"}, deletes=("s", "c", "none"))
    await database.write_many([item])
    assert await place.stored("7") == {"s": b"3"}


async def test_a_seal_reads_a_write_that_was_under_way(place: PostgresPlace, database: Postgres) -> None:
    """An old holder's statement commits after the seal's snapshot: what is sealed is what it left."""
    await begun(database)
    old = await _begin_write(place)
    sealing = asyncio.ensure_future(database.seal_many([SealItem("7", 2)]))
    await _until_waiting(place)
    await old.execute("COMMIT")
    await old.close()
    (sealed,) = await sealing
    assert (sealed.version, sealed.entries) == (Version(1, 3), {"s": b"three", "c": b"2", "new": b"n"})


async def test_a_write_meets_one_that_was_under_way(place: PostgresPlace, database: Postgres) -> None:
    """The same owner's, on a connection that it lost: what is deleted now was not there in the statement's snapshot."""
    await begun(database)
    old = await _begin_write(place)
    whole = WriteItem(uid="7", version=Version(1, 4), puts={"s": b"four"})
    writing = asyncio.ensure_future(database.write_many([whole]))
    await _until_waiting(place)
    await old.execute("COMMIT")
    await old.close()
    (answer,) = await writing
    assert (answer.verdict, answer.version) == (Verdict.OK, Version(1, 4))
    assert await place.stored("7") == {"s": b"four"}


async def _begin_write(place: PostgresPlace) -> Any:
    """Version (1, 3), not committed yet."""
    other = connection(place)
    await other.connect()
    assert other._connection is not None
    await other._connection.execute("BEGIN")
    await other.write_many([delta(3, s=b"three", new=b"n")])
    return other._connection


async def _until_waiting(place: PostgresPlace) -> None:
    statement = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

    async def waiting() -> bool:
        return bool(await place.sql(statement))

    await until(waiting, 20)


async def test_what_is_only_seen_to_be_here_is_synced_before_the_answer(
    place: PostgresPlace, database: Postgres
) -> None:
    """[sync_write, sync_seal]: a repeated write commits something: its answer waits for the disk and the standby."""
    await begun(database)
    seen = await place.sql("SELECT xmin::text FROM tenure_record WHERE uid = '7'")
    for repeated in (delta(2, c=b"2"), delta(1, base=NOTHING, s=b"one")):
        await database.write_many([repeated])
        now = await place.sql("SELECT xmin::text FROM tenure_record WHERE uid = '7'")
        assert now != seen
        seen = now
    await database.seal_many([SealItem("7", 1)])
    assert await place.sql("SELECT xmin::text FROM tenure_record WHERE uid = '7'") != seen


async def test_a_session_that_lost_its_settings_does_nothing(place: PostgresPlace, database: Postgres) -> None:
    """A pooler that hands out another session: at READ COMMITTED the guards would not hold."""
    await begun(database)
    assert database._connection is not None
    await database._connection.execute("SET default_transaction_isolation = 'read committed'")
    with pytest.raises(StoreFailed, match="lost its settings"):
        await database.write_many([delta(3, s=b"no")])
    assert await place.stored("7") == {"s": b"one", "c": b"2"}
    with pytest.raises(StoreFailed, match="not connected"):
        await database.seal_many([SealItem("7", 2)])


# --- records ----------------------------------------------------------------------------------------------------------


async def test_records_that_are_too_large_for_one_answer(database: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are sealed, and fetched apart."""
    monkeypatch.setattr(storage, "INLINE_LIMIT", 1000)
    items = [SealItem(str(n), 1) for n in range(1, 5)]
    await database.seal_many(items)
    sizes = {"1": 600, "2": 600, "3": 5000, "4": 10}
    for uid, size in sizes.items():
        await database.write_many([WriteItem(uid=uid, version=Version(1, 1), base=NOTHING, puts={"s": bytes(size)})])
    sealed = await database.seal_many([SealItem(item.uid, 2) for item in items])
    assert [each.verdict for each in sealed] == [Verdict.OK] * 4
    assert [each.entries is not None for each in sealed] == [True, False, False, False]
    left = ["2", "3", "4"]
    while left:
        readings = await database.read_many(left)
        assert [reading.uid for _, reading in readings] == left[: len(readings)]
        assert all(epoch == 2 and reading.version == Version(1, 1) for epoch, reading in readings)
        assert all(len(reading.entries["s"]) == sizes[reading.uid] for _, reading in readings)
        del left[: len(readings)]


@pytest.mark.parametrize("checksum", [True, False])
async def test_a_damaged_entry_is_not_read(place: PostgresPlace, database: Postgres, checksum: bool) -> None:
    """Neither as it is nor as empty. One whose checksum fits is not seen to be damaged here."""
    await begun(database)
    await place.damage("7", "s", b"garbage", checksum=checksum)
    (sealed,) = await database.seal_many([SealItem("7", 2)])
    ((_, reading),) = await database.read_many(["7"])
    if checksum:
        assert sealed.entries == reading.entries == {"s": b"garbage", "c": b"2"}
    else:
        assert (sealed.verdict, sealed.message) == (Verdict.FAILED, reading.message)
        assert "entry b's' is damaged" in reading.message


async def test_entries_that_are_gone_are_not_an_empty_record(place: PostgresPlace, database: Postgres) -> None:
    await begun(database)
    await place.sql("DELETE FROM tenure_entry")
    (sealed,) = await database.seal_many([SealItem("7", 2)])
    assert (sealed.verdict, "its entries are gone" in sealed.message) == (Verdict.FAILED, True)


async def test_a_bare_seal_says_when_an_agent_must_be_awake(place: PostgresPlace, database: Postgres) -> None:
    """The clear field `w` of the record (additions 6), and nothing else of it; damaged, it is no word that nothing is
    planned.
    """
    await begun(database)
    await database.write_many([delta(3, w=b"then")])
    (sealed,) = await database.seal_many([SealItem("7", 2)], with_records=False)
    assert (sealed.verdict, sealed.version, sealed.wake, sealed.entries) == (Verdict.OK, Version(1, 3), b"then", None)
    (lower,) = await database.seal_many([SealItem("7", 1)], with_records=False)
    assert (lower.verdict, lower.sealed, lower.wake) == (Verdict.FENCED, 2, b"")
    await place.sql("UPDATE tenure_entry SET value = 'never' WHERE key = 'w'")
    (damaged,) = await database.seal_many([SealItem("7", 3)], with_records=False)
    assert (damaged.verdict, damaged.wake, "'w' is damaged" in damaged.message) == (Verdict.FAILED, b"", True)


async def test_records_of_deleted_agents_go(place: PostgresPlace, database: Postgres) -> None:
    """[uid_drop]; others stay."""
    await database.seal_many([SealItem(uid, 1) for uid in ("1", "2", "3")])
    for uid in ("1", "2", "3"):
        await database.write_many([WriteItem(uid=uid, version=Version(1, 1), base=NOTHING, puts={"s": b""})])
    assert (await database.uids("", 2), await database.uids("2", 2)) == (["1", "2"], ["3"])
    await database.forget(["1", "3", "none"])
    assert await database.uids("", 9) == ["2"]
    assert await place.sql("SELECT uid FROM tenure_entry") == [{"uid": "2"}]


# --- tables and server ------------------------------------------------------------------------------------------------


async def test_hosts_that_start_together_make_the_tables_once(place: PostgresPlace) -> None:
    connections = [connection(place) for _ in range(6)]
    await asyncio.gather(*(each.connect() for each in connections))
    for each in connections:
        each.close()
    assert await place.sql("SELECT version, cluster FROM tenure_store") == [
        {"version": postgres_sql.VERSION, "cluster": CLUSTER}
    ]


async def test_tables_of_a_newer_version_or_of_another_cluster_are_refused(place: PostgresPlace) -> None:
    """Two clusters number their agents alike: in one table each would have the other's state."""
    first = connection(place)
    await first.connect()
    first.close()
    with pytest.raises(StoreForeign, match=r"keeps the state of cluster demo\.shop"):
        await connection(place, "other.shop").connect()
    await place.sql("UPDATE tenure_store SET version = version + 1")
    with pytest.raises(StoreForeign, match=r"have version 2; this version reads 1\. Start the version"):
        await connection(place).connect()


async def test_tables_of_an_earlier_cluster_of_that_name_are_refused(place: PostgresPlace) -> None:
    """It numbers its agents from the beginning again [uid]. Who does not know who founded it is not judged."""
    url = place.server.url_at(place.server.port, place.schema)
    for founder in ("uid-1", "", "uid-1"):
        database = Postgres(lambda: url, CLUSTER, founder)
        await database.connect()
        database.close()
    with pytest.raises(StoreForeign, match=r"keeps the state of an earlier cluster demo\.shop\. Remove its tables"):
        await Postgres(lambda: url, CLUSTER, "uid-2").connect()


async def test_another_cluster_may_have_a_schema_of_its_own(place: PostgresPlace) -> None:
    first = connection(place)
    await first.connect()
    await begun(first)
    other = f"{place.schema}_other"
    await place.sql(f"CREATE SCHEMA {other}")
    second = Postgres(lambda: place.server.url_at(place.server.port, other), "other.shop")
    await second.connect()
    (sealed,) = await second.seal_many([SealItem("7", 1)])
    assert sealed.version == NOTHING
    first.close()
    second.close()


async def test_a_server_that_is_not_durable_is_told_of(place: PostgresPlace, caplog: pytest.LogCaptureFixture) -> None:
    """Once; and what a session can ask for itself, ours do."""
    url = place.server.url_at(place.server.port, place.schema) + "&synchronous_commit=off"
    with caplog.at_level(logging.WARNING, logger="tenured"):
        database = Postgres(lambda: url, CLUSTER)
        await database.connect()
        await database.connect()
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(":")[2].partition(":")[0].strip() for text in said] == [
        "synchronous_commit is off",
        "no synchronous standby",
    ]
    assert database._connection is not None
    assert await database._connection.fetchval("SHOW synchronous_commit") == "on"
    database.close()


async def test_a_server_without_fsync_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    async with PostgresServer(fsync="off") as server:
        database = Postgres(lambda: server.url, CLUSTER)
        with caplog.at_level(logging.WARNING, logger="tenured"):
            await database.connect()
        database.close()
    assert "fsync or full_page_writes is off: a crash of its machine loses acknowledged turns" in caplog.text


@pytest.fixture
async def primary() -> AsyncIterator[tuple[PostgresServer, Standby]]:
    """A server whose commits wait for its standby."""
    async with PostgresServer() as first, Standby(first) as standby:
        await first.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        await first.sql("SELECT pg_reload_conf()")

        async def follows() -> bool:
            return bool(await first.sql("SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"))

        await until(follows, 20)
        yield first, standby


@pytest.mark.parametrize("cancelled", [True, False])
async def test_nothing_is_acknowledged_that_the_standby_lacks(
    primary: tuple[PostgresServer, Standby], cancelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """[sync_write]: whatever ends the wait for it, the connection or an administrator, a repeated write waits again.
    After a failover everything that was acknowledged is there.
    """
    first, standby = primary
    database = Postgres(lambda: first.url, CLUSTER)
    with caplog.at_level(logging.WARNING, logger="tenured"):
        await database.connect()
    assert not caplog.records
    await begun(database)
    standby.freeze()
    for number in range(2):  # the lost one, and its repetition
        writing = asyncio.ensure_future(database.write_many([delta(3, s=b"three")]))
        waiting = 1 if cancelled else number + 1
        await until(lambda waiting=waiting: _waits(first, waiting), 20)
        assert not writing.done()
        if cancelled:
            await first.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        else:
            database.close()
        with pytest.raises(StoreFailed, match="canceling wait" if cancelled else "closed|connect"):
            await writing
        await database.connect()
        if cancelled:
            assert await first.sql("SELECT epoch, seq FROM tenure_record") == [(1, 3)], "it is committed here"
    standby.thaw()
    assert await wrote(database, delta(3, s=b"three")) == [(Verdict.OK, Version(1, 3))]
    await first.kill()
    await standby.sql("SELECT pg_promote()")
    after = Postgres(lambda: standby.url, CLUSTER)
    await after.connect()
    (sealed,) = await after.seal_many([SealItem("7", 2)])
    assert (sealed.version, sealed.entries) == (Version(1, 3), {"s": b"three", "c": b"2"})
    database.close()
    after.close()


async def _waits(server: PostgresServer, number: int) -> bool:
    """So many statements wait for the standby, or for one that does."""
    statement = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' OR wait_event_type = 'Lock'"
    return len(await server.sql(statement)) == number


async def test_a_standby_is_refused() -> None:
    """Until it is the primary: a write there fails, and a read may be old."""
    async with PostgresServer() as server:
        await server.kill()
        (server.directory / "data" / "standby.signal").touch()
        await server.start()
        database = Postgres(lambda: server.url, CLUSTER)
        with pytest.raises(StoreFailed, match="This PostgreSQL is a standby"):
            await database.connect()
        await server.sql("SELECT pg_promote()")
        await database.connect()
        database.close()


async def test_who_cannot_be_reached_is_told_in_a_sentence() -> None:
    for url in ("postgresql://nobody@127.0.0.1:1/x", "postgresql://h:port/x"):
        with pytest.raises(StoreFailed, match="PostgreSQL cannot be used: "):
            await Postgres(lambda url=url: url, CLUSTER).connect()
