"""One commit: what the requests in it find and change, each on what those before it left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tenured.core.cells import Cell, Verdict, guard_seal, guard_write
from tenured.core.frames import MAX_STORED, WAKE
from tenured.storage.database import Database
from tenured.storage.errors import StoreFailed
from tenured.storage.journal import Change, cell_of
from tenured.storage.values import AdoptItem, Reading, SealAnswer, SealItem, WriteAnswer, WriteItem

INLINE_LIMIT = 8 << 20
"""Bytes of records that one answer to a seal, or one answer to a read, carries at most."""


class Batch:
    """One commit: what it changed counts for later requests in it, and for others only after `keep`."""

    def __init__(self, database: Database, cells: dict[str, Cell]) -> None:
        self.database = database
        self.cells = cells
        self.changes: list[Change] = []
        """For the journal."""
        self.direct = False
        """Changes are made in the database too, whose transaction this is: it is read in between."""
        self._changed: dict[str, Cell] = {}
        self._gone: set[str] = set()

    def keep(self) -> None:
        """The commit is on disk."""
        self.cells.update(self._changed)
        for uid in self._gone:
            self.cells.pop(uid, None)

    def seal(self, items: Sequence[SealItem], *, with_records: bool) -> list[SealAnswer]:
        """Each epoch, with the records if they are asked for and there is room. The database must have everything."""
        room = INLINE_LIMIT
        answers: list[SealAnswer] = []
        for item in items:
            decision = guard_seal(self._cell(item.uid), item.epoch)
            if decision.store:
                self._change(item.uid, decision.cell)
            cell, entries, verdict, message = decision.cell, None, decision.verdict, ""
            wake = b"" if with_records or verdict is not Verdict.OK else self.database.entry(item.uid, WAKE)
            if with_records and verdict is Verdict.OK:
                size = self.database.size(item.uid)
                if size <= room:
                    room -= size
                    reading = self._reading(item.uid, cell)
                    entries, message = reading.entries, reading.message
                    if message:
                        entries, verdict = None, Verdict.FAILED
            answers.append(
                SealAnswer(
                    uid=item.uid,
                    verdict=verdict,
                    sealed=cell.sealed,
                    version=cell.version,
                    entries=entries,
                    message=message,
                    wake=wake,
                )
            )
        return answers

    def write(self, items: Sequence[WriteItem]) -> list[WriteAnswer]:
        """Each version. Asks nothing of the database."""
        return [self._write(item) for item in items]

    def read(self, uids: Sequence[str]) -> list[Reading]:
        """Records, as far as there is room. The database must have everything."""
        room = INLINE_LIMIT
        answers: list[Reading] = []
        for uid in uids:
            room -= self.database.size(uid)
            if room < 0 and answers:
                break
            answers.append(self._reading(uid, self._cell(uid)))
        return answers

    def adopt(self, items: Sequence[AdoptItem]) -> None:
        """Records of other servers, if they are newer (rejoin 4)."""
        for item in items:
            old = self._cell(item.uid)
            sealed = max(old.sealed, item.sealed, item.version.epoch)
            if item.version >= old.version:
                self._change(item.uid, Cell(sealed, item.version), item.entries, whole=True)
            else:
                self._change(item.uid, Cell(sealed, old.version))

    def forget(self, uids: Sequence[str]) -> str:
        """Records of agents that are gone."""
        for uid in uids:
            if self.direct:
                self.database.drop(uid)
            self.changes.append(Change(uid, None))
            self._changed.pop(uid, None)
            self._gone.add(uid)
        return ""

    def _write(self, item: WriteItem) -> WriteAnswer:
        cell = self._cell(item.uid)
        decision = guard_write(cell, item.version, item.base)
        if decision.store:
            size = sum(map(len, item.puts.values()))
            if size > MAX_STORED:
                return WriteAnswer(
                    uid=item.uid,
                    verdict=Verdict.TOO_LARGE,
                    sealed=cell.sealed,
                    version=cell.version,
                    message=f"{size} bytes; a record may have {MAX_STORED}.",
                )
            self._change(item.uid, decision.cell, item.puts, item.deletes, whole=item.base is None)
        cell = decision.cell
        return WriteAnswer(uid=item.uid, verdict=decision.verdict, sealed=cell.sealed, version=cell.version)

    def _cell(self, uid: str) -> Cell:
        if uid in self._gone:
            return Cell()
        return self._changed.get(uid) or self.cells.get(uid) or Cell()

    def _change(
        self,
        uid: str,
        cell: Cell,
        puts: Mapping[str, bytes] | None = None,
        deletes: tuple[str, ...] = (),
        *,
        whole: bool = False,
    ) -> None:
        self._changed[uid] = cell
        self._gone.discard(uid)
        self.changes.append(Change(uid, cell_of(cell), whole, puts or {}, deletes))
        if self.direct:
            self.database.put_cell(uid, cell)
            self.database.put_entries(uid, puts or {}, deletes, whole=whole)

    def _reading(self, uid: str, cell: Cell) -> Reading:
        try:
            return Reading(uid=uid, version=cell.version, entries=self.database.entries(uid))
        except StoreFailed as error:
            return Reading(uid=uid, version=cell.version, message=str(error))
