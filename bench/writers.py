"""Who writes in `bench.raft`: each kind of client, one row or key changed at a time."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Self

import grpc
from grpc import aio

from bench import etcd
from bench.servers import AGENTS, VALUE_BYTES, Servers, apply_request
from tenure_proto.v1 import registry_pb2
from tenure_proto.v1.changes_pb2 import Change, ChangeBatch, ChangedBatch
from tenured.transport.changes import STREAM as CHANGES
from tenured.transport.changes import ChangesLink, open_link

APPLY = "/tenure.v1.Registry/ApplyAgents"

_serials = itertools.count(1)


def our_write() -> registry_pb2.ApplyAgentsRequest:
    """One row, changed."""
    serial = next(_serials)
    return apply_request(serial % AGENTS, serial)


def their_write() -> bytes:
    """One key, changed."""
    serial = next(_serials)
    return etcd.put_request(b"k/%d" % (serial % AGENTS), serial.to_bytes(8, "big") * (VALUE_BYTES // 8))


def accepted(response: registry_pb2.ApplyAgentsResponse) -> None:
    """Raise unless the row was written."""
    if any(row.outcome != "configured" for row in response.results):
        raise SystemExit(f"a write ended as {response.results}")


def one_by_one(write: Callable[[], None], count: int) -> list[float]:
    """Milliseconds of each."""
    times: list[float] = []
    for _ in range(count):
        begin = time.perf_counter()
        write()
        times.append((time.perf_counter() - begin) * 1000)
    return times


async def each(write: Callable[[], Awaitable[None]], count: int) -> list[float]:
    """Milliseconds of each, one after the other."""
    times: list[float] = []
    for _ in range(count):
        begin = time.perf_counter()
        await write()
        times.append((time.perf_counter() - begin) * 1000)
    return times


if TYPE_CHECKING:
    OurUnary = grpc.UnaryUnaryMultiCallable[registry_pb2.ApplyAgentsRequest, registry_pb2.ApplyAgentsResponse]
    TheirUnary = grpc.UnaryUnaryMultiCallable[bytes, bytes]


def our_unary(channel: grpc.Channel, timeout_s: float = 10) -> Callable[[], None]:
    """A write by a unary call."""
    call: OurUnary = channel.unary_unary(
        APPLY, registry_pb2.ApplyAgentsRequest.SerializeToString, registry_pb2.ApplyAgentsResponse.FromString
    )
    return lambda: accepted(call(our_write(), timeout=timeout_s))


class Framed:
    """Writes on one `Changes` stream of framed TLS, each sent at once."""

    def __init__(self) -> None:
        """`open` makes one."""
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._link: ChangesLink | None = None

    @classmethod
    async def open(cls, servers: Servers, name: str) -> Self:
        """Connected to the server of that name."""
        made = cls()
        made._link = await open_link(*servers.framed(name), servers.files, made._answered)
        return made

    def _answered(self, batch: ChangedBatch) -> None:
        for answer in batch.answers:
            accepted(answer.applied)
            self._waiting.pop(answer.seq).set_result(None)

    async def write(self) -> None:
        """One row, changed."""
        serial = next(_serials)
        future = self._waiting[serial] = asyncio.get_running_loop().create_future()
        change = Change(seq=serial, apply=apply_request(serial % AGENTS, serial))
        if self._link is None or not self._link.send(ChangeBatch(changes=[change])):
            raise SystemExit("the stream of changes is over")
        await future

    async def close(self) -> None:
        """End the stream."""
        if self._link is not None:
            self._link.close()
            await self._link.lost


class Changes:
    """Writes on one `Changes` stream of gRPC: what waits while a message is on its way shares the next one."""

    def __init__(self, channel: aio.Channel) -> None:
        method: aio.StreamStreamMultiCallable[ChangeBatch, ChangedBatch] = channel.stream_stream(
            CHANGES, ChangeBatch.SerializeToString, ChangedBatch.FromString
        )
        self._call = method()
        self._queue: asyncio.Queue[Change] = asyncio.Queue()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._receive())]

    async def write(self) -> None:
        """One row, changed."""
        serial = next(_serials)
        future = self._waiting[serial] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(Change(seq=serial, apply=apply_request(serial % AGENTS, serial)))
        await future

    async def close(self) -> None:
        """End the stream."""
        for task in self._tasks:
            task.cancel()
        self._call.cancel()

    async def _send(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._call.write(ChangeBatch(changes=batch))

    async def _receive(self) -> None:
        while isinstance(batch := await self._call.read(), ChangedBatch):
            for answer in batch.answers:
                accepted(answer.applied)
                self._waiting.pop(answer.seq).set_result(None)


def their_unary(channel: grpc.Channel, timeout_s: float = 10) -> Callable[[], None]:
    """A put."""
    call: TheirUnary = channel.unary_unary(etcd.PUT)

    def write() -> None:
        call(their_write(), timeout=timeout_s)

    return write
