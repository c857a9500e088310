"""Compression and encryption between a holder and its store (ADR 0025): servers, PostgreSQL and backups see what
`tenured.storage.codec` writes, holders see plain entries, and neither knows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from functools import partial

from tenured.core.cells import Version
from tenured.core.frames import MAX_RECORD, MAX_STORED, Adopted, Known
from tenured.host.stores import Record, RecordLost, RecordTooLarge, RecordUnreadable, StateStore
from tenured.storage.codec import OVERHEAD, RecordCodec, Unreadable
from tenured.storage.errors import StoreForeign
from tenured.storage.keys import KeyFile, Keyring

log = logging.getLogger("tenured.host.encoding")

INLINE_BYTES = 512 * 1024
"""What is larger is encoded in a thread: the loop must not stand still for more than 5 ms."""
REWRITE_BYTES = 256 * 1024
"""Of entries under an old key that one write takes along, so that a delta stays small."""
KEYS_EVERY_S = 10.0
"""How often the key file is looked at."""


class EncodedRecord:
    """One agent's record at one epoch. See `stores.Record`; sizes are those of plain entries."""

    __slots__ = (
        "_adopting",
        "_codec",
        "_end",
        "_inner",
        "_keyring",
        "_size",
        "_stale",
        "_store",
        "_tail",
        "_uid",
        "entries",
    )

    def __init__(self, uid: str, inner: Record, store: EncodedStore) -> None:
        self.entries: dict[str, bytes] = {}
        """Plain, as of the last write, acknowledged or not."""
        self._uid = uid
        self._inner = inner
        self._store = store
        self._codec = store.codec(uid)
        self._keyring = store.keyring
        self._size = 0
        self._stale: dict[str, None] | None = None
        """Entries that are not under the key that writes now; None: all are."""
        self._adopting: asyncio.Future[Adopted] | None = None
        self._end: RecordLost | None = None
        self._tail: asyncio.Task[None] | None = None
        """The last write that is being encoded in a thread: later ones wait for their turn."""

    @property
    def inner(self) -> Record:
        """The store's own record."""
        return self._inner

    @property
    def owner(self) -> EncodedRecord:
        """Whoever keeps the plain entries: this one."""
        return self

    @property
    def version(self) -> Version:
        """Of `entries`."""
        return self._inner.owner.version

    @property
    def known(self) -> Known:
        """As it is stored."""
        return self._inner.known

    @property
    def settled(self) -> bool:
        """No server is still to be told of a write, and none is being encoded."""
        return self._end is None and self._tail is None and self._inner.settled

    @property
    def lost(self) -> RecordLost | None:
        """Why nothing can be written any more."""
        return self._end or self._inner.lost

    async def asleep(self) -> bytes:
        """See `stores.Record`: that field is never encoded."""
        return await self._inner.asleep()

    async def adopted(self) -> Adopted:
        """The state that is ours to serve, plain. Raises RecordLost: RecordUnreadable when a key is missing."""
        if self._adopting is None:
            self._adopting = asyncio.ensure_future(self._adopt())
            self._adopting.add_done_callback(self._adopted)
        return await asyncio.shield(self._adopting)

    def at_hand(self) -> Adopted | None:
        """The same, unless it has to be waited for. What cannot be read is for `adopted` to say."""
        adopted = self._inner.at_hand() if self._adopting is None else None
        if adopted is None or sum(map(len, adopted.entries.values())) > INLINE_BYTES:
            return None
        try:
            return self._take(adopted.version, self._decoded(adopted.entries))
        except Unreadable:
            return None

    def write(self, now: int, puts: Mapping[str, bytes], deletes: Iterable[str] = ()) -> asyncio.Future[None]:
        """Writes the next version. Raises RecordLost and RecordTooLarge when nothing was sent: not applied."""
        if self.lost is not None:
            raise self.lost
        gone = tuple(deletes)
        size = self._size_after(puts, gone)
        writes = {**self._rewritten(puts, gone), **puts}
        if self._tail is None and sum(map(len, writes.values())) <= INLINE_BYTES:
            done = self._inner.write(now, self._encoded(writes), gone)
        else:
            done = asyncio.get_running_loop().create_future()
            self._tail = asyncio.ensure_future(self._write_later(self._tail, now, writes, gone, done))
        for name in gone:
            self.entries.pop(name, None)
        self.entries.update(puts)
        self._size = size
        return done

    def close(self) -> None:
        """Nothing that is under way here goes on."""
        for task in (self._adopting, self._tail):
            if task is not None:
                task.cancel()

    def _adopted(self, task: asyncio.Future[Adopted]) -> None:
        """Whoever waits sees a failure; if nobody does, it is no news."""
        if not task.cancelled() and task.exception() is None:
            self._adopting = None  # what is asked for later is read from the record again

    async def _adopt(self) -> Adopted:
        adopted = await self._inner.adopted()
        work = partial(self._decoded, adopted.entries)
        large = sum(map(len, adopted.entries.values())) > INLINE_BYTES
        try:
            entries = await asyncio.to_thread(work) if large else work()
        except Unreadable as error:
            self._end = RecordUnreadable(str(error))
            raise self._end from error
        return self._take(adopted.version, entries)

    def _take(self, version: Version, entries: dict[str, bytes]) -> Adopted:
        self.entries = dict(entries)
        self._size = sum(map(len, entries.values()))
        self._find_stale()
        return Adopted(version, entries)

    async def _write_later(
        self,
        before: asyncio.Task[None] | None,
        now: int,
        puts: Mapping[str, bytes],
        deletes: tuple[str, ...],
        done: asyncio.Future[None],
    ) -> None:
        encoded = await asyncio.to_thread(self._encoded, puts)
        if before is not None:
            await before
        try:
            self._inner.write(now, encoded, deletes).add_done_callback(partial(_pass_on, done))
        except RecordLost as error:
            if not done.done():
                done.set_exception(error)
                done.exception()  # whoever waits sees it; if nobody does, it is no news
        if self._tail is asyncio.current_task():
            self._tail = None

    def _encoded(self, entries: Mapping[str, bytes]) -> dict[str, bytes]:
        return {name: self._codec.encode(name, value) for name, value in entries.items()}

    def _decoded(self, entries: Mapping[str, bytes]) -> dict[str, bytes]:
        return {name: self._codec.decode(name, stored) for name, stored in entries.items()}

    def _size_after(self, puts: Mapping[str, bytes], deletes: Iterable[str]) -> int:
        size = self._size + sum(map(len, puts.values()))
        size -= sum(len(self.entries.get(name, b"")) for name in {*puts, *deletes})
        stored = size + OVERHEAD * (len(self.entries) + len(puts))
        if size > MAX_RECORD or stored > MAX_STORED:
            raise RecordTooLarge(f"the state would take {size} bytes; the limit is {MAX_RECORD}")
        return size

    def _find_stale(self) -> None:
        stored = self._inner.owner.entries
        self._stale = {name: None for name, data in stored.items() if self._codec.stale(name, data)} or None

    def _rewritten(self, puts: Mapping[str, bytes], deletes: Iterable[str]) -> dict[str, bytes]:
        """Some entries under an old key, to be written anew with this write."""
        if self._keyring is not self._store.keyring:
            self._keyring, self._codec = self._store.keyring, self._store.codec(self._uid)
            self._find_stale()
        found: dict[str, bytes] = {}
        if self._stale is None:
            return found
        for name in (*puts, *deletes):
            self._stale.pop(name, None)
        room = REWRITE_BYTES
        for name in list(self._stale):
            room -= len(self.entries.get(name, b""))
            if room < 0 and found:
                break
            del self._stale[name]
            if name in self.entries:
                found[name] = self.entries[name]
        return found


class EncodedStore:
    """All records of this host, over another store. See `stores.StateStore`."""

    def __init__(self, inner: StateStore, *, compress: bool, keys: KeyFile | None = None) -> None:
        """Raises StoreForeign when the key file cannot be used."""
        self._inner = inner
        self._compress = compress
        self._keys = keys
        self.keyring = Keyring()
        if keys is not None:
            self.keyring = keys.read() or Keyring()

    @property
    def trouble(self) -> str:
        """Why nothing can be stored now; empty when all is well."""
        return self._inner.trouble

    def codec(self, uid: str) -> RecordCodec:
        """With the keys as they are now."""
        return RecordCodec(uid, self.keyring, compress=self._compress)

    def read_keys(self) -> None:
        """Takes the key file again if it changed. One that cannot be used changes nothing, and is told."""
        try:
            found = self._keys.read() if self._keys is not None else None
        except StoreForeign as error:
            log.error("the keys stay as they were: %s", error)  # noqa: TRY400 - a sentence, no traceback
            return
        if found is not None:
            log.info("keys of records: %s writes, %s read", found.writes or "none", ", ".join(found.keys) or "none")
            self.keyring = found

    def open(
        self, uid: str, epoch: int, *, expect_state: bool, bare: bool = False, known: Known | None = None
    ) -> EncodedRecord:
        """Starts to seal the epoch."""
        return EncodedRecord(uid, self._inner.open(uid, epoch, expect_state=expect_state, bare=bare, known=known), self)

    def close(self, record: Record) -> None:
        """Forgets a record."""
        if isinstance(record, EncodedRecord):
            record.close()
            self._inner.close(record.inner)

    async def keep_repeating(self) -> None:
        """As the store beneath, and looks at the key file. Runs until cancelled."""
        watching = asyncio.ensure_future(self._watch_keys())
        try:
            await self._inner.keep_repeating()
        finally:
            watching.cancel()

    def deleted(self, uids: Iterable[str]) -> None:
        """The registry has these agents no more."""
        self._inner.deleted(uids)

    def connected(self, server: str) -> None:
        """A link is up."""
        self._inner.connected(server)

    def disconnected(self, server: str) -> None:
        """A link is down."""
        self._inner.disconnected(server)

    def view_may_have_changed(self) -> None:
        """A server named a view."""
        self._inner.view_may_have_changed()

    async def _watch_keys(self) -> None:
        while self._keys is not None:
            await asyncio.sleep(KEYS_EVERY_S)
            self.read_keys()


def _pass_on(done: asyncio.Future[None], inner: asyncio.Future[None]) -> None:
    if done.done():
        return
    if inner.cancelled():
        done.cancel()
    elif (error := inner.exception()) is not None:
        done.set_exception(error)
        done.exception()
    else:
        done.set_result(None)
