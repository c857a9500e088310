"""The `Store` service: between servers, for the one whose disk was replaced."""

from __future__ import annotations

from typing import Protocol

from grpc import aio

from tenure_api.identity import Identity
from tenure_proto.v1.store_pb2 import (
    FetchRecordsRequest,
    FetchRecordsResponse,
    ListRecordsRequest,
    ListRecordsResponse,
)
from tenured.transport.errors import wrap
from tenured.transport.serving import Method, unary
from tenured.transport.tls import TlsFiles, open_channel

_SERVICE = "/tenure.v1.Store/"


class StoreHandler(Protocol):
    """What a server of `Store` does."""

    async def list_records(self, peer: Identity, request: ListRecordsRequest, /) -> ListRecordsResponse:
        """Records without their entries, in the order of their uids."""
        ...

    async def fetch_records(self, peer: Identity, request: FetchRecordsRequest, /) -> FetchRecordsResponse:
        """Whole records."""
        ...


def methods(handler: StoreHandler) -> list[Method]:
    """The service, for the peer listener."""
    return [
        unary(f"{_SERVICE}List", ListRecordsRequest, handler.list_records),
        unary(f"{_SERVICE}Fetch", FetchRecordsRequest, handler.fetch_records),
    ]


class StoreClient:
    """One other server's store. Close it when done."""

    def __init__(self, address: str, expected: str, files: TlsFiles) -> None:
        """`address`: host:port of the peer port; `expected`: DNS name in its certificate. Raises BadFiles."""
        self._address = address
        self._channel = open_channel(address, expected, files)
        self._list: aio.UnaryUnaryMultiCallable[ListRecordsRequest, ListRecordsResponse] = self._channel.unary_unary(
            f"{_SERVICE}List", ListRecordsRequest.SerializeToString, ListRecordsResponse.FromString
        )
        self._fetch: aio.UnaryUnaryMultiCallable[FetchRecordsRequest, FetchRecordsResponse] = self._channel.unary_unary(
            f"{_SERVICE}Fetch", FetchRecordsRequest.SerializeToString, FetchRecordsResponse.FromString
        )

    async def list_records(self, request: ListRecordsRequest, timeout_s: float) -> ListRecordsResponse:
        """Ask for a page. Raises TransportError."""
        try:
            return await self._list(request, timeout=timeout_s)
        except aio.AioRpcError as error:
            raise wrap(error, self._address, sent=True) from error

    async def fetch_records(self, request: FetchRecordsRequest, timeout_s: float) -> FetchRecordsResponse:
        """Ask for records. Raises TransportError."""
        try:
            return await self._fetch(request, timeout=timeout_s)
        except aio.AioRpcError as error:
            raise wrap(error, self._address, sent=True) from error

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close()
