"""The state store of one simulated server, in the place of `tenured.storage.Register`: its decisions are the same
guards (`core.cells`), its disk is simulated.

One transaction at a time; what comes in meanwhile is the next one. An answer leaves after the sync [sync_seal,
sync_write].
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from tenured.core.cells import Cell, Verdict, WriteDecision, guard_seal, guard_write
from tenured.core.frames import WAKE
from tenured.core.joining import Head, Page
from tenured.simulation.disk import Change, DiskPlace, Stored, StoreDisk
from tenured.simulation.timeline import NS
from tenured.storage import AdoptItem, Reading, SealAnswer, SealItem, WriteAnswer, WriteItem
from tenured.storage.errors import StoreFailed

T = TypeVar("T")

INLINE_BYTES = 2_000
"""Records larger than that are fetched by a read: small here, so that both ways are taken."""


class Guards:
    """What the server checks of a record, and when it answers; mutations replace one."""

    sync_seal = True
    """Answer a seal after its sync only [sync_seal]."""
    sync_write = True
    """The same of a write [sync_write]."""

    def seal(self, cell: Cell, epoch: int) -> WriteDecision:
        """Protocol 2, Seal."""
        return guard_seal(cell, epoch)

    def write(self, cell: Cell, item: WriteItem) -> WriteDecision:
        """Protocol 2, Write."""
        return guard_write(cell, item.version, item.base)


class _Job:
    def __init__(
        self, run: Callable[[], Any], failed: Callable[[str], Any], future: asyncio.Future[Any], *, early: bool
    ) -> None:
        self.run, self.failed, self.future, self.early = run, failed, future, early
        self.answer: Any = None


class SimRegister:
    """All records of one server, for as long as its process lives."""

    def __init__(self, disk: StoreDisk, place: DiskPlace, guards: Guards) -> None:
        self._disk, self._guards = disk, guards
        self._health, self._loop, self._rng = place.health, place.loop, place.rng
        self._records = dict(disk.records)
        self._jobs: list[_Job] = []
        self._busy = False
        self._changes: list[Change] = []
        self.incarnation = disk.incarnation
        self.joining = disk.joining
        self.joined = disk.joined
        self.failure = ""

    async def admit(self) -> None:
        """This disk may answer."""
        self._disk.joining = self.joining = False

    async def seal_many(self, items: Sequence[SealItem], *, with_records: bool = False) -> list[SealAnswer]:
        """Seal each epoch."""
        return await self._queue(
            lambda: [self._seal(item, with_records) for item in items],
            lambda why: [SealAnswer(uid=item.uid, verdict=Verdict.FAILED, message=why) for item in items],
            early=not self._guards.sync_seal,
        )

    def write(self, items: Sequence[WriteItem], done: Callable[[list[WriteAnswer]], None]) -> None:
        """Store each version."""
        stored = self._queue(
            lambda: [self._write(item) for item in items],
            lambda why: [WriteAnswer(uid=item.uid, verdict=Verdict.FAILED, message=why) for item in items],
            early=not self._guards.sync_write,
        )
        stored.add_done_callback(lambda answers: None if answers.cancelled() else done(answers.result()))

    async def read_many(self, uids: Sequence[str]) -> list[Reading]:
        """The stored records."""
        return await self._submit(
            lambda: [self._reading(uid) for uid in uids],
            lambda why: [Reading(uid=uid, message=why) for uid in uids],
        )

    async def forget(self, uids: Iterable[str]) -> None:
        """Drop records. Raises StoreFailed."""
        gone = tuple(uids)
        why = await self._submit(lambda: self._drop(gone), str)
        if why:
            raise StoreFailed(why, fatal=False)

    async def adopt(self, items: Sequence[AdoptItem], view: int, upto: str) -> None:
        """Take records over while joining (rejoin 4). Raises StoreFailed."""
        why = await self._submit(lambda: self._adopt(items), str)
        if why:
            raise StoreFailed(why, fatal=False)
        self._disk.joined = (view, upto)

    async def page(self, after: str, limit: int) -> Page | None:
        """Records after a uid, without their entries."""

        def run() -> Page | None:
            uids = sorted(uid for uid in self._records if uid > after)
            cells = [(uid, self._records[uid].cell) for uid in uids[:limit]]
            heads = [Head(uid, cell.sealed, cell.version) for uid, cell in cells]
            return Page(heads, len(uids) > limit, len(self._records))

        def failed(_: str) -> Page | None:
            return None

        return await self._submit(run, failed)

    async def uids(self) -> list[str]:
        """All records' uids."""
        return list(self._records)

    # --- inside a transaction -----------------------------------------------------------------------------------

    def _seal(self, item: SealItem, with_records: bool) -> SealAnswer:
        stored = self._stored(item.uid)
        decision = self._guards.seal(stored.cell, item.epoch)
        if decision.store:
            self._put(item.uid, Stored(decision.cell, stored.entries))
        small = sum(map(len, stored.entries.values())) <= INLINE_BYTES
        bare = not with_records and decision.verdict is Verdict.OK
        return SealAnswer(
            uid=item.uid,
            verdict=decision.verdict,
            sealed=decision.cell.sealed,
            version=decision.cell.version,
            entries=stored.entries if with_records and small and decision.verdict is Verdict.OK else None,
            wake=stored.entries.get(WAKE, b"") if bare else b"",
        )

    def _write(self, item: WriteItem) -> WriteAnswer:
        stored = self._stored(item.uid)
        decision = self._guards.write(stored.cell, item)
        if decision.store:
            old = {} if item.base is None else {k: v for k, v in stored.entries.items() if k not in item.deletes}
            self._put(item.uid, Stored(decision.cell, old | dict(item.puts)))
        cell = decision.cell
        return WriteAnswer(uid=item.uid, verdict=decision.verdict, sealed=cell.sealed, version=cell.version)

    def _reading(self, uid: str) -> Reading:
        stored = self._stored(uid)
        return Reading(uid=uid, version=stored.cell.version, entries=stored.entries)

    def _drop(self, uids: Sequence[str]) -> str:
        for uid in uids:
            self._records.pop(uid, None)
            self._changes.append((uid, None))
        return ""

    def _adopt(self, items: Sequence[AdoptItem]) -> str:
        for item in items:
            old = self._stored(item.uid)
            sealed = max(old.cell.sealed, item.sealed, item.version.epoch)
            newer = item.version >= old.cell.version
            version, entries = (item.version, dict(item.entries)) if newer else (old.cell.version, old.entries)
            self._put(item.uid, Stored(Cell(sealed, version), entries))
        return ""

    def _stored(self, uid: str) -> Stored:
        return self._records.get(uid) or Stored()

    def _put(self, uid: str, stored: Stored) -> None:
        self._records[uid] = stored
        self._changes.append((uid, stored))

    # --- transactions -------------------------------------------------------------------------------------------

    async def _submit(self, run: Callable[[], T], failed: Callable[[str], T]) -> T:
        return await self._queue(run, failed)

    def _queue(self, run: Callable[[], T], failed: Callable[[str], T], *, early: bool = False) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.append(_Job(run, failed, future, early=early))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._begin)
        return future

    def _begin(self) -> None:
        jobs, self._jobs = self._jobs, []
        if self._health.full:
            for job in jobs:
                job.answer = job.failed("the disk is full")
            self._finish(jobs, 0)
            return
        for job in jobs:
            job.answer = job.run()
        changes, self._changes = self._changes, []
        if changes:
            self._disk.unsynced.append(changes)
        _answer([job for job in jobs if job.early])
        duration = self._health.sync_ns * self._rng.random() if changes else 0
        self._loop.call_later(duration / NS, self._finish, jobs, len(self._disk.unsynced))

    def _finish(self, jobs: list[_Job], count: int) -> None:
        self._disk.sync(count)
        _answer(jobs)
        self._busy = bool(self._jobs)
        if self._jobs:
            self._begin()


def _answer(jobs: list[_Job]) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_result(job.answer)
