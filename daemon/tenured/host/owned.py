"""Records that `core.owner.Owner` owns: what all stores share, however they carry requests and answers.

All decisions are the owner's. Here: who waits for what, the limit of a record, and repeats by the clock.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence

from tenured.core import frames
from tenured.core.owner import Owner
from tenured.host.stores import (
    Record,
    RecordDeleted,
    RecordFenced,
    RecordLost,
    RecordTooLarge,
    RecordUnreadable,
)
from tenured.host.waitlist import Waitlist


class OwnedRecord:
    """One agent's record at one epoch. See `stores.Record`."""

    __slots__ = ("_end", "_limit", "_opening", "_owned", "_send", "_size", "_waiting", "_wake", "owner")

    def __init__(
        self, owner: Owner, send: Callable[[OwnedRecord, frames.Output], None], limit: int = frames.MAX_RECORD
    ) -> None:
        """`limit`: bytes of the record's entries."""
        self.owner = owner
        self._send = send
        self._limit = limit
        self._size: int | None = None
        """Bytes of the owner's entries; None: not counted yet."""
        self._owned = False
        self._wake: bytes | None = None
        self._opening: asyncio.Future[None] | None = None
        """Of those who wait until it is owned, or sealed."""
        self._waiting: Waitlist[tuple[int, asyncio.Future[None]]] = Waitlist()
        self._end: RecordLost | None = None

    async def asleep(self) -> bytes:
        """See `stores.Record`. Raises RecordLost."""
        if self._wake is None:
            await self._opened()
        return self._wake or b""

    async def adopted(self) -> frames.Adopted:
        """The state that is ours to serve. Raises RecordLost."""
        if not self._owned:
            await self._opened()
        return frames.Adopted(self.owner.version, dict(self.owner.entries))

    def at_hand(self) -> frames.Adopted | None:
        """The same, if it is owned already."""
        if not self._owned or self._end is not None:
            return None
        return frames.Adopted(self.owner.version, dict(self.owner.entries))

    def write(self, now: int, puts: Mapping[str, bytes], deletes: Iterable[str] = ()) -> asyncio.Future[None]:
        """Writes the next version. The future ends when it is kept, with RecordLost when its fate is up to the next
        holder.

        Raises RecordLost and RecordTooLarge when nothing was sent: not applied.
        """
        if self._end is not None:
            raise self._end
        gone = tuple(deletes)
        size = self._size_after(puts, gone)
        seq, output = self.owner.write(now, puts, gone)
        self._size = size
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((seq, done))
        self._send(self, output)
        return done

    def take(self, outcomes: Sequence[frames.Outcome]) -> None:
        """Acts on what the owner found."""
        for outcome in outcomes:
            match outcome:
                case frames.Adopted():
                    self._owned = True
                    self._open()
                case frames.Asleep(wake):
                    self._wake = wake
                    self._open()
                case frames.Committed():
                    self._commit(outcome.seq)
                case frames.Fenced():
                    self._lose(RecordFenced(f"epoch {outcome.sealed} is sealed, this one is {self.owner.epoch}"))
                case frames.Unreadable():
                    self._lose(RecordUnreadable(outcome.message))
                case frames.Deleted():
                    self._lose(RecordDeleted("the registry has no such agent any more"))

    @property
    def known(self) -> frames.Known:
        """What is committed, while nothing is being written."""
        return frames.Known(self.owner.version, dict(self.owner.entries))

    @property
    def settled(self) -> bool:
        """No server is still to be told of a write."""
        return self._end is None and not self._waiting and self.owner.settled

    @property
    def lost(self) -> RecordLost | None:
        """Why nothing can be written any more."""
        return self._end

    async def _opened(self) -> None:
        if self._end is not None:
            raise self._end
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._opening)

    def _open(self) -> None:
        if self._opening is not None and not self._opening.done():
            self._opening.set_result(None)
        self._opening = None

    def _size_after(self, puts: Mapping[str, bytes], deletes: Iterable[str]) -> int:
        entries = self.owner.entries
        size = sum(map(len, entries.values())) if self._size is None else self._size
        size += sum(map(len, puts.values())) - sum(len(entries.get(name, b"")) for name in {*puts, *deletes})
        if size > self._limit:
            raise RecordTooLarge(f"the state would take {size} bytes; the limit is {self._limit}")
        return size

    def _commit(self, seq: int) -> None:
        while self._waiting and self._waiting[0][0] <= seq:
            _, done = self._waiting.popleft()
            if not done.done():
                done.set_result(None)

    def _lose(self, error: RecordLost) -> None:
        self._end = self._end or error
        futures = [done for _, done in self._waiting]
        futures += [] if self._opening is None else [self._opening]
        self._waiting.clear()
        for future in futures:
            if not future.done():
                future.set_exception(self._end)
                future.exception()  # whoever waits sees it; if nobody does, it is no news


class OwnedRecords:
    """All records of this host. A subclass carries what is queued, once a loop turn (`_flush`)."""

    owner = Owner
    """The rules of a holder; a simulation may put others in their place."""

    limit = frames.MAX_RECORD
    """Bytes of a record's entries, as they are stored."""

    def __init__(self, clock: Callable[[], int]) -> None:
        """`clock`: nanoseconds of the boot clock."""
        self._clock = clock
        self._sends = self._dispatch
        """The same for every record."""
        self._records: dict[OwnedRecord, None] = {}
        self._open: dict[OwnedRecord, None] = {}
        """Those that may wait for an answer: few of many. Whatever opens something comes through `_dispatch`."""
        self._flushing = False

    @property
    def trouble(self) -> str:
        """Why nothing can be stored now. The servers' troubles are told by themselves."""
        return ""

    def close(self, record: Record) -> None:
        """Forgets a record; answers under way are dropped."""
        if isinstance(record, OwnedRecord):
            self._records.pop(record, None)
            self._open.pop(record, None)

    def deleted(self, uids: Iterable[str]) -> None:
        """The registry has these agents no more. Whoever keeps the records drops them [uid_drop]."""

    def _begin(self, owner: Owner, away: Iterable[str]) -> OwnedRecord:
        """Starts to seal. `away`: servers that are not connected now."""
        record = OwnedRecord(owner, self._sends, self.limit)
        self._records[record] = None
        output = owner.start(self._clock())
        for server in away:
            owner.lost(server)
        self._dispatch(record, output)
        return record

    def _dispatch(self, record: OwnedRecord, output: frames.Output) -> None:
        if output.sends:
            self._open[record] = None
            for send in output.sends:
                self._enqueue(record, send)
            self._flush_soon()
        record.take(output.outcomes)

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush_once)

    def _flush_once(self) -> None:
        self._flushing = False
        self._flush()

    @abstractmethod
    def _enqueue(self, record: OwnedRecord, send: frames.Send) -> None:
        """The record asks for that."""

    @abstractmethod
    def _flush(self) -> None:
        """Send what was asked for."""
