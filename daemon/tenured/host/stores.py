"""What a holder needs of a state store, whichever it is: a record per agent and epoch (protocol 2, owner).

`tenured.host.store` keeps records on the servers, `tenured.host.pgstore` in PostgreSQL, and `tenured.host.encoding`
compresses and encrypts what either of them keeps. All pass `tests/host/test_store_contract.py`.

RecordLost              this owner can write no more
├── RecordFenced        a higher epoch is sealed
├── RecordDeleted       the registry has no such agent any more
└── RecordUnreadable    state existed and cannot be read
RecordTooLarge          one write was refused before anything was sent; the record goes on
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol

from tenured.core.cells import Version
from tenured.core.frames import Adopted, Known


class RecordLost(Exception):
    """This owner can write no more; the message says why."""


class RecordFenced(RecordLost):
    """A higher epoch is sealed: somebody else holds the agent."""


class RecordDeleted(RecordLost):
    """The registry has no such agent any more."""


class RecordUnreadable(RecordLost):
    """State existed and cannot be read: the agent stays down (reason StateUnreadable)."""


class RecordTooLarge(ValueError):
    """The record would exceed its limit (`tenured.core.frames.MAX_RECORD`): nothing was sent, not applied."""


class Entries(Protocol):
    """What a record holds."""

    @property
    def entries(self) -> Mapping[str, bytes]:
        """As of the last write, acknowledged or not; plain bytes."""
        ...

    @property
    def version(self) -> Version:
        """Of `entries`."""
        ...


class Record(Protocol):
    """One agent's record at one epoch, owned or about to be."""

    @property
    def owner(self) -> Entries:
        """Whoever keeps its entries in memory."""
        ...

    @property
    def lost(self) -> RecordLost | None:
        """Why nothing can be written any more."""
        ...

    @property
    def known(self) -> Known:
        """What is committed, while nothing is being written, as it is stored: to open it again with."""
        ...

    @property
    def settled(self) -> bool:
        """Nothing is being written, and no server is still to be told of a write."""
        ...

    def at_hand(self) -> Adopted | None:
        """What `adopted` returns, if nothing has to be waited for: of one that was opened as `known`, with its entries,
        unless they take long to decode, or cannot be read.
        """
        ...

    async def asleep(self) -> bytes:
        """Of one that was opened `bare`: the clear field `w` of the highest version, once the epoch is sealed. Raises
        RecordLost.
        """
        ...

    async def adopted(self) -> Adopted:
        """The state that is ours to serve: the highest version that any owner showed. Raises RecordLost."""
        ...

    def write(self, now: int, puts: Mapping[str, bytes], deletes: Iterable[str] = ()) -> asyncio.Future[None]:
        """Writes the next version; several may be under way. The future ends when it is kept, with RecordLost when its
        fate is up to the next holder.

        `now`: nanoseconds of the boot clock. Raises RecordLost and RecordTooLarge when nothing was sent: not applied.
        """
        ...


class StateStore(Protocol):
    """All records of this host."""

    @property
    def trouble(self) -> str:
        """Why nothing can be stored now, a sentence; empty when all is well, as far as is known."""
        ...

    def open(
        self, uid: str, epoch: int, *, expect_state: bool, bare: bool = False, known: Known | None = None
    ) -> Record:
        """Starts to seal the epoch. `expect_state`: "nothing found" is a loss, no beginning [nothing].

        `bare`: the agent sleeps: ask for `asleep`, not `adopted`. `known`: what this process had committed under this
        epoch, all of it, when the agent went to sleep: `Record.known` of then.
        """
        ...

    def close(self, record: Record) -> None:
        """Forgets a record; answers under way are dropped."""
        ...

    async def keep_repeating(self) -> None:
        """Repeats what had no answer. Runs until cancelled; raises StorageError when this store can never be used."""
        ...

    def deleted(self, uids: Iterable[str]) -> None:
        """The registry has these agents no more: their records may go [uid_drop]."""
        ...

    # The links to the servers, for a store that is there.

    def connected(self, server: str) -> None:
        """A link is up."""
        ...

    def disconnected(self, server: str) -> None:
        """A link is down."""
        ...

    def view_may_have_changed(self) -> None:
        """A server named a view."""
        ...
