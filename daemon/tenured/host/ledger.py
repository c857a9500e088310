"""The record of one agent with its book, as of the last committed version [ack_committed]."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from tenured.clocks import boot_ns
from tenured.core import turns
from tenured.core.cells import Version
from tenured.core.frames import MAX_RECORD
from tenured.host.stores import Record, RecordTooLarge


class TooLarge(ValueError):
    """The record would exceed its limit."""


class Ledger:
    """See the module. One write at a time. A volatile agent's is in memory only (protocol 3, volatile agents)."""

    __slots__ = ("_record", "_size", "_unwritten", "_volatile", "book", "first")

    def __init__(self, record: Record, entries: Mapping[str, bytes], *, durable: bool = True) -> None:
        """Raises turns.Damaged."""
        self._record = record
        self._volatile = None if durable else dict(entries)
        self.first: bytes | None = None
        """A first state that no write carries yet, so that nothing of the agent is durable: the next write has it. What
        it shows may be seen by nobody before that, since another holder may make another one.
        """
        self._unwritten = 0
        """Commits of a volatile agent."""
        self.book = turns.load(entries)
        if not durable:
            self.book = msgspec.structs.replace(
                self.book, boxes=msgspec.structs.replace(self.book.boxes, volatile=True)
            )
        self._size = sum(map(len, entries.values()))

    @property
    def _entries(self) -> Mapping[str, bytes]:
        return self._record.owner.entries if self._volatile is None else self._volatile

    @property
    def state(self) -> bytes | None:
        """The user's, last committed, while nothing is being written; None: there was never one."""
        return self._entries.get(turns.STATE)

    @property
    def durable(self) -> bool:
        """Whether anything of it outlives this activation."""
        return self._volatile is None

    @property
    def version(self) -> Version:
        """Of what is committed, while nothing is being written."""
        version = self._record.owner.version
        return Version(version.epoch, version.seq + self._unwritten)

    def check_room(self, draft: turns.Draft, more: int) -> None:
        """Raise TooLarge unless so many bytes more fit. On the safe side: what the draft replaces is not counted."""
        size = self._size + sum(map(len, draft.puts.values())) + more
        if size > MAX_RECORD:
            size -= sum(len(self._entries.get(name, b"")) for name in (*draft.puts, turns.STATE))
        if size > MAX_RECORD:
            raise TooLarge(f"the state would take {size} bytes; the limit is {MAX_RECORD}")

    def write(self, turn: turns.Turn) -> asyncio.Future[None] | None:
        """Write it. When the future ends well, it is what is committed: call `landed`. None: that is so already.

        Raises RecordLost, RecordTooLarge: nothing was sent. The future does: its fate is up to the next holder.
        """
        size, entries = self._size, self._entries
        for name, data in turn.puts.items():
            size += len(data) - len(entries.get(name, b""))
        for name in turn.deletes:
            size -= len(entries.get(name, b""))
        if size > MAX_RECORD and self._volatile is not None:
            raise RecordTooLarge(f"the state would take {size} bytes; the limit is {MAX_RECORD}")
        written = None
        if self._volatile is None:
            written = self._record.write(boot_ns(), turn.puts, turn.deletes)
        else:
            for name in turn.deletes:
                self._volatile.pop(name, None)
            self._volatile.update(turn.puts)
            self._unwritten += 1
        self._size = size
        return written

    def landed(self, turn: turns.Turn) -> None:
        """The write is durable."""
        self.book = turn.book
        if turns.STATE in turn.puts:
            self.first = None

    def draft(self, now: float) -> turns.Draft:
        """On what is committed, while nothing is being written, with the first state if it is not. `now`: cluster
        time.
        """
        draft = turns.Draft(self.book, now)
        draft.state(self.first)
        return draft

    async def commit(self, turn: turns.Turn) -> None:
        """Write it and wait. Raises RecordLost."""
        written = self.write(turn)
        if written is not None:
            await written
        self.landed(turn)
