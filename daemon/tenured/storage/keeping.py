"""The database and its journal together: how a commit becomes durable, and how the journal stays short. Synchronous.

    write:  journal <- commit; sync                         SQLite gets it later
    other:  SQLite <- what it lacks, commit; journal <- commit; sync; COMMIT

What the journal holds counts, whether SQLite has taken it or not: a COMMIT that fails after that is done again later.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Generator
from pathlib import Path

from tenured.storage.database import Database
from tenured.storage.errors import StoreFailed
from tenured.storage.journal import Change

COPY_BYTES = 4 << 20
"""A file of the journal of this size is followed by the next, and taken into SQLite."""
FULL_BYTES = 64 << 20
"""When SQLite cannot take it, nothing more is promised from this size on."""
COPY_AT_ONCE = 500
"""Changes that one transaction takes in between commits: those wait for it."""

_log = logging.getLogger(__name__)


class Keeper:
    """Used by the writer's thread only."""

    def __init__(self, path: Path) -> None:
        """Raises StorageError."""
        self.database = Database(path)
        self._journal = self.database.journal
        self._lacks: deque[Change] = deque()
        """What SQLite has not taken yet, in order."""
        self._older = 0
        """So many of them are in older files of the journal than the one that is written."""
        self._copying = False
        """Older files are to be removed once SQLite has synced what is in them."""
        self._refused = ""
        """Why SQLite did not take it."""
        self._again = 0
        """Size of the journal's file at which it is asked again."""

    def keep(self, changes: list[Change]) -> None:
        """A commit that asked nothing of SQLite: durable when this returns. Raises StoreFailed."""
        if not changes:
            return
        if self._refused and self._journal.size > FULL_BYTES:
            raise StoreFailed(self._refused, fatal=False)
        self._write(changes)
        self._lacks.extend(changes)

    @contextlib.contextmanager
    def reading(self, changes: list[Change], *, sync: bool) -> Generator[None]:
        """A commit that reads: SQLite has everything within it, and what it changes goes into `changes` too. Durable
        after it. `sync`: something of it is in SQLite only. Raises StoreFailed.
        """
        database = self.database
        with database.transaction():
            database.apply(self._lacks)
        self._lacks.clear()
        self._older = 0
        database.begin()
        try:
            yield
            if changes:
                self._write(changes)
        except BaseException:
            database.roll_back()
            raise
        try:
            database.commit()
        except StoreFailed:
            self._lacks.extend(changes)  # the journal has it
            if sync:
                raise
        if sync:
            database.sync()

    @property
    def due(self) -> bool:
        """Whether there is something for an idle moment."""
        return self._journal.size >= self._again and (self._copying or self._journal.size > COPY_BYTES)

    @property
    def overdue(self) -> bool:
        """Whether it must not wait for one any longer."""
        return self._journal.size >= self._again and self._journal.size > 2 * COPY_BYTES

    def copy(self) -> None:
        """The next step of taking the journal into SQLite. Failures are for a later commit to tell; a fatal one is
        raised: StoreFailed.
        """
        try:
            if not self._copying:
                self._rotate()
            elif self._older:
                self._take_some()
            else:
                self._finish()
        except StoreFailed as error:
            if error.fatal:
                raise
            if not self._refused:
                _log.warning("the state store's journal grows: %s", error)
            self._refused, self._again = str(error), self._journal.size + COPY_BYTES // 4
        else:
            self._refused, self._again = "", 0

    def close(self) -> None:
        """Take all of it into SQLite and close. What cannot be taken stays in the journal for the next start."""
        try:
            if self._lacks or self._copying:
                with self.database.transaction():
                    self.database.apply(self._lacks)
                self._rotate()
                self._finish()
        except StoreFailed as error:
            _log.warning("the state store's journal stays: %s", error)
        self.database.close()

    def _write(self, changes: list[Change]) -> None:
        try:
            self._journal.append(changes)
        except OSError as error:
            raise self.database.refused(error) from error
        try:
            self._journal.sync()
        except OSError as error:
            raise StoreFailed(str(self.database.refused(error)), fatal=True) from error

    def _rotate(self) -> None:
        try:
            self._journal.begin()
        except OSError as error:
            raise self.database.refused(error) from error
        self._older, self._copying = len(self._lacks), True

    def _take_some(self) -> None:
        some = [self._lacks.popleft() for _ in range(min(COPY_AT_ONCE, self._older))]
        try:
            with self.database.transaction():
                self.database.apply(some)
        except StoreFailed:
            self._lacks.extendleft(reversed(some))
            raise
        self._older -= len(some)

    def _finish(self) -> None:
        with self.database.transaction():
            self.database.note_journal(self._journal.number)
        self.database.sync()
        self._copying = False
        try:
            self._journal.remove(self._journal.number)
        except OSError as error:  # the next one takes it along
            _log.warning("a file of the state store's journal could not be removed: %s", error)
