"""A storage in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tenure.storage._interface import (
    Checkpoint,
    Journal,
    StorageBusy,
    StorageError,
    StorageUnreadable,
    agree,
    checked,
)
from tenure.storage._worker import Worker

T = TypeVar("T")
APPLICATION = 0x74656E75
"""SQLite's application_id of our files: "tenu"."""
FORMAT = 1
_TABLES = (
    "CREATE TABLE checkpoint (key TEXT PRIMARY KEY, revision INTEGER NOT NULL, data BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE journal (key TEXT, number INTEGER, data BLOB NOT NULL, PRIMARY KEY (key, number)) WITHOUT ROWID",
)


class SQLiteStorage(Worker):
    """Checkpoints and journals in the file `path`, which is made when it is first used. One process at a time.

    Every change is one transaction, on the disk (`synchronous=FULL`) when the method returns. SQLite works in a thread;
    the event loop never waits for the disk.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._path = Path(path)
        self._database: sqlite3.Connection

    async def get(self, key: str) -> Checkpoint | None:
        """See `Storage`."""
        checked(key)
        return await self._transact(lambda database: _checkpoint(database, key))

    async def put(self, key: str, data: bytes, *, expected: int | None = None) -> int:
        """See `Storage`."""
        checked(key)

        def work(database: sqlite3.Connection) -> int:
            before = _checkpoint(database, key)
            revision = before.revision if before is not None else 0
            agree(key, expected, revision)
            database.execute("REPLACE INTO checkpoint VALUES (?, ?, ?)", (key, revision + 1, bytes(data)))
            return revision + 1

        return await self._transact(work)

    async def load(self, key: str, *, after: int = 0) -> Journal:
        """See `Storage`."""
        checked(key)

        def work(database: sqlite3.Connection) -> Journal:
            found = database.execute(
                "SELECT number, data FROM journal WHERE key = ? AND number > ? ORDER BY number", (key, after)
            ).fetchall()
            if [number for number, _ in found] != list(range(after + 1, after + 1 + len(found))):
                raise StorageUnreadable(f"{self._path}: the journal of {key} has gaps")
            return Journal(tuple(bytes(data) for _, data in found), after + 1, _end(database, key))

        return await self._transact(work)

    async def append(self, key: str, entries: Sequence[bytes], *, expected: int | None = None) -> int:
        """See `Storage`."""
        checked(key)

        def work(database: sqlite3.Connection) -> int:
            end = _end(database, key)
            agree(key, expected, end)
            rows = [(key, end + 1 + at, bytes(entry)) for at, entry in enumerate(entries)]
            database.executemany("INSERT INTO journal VALUES (?, ?, ?)", rows)
            return end + len(entries)

        return await self._transact(work)

    async def delete(self, key: str) -> None:
        """See `Storage`."""
        checked(key)

        def work(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM checkpoint WHERE key = ?", (key,))
            database.execute("DELETE FROM journal WHERE key = ?", (key,))

        await self._transact(work)

    async def keys(self) -> list[str]:
        """See `Storage`."""
        found = await self._transact(
            lambda database: database.execute(
                "SELECT key FROM checkpoint UNION SELECT key FROM journal ORDER BY key"
            ).fetchall()
        )
        return [str(key) for (key,) in found]

    async def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def transaction() -> T:
            with self._database as database:
                database.execute("BEGIN IMMEDIATE")
                return work(database)

        return await self._run(transaction)

    def _work(self, work: Callable[[], T]) -> T:
        try:
            return super()._work(work)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                raise StorageBusy(f"{self._path} is in use by another process") from error
            raise StorageError(f"{self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise StorageUnreadable(f"{self._path} is damaged, or no SQLite database: {error}") from error

    def _release(self) -> None:
        self._database.close()

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN EXCLUSIVE")
            ((application,),) = database.execute("PRAGMA application_id").fetchall()
            ((version,),) = database.execute("PRAGMA user_version").fetchall()
            ((tables,),) = database.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            if not tables:
                for table in _TABLES:
                    database.execute(table)
                database.execute(f"PRAGMA application_id = {APPLICATION}")
                database.execute(f"PRAGMA user_version = {FORMAT}")
            elif (application, version) != (APPLICATION, FORMAT):
                raise StorageUnreadable(  # noqa: TRY301 - one way out, which closes
                    f"{self._path} is a database of something else, or of another version "
                    f"(application {application:#x}, format {version})"
                )
            database.execute("COMMIT")
        except BaseException:
            database.close()
            raise
        self._database = database


def _checkpoint(database: sqlite3.Connection, key: str) -> Checkpoint | None:
    found = database.execute("SELECT data, revision FROM checkpoint WHERE key = ?", (key,)).fetchone()
    return Checkpoint(bytes(found[0]), int(found[1])) if found is not None else None


def _end(database: sqlite3.Connection, key: str) -> int:
    ((end,),) = database.execute("SELECT coalesce(max(number), 0) FROM journal WHERE key = ?", (key,)).fetchall()
    return int(end)
