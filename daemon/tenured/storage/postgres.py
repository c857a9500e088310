"""One connection to the state store in PostgreSQL (ADR 0024). Answers like `tenured.storage.Register`.

A statement is never cancelled: a server that is told to cancel stops waiting for its standby and commits all the same.
What takes too long loses its connection instead; its outcome is then open, and the owner repeats it.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import asyncpg

from tenured.core.cells import NOTHING, Verdict, Version
from tenured.core.frames import WAKE
from tenured.storage import postgres_sql as sql
from tenured.storage.errors import StorageError, StoreFailed, StoreForeign
from tenured.storage.values import Reading, SealAnswer, SealItem, WriteAnswer, WriteItem

T = TypeVar("T")

_log = logging.getLogger(__name__)

CONNECT_S = 5.0
ANSWER_S = 10.0
"""How long a statement may take before its connection is given up."""
INLINE_LIMIT = 8 << 20
"""Bytes of records that one answer carries at most; the first record is always there."""
CONFLICTS = 20
"""A statement that meets other owners' is sent again so often before it counts as failed."""
_STRONG = frozenset({"on", "remote_apply"})

# What ends a connection, or says that this server is not the one to talk to.
_TROUBLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Postgres:
    """One connection, made anew by `connect`. Statements run one at a time."""

    def __init__(self, source: Callable[[], str], cluster: str, founder: str = "") -> None:
        """`source`: the URL, asked for at each connection; `cluster`: whose state it is; `founder`: what tells it from
        an earlier cluster of that name, if anything does.
        """
        self._source = source
        self._cluster = cluster
        self._founder = founder
        self._connection: asyncpg.Connection[Any] | None = None
        self._said: tuple[str, ...] = ()
        self._warning = ""
        """What the server said beside the answer to a statement."""

    async def connect(self) -> None:
        """Connects, makes the tables if there are none, and says what is not durable here.

        Raises StoreForeign (another cluster's, or a newer version's, tables) and StoreFailed.
        """
        self.close()
        try:
            async with asyncio.timeout(CONNECT_S):
                self._connection = await asyncpg.connect(self._source(), timeout=CONNECT_S)
            await self._run(self._prepare, CONNECT_S)
            self._connection.add_log_listener(self._heard)
        except StorageError:
            self.close()
            raise
        except (*_TROUBLE, ValueError) as error:
            self.close()
            raise StoreFailed(f"PostgreSQL cannot be used: {_sentence(error)}", fatal=False) from error

    def close(self) -> None:
        """Ends the connection at once; what is under way stays open (committed or not)."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def seal_many(self, items: Sequence[SealItem], *, with_records: bool = True) -> list[SealAnswer]:
        """Seals each epoch and reads what is stored, in one statement; without records only when their agents must be
        awake. Each uid once. Raises StoreFailed.
        """
        uids, epochs = [item.uid for item in items], [item.epoch for item in items]
        if with_records:
            rows = await self._fetch(len(items), sql.SEAL, uids, epochs, INLINE_LIMIT)
        else:
            rows = await self._fetch(len(items), sql.SEAL_BARE, uids, epochs, WAKE.encode())
        read = _sealed if with_records else _sealed_bare
        return [read(row, item.epoch) for row, item in zip(rows, items, strict=True)]

    async def write_many(self, items: Sequence[WriteItem]) -> list[WriteAnswer]:
        """Stores each version that the guards allow, in one statement. Each uid once. Raises StoreFailed."""
        rows = await self._fetch(len(items), sql.WRITE, *_columns(items))
        return [
            WriteAnswer(
                uid=row["uid"],
                verdict=Verdict(row["verdict"]),
                sealed=row["sealed"],
                version=Version(row["in_epoch"], row["in_seq"]),
            )
            for row in rows
        ]

    async def read_many(self, uids: Sequence[str]) -> list[tuple[int, Reading]]:
        """(sealed epoch, record) of each, cut where the answer becomes too large; those without a record are left out.

        Raises StoreFailed.
        """
        rows = await self._fetch(None, sql.READ, list(uids), INLINE_LIMIT)
        return [(row["sealed"], _reading(row["uid"], Version(row["epoch"], row["seq"]), row)) for row in rows]

    async def uids(self, after: str, limit: int) -> list[str]:
        """Uids of the records after one, in their order as text. Raises StoreFailed."""
        return [row["uid"] for row in await self._fetch(None, sql.UIDS, after, limit)]

    async def forget(self, uids: Sequence[str]) -> None:
        """Drops records of agents that the registry no longer has [uid_drop]. Raises StoreFailed."""
        await self._fetch(None, sql.FORGET, list(uids))

    # --- statements -----------------------------------------------------------------------------------------------

    async def _fetch(self, expected: int | None, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """The rows; sent again while it met others' changes. Any other error ends the connection: StoreFailed."""
        for _ in range(CONFLICTS):
            self._warning = ""
            try:
                rows = await self._run(lambda connection: connection.fetch(statement, *arguments), ANSWER_S)
            except (asyncpg.SerializationError, asyncpg.DeadlockDetectedError):
                continue  # nothing of it was done
            except _TROUBLE as error:
                self.close()
                raise StoreFailed(f"PostgreSQL does not answer: {_sentence(error)}", fatal=False) from error
            if self._warning:  # such as: an administrator ended the wait for the standby, and it is committed here only
                self.close()
                raise StoreFailed(f"PostgreSQL warns, so nothing is acknowledged: {self._warning}", fatal=False)
            if expected is not None and len(rows) != expected:
                self.close()
                raise StoreFailed(
                    "PostgreSQL did nothing: this session lost its settings. Connect to the server itself, or to a "
                    "pooler in session mode.",
                    fatal=False,
                )
            return rows
        self.close()
        raise StoreFailed("PostgreSQL refused a statement again and again: others change the same rows", fatal=False)

    async def _run(self, work: Callable[[asyncpg.Connection[Any]], Awaitable[T]], limit_s: float) -> T:
        connection = self._connection
        if connection is None:
            raise asyncpg.InterfaceError("not connected")
        task = asyncio.ensure_future(work(connection))
        try:
            done, _ = await asyncio.wait({task}, timeout=limit_s)
        finally:
            if not task.done():  # never cancelled, see above: without its connection it ends by itself
                connection.terminate()
                task.add_done_callback(_drop)
        if not done:
            raise TimeoutError(f"no answer within {limit_s:g} s")
        return task.result()

    def _heard(self, _: object, message: asyncpg.PostgresLogMessage) -> None:
        if message.severity_en == "WARNING":
            self._warning = message.message

    # --- the beginning --------------------------------------------------------------------------------------------

    async def _prepare(self, connection: asyncpg.Connection[Any]) -> None:
        await self._settle(connection)
        if not await connection.fetchval(sql.STANDING):
            await self._make(connection)
        about = await connection.fetchrow(sql.ABOUT)
        if about is None or about["version"] > sql.VERSION:
            found = "none" if about is None else about["version"]
            raise StoreForeign(
                f"The tables of the state store have version {found}; this version reads {sql.VERSION}. "
                "Start the version that wrote them."
            )
        if about["cluster"] != self._cluster:
            raise StoreForeign(
                f"This database keeps the state of cluster {about['cluster']}. Give {self._cluster} a database of its "
                "own, or a schema (?search_path=NAME)."
            )
        if self._founder and about["founder"] not in ("", self._founder):
            raise StoreForeign(
                f"This database keeps the state of an earlier cluster {self._cluster}. Remove its tables, or take "
                "another database (docs/durability.md, PostgreSQL)."
            )

    async def _make(self, connection: asyncpg.Connection[Any]) -> None:
        """One host makes the tables, the others wait for it."""
        async with connection.transaction(isolation="read_committed"):
            await connection.execute(f"SELECT pg_advisory_xact_lock({sql.LOCK})")
            if not await connection.fetchval(sql.STANDING):
                for statement in sql.SCHEMA:
                    await connection.execute(statement)
                await connection.execute(sql.FOUND, self._cluster, self._founder)

    async def _settle(self, connection: asyncpg.Connection[Any]) -> None:
        fsync, pages, commit, standbys, standby = await _row(connection, sql.DURABILITY)
        if standby:
            raise StoreFailed(
                "This PostgreSQL is a standby. Name the primary, or all with ?target_session_attrs=primary.",
                fatal=False,
            )
        await connection.execute(sql.SESSION, commit if commit in _STRONG else "on")
        weak: list[str] = []
        if fsync != "on" or pages != "on":
            weak.append("fsync or full_page_writes is off: a crash of its machine loses acknowledged turns")
        if commit not in _STRONG:
            weak.append(f"synchronous_commit is {commit}: sessions of Tenure use on instead")
        if not standbys:
            weak.append("no synchronous standby: the loss of its disk loses acknowledged turns")
        if tuple(weak) != self._said:
            self._said = tuple(weak)
            for each in weak:
                _log.warning("PostgreSQL: %s (docs/durability.md, PostgreSQL)", each)


async def _row(connection: asyncpg.Connection[Any], statement: str) -> tuple[Any, ...]:
    row = await connection.fetchrow(statement)
    return () if row is None else tuple(row)


def _drop(task: asyncio.Future[Any]) -> None:
    """Nobody waits for what a lost connection says."""
    if not task.cancelled():
        task.exception()


def _columns(items: Sequence[WriteItem]) -> list[list[Any]]:
    """The arguments of `sql.WRITE`."""
    puts = [(item.uid, key.encode(), zlib.crc32(value), value) for item in items for key, value in item.puts.items()]
    gone = [(item.uid, key.encode()) for item in items for key in item.deletes if key not in item.puts]
    return [
        [item.uid for item in items],
        [item.version.epoch for item in items],
        [item.version.seq for item in items],
        [None if item.base is None else item.base.epoch for item in items],
        [None if item.base is None else item.base.seq for item in items],
        *([row[n] for row in gone] for n in range(2)),
        *([row[n] for row in puts] for n in range(4)),
    ]


def _sealed(row: asyncpg.Record, epoch: int) -> SealAnswer:
    version = Version(row["in_epoch"], row["in_seq"])
    if not row["ok"]:
        return SealAnswer(uid=row["uid"], verdict=Verdict.FENCED, sealed=row["sealed"], version=version)
    if not row["fits"]:
        return SealAnswer(uid=row["uid"], verdict=Verdict.OK, sealed=epoch, version=version)
    reading = _reading(row["uid"], version, row)
    return SealAnswer(
        uid=row["uid"],
        verdict=Verdict.FAILED if reading.message else Verdict.OK,
        sealed=epoch,
        version=version,
        entries=reading.entries,
        message=reading.message,
    )


def _sealed_bare(row: asyncpg.Record, epoch: int) -> SealAnswer:
    uid, version, wake = row["uid"], Version(row["in_epoch"], row["in_seq"]), row["value"] or b""
    if not row["ok"]:
        return SealAnswer(uid=uid, verdict=Verdict.FENCED, sealed=row["sealed"], version=version)
    damaged = f"entry {WAKE!r} is damaged" if wake and zlib.crc32(wake) != row["crc"] else ""
    return SealAnswer(
        uid=uid,
        verdict=Verdict.FAILED if damaged else Verdict.OK,
        sealed=epoch,
        version=version,
        message=damaged,
        wake=b"" if damaged else wake,
    )


def _reading(uid: str, version: Version, row: asyncpg.Record) -> Reading:
    found = list(zip(row["keys"] or (), row["crcs"] or (), row["data"] or (), strict=True))
    damaged = next((f"entry {key!r} is damaged" for key, crc, value in found if zlib.crc32(value) != crc), "")
    if version != NOTHING and not found:  # unreadable is not empty
        damaged = "its entries are gone"
    if damaged:
        way_out = "Restore the database from a backup, or delete the agent."
        return Reading(uid=uid, version=version, message=f"Record {uid} in PostgreSQL: {damaged}. {way_out}")
    return Reading(uid=uid, version=version, entries={key.decode(): value for key, _, value in found})


def _sentence(error: BaseException) -> str:
    return str(error) or type(error).__name__
