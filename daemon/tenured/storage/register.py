"""The store as the server uses it: asynchronous outside, one thread and one commit for all that waits inside.

Group commit: requests queued while a commit runs go together into the next one. An answer leaves only after the journal
holds the commit, seals too (protocol 2, [sync_seal, sync_write]). When the disk refuses, everything of that commit is
answered `FAILED` with the reason, never "yes".

Writes need nothing of SQLite: their commit is one append to the journal and one sync. Whatever reads records goes
through SQLite, which is given what it lacks first. What else the journal has goes there in idle moments, some at a
time, and at the latest when a file of the journal is full.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from tenured.core.cells import Cell, Verdict
from tenured.core.joining import Page
from tenured.storage.batch import Batch
from tenured.storage.errors import StorageError, StoreFailed
from tenured.storage.keeping import Keeper
from tenured.storage.values import AdoptItem, Reading, SealAnswer, SealItem, WriteAnswer, WriteItem

T = TypeVar("T")
Facts = tuple[str, bool, tuple[int, str]]
"""Of a disk: its incarnation, whether it is joining, and how far it got with that."""

_log = logging.getLogger(__name__)

_GROUP_LIMIT = 1024
"""Requests in one commit."""


class _Needs(IntEnum):
    """What a request needs of SQLite."""

    NOTHING = 0
    RECORDS = 1
    """Everything that is in the journal."""
    SYNC = 2
    """A sync: what it writes is not in the journal."""


class _Job(Generic[T]):
    """One request on its way through the writer thread."""

    def __init__(
        self, run: Callable[[Batch], T], failed: Callable[[str], T], done: Callable[[T], None], needs: _Needs
    ) -> None:
        self.run = run
        self.failed = failed
        self.done = done
        self.needs = needs
        self.answer: T | None = None

    def finish(self) -> None:
        """On the loop."""
        if self.answer is not None:
            self.done(self.answer)


class Register:
    """All records of one server.

    `on_commit`, if given, is called on the loop with the seconds that each commit took and the requests in it.
    """

    def __init__(self, path: Path, on_commit: Callable[[float, int], None] | None = None) -> None:
        self._path = path
        self._on_commit = on_commit
        self._turn: list[_Job[object]] = []
        """What this turn of the loop asks for."""
        self._jobs: queue.SimpleQueue[list[_Job[object]] | None] = queue.SimpleQueue()
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
        """Open or create the files and start the writer. Raises StorageError."""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[Facts] = loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(loop, opened), name="state store", daemon=True)
        self._thread.start()
        self.incarnation, self.joining, self.joined = await opened

    async def close(self) -> None:
        """Finish what is queued and close the files."""
        if self._thread is None:
            return
        self._flush()
        self._jobs.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        self._thread = None

    async def admit(self) -> None:
        """This disk may answer: it is a founder's, or the registry knows it. Raises StoreFailed."""

        def run(batch: Batch) -> str:
            batch.database.admit()
            return ""

        reason = await self._ask(run, str, _Needs.SYNC)
        if reason:
            raise StoreFailed(reason, fatal=False)
        self.joining = False

    async def seal_many(self, items: Sequence[SealItem], *, with_records: bool = False) -> list[SealAnswer]:
        """Seal each epoch; answers in the order of the items."""

        def failed(reason: str) -> list[SealAnswer]:
            return [SealAnswer(uid=item.uid, verdict=Verdict.FAILED, message=reason) for item in items]

        return await self._ask(lambda batch: batch.seal(items, with_records=with_records), failed, _Needs.RECORDS)

    async def write_many(self, items: Sequence[WriteItem]) -> list[WriteAnswer]:
        """Store each version; answers in the order of the items."""
        future: asyncio.Future[list[WriteAnswer]] = asyncio.get_running_loop().create_future()
        self.write(items, partial(_set, future))
        return await future

    def write(self, items: Sequence[WriteItem], done: Callable[[list[WriteAnswer]], None]) -> None:
        """As `write_many`; `done` is called on the loop, never before this returns."""

        def failed(reason: str) -> list[WriteAnswer]:
            return [WriteAnswer(uid=item.uid, verdict=Verdict.FAILED, message=reason) for item in items]

        self._submit(_Job(lambda batch: batch.write(items), failed, done, _Needs.NOTHING))

    async def read_many(self, uids: Sequence[str]) -> list[Reading]:
        """The stored records, in order, cut where the answer becomes too large (the first is always there)."""

        def failed(reason: str) -> list[Reading]:
            return [Reading(uid=uid, message=reason) for uid in uids]

        return await self._ask(lambda batch: batch.read(uids), failed, _Needs.RECORDS)

    async def forget(self, uids: Iterable[str]) -> None:
        """Drop the records of agents that the registry no longer has. Raises StoreFailed."""
        gone = tuple(uids)
        reason = await self._ask(lambda batch: batch.forget(gone), str, _Needs.NOTHING)
        if reason:
            raise StoreFailed(reason, fatal=False)

    async def adopt(self, items: Sequence[AdoptItem], view: int, upto: str) -> None:
        """Take records over while joining (rejoin 4), synced, with how far this got. Raises StoreFailed."""

        def run(batch: Batch) -> str:
            batch.adopt(items)
            batch.database.note_joined(view, upto)
            return ""

        reason = await self._ask(run, str, _Needs.SYNC)
        if reason:
            raise StoreFailed(reason, fatal=False)

    async def page(self, after: str, limit: int) -> Page | None:
        """Records after a uid without their entries, in the order of their uids; None when the disk fails."""

        def run(batch: Batch) -> list[Page]:
            heads = batch.database.heads(after, limit + 1)
            return [Page(heads[:limit], len(heads) > limit, len(batch.cells))]

        found: list[Page] = await self._ask(run, lambda _: [], _Needs.RECORDS)
        return found[0] if found else None

    async def uids(self) -> list[str]:
        """All records' uids."""
        return await self._ask(lambda batch: list(batch.cells), lambda _: [], _Needs.NOTHING)

    async def _ask(self, run: Callable[[Batch], T], failed: Callable[[str], T], needs: _Needs) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._submit(_Job(run, failed, partial(_set, future), needs))
        return await future

    def _submit(self, job: _Job[T]) -> None:
        """What one turn of the loop asks for goes to the thread together: each word to it costs a change of threads."""
        if not self._turn:
            asyncio.get_running_loop().call_soon(self._flush)
        self._turn.append(job)  # type: ignore[arg-type] # a queue of many answers

    def _flush(self) -> None:
        turn, self._turn = self._turn, []
        if turn:
            self._jobs.put(turn)

    # --- the writer thread ---------------------------------------------------------------------------------------

    def _run(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Future[Facts]) -> None:
        try:
            keeper = Keeper(self._path)
            cells = keeper.database.cells()
            facts = (keeper.database.incarnation, keeper.database.joining, keeper.database.joined)
        except StorageError as error:
            loop.call_soon_threadsafe(_fail, opened, error)
            return
        loop.call_soon_threadsafe(opened.set_result, facts)
        while group := self._next_group(keeper):
            took = self._commit(keeper, cells, group)
            loop.call_soon_threadsafe(self._answer, group, took)
        keeper.close()

    def _next_group(self, keeper: Keeper) -> list[_Job[object]]:
        """All that waits, at least one; nothing: the end."""
        while keeper.due and self._jobs.empty():
            self._copy(keeper)
        if keeper.overdue:
            self._copy(keeper)
        group: list[_Job[object]] = []
        while not group or (len(group) < _GROUP_LIMIT and not self._jobs.empty()):
            found = self._jobs.get()
            if found is None:
                self._jobs.put(None)  # after these
                break
            group += found
        return group

    def _copy(self, keeper: Keeper) -> None:
        try:
            keeper.copy()
        except StoreFailed as error:
            self._give_up(str(error))

    def _give_up(self, reason: str) -> None:
        self.failure = self.failure or f"{reason} Nothing is stored until this server is restarted."

    def _commit(self, keeper: Keeper, cells: dict[str, Cell], group: list[_Job[object]]) -> float:
        """Run the group as one commit and fill in its answers; seconds it took."""
        begun = time.perf_counter()
        try:
            self._attempt(keeper, Batch(keeper.database, cells), group)
        except StoreFailed as error:
            if error.fatal:
                self._give_up(str(error))
            reason = self.failure or str(error)
        # A defect must not leave callers waiting, nor let a later commit build on what is half known.
        except Exception as error:  # noqa: BLE001
            _log.exception("the state store's writer failed")
            self.failure = reason = f"The state store failed: {type(error).__name__}. Restart this server."
        else:
            return time.perf_counter() - begun
        for job in group:
            job.answer = job.failed(reason)
        return time.perf_counter() - begun

    def _attempt(self, keeper: Keeper, batch: Batch, group: list[_Job[object]]) -> None:
        if self.failure:
            raise StoreFailed(self.failure, fatal=False)
        needs = max(job.needs for job in group)
        if needs is _Needs.NOTHING:
            for job in group:
                job.answer = job.run(batch)
            keeper.keep(batch.changes)
        else:
            with keeper.reading(batch.changes, sync=needs is _Needs.SYNC):
                batch.direct = True
                for job in group:
                    job.answer = job.run(batch)
        batch.keep()

    def _answer(self, group: list[_Job[object]], took: float) -> None:
        for job in group:
            job.finish()
        if self._on_commit is not None:
            self._on_commit(took, len(group))


def _fail(future: asyncio.Future[Facts], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _set(future: asyncio.Future[T], answer: T) -> None:
    if not future.done():
        future.set_result(answer)
