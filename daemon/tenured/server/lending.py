"""What a server tells another one whose disk was replaced (protocol 2, rejoin 4)."""

from __future__ import annotations

from tenure_api.identity import Identity
from tenure_proto.v1 import common_pb2, hostlink_pb2, store_pb2
from tenured.core.cells import Verdict, Version, guard_view
from tenured.server.replica import Replica
from tenured.storage import Register
from tenured.transport.serving import Invalid

VIEW_WAIT_S = 1.0
"""How long a request waits for this server to learn of its view before it is answered OTHER_VIEW."""
PAGE_MAX = 1000
"""Heads in one answer."""


class Lender:
    """Implements `transport.storelink.StoreHandler`: a record is told as it is on the disk, synced."""

    def __init__(self, replica: Replica, register: Register) -> None:
        self._replica = replica
        self._register = register
        self.progress: dict[str, str] = {}
        """server -> "120/1000": how far it has got, as it last said; for the status."""

    async def list_records(
        self, peer: Identity, request: store_pb2.ListRecordsRequest
    ) -> store_pb2.ListRecordsResponse:
        """A page of records without their entries."""
        verdict = await self._view(request.view)
        if verdict is not Verdict.OK:
            return store_pb2.ListRecordsResponse(verdict=_wire(verdict))
        page = await self._register.page(request.after_uid, max(1, min(request.limit, PAGE_MAX)))
        verdict = Verdict.FAILED if page is None else self._again(request.view)
        if page is None or verdict is not Verdict.OK:
            return store_pb2.ListRecordsResponse(verdict=_wire(verdict))
        self._note(peer.holder, f"{request.done}/{page.total}")
        return store_pb2.ListRecordsResponse(
            verdict=_wire(Verdict.OK),
            heads=[
                store_pb2.RecordHead(uid=head.uid, sealed=head.sealed, version=_version(head.version))
                for head in page.heads
            ],
            more=page.more,
            total=page.total,
        )

    async def fetch_records(
        self, _: Identity, request: store_pb2.FetchRecordsRequest
    ) -> store_pb2.FetchRecordsResponse:
        """Whole records, as many as fit into one answer."""
        if len(request.uids) > PAGE_MAX:
            raise Invalid(f"At most {PAGE_MAX} records in one request.")
        verdict = await self._view(request.view)
        if verdict is not Verdict.OK:
            return store_pb2.FetchRecordsResponse(verdict=_wire(verdict))
        readings = await self._register.read_many(list(request.uids))
        verdict = self._again(request.view)
        if verdict is not Verdict.OK:
            return store_pb2.FetchRecordsResponse(verdict=_wire(verdict))
        return store_pb2.FetchRecordsResponse(
            verdict=_wire(Verdict.OK),
            items=[
                store_pb2.FetchedRecord(
                    uid=reading.uid,
                    version=_version(reading.version),
                    entries=reading.entries,
                    message=reading.message,
                )
                for reading in readings
            ],
        )

    async def _view(self, view: int) -> Verdict:
        if view > self._replica.registry.view:
            await self._replica.until(lambda: self._replica.registry.view >= view, VIEW_WAIT_S)
        return self._again(view)

    def _again(self, view: int) -> Verdict:
        """Before the disk is asked, and again before the answer: the view may have changed meanwhile [view]."""
        return guard_view(view, self._replica.registry.view, joining=self._register.joining)

    def _note(self, server: str, text: str) -> None:
        if server in self._replica.registry.servers:
            self.progress[server] = text


def _wire(verdict: Verdict) -> hostlink_pb2.StoreVerdict.ValueType:
    return hostlink_pb2.StoreVerdict.Value(f"STORE_VERDICT_{verdict}")


def _version(version: Version) -> common_pb2.Version:
    return common_pb2.Version(epoch=version.epoch, seq=version.seq)
