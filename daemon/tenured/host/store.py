"""The state store as a holder uses it: carries what `core.register.Owner` asks for, many records a frame, over the
links to the servers.

All decisions are the owner's. Here: batching (one frame of a kind per server and loop turn), conversion to and from the
wire, repeats by the clock, and futures for those who wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from tenure_proto.v1 import hostlink_pb2 as wire
from tenure_proto.v1.common_pb2 import Version as WireVersion
from tenured.core import register
from tenured.transport.errors import TransportError
from tenured.transport.serverlinks import ServerLinks

log = logging.getLogger("tenured.host.store")

ANSWER_TIMEOUT_S = 10.0
"""How long an answer may take to count; the owner repeats on its own, sooner."""
MAX_ITEMS = 400
"""Of one frame: encoding it must not hold the loop for more than 5 ms."""
MAX_BYTES = 4 * 1024 * 1024
"""Of one frame, unless a single record is larger."""


class RecordLost(Exception):
    """This owner can write no more; the message says why."""


class RecordFenced(RecordLost):
    """A higher epoch is sealed: somebody else holds the agent."""


class RecordDeleted(RecordLost):
    """The registry has no such agent any more."""


class RecordUnreadable(RecordLost):
    """State existed and cannot be read: the agent stays down (reason StateUnreadable)."""


class Record:
    """One agent's record at one epoch, owned or about to be."""

    def __init__(self, owner: register.Owner, send: Callable[[Record, register.Output], None]) -> None:
        self.owner = owner
        self._send = send
        self._adopted: asyncio.Future[register.Adopted] = asyncio.get_running_loop().create_future()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._end: RecordLost | None = None

    async def adopted(self) -> register.Adopted:
        """The state that is ours to serve. Raises RecordLost."""
        return await asyncio.shield(self._adopted)

    def write(self, now: int, puts: Mapping[str, bytes], deletes: Iterable[str] = ()) -> asyncio.Future[None]:
        """Writes the next version. The future ends when a majority has it, with RecordLost when its fate is up to the
        next holder.

        Raises RecordLost when nothing was sent: not applied.
        """
        if self._end is not None:
            raise self._end
        seq, output = self.owner.write(now, puts, deletes)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((seq, done))
        self._send(self, output)
        return done

    def take(self, outcomes: Sequence[register.Outcome]) -> None:
        """Acts on what the owner found."""
        for outcome in outcomes:
            match outcome:
                case register.Adopted():
                    if not self._adopted.done():
                        self._adopted.set_result(outcome)
                case register.Committed():
                    self._commit(outcome.seq)
                case register.Fenced():
                    self._lose(RecordFenced(f"epoch {outcome.sealed} is sealed, this one is {self.owner.epoch}"))
                case register.Unreadable():
                    self._lose(RecordUnreadable(outcome.message))
                case register.Deleted():
                    self._lose(RecordDeleted("the registry has no such agent any more"))

    @property
    def lost(self) -> RecordLost | None:
        """Why nothing can be written any more."""
        return self._end

    def _commit(self, seq: int) -> None:
        while self._waiting and self._waiting[0][0] <= seq:
            _, done = self._waiting.popleft()
            if not done.done():
                done.set_result(None)

    def _lose(self, error: RecordLost) -> None:
        self._end = self._end or error
        futures: list[asyncio.Future[None] | asyncio.Future[register.Adopted]] = [self._adopted]
        futures += [done for _, done in self._waiting]
        self._waiting.clear()
        for future in futures:
            if not future.done():
                future.set_exception(self._end)
                future.exception()  # whoever waits sees it; if nobody does, it is no news


class Store:
    """All records of this host, over all links."""

    owner = register.Owner
    """The rules of a holder; a simulation may put others in their place."""

    def __init__(self, links: ServerLinks, incarnation: str, clock: Callable[[], int]) -> None:
        """`incarnation`: of this process; servers let it seal only what is assigned to it."""
        self._links = links
        self._incarnation = incarnation
        self._clock = clock
        self._records: dict[Record, None] = {}
        self._queued: dict[str, list[tuple[Record, register.Request]]] = {}
        self._flushing = False
        self._view = 0

    def open(self, uid: str, epoch: int, *, expect_state: bool) -> Record:
        """Starts to seal the epoch; many opened in one loop turn share a frame (protocol additions 6)."""
        # While no server is connected the links know no view; one that asks under an older one asks for ever.
        self.view_may_have_changed()
        owner = self.owner(uid, epoch, self._links.names, view=self._view, expect_state=expect_state)
        record = Record(owner, self._dispatch)
        self._records[record] = None
        output = owner.start(self._clock())
        for server in set(self._links.names) - self._links.connected:
            owner.lost(server)
        self._dispatch(record, output)
        return record

    def close(self, record: Record) -> None:
        """Forgets a record; answers under way are dropped."""
        self._records.pop(record, None)

    async def keep_repeating(self) -> None:
        """Repeats what had no answer. Runs until cancelled."""
        while True:
            await asyncio.sleep(register.RETRY_NS / 2 / 1e9)
            now = self._clock()
            for record in list(self._records):
                if record.owner.busy:
                    self._dispatch(record, record.owner.tick(now))

    def connected(self, server: str) -> None:
        """A link is up: what is open there is repeated at once."""
        self.view_may_have_changed()
        now = self._clock()
        for record in list(self._records):
            self._dispatch(record, record.owner.restored(now, server))

    def disconnected(self, server: str) -> None:
        """A link is down."""
        for record in self._records:
            record.owner.lost(server)

    def view_may_have_changed(self) -> None:
        """A server named a view: answers of older ones no longer count."""
        if self._links.view > self._view:
            self._view = self._links.view
            now = self._clock()
            for record in list(self._records):
                self._dispatch(record, record.owner.view_changed(now, self._view))

    # --- sending ------------------------------------------------------------------------------------------------

    def _dispatch(self, record: Record, output: register.Output) -> None:
        for send in output.sends:
            self._queued.setdefault(send.server, []).append((record, send.request))
        if self._queued and not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)
        record.take(output.outcomes)

    def _flush(self) -> None:
        self._flushing = False
        queued, self._queued = self._queued, {}
        for server, requests in queued.items():
            for batch in _batches(requests):
                try:
                    future = self._links.submit(server, _frame(batch, self._incarnation), ANSWER_TIMEOUT_S)
                except TransportError:
                    continue  # not connected: the owner repeats when it is
                future.add_done_callback(partial(self._answered, server, batch))

    def _answered(
        self, server: str, batch: list[tuple[Record, register.Request]], done: asyncio.Future[wire.ServerFrame]
    ) -> None:
        if done.cancelled() or done.exception() is not None:
            return  # the owner repeats
        answers = _answers(done.result())
        if len(answers) != len(batch):
            log.warning("server %s answered %d of %d requests", server, len(answers), len(batch))
            return
        now = self._clock()
        for (record, request), answer in zip(batch, answers, strict=True):
            if record in self._records:
                self._dispatch(record, record.owner.answered(now, server, request, answer))


def _kind(request: register.Request) -> tuple[type[register.Request], int]:
    return type(request), request.view


def _size(request: register.Request) -> int:
    return sum(map(len, request.puts.values())) if isinstance(request, register.Write) else 64


def _batches(requests: list[tuple[Record, register.Request]]) -> list[list[tuple[Record, register.Request]]]:
    """Requests of one kind and view together, in order within a record (writes of one record are all of one kind)."""
    batches: list[list[tuple[Record, register.Request]]] = []
    open_batch: dict[tuple[type[register.Request], int], tuple[list[tuple[Record, register.Request]], int]] = {}
    for item in requests:
        key = _kind(item[1])
        batch, size = open_batch.get(key, ([], 0))
        if not batch or len(batch) >= MAX_ITEMS or size + _size(item[1]) > MAX_BYTES:
            batch, size = list[tuple[Record, register.Request]](), 0
            batches.append(batch)
        batch.append(item)
        open_batch[key] = (batch, size + _size(item[1]))
    return batches


def _frame(batch: list[tuple[Record, register.Request]], incarnation: str) -> wire.HostFrame:
    view = batch[0][1].view
    seals = [wire.SealItem(uid=each.uid, epoch=each.epoch) for _, each in batch if isinstance(each, register.Seal)]
    if seals:
        return wire.HostFrame(seal=wire.SealMany(view=view, items=seals, with_records=True, incarnation=incarnation))
    writes = [_write_item(each) for _, each in batch if isinstance(each, register.Write)]
    if writes:
        return wire.HostFrame(write=wire.WriteMany(view=view, items=writes, incarnation=incarnation))
    uids = [each.uid for _, each in batch]
    return wire.HostFrame(read=wire.ReadMany(view=view, uids=uids, incarnation=incarnation))


def _write_item(write: register.Write) -> wire.WriteItem:
    return wire.WriteItem(
        uid=write.uid,
        version=_to_wire(write.version),
        base=None if write.base is None else _to_wire(write.base),
        puts=write.puts,
        deletes=write.deletes,
    )


def _to_wire(version: register.Version) -> WireVersion:
    return WireVersion(epoch=version.epoch, seq=version.seq)


def _from_wire(version: WireVersion) -> register.Version:
    return register.Version(version.epoch, version.seq)


_VERDICTS: Mapping[wire.StoreVerdict.ValueType, register.Verdict] = {
    wire.STORE_VERDICT_OK: register.Verdict.OK,
    wire.STORE_VERDICT_FENCED: register.Verdict.FENCED,
    wire.STORE_VERDICT_STALE: register.Verdict.STALE,
    wire.STORE_VERDICT_NEED_BASE: register.Verdict.NEED_BASE,
    wire.STORE_VERDICT_JOINING: register.Verdict.JOINING,
    wire.STORE_VERDICT_OTHER_VIEW: register.Verdict.OTHER_VIEW,
    wire.STORE_VERDICT_DELETED: register.Verdict.DELETED,
    wire.STORE_VERDICT_BEHIND: register.Verdict.BEHIND,
    wire.STORE_VERDICT_TOO_LARGE: register.Verdict.TOO_LARGE,
    wire.STORE_VERDICT_FAILED: register.Verdict.FAILED,
}


def _verdict(value: wire.StoreVerdict.ValueType) -> register.Verdict:
    """An unknown verdict, of a newer server, is a refusal: nothing may be built on it."""
    return _VERDICTS.get(value, register.Verdict.FAILED)


def _answers(frame: wire.ServerFrame) -> list[register.Answer]:
    match frame.WhichOneof("body"):
        case "sealed":
            return [
                register.Sealed(
                    verdict=_verdict(item.verdict),
                    sealed=item.sealed,
                    version=_from_wire(item.version),
                    entries=dict(item.record.entries) if item.HasField("record") else None,
                )
                for item in frame.sealed.items
            ]
        case "written":
            return [
                register.Written(
                    verdict=_verdict(item.verdict),
                    sealed=item.sealed,
                    version=_from_wire(item.version),
                    message=item.message,
                )
                for item in frame.written.items
            ]
        case "records":
            return [
                register.Record(version=_from_wire(item.version), entries=dict(item.entries))
                for item in frame.records.items
            ]
        case _:
            return []
