"""The state store in PostgreSQL as a holder uses it (ADR 0024).

The rules of a holder are those of the servers' store (`core.owner.Owner`), with PostgreSQL as the only server: its
majority is itself. Here: one connection, on which all that the host's agents want goes in order, many records in a
statement; reconnects; and the removal of records whose agents are gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from tenured.core import cells, frames
from tenured.host.owned import OwnedRecord, OwnedRecords
from tenured.storage.errors import StoreFailed
from tenured.storage.postgres import Postgres
from tenured.storage.values import Reading, SealItem, WriteItem

log = logging.getLogger("tenured.host.pgstore")

SERVER = "postgresql"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
"""Between attempts to connect; doubling."""
MAX_ITEMS = 400
"""Of one statement."""
MAX_BYTES = 4 << 20
"""Of one statement, unless a single record is larger: packing it must not hold the loop."""
SWEEP_EVERY_S = 600.0
"""Records of deleted agents that no host dropped at once are looked for so often."""
SWEEP_PAGE = 1000

_Item = tuple[OwnedRecord, frames.Request]


class PostgresStore(OwnedRecords):
    """All records of this host."""

    def __init__(
        self, database: Postgres, clock: Callable[[], int], gone: Callable[[Sequence[str]], list[str]]
    ) -> None:
        """`gone`: which of some uids the registry has no more, for good [uid_drop]."""
        super().__init__(clock)
        self._database = database
        self._gone = gone
        self._queue: list[_Item] = []
        self._forget: dict[str, None] = {}
        self._opened: set[str] = set()
        self._work = asyncio.Event()
        self._up = False
        self._trouble = "PostgreSQL is not connected yet"
        self._worked = False
        """Something was answered on this connection."""

    @property
    def trouble(self) -> str:
        """Why nothing can be stored now; empty when all is well."""
        return self._trouble

    def open(
        self, uid: str, epoch: int, *, expect_state: bool, bare: bool = False, known: frames.Known | None = None
    ) -> OwnedRecord:
        """Starts to seal the epoch; many opened in one loop turn share a statement."""
        self._opened.add(uid)
        owner = self.owner(uid, epoch, (SERVER,), view=0, expect_state=expect_state, bare=bare, known=known)
        return self._begin(owner, () if self._up else (SERVER,))

    def deleted(self, uids: Iterable[str]) -> None:
        """The registry has these agents no more: whoever held one drops its record; the sweep finds the others."""
        self._forget.update(dict.fromkeys(self._opened.intersection(uids)))
        self._opened.difference_update(self._forget)
        self._work.set()

    # There are links to the servers, and nothing of the store is behind them.

    def connected(self, server: str) -> None:
        """Nothing to do."""

    def disconnected(self, server: str) -> None:
        """Nothing to do."""

    def view_may_have_changed(self) -> None:
        """Nothing to do."""

    # --- the connection -------------------------------------------------------------------------------------------

    async def keep_repeating(self) -> None:
        """Connects, and again whenever the connection is lost; what was open is repeated then, the same versions and
        bytes (owner 5). Runs until cancelled. Raises StoreForeign.
        """
        pause = FIRST_PAUSE_S
        try:
            while True:
                try:
                    await self._database.connect()
                    await self._serve()
                except StoreFailed as error:
                    if self._worked:  # else it is still the same trouble
                        pause = FIRST_PAUSE_S
                    if str(error) != self._trouble:
                        log.warning("%s", error)
                    self._trouble = str(error)
                self._down()
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        finally:
            self._database.close()

    def _down(self) -> None:
        self._up = self._worked = False
        self._queue.clear()
        for record in self._records:
            record.owner.lost(SERVER)

    async def _serve(self) -> None:
        """Sends what is queued. Raises StoreFailed when the connection is lost."""
        self._up = True
        now = self._clock()
        for record in list(self._records):
            self._dispatch(record, record.owner.restored(now, SERVER))
        loop = asyncio.get_running_loop()
        sweep_at, after = loop.time(), ""
        while True:
            self._work.clear()
            if self._queue:
                await self._carry(self._take())
            elif self._forget:
                gone = list(self._forget)[:MAX_ITEMS]
                await self._database.forget(gone)
                for uid in gone:
                    del self._forget[uid]
            elif loop.time() >= sweep_at:
                after = await self._sweep(after)
                sweep_at = loop.time() + (0 if after else SWEEP_EVERY_S)
            else:
                await self._idle(sweep_at - loop.time())
            self._worked, self._trouble = True, ""

    async def _idle(self, at_most_s: float) -> None:
        try:
            async with asyncio.timeout(at_most_s):
                await self._work.wait()
        except TimeoutError:
            return

    async def _sweep(self, after: str) -> str:
        """One page of records; the uid to go on after, empty at the end."""
        uids = await self._database.uids(after, SWEEP_PAGE)
        self._forget.update(dict.fromkeys(self._gone(uids)))
        return uids[-1] if len(uids) == SWEEP_PAGE else ""

    # --- what is carried ------------------------------------------------------------------------------------------

    def _enqueue(self, record: OwnedRecord, send: frames.Send) -> None:
        if self._up:
            self._queue.append((record, send.request))

    def _flush(self) -> None:
        self._work.set()

    def _take(self) -> list[_Item]:
        """Requests of one kind, one of each record, in the order of each record's; the rest stays queued."""
        kind = _kind(self._queue[0][1])
        batch: list[_Item] = []
        rest: list[_Item] = []
        seen: set[str] = set()
        size = 0
        for position, (record, request) in enumerate(self._queue):
            if len(batch) >= MAX_ITEMS or (batch and size >= MAX_BYTES):
                rest += self._queue[position:]
                break
            first = request.uid not in seen
            seen.add(request.uid)
            if record not in self._records:
                continue  # closed meanwhile
            if first and _kind(request) == kind:
                batch.append((record, request))
                size += sum(map(len, request.puts.values())) if isinstance(request, frames.Write) else 0
            else:
                rest.append((record, request))
        self._queue = rest
        return batch

    async def _carry(self, batch: list[_Item]) -> None:
        if not batch:
            return
        match batch[0][1]:
            case frames.Seal():
                await self._seal(batch)
            case frames.Read():
                await self._read(batch)
            case frames.Write():
                await self._write(batch)

    async def _seal(self, batch: list[_Item]) -> None:
        seals = [each for _, each in batch if isinstance(each, frames.Seal)]
        items = [SealItem(each.uid, each.epoch) for each in seals]
        answers = await self._database.seal_many(items, with_records=not seals[0].bare)
        for (record, request), answer in zip(batch, answers, strict=True):
            if answer.message:
                self._unreadable(record, answer.message)
            elif answer.version.epoch >= record.owner.epoch and answer.verdict is cells.Verdict.OK:
                # An epoch is opened once [epoch_once]: this is not the state of the agent that we were given.
                self._unreadable(
                    record,
                    f"PostgreSQL has a state of epoch {answer.version.epoch} before epoch {record.owner.epoch} began: "
                    "it is of a cluster of that name that was founded earlier. Give this cluster an empty database.",
                )
            else:
                said = frames.Sealed(
                    verdict=answer.verdict,
                    sealed=answer.sealed,
                    version=answer.version,
                    entries=answer.entries,
                    wake=answer.wake,
                )
                self._answer(record, request, said)

    async def _read(self, batch: list[_Item]) -> None:
        """Records that were too large for the answer to their seals. What is not in this answer is asked for again."""
        readings = {reading.uid: (sealed, reading) for sealed, reading in await self._read_many(batch)}
        for record, request in batch:
            if request.uid not in readings:
                self._again(record, request)
                continue
            sealed, reading = readings[request.uid]
            if sealed > record.owner.epoch:
                self._answer(record, request, frames.Sealed(verdict=cells.Verdict.FENCED, sealed=sealed))
            elif reading.message:
                self._unreadable(record, reading.message)
            else:
                self._answer(record, request, frames.Record(version=reading.version, entries=reading.entries))

    async def _read_many(self, batch: list[_Item]) -> list[tuple[int, Reading]]:
        return await self._database.read_many([request.uid for _, request in batch])

    async def _write(self, batch: list[_Item]) -> None:
        items = [
            WriteItem(uid=each.uid, version=each.version, base=each.base, puts=each.puts, deletes=each.deletes)
            for _, each in batch
            if isinstance(each, frames.Write)
        ]
        for (record, request), answer in zip(batch, await self._database.write_many(items), strict=True):
            said = frames.Written(verdict=answer.verdict, sealed=answer.sealed, version=answer.version)
            self._answer(record, request, said)

    def _answer(self, record: OwnedRecord, request: frames.Request, answer: frames.Answer) -> None:
        if record in self._records:
            self._dispatch(record, record.owner.answered(self._clock(), SERVER, request, answer))

    def _again(self, record: OwnedRecord, request: frames.Request) -> None:
        self._queue.append((record, request))

    def _unreadable(self, record: OwnedRecord, message: str) -> None:
        """It asks for nothing more, and serves nobody."""
        self._records.pop(record, None)
        record.take([frames.Unreadable(message)])


def _kind(request: frames.Request) -> tuple[type[frames.Request], bool]:
    """Those of one kind may share a statement."""
    return type(request), isinstance(request, frames.Seal) and request.bare
