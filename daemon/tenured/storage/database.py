"""The SQLite file of the store, and the journal beside it. Synchronous; one thread at a time (`storage.register`).

The journal is what makes a commit durable; SQLite takes what is in it later, many commits at once, without a sync of
its own (WAL mode, `synchronous=NORMAL`), and is synced as a whole before files of the journal go. What was written but
not yet synced when the process died is visible to the next one: opening therefore plays the journal into SQLite and
syncs that before any answer, or a repeated write could be answered "yes, it is here" from a page that no disk holds
(protocol 2, [sync_write]).
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import sqlite3
import zlib
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

from tenured.core.cells import Cell, Version
from tenured.core.joining import Head
from tenured.raft.files import sync_directory
from tenured.storage.errors import StoreCorrupt, StoreFailed, StoreForeign
from tenured.storage.journal import Change, Journal, Torn, folded

FORMAT = 2
"""`user_version` of the file: with a journal. A later one is refused."""
OLDEST_FORMAT = 1
"""Without a journal: it is taken, and is of this format from then on."""
APPLICATION_ID = 0x54_4E_52_45
"""`TNRE`: tells our files from others'."""
_SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE record (uid TEXT PRIMARY KEY, sealed INT, epoch INT, seq INT) WITHOUT ROWID",
    "CREATE TABLE entry (uid TEXT, key TEXT, crc INT, value BLOB, PRIMARY KEY (uid, key)) WITHOUT ROWID",
)
_PUT_CELL = (
    "INSERT INTO record VALUES (?, ?, ?, ?) ON CONFLICT (uid) DO UPDATE "
    "SET sealed = excluded.sealed, epoch = excluded.epoch, seq = excluded.seq"
)
_PUT_ENTRY = "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?)"
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
        existed = path.exists() and path.stat().st_size > 0
        try:
            self._db = sqlite3.connect(path, isolation_level=None, cached_statements=64, timeout=0)
            self._configure()
            if not existed:
                self._create()
            self._verify()
            self.incarnation = self._meta("incarnation")
            """Of this disk: a random id written when the file was made."""
            self.journal = Journal(path, self.incarnation)
            self._play(known=existed)
            self._db.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.DatabaseError as error:
            raise self._opening_error(error) from error
        except OSError as error:
            raise StoreFailed(f"The state store {path} cannot be opened: {error.strerror}.", fatal=True) from error

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
        """All or nothing; durable after `sync`. Raises StoreFailed."""
        with self.refusals():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.roll_back()
                raise
            self.commit()

    @contextlib.contextmanager
    def refusals(self) -> Generator[None]:
        """Errors of SQLite within become StoreFailed."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def begin(self) -> None:
        """A transaction; `commit` or `roll_back` ends it. Raises StoreFailed."""
        with self.refusals():
            self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """End the transaction; durable after `sync`. Raises StoreFailed: it is as if it had not begun."""
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self.roll_back()
            raise self._failed(error) from error

    def roll_back(self) -> None:
        """End the transaction, as if it had not begun."""
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def sync(self) -> None:
        """Return when everything committed is on the disk, without the journal. Raises StoreFailed."""
        with self.refusals():
            busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        if busy:
            raise StoreFailed(f"The state store {self._path} could not be synced: it is in use.", fatal=True)

    def apply(self, changes: Iterable[Change]) -> None:
        """Within a transaction: what the changes come to."""
        last = folded(changes)
        anew = [(change.uid,) for change in last.values() if change.whole or change.cell is None]
        self._db.executemany("DELETE FROM entry WHERE uid = ?", anew)
        gone = [(change.uid, key) for change in last.values() if not change.whole for key in change.deletes]
        self._db.executemany("DELETE FROM entry WHERE uid = ? AND key = ?", gone)
        self._db.executemany(_PUT_ENTRY, [row for change in last.values() for row in _rows(change.uid, change.puts)])
        self._db.executemany(_PUT_CELL, [(uid, *change.cell) for uid, change in last.items() if change.cell])
        self._db.executemany(
            "DELETE FROM record WHERE uid = ?", [(uid,) for uid, change in last.items() if change.cell is None]
        )

    def note_journal(self, number: int) -> None:
        """Within a transaction: everything in files of the journal below that number is in here."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('journal', ?)", (str(number),))

    def put_cell(self, uid: str, cell: Cell) -> None:
        """Within a transaction."""
        self._db.execute(_PUT_CELL, (uid, cell.sealed, cell.version.epoch, cell.version.seq))

    def put_entries(self, uid: str, puts: Mapping[str, bytes], deletes: tuple[str, ...], *, whole: bool) -> None:
        """Within a transaction; `whole` replaces what was there."""
        if whole:
            self._db.execute("DELETE FROM entry WHERE uid = ?", (uid,))
        elif deletes:
            self._db.executemany("DELETE FROM entry WHERE uid = ? AND key = ?", [(uid, key) for key in deletes])
        if puts:
            self._db.executemany(_PUT_ENTRY, _rows(uid, puts))

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

    def close(self) -> None:
        """Close the files."""
        with contextlib.suppress(OSError):
            self.journal.close()
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
        if not OLDEST_FORMAT <= version <= FORMAT:
            raise StoreForeign(
                f"The state store {self._path} has format {version}; this version reads {FORMAT}. "
                "Start the version that wrote it."
            )
        self._db.execute("BEGIN IMMEDIATE")  # takes the lock now rather than at the first write
        self._db.execute("COMMIT")
        verdict = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise StoreCorrupt(f"The state store {self._path} is damaged: {verdict}. {_NEXT_STEP}")

    def _play(self, *, known: bool) -> None:
        """Take what the journal has, and begin a new file of it; all of that is synced when this returns."""
        first = self._db.execute("SELECT value FROM meta WHERE key = 'journal'").fetchone()
        if not known:
            self.journal.remove(1 << 62)  # of a file that is gone: nothing of it counts for this one [rejoin]
        with self.transaction():
            if first is not None or self.journal.there:
                for changes in self.journal.replay(int(first[0]) if first is not None else 1):
                    self.apply(changes)
            number = self.journal.begin()
            self.note_journal(number)
            self._db.execute(f"PRAGMA user_version = {FORMAT}")
        with self.refusals():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sync_directory(self._path.parent)
        self.journal.remove(number)

    def _pragma(self, name: str) -> Any:
        return self._db.execute(f"PRAGMA {name}").fetchone()[0]

    def _meta(self, key: str) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise StoreCorrupt(f"The state store {self._path} does not say its {key}. {_NEXT_STEP}")
        return str(row[0])

    def _failed(self, error: sqlite3.Error) -> StoreFailed:
        # Once fsync failed, the kernel may call pages clean that no disk holds: only a new start finds out.
        return StoreFailed(self._sentence(error), fatal=error.sqlite_errorname not in _HARMLESS)

    def _opening_error(self, error: sqlite3.DatabaseError) -> Exception:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StoreForeign(f"Another process has the state store {self._path} open. Stop it first.")
        if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")) or name == "SQLITE_ERROR":
            return StoreCorrupt(f"The state store {self._path} is damaged: {error}. {_NEXT_STEP}")
        return StoreFailed(self._sentence(error), fatal=True)

    def refused(self, error: OSError) -> StoreFailed:
        """The journal could not be written."""
        if not isinstance(error, Torn) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            return StoreFailed(self._full, fatal=False)
        return StoreFailed(f"The disk of the state store refused: {error} ({self._path.parent}).", fatal=True)

    @property
    def _full(self) -> str:
        return f"The disk of the state store is full ({self._path.parent}). Free space or enlarge the volume."

    def _sentence(self, error: sqlite3.Error) -> str:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        if name == "SQLITE_FULL":
            return self._full
        return f"The disk of the state store refused: {error} ({name}, {self._path.parent})."


def _rows(uid: str, puts: Mapping[str, bytes]) -> list[tuple[str, str, int, bytes]]:
    return [(uid, key, zlib.crc32(value), value) for key, value in puts.items()]
