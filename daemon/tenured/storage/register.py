"""The store as the server uses it: asynchronous outside, one thread and one transaction for all that waits inside.

Group commit: requests queued while a commit runs go together into the next one. An answer leaves only after the
commit that holds it, seals too (protocol 2, [sync_seal, sync_write]). When the disk refuses, everything of that
transaction is answered `FAILED` with the reason, never "yes".
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from tenured.core.cells import Cell, Verdict, guard_seal, guard_write
from tenured.core.frames import MAX_STORED
from tenured.core.joining import Page
from tenured.core.register import WAKE
from tenured.storage.database import Database
from tenured.storage.errors import StorageError, StoreFailed
from tenured.storage.values import AdoptItem, Reading, SealAnswer, SealItem, WriteAnswer, WriteItem

T = TypeVar("T")
Facts = tuple[str, bool, tuple[int, str]]
"""Of a disk: its incarnation, whether it is joining, and how far it got with that."""

_log = logging.getLogger(__name__)

INLINE_LIMIT = 8 << 20
"""Bytes of records that one answer to a seal, or one answer to a read, carries at most."""
_GROUP_LIMIT = 1024
"""Requests in one transaction."""


class _Job(Generic[T]):
    """One request on its way through the writer thread."""

    def __init__(
        self, run: Callable[[_Batch], T], failed: Callable[[str], T], future: asyncio.Future[T], *, writes: bool
    ) -> None:
        self.run = run
        self.failed = failed
        self.future = future
        self.writes = writes
        self.answer: T | None = None

    def finish(self) -> None:
        """On the loop."""
        if not self.future.done() and self.answer is not None:
            self.future.set_result(self.answer)


class Register:
    """All records of one server.

    `on_commit`, if given, is called on the loop with the seconds that each transaction took and the requests in it.
    """

    def __init__(self, path: Path, on_commit: Callable[[float, int], None] | None = None) -> None:
        self._path = path
        self._on_commit = on_commit
        self._jobs: queue.SimpleQueue[_Job[object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.incarnation = ""
        """Of this disk."""
        self.joining = True
        """This disk is new and may not answer (protocol 2, [rejoin]); `admit` ends it."""
        self.joined = (0, "")
        """View under which this disk was reading the others when it was opened, and the last uid that it has."""
        self.failure = ""
        """Why nothing can be stored until a new start; empty when all is well."""

    async def open(self) -> None:
        """Open or create the file and start the writer. Raises StorageError."""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[Facts] = loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(loop, opened), name="state store", daemon=True)
        self._thread.start()
        self.incarnation, self.joining, self.joined = await opened

    async def close(self) -> None:
        """Finish what is queued and close the file."""
        if self._thread is None:
            return
        self._jobs.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        self._thread = None

    async def admit(self) -> None:
        """This disk may answer: it is a founder's, or the registry knows it. Raises StoreFailed."""

        def run(batch: _Batch) -> str:
            batch.database.admit()
            return ""

        reason = await self._submit(run, str, writes=True)
        if reason:
            raise StoreFailed(reason, fatal=False)
        self.joining = False

    async def seal_many(self, items: Sequence[SealItem], *, with_records: bool = False) -> list[SealAnswer]:
        """Seal each epoch; answers in the order of the items."""

        def failed(reason: str) -> list[SealAnswer]:
            return [SealAnswer(uid=item.uid, verdict=Verdict.FAILED, message=reason) for item in items]

        return await self._submit(lambda batch: batch.seal(items, with_records=with_records), failed, writes=True)

    async def write_many(self, items: Sequence[WriteItem]) -> list[WriteAnswer]:
        """Store each version; answers in the order of the items."""

        def failed(reason: str) -> list[WriteAnswer]:
            return [WriteAnswer(uid=item.uid, verdict=Verdict.FAILED, message=reason) for item in items]

        return await self._submit(lambda batch: batch.write(items), failed, writes=True)

    async def read_many(self, uids: Sequence[str]) -> list[Reading]:
        """The stored records, in order, cut where the answer becomes too large (the first is always there)."""

        def failed(reason: str) -> list[Reading]:
            return [Reading(uid=uid, message=reason) for uid in uids]

        return await self._submit(lambda batch: batch.read(uids), failed, writes=False)

    async def forget(self, uids: Iterable[str]) -> None:
        """Drop the records of agents that the registry no longer has. Raises StoreFailed."""
        gone = tuple(uids)
        reason = await self._submit(lambda batch: batch.forget(gone), str, writes=True)
        if reason:
            raise StoreFailed(reason, fatal=False)

    async def adopt(self, items: Sequence[AdoptItem], view: int, upto: str) -> None:
        """Take records over while joining (rejoin 4), synced, with how far this got. Raises StoreFailed."""

        def run(batch: _Batch) -> str:
            batch.adopt(items)
            batch.database.note_joined(view, upto)
            return ""

        reason = await self._submit(run, str, writes=True)
        if reason:
            raise StoreFailed(reason, fatal=False)

    async def page(self, after: str, limit: int) -> Page | None:
        """Records after a uid without their entries, in the order of their uids; None when the disk fails."""

        def run(batch: _Batch) -> list[Page]:
            heads = batch.database.heads(after, limit + 1)
            return [Page(heads[:limit], len(heads) > limit, len(batch.cells))]

        found: list[Page] = await self._submit(run, lambda _: [], writes=False)
        return found[0] if found else None

    async def uids(self) -> list[str]:
        """All records' uids."""
        return await self._submit(lambda batch: list(batch.cells), lambda _: [], writes=False)

    async def _submit(self, run: Callable[[_Batch], T], failed: Callable[[str], T], *, writes: bool) -> T:
        if self.failure:
            return failed(self.failure)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(run, failed, future, writes=writes))  # type: ignore[arg-type] # a queue of many answers
        return await future

    # --- the writer thread ---------------------------------------------------------------------------------------

    def _run(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Future[Facts]) -> None:
        try:
            database = Database(self._path)
            cells = database.cells()
            facts = (database.incarnation, database.joining, database.joined)
        except StorageError as error:
            loop.call_soon_threadsafe(_fail, opened, error)
            return
        loop.call_soon_threadsafe(opened.set_result, facts)
        while group := self._next_group(database):
            took = self._commit(database, cells, group)
            loop.call_soon_threadsafe(self._answer, group, took)
        database.close()

    def _next_group(self, database: Database) -> list[_Job[object]]:
        try:
            first = self._jobs.get_nowait()
        except queue.Empty:
            database.tidy(idle=True)
            first = self._jobs.get()
        group: list[_Job[object]] = []
        job: _Job[object] | None = first
        while job is not None:
            group.append(job)
            if len(group) >= _GROUP_LIMIT:
                break
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
        else:
            if group:  # the end was asked for after these
                self._jobs.put(None)
        database.tidy(idle=False)
        return group

    def _commit(self, database: Database, cells: dict[str, Cell], group: list[_Job[object]]) -> float:
        """Run the group as one transaction and fill in its answers; seconds it took."""
        begun = time.perf_counter()
        try:
            self._attempt(database, _Batch(database, cells), group)
        except StoreFailed as error:
            if error.fatal:
                self.failure = f"{error} Nothing is stored until this server is restarted."
            reason = str(error)
        # A defect must not leave callers waiting, nor let a later commit build on what is half known.
        except Exception as error:  # noqa: BLE001
            _log.exception("the state store's writer failed")
            self.failure = reason = f"The state store failed: {type(error).__name__}. Restart this server."
        else:
            return time.perf_counter() - begun
        for job in group:
            job.answer = job.failed(reason)
        return time.perf_counter() - begun

    def _attempt(self, database: Database, batch: _Batch, group: list[_Job[object]]) -> None:
        if self.failure:
            raise StoreFailed(self.failure, fatal=False)
        if any(job.writes for job in group):
            with database.transaction():
                for job in group:
                    job.answer = job.run(batch)
        else:
            for job in group:
                job.answer = job.run(batch)
        batch.keep()

    def _answer(self, group: list[_Job[object]], took: float) -> None:
        for job in group:
            job.finish()
        if self._on_commit is not None and any(job.writes for job in group):
            self._on_commit(took, len(group))


class _Batch:
    """One transaction: what it changed counts for later requests in it, and for others only after `keep`."""

    def __init__(self, database: Database, cells: dict[str, Cell]) -> None:
        self.database = database
        self.cells = cells
        self._changed: dict[str, Cell] = {}
        self._gone: set[str] = set()

    def keep(self) -> None:
        """The transaction is on disk."""
        self.cells.update(self._changed)
        for uid in self._gone:
            self.cells.pop(uid, None)

    def seal(self, items: Sequence[SealItem], *, with_records: bool) -> list[SealAnswer]:
        room = INLINE_LIMIT
        answers: list[SealAnswer] = []
        for item in items:
            decision = guard_seal(self._cell(item.uid), item.epoch)
            if decision.store:
                self._keep_cell(item.uid, decision.cell)
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
        return [self._write(item) for item in items]

    def read(self, uids: Sequence[str]) -> list[Reading]:
        room = INLINE_LIMIT
        answers: list[Reading] = []
        for uid in uids:
            room -= self.database.size(uid)
            if room < 0 and answers:
                break
            answers.append(self._reading(uid, self._cell(uid)))
        return answers

    def adopt(self, items: Sequence[AdoptItem]) -> None:
        for item in items:
            old = self._cell(item.uid)
            sealed = max(old.sealed, item.sealed, item.version.epoch)
            if item.version >= old.version:
                self._keep_cell(item.uid, Cell(sealed, item.version))
                self.database.put_entries(item.uid, item.entries, (), whole=True)
            else:
                self._keep_cell(item.uid, Cell(sealed, old.version))

    def forget(self, uids: Sequence[str]) -> str:
        for uid in uids:
            self.database.drop(uid)
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
            self._keep_cell(item.uid, decision.cell)
            self.database.put_entries(item.uid, item.puts, item.deletes, whole=item.base is None)
        cell = decision.cell
        return WriteAnswer(uid=item.uid, verdict=decision.verdict, sealed=cell.sealed, version=cell.version)

    def _cell(self, uid: str) -> Cell:
        if uid in self._gone:
            return Cell()
        return self._changed.get(uid) or self.cells.get(uid) or Cell()

    def _keep_cell(self, uid: str, cell: Cell) -> None:
        self._changed[uid] = cell
        self._gone.discard(uid)
        self.database.put_cell(uid, cell)

    def _reading(self, uid: str, cell: Cell) -> Reading:
        try:
            return Reading(uid=uid, version=cell.version, entries=self.database.entries(uid))
        except StoreFailed as error:
            return Reading(uid=uid, version=cell.version, message=str(error))


def _fail(future: asyncio.Future[Facts], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
