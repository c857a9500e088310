"""The embedded state store as a holder uses it: carries what `core.owner.Owner` asks for, many records a frame,
over the links to the servers.

All decisions are the owner's. Here: batching (one frame of a kind per server and loop turn), conversion to and from the
wire, repeats by the clock, and futures for those who wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from tenure_proto.v1 import hostlink_pb2 as wire
from tenure_proto.v1.common_pb2 import Version as WireVersion
from tenured.core import cells, frames
from tenured.core.owner import FIRST_EPOCH
from tenured.core.peers import RETRY_NS
from tenured.host.owned import OwnedRecord, OwnedRecords
from tenured.host.stores import Record, RecordDeleted, RecordFenced, RecordLost, RecordUnreadable
from tenured.transport.errors import TransportError
from tenured.transport.serverlinks import ServerLinks

__all__ = ["Record", "RecordDeleted", "RecordFenced", "RecordLost", "RecordUnreadable", "Store"]

log = logging.getLogger("tenured.host.store")

ANSWER_TIMEOUT_S = 10.0
"""How long an answer may take to count; the owner repeats on its own, sooner."""
MAX_ITEMS = 400
"""Of one frame: encoding it must not hold the loop for more than 5 ms."""
MAX_BYTES = 4 * 1024 * 1024
"""Of one frame, unless a single record is larger."""
WINDOW = 2
"""Frames under way to a server. What comes meanwhile goes together in the next one: the server commits one group after
the other anyway, so that a third would only wait there, and each frame costs both sides as much as some of its items.
"""
WINDOW_S = 0.05
"""A frame without an answer for so long is not waited for: one server's silence must not hold up its queue."""


class Store(OwnedRecords):
    """All records of this host, over all links."""

    def __init__(self, links: ServerLinks, incarnation: str, clock: Callable[[], int]) -> None:
        """`incarnation`: of this process; servers let it seal only what is assigned to it."""
        super().__init__(clock)
        self._links = links
        self._incarnation = incarnation
        self._queued: dict[str, list[tuple[OwnedRecord, frames.Request]]] = {}
        self._under_way: Counter[str] = Counter()
        self._view = 0

    def open(
        self, uid: str, epoch: int, *, expect_state: bool, bare: bool = False, known: frames.Known | None = None
    ) -> OwnedRecord:
        """Starts to seal the epoch, if it is not the first of its uid; many opened in one loop turn share a frame
        (protocol additions 6).
        """
        # While no server is connected the links know no view; one that asks under an older one asks for ever.
        self.view_may_have_changed()
        names = self._links.names
        first = epoch == FIRST_EPOCH and not (expect_state or bare or known)  # [first_epoch]
        owner = self.owner(
            uid, epoch, names, view=self._view, expect_state=expect_state, bare=bare, known=known, first=first
        )
        return self._begin(owner, set(names) - self._links.connected)

    async def keep_repeating(self) -> None:
        """Repeats what had no answer. Runs until cancelled."""
        while True:
            await asyncio.sleep(RETRY_NS / 2 / 1e9)
            now = self._clock()
            for record in list(self._open):
                if record.owner.busy:
                    self._dispatch(record, record.owner.tick(now))
                else:
                    del self._open[record]

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

    def _enqueue(self, record: OwnedRecord, send: frames.Send) -> None:
        self._queued.setdefault(send.server, []).append((record, send.request))

    def _flush(self) -> None:
        ready = [server for server in self._queued if self._under_way[server] < WINDOW]
        queued = {server: self._queued.pop(server) for server in ready}
        # Most often all servers get the same: then they get the same frames, made once.
        made: dict[tuple[int, ...], list[tuple[list[tuple[OwnedRecord, frames.Request]], wire.HostFrame]]] = {}
        for server, requests in queued.items():
            key = tuple(id(request) for _, request in requests)
            if key not in made:
                made[key] = [(batch, _frame(batch, self._incarnation)) for batch in _batches(requests)]
            for batch, frame in made[key]:
                try:
                    future = self._links.submit(server, frame, ANSWER_TIMEOUT_S)
                except TransportError:
                    continue  # not connected: the owner repeats when it is
                self._count(server, future)
                future.add_done_callback(partial(self._answered, server, batch))

    def _count(self, server: str, future: asyncio.Future[wire.ServerFrame]) -> None:
        """A frame is under way until it is answered, or has not been for `WINDOW_S`."""
        self._under_way[server] += 1
        timer: asyncio.TimerHandle

        def over(_: object = None) -> None:
            if not timer.cancelled():
                timer.cancel()
                self._under_way[server] -= 1
                if server in self._queued:
                    self._flush_soon()

        timer = asyncio.get_running_loop().call_later(WINDOW_S, over)
        future.add_done_callback(over)

    def _answered(
        self, server: str, batch: list[tuple[OwnedRecord, frames.Request]], done: asyncio.Future[wire.ServerFrame]
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


_Kind = tuple[type[frames.Request], int, bool]


def _kind(request: frames.Request) -> _Kind:
    return type(request), request.view, isinstance(request, frames.Seal) and request.bare


def _size(request: frames.Request) -> int:
    return sum(map(len, request.puts.values())) if isinstance(request, frames.Write) else 64


def _batches(requests: list[tuple[OwnedRecord, frames.Request]]) -> list[list[tuple[OwnedRecord, frames.Request]]]:
    """Requests of one kind and view together, in order within a record (writes of one record are all of one kind)."""
    batches: list[list[tuple[OwnedRecord, frames.Request]]] = []
    open_batch: dict[tuple[type[frames.Request], int, bool], tuple[list[tuple[OwnedRecord, frames.Request]], int]] = {}
    for item in requests:
        key = _kind(item[1])
        batch, size = open_batch.get(key, ([], 0))
        if not batch or len(batch) >= MAX_ITEMS or size + _size(item[1]) > MAX_BYTES:
            batch, size = list[tuple[OwnedRecord, frames.Request]](), 0
            batches.append(batch)
        batch.append(item)
        open_batch[key] = (batch, size + _size(item[1]))
    return batches


def _frame(batch: list[tuple[OwnedRecord, frames.Request]], incarnation: str) -> wire.HostFrame:
    view = batch[0][1].view
    seals = [wire.SealItem(uid=each.uid, epoch=each.epoch) for _, each in batch if isinstance(each, frames.Seal)]
    if seals:
        first = batch[0][1]
        full = not (isinstance(first, frames.Seal) and first.bare)
        return wire.HostFrame(seal=wire.SealMany(view=view, items=seals, with_records=full, incarnation=incarnation))
    writes = [_write_item(each) for _, each in batch if isinstance(each, frames.Write)]
    if writes:
        return wire.HostFrame(write=wire.WriteMany(view=view, items=writes, incarnation=incarnation))
    uids = [each.uid for _, each in batch]
    return wire.HostFrame(read=wire.ReadMany(view=view, uids=uids, incarnation=incarnation))


def _write_item(write: frames.Write) -> wire.WriteItem:
    return wire.WriteItem(
        uid=write.uid,
        version=_to_wire(write.version),
        base=None if write.base is None else _to_wire(write.base),
        puts=write.puts,
        deletes=write.deletes,
    )


def _to_wire(version: cells.Version) -> WireVersion:
    return WireVersion(epoch=version.epoch, seq=version.seq)


def _from_wire(version: WireVersion) -> cells.Version:
    return cells.Version(version.epoch, version.seq)


_VERDICTS: Mapping[wire.StoreVerdict.ValueType, cells.Verdict] = {
    wire.STORE_VERDICT_OK: cells.Verdict.OK,
    wire.STORE_VERDICT_FENCED: cells.Verdict.FENCED,
    wire.STORE_VERDICT_STALE: cells.Verdict.STALE,
    wire.STORE_VERDICT_NEED_BASE: cells.Verdict.NEED_BASE,
    wire.STORE_VERDICT_JOINING: cells.Verdict.JOINING,
    wire.STORE_VERDICT_OTHER_VIEW: cells.Verdict.OTHER_VIEW,
    wire.STORE_VERDICT_DELETED: cells.Verdict.DELETED,
    wire.STORE_VERDICT_BEHIND: cells.Verdict.BEHIND,
    wire.STORE_VERDICT_TOO_LARGE: cells.Verdict.TOO_LARGE,
    wire.STORE_VERDICT_FAILED: cells.Verdict.FAILED,
}


def _verdict(value: wire.StoreVerdict.ValueType) -> cells.Verdict:
    """An unknown verdict, of a newer server, is a refusal: nothing may be built on it."""
    return _VERDICTS.get(value, cells.Verdict.FAILED)


def _answers(frame: wire.ServerFrame) -> list[frames.Answer]:
    match frame.WhichOneof("body"):
        case "sealed":
            return [
                frames.Sealed(
                    verdict=_verdict(item.verdict),
                    sealed=item.sealed,
                    version=_from_wire(item.version),
                    entries=dict(item.record.entries) if item.HasField("record") else None,
                    wake=item.wake,
                )
                for item in frame.sealed.items
            ]
        case "written":
            return [
                frames.Written(
                    verdict=_verdict(item.verdict),
                    sealed=item.sealed,
                    version=_from_wire(item.version),
                    message=item.message,
                )
                for item in frame.written.items
            ]
        case "records":
            return [
                frames.Record(version=_from_wire(item.version), entries=dict(item.entries))
                for item in frame.records.items
            ]
        case _:
            return []
