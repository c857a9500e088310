"""The SQLite file of the store. Synchronous; used by one thread only (`tenured.storage.register`).

WAL mode with `synchronous=FULL`: COMMIT returns after the write-ahead log is synced. A commit that was written but
not yet synced when the process died is visible to the next one: opening therefore checkpoints with a sync before any
answer, or a repeated write could be answered "yes, it is here" from a page that no disk holds (protocol 2,
[sync_write]).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import zlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from tenured.core.cells import Cell, Version
from tenured.core.joining import Head
from tenured.storage.errors import StoreCorrupt, StoreFailed, StoreForeign

FORMAT = 1
"""`user_version` of the file; another one is refused."""
APPLICATION_ID = 0x54_4E_52_45
"""`TNRE`: tells our files from others'."""
CHECKPOINT_PAGES, CHECKPOINT_PAGES_MAX = 4000, 16000
"""Log pages after which an idle moment is used to checkpoint, and after which it is done at once."""
PAGE = 4096

_SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE record (uid TEXT PRIMARY KEY, sealed INT, epoch INT, seq INT) WITHOUT ROWID",
    "CREATE TABLE entry (uid TEXT, key TEXT, crc INT, value BLOB, PRIMARY KEY (uid, key)) WITHOUT ROWID",
)
_NEXT_STEP = (
    "Keep a copy of the file. Every acknowledged record is on the other servers too: "
    "give this server an empty volume, and it joins again."
)
# Errors of SQLite after which the transaction is gone and the file as it was before.
_HARMLESS = frozenset({"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_TOOBIG", "SQLITE_NOMEM", "SQLITE_BUSY"})


class Database:
    """The open file."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises StoreCorrupt, StoreForeign, StoreFailed."""
        self._path = path
        self._copied_changes = self._logged_bytes = 0
        """Changes of rows before the log was begun anew, and bytes of values since."""
        existed = path.exists() and path.stat().st_size > 0
        try:
            self._db = sqlite3.connect(path, isolation_level=None, cached_statements=64, timeout=0)
            self._configure()
            if not existed:
                self._create()
            self._verify()
            self._sync_everything()
        except sqlite3.DatabaseError as error:
            raise self._opening_error(error) from error
        except OSError as error:
            raise StoreFailed(f"The state store {path} cannot be opened: {error.strerror}.", fatal=True) from error

    @property
    def incarnation(self) -> str:
        """Of this disk: a random id written when the file was made."""
        return self._meta("incarnation")

    @property
    def joining(self) -> bool:
        """Whether this disk must not answer yet (protocol 2, [rejoin])."""
        return self._meta("joining") == "yes"

    @property
    def joined(self) -> tuple[int, str]:
        """View under which a joining disk was reading the others, and the last uid that it has; (0, "") before."""
        found = dict(self._db.execute("SELECT key, value FROM meta WHERE key IN ('joined_view', 'joined_upto')"))
        return int(found.get("joined_view", 0)), str(found.get("joined_upto", ""))

    def note_joined(self, view: int, upto: str) -> None:
        """Within a transaction: every record up to that uid has been taken over under that view."""
        self._db.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)", [("joined_view", str(view)), ("joined_upto", upto)]
        )

    def heads(self, after: str, limit: int) -> list[Head]:
        """Records after a uid, in the order of their uids as text, without their entries. Raises StoreFailed."""
        try:
            rows = self._db.execute(
                "SELECT uid, sealed, epoch, seq FROM record WHERE uid > ? ORDER BY uid LIMIT ?", (after, limit)
            ).fetchall()
        except sqlite3.Error as error:
            raise StoreFailed(self._sentence(error), fatal=False) from error
        return [Head(uid, sealed, Version(epoch, seq)) for uid, sealed, epoch, seq in rows]

    def admit(self) -> None:
        """Within a transaction: this disk may answer (it is a voter's first, or has read all from the others)."""
        self._db.execute("UPDATE meta SET value = 'no' WHERE key = 'joining'")

    def cells(self) -> dict[str, Cell]:
        """All records without their entries. Raises StoreCorrupt."""
        try:
            rows = self._db.execute("SELECT uid, sealed, epoch, seq FROM record").fetchall()
        except sqlite3.Error as error:
            raise StoreCorrupt(f"The state store {self._path} is damaged: {error}. {_NEXT_STEP}") from error
        return {uid: Cell(sealed, Version(epoch, seq)) for uid, sealed, epoch, seq in rows}

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        """All or nothing, synced at the end. Raises StoreFailed."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._roll_back()
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            # Once fsync failed, the kernel may call pages clean that no disk holds: only a new start finds out.
            fatal = error.sqlite_errorname not in _HARMLESS
            self._roll_back()
            raise StoreFailed(self._sentence(error), fatal=fatal) from error

    def put_cell(self, uid: str, cell: Cell) -> None:
        """Within a transaction."""
        self._db.execute(
            "INSERT INTO record VALUES (?, ?, ?, ?) ON CONFLICT (uid) DO UPDATE "
            "SET sealed = excluded.sealed, epoch = excluded.epoch, seq = excluded.seq",
            (uid, cell.sealed, cell.version.epoch, cell.version.seq),
        )

    def put_entries(self, uid: str, puts: Mapping[str, bytes], deletes: tuple[str, ...], *, whole: bool) -> None:
        """Within a transaction; `whole` replaces what was there."""
        if whole:
            self._db.execute("DELETE FROM entry WHERE uid = ?", (uid,))
        elif deletes:
            self._db.executemany("DELETE FROM entry WHERE uid = ? AND key = ?", [(uid, key) for key in deletes])
        if puts:
            self._db.executemany(
                "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?)",
                [(uid, key, zlib.crc32(value), value) for key, value in puts.items()],
            )
            self._logged_bytes += sum(map(len, puts.values()))

    def drop(self, uid: str) -> None:
        """Within a transaction."""
        self._db.execute("DELETE FROM entry WHERE uid = ?", (uid,))
        self._db.execute("DELETE FROM record WHERE uid = ?", (uid,))

    def size(self, uid: str) -> int:
        """Bytes of a record's values. Raises StoreFailed."""
        (total,) = self._db.execute(
            "SELECT COALESCE(SUM(LENGTH(value)), 0) FROM entry WHERE uid = ?", (uid,)
        ).fetchone()
        return int(total)

    def entry(self, uid: str, key: str) -> bytes:
        """One entry of a record; empty: there is none. Raises StoreFailed when it is damaged."""
        try:
            row = self._db.execute("SELECT crc, value FROM entry WHERE uid = ? AND key = ?", (uid, key)).fetchone()
        except sqlite3.Error as error:
            raise StoreFailed(self._sentence(error), fatal=False) from error
        if row is None:
            return b""
        if zlib.crc32(row[1]) != row[0]:
            raise StoreFailed(f"Record {uid}: entry {key!r} is damaged in {self._path}. {_NEXT_STEP}", fatal=False)
        return bytes(row[1])

    def entries(self, uid: str) -> dict[str, bytes]:
        """A record's entries. Raises StoreFailed when one is damaged: unreadable is not empty."""
        found: dict[str, bytes] = {}
        try:
            for key, crc, value in self._db.execute("SELECT key, crc, value FROM entry WHERE uid = ?", (uid,)):
                if zlib.crc32(value) != crc:
                    raise StoreFailed(
                        f"Record {uid}: entry {key!r} is damaged in {self._path}. {_NEXT_STEP}", fatal=False
                    )
                found[key] = value
        except sqlite3.Error as error:
            raise StoreFailed(self._sentence(error), fatal=False) from error
        return found

    def tidy(self, *, idle: bool) -> None:
        """Checkpoint when the log has grown; failures are kept for the next commit to find."""
        # What is in the log, not the size of its file, which is kept and written over: a page for each change of a row,
        # more for a large value. Rows share pages, so that it is rather less.
        changes = self._db.total_changes
        pages = changes - self._copied_changes + self._logged_bytes // PAGE
        if pages <= (CHECKPOINT_PAGES if idle else CHECKPOINT_PAGES_MAX):
            return
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(RESTART)")
            self._copied_changes, self._logged_bytes = changes, 0

    def close(self) -> None:
        """Checkpoint and close."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def _configure(self) -> None:
        # Exclusive: a second process is refused, and no shared-memory file is needed.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA wal_autocheckpoint = 0")
        self._db.execute("PRAGMA cache_size = -16384")

    def _create(self) -> None:
        self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            self._db.execute(statement)
        self._db.execute("INSERT INTO meta VALUES ('incarnation', ?), ('joining', 'yes')", (secrets.token_hex(8),))
        self._db.execute(f"PRAGMA user_version = {FORMAT}")
        self._db.execute("COMMIT")

    def _verify(self) -> None:
        if self._pragma("application_id") != APPLICATION_ID:
            raise StoreForeign(f"{self._path} is not a state store of Tenure. Point --data to an empty directory.")
        version = self._pragma("user_version")
        if version != FORMAT:
            raise StoreForeign(
                f"The state store {self._path} has format {version}; this version reads {FORMAT}. "
                "Start the version that wrote it."
            )
        self._db.execute("BEGIN IMMEDIATE")  # takes the lock now rather than at the first write
        self._db.execute("COMMIT")
        verdict = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise StoreCorrupt(f"The state store {self._path} is damaged: {verdict}. {_NEXT_STEP}")

    def _sync_everything(self) -> None:
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _pragma(self, name: str) -> Any:
        return self._db.execute(f"PRAGMA {name}").fetchone()[0]

    def _meta(self, key: str) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise StoreCorrupt(f"The state store {self._path} does not say its {key}. {_NEXT_STEP}")
        return str(row[0])

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def _opening_error(self, error: sqlite3.DatabaseError) -> Exception:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StoreForeign(f"Another process has the state store {self._path} open. Stop it first.")
        if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")) or name == "SQLITE_ERROR":
            return StoreCorrupt(f"The state store {self._path} is damaged: {error}. {_NEXT_STEP}")
        return StoreFailed(self._sentence(error), fatal=True)

    def _sentence(self, error: sqlite3.Error) -> str:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        if name == "SQLITE_FULL":
            return f"The disk of the state store is full ({self._path.parent}). Free space or enlarge the volume."
        return f"The disk of the state store refused: {error} ({name}, {self._path.parent})."
