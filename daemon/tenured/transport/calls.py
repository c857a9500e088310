"""The `Calls` service (hosts serve it, servers pass it on) and its client: one stream per peer, many calls a
message."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Protocol

from grpc import aio

from tenure_api.identity import Identity
from tenure_proto.v1.calls_pb2 import Call, CallBatch, LogBatch, LogsRequest, Reply, ReplyBatch
from tenure_proto.v1.common_pb2 import OUTCOME_NOT_APPLIED, OUTCOME_UNKNOWN, Error
from tenured.transport.errors import LinkLost, NotConnected, TimedOut, TransportError, wrap
from tenured.transport.outbox import Outbox
from tenured.transport.serving import Duplex, EncodedStream, Method, duplex, server_stream
from tenured.transport.tls import TlsFiles, open_channel

SESSION = "/tenure.v1.Calls/Session"
LOGS = "/tenure.v1.Calls/Logs"
MAX_UNDER_WAY = 4096
"""Calls of one session that may be unanswered; more are answered `Busy` at once."""
MAX_WAITING = MAX_UNDER_WAY * 2
"""Replies that may wait to be sent."""


Answered = Callable[[Reply], None]


class CallsHandler(Protocol):
    """What serves `Calls`."""

    def begin(self, peer: Identity, call: Call, answered: Answered, /) -> None:
        """Have one call answered within `call.timeout_ms`: `answered` is to be called once. `seq` of the reply is
        filled in by the adapter. What is raised is answered as a defect.
        """
        ...

    def logs(self, peer: Identity, request: LogsRequest, /) -> AsyncIterator[LogBatch]:
        """Lines of one agent's log, until the caller goes or the iterator ends."""
        ...


class InTasks:
    """A base for handlers that answer each call in a coroutine."""

    def __init__(self) -> None:
        self._calls: set[asyncio.Task[None]] = set()

    async def call(self, peer: Identity, call: Call, /) -> Reply:
        """Answer one call within `call.timeout_ms`."""
        raise NotImplementedError

    def begin(self, peer: Identity, call: Call, answered: Answered) -> None:
        """See CallsHandler."""
        task = asyncio.get_running_loop().create_task(self._answer(peer, call, answered))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _answer(self, peer: Identity, call: Call, answered: Answered) -> None:
        try:
            reply = await self.call(peer, call)
        except Exception as error:  # noqa: BLE001 - a defect in one call must not end the stream of the others
            reply = defect(error)
        answered(reply)


def methods(handler: CallsHandler) -> list[Method]:
    """The service, for a listener."""

    async def session(peer: Identity, stream: Duplex[CallBatch, ReplyBatch]) -> None:
        await _Session(peer, handler).run(stream)

    async def logs(peer: Identity, request: LogsRequest, stream: EncodedStream) -> None:
        async for batch in handler.logs(peer, request):
            await stream.write(batch.SerializeToString())

    return [duplex(SESSION, CallBatch, session), server_stream(LOGS, LogsRequest, logs)]


class Replies(Protocol):
    """Where replies wait to be sent."""

    def __len__(self) -> int:
        """How many wait."""
        ...

    def put(self, item: Reply, /) -> bool:
        """Queue one; false: it was dropped."""
        ...


class Answering:
    """The calls of one connection: each is answered on its own, in `outbox`.

    When the connection ends those under way go on: what they commit is kept, and their caller repeats the call id
    elsewhere.
    """

    def __init__(self, peer: Identity, handler: CallsHandler, outbox: Replies) -> None:
        self.outbox = outbox
        self.under_way = 0
        self._peer = peer
        self._handler = handler
        self._idle: asyncio.Future[None] | None = None

    def take(self, calls: Iterable[Call]) -> None:
        """Begin what has come."""
        for call in calls:
            if self.under_way >= MAX_UNDER_WAY:
                self.outbox.put(Reply(seq=call.seq, error=_busy()))
                continue
            self.under_way += 1
            answered = partial(self._answered, call.seq)
            try:
                self._handler.begin(self._peer, call, answered)
            except Exception as error:  # noqa: BLE001 - a defect in one call must not end the stream of the others
                answered(defect(error))

    async def drained(self) -> None:
        """Until all that was begun is answered, and its answers were taken."""
        while self.under_way or len(self.outbox):
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle if self.under_way else await asyncio.sleep(0)

    def _answered(self, seq: int, reply: Reply) -> None:
        reply.seq = seq
        self.under_way -= 1
        self.outbox.put(reply)
        if not self.under_way and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)


class _Session:
    """One open stream of a caller, by gRPC."""

    def __init__(self, peer: Identity, handler: CallsHandler) -> None:
        self._outbox: Outbox[Reply] = Outbox(MAX_WAITING)
        self._answering = Answering(peer, handler, self._outbox)

    async def run(self, stream: Duplex[CallBatch, ReplyBatch]) -> None:
        outbox = self._outbox
        reader = asyncio.ensure_future(self._read(stream))
        try:
            while replies := await outbox.take():
                await stream.write(ReplyBatch(replies=replies))
        finally:
            outbox.close()
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def _read(self, stream: Duplex[CallBatch, ReplyBatch]) -> None:
        try:
            async for batch in stream:
                self._answering.take(batch.calls)
            await self._answering.drained()  # the caller sends no more, but still reads
        finally:
            self._outbox.close()


def defect(error: Exception) -> Reply:
    """What is said of a call that met a defect of ours."""
    return Reply(error=Error(code="Internal", message=f"{type(error).__name__}: {error}", outcome=OUTCOME_UNKNOWN))


def _busy() -> Error:
    return Error(
        code="Busy",
        message=f"{MAX_UNDER_WAY} calls of this connection are unanswered.",
        outcome=OUTCOME_NOT_APPLIED,
        retryable=True,
    )


class CallsClient:
    """One `Calls` stream to one peer. Opened by the first call, and again by the next call after a loss."""

    def __init__(self, address: str, expected: str, files: TlsFiles) -> None:
        """`expected`: the DNS name in the peer's certificate."""
        self.address = address
        self._expected = expected
        self._files = files
        self._stream: _ClientStream | None = None
        self._opening = asyncio.Lock()

    async def call(self, call: Call, timeout_s: float) -> Reply:
        """Send the call and wait for its reply. `seq` is this stream's own; the reply carries the caller's again.

        Raises NotConnected, PeerRefused (not applied), LinkLost, TimedOut (unknown).
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        stream = await self._open(timeout_s)
        seq = call.seq
        try:
            reply = await stream.submit(call, deadline - loop.time())
        finally:
            call.seq = seq
        reply.seq = seq
        return reply

    async def logs(self, request: LogsRequest) -> AsyncIterator[LogBatch]:
        """Batches of log lines until the peer ends. Raises TransportError."""
        channel = open_channel(self.address, self._expected, self._files)
        try:
            method: aio.UnaryStreamMultiCallable[LogsRequest, LogBatch] = channel.unary_stream(
                LOGS, LogsRequest.SerializeToString, LogBatch.FromString
            )
            async for batch in method(request):
                yield batch
        except aio.AioRpcError as error:
            raise wrap(error, self.address, sent=True) from error
        finally:
            await channel.close()

    async def close(self) -> None:
        """End the stream; calls under way end with LinkLost."""
        if self._stream is not None:
            await self._stream.close()
            self._stream = None

    async def _open(self, timeout_s: float) -> _ClientStream:
        async with self._opening:
            if self._stream is not None and self._stream.alive:
                return self._stream
            stream = _ClientStream(self.address, self._expected, self._files)
            await stream.open(min(timeout_s, 2.0))
            self._stream = stream
            return stream


class _ClientStream:
    def __init__(self, address: str, expected: str, files: TlsFiles) -> None:
        self._address = address
        self._channel = open_channel(address, expected, files)
        self._outbox: Outbox[Call] = Outbox(MAX_UNDER_WAY * 2)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._next = 0
        self._task: asyncio.Task[None] | None = None
        self._failure: TransportError | None = None

    @property
    def alive(self) -> bool:
        return not self._outbox.closed

    async def open(self, timeout_s: float) -> None:
        """Wait until the connection stands: what fails before is `not applied`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._channel.channel_ready()
        except TimeoutError as error:
            await self._channel.close()
            raise NotConnected(f"No connection to {self._address} within {timeout_s:.1f} s") from error
        method: aio.StreamStreamMultiCallable[CallBatch, ReplyBatch] = self._channel.stream_stream(
            SESSION, CallBatch.SerializeToString, ReplyBatch.FromString
        )
        self._task = asyncio.get_running_loop().create_task(self._run(method()))

    async def submit(self, call: Call, timeout_s: float) -> Reply:
        self._next += 1
        seq = self._next
        copy = Call()
        copy.CopyFrom(call)  # the queue holds it until it is written; the caller may send its own again elsewhere
        copy.seq = seq
        if not self._outbox.put(copy):
            raise self._failure or NotConnected(f"The connection to {self._address} has just ended")
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[seq] = future
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError as error:
            raise TimedOut(f"{self._address} did not answer within {timeout_s:.1f} s") from error
        finally:
            self._waiting.pop(seq, None)

    async def close(self) -> None:
        self._outbox.close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, call: aio.StreamStreamCall[CallBatch, ReplyBatch]) -> None:
        writer = asyncio.ensure_future(self._write(call))
        try:
            while isinstance(batch := await call.read(), ReplyBatch):
                for reply in batch.replies:
                    future = self._waiting.get(reply.seq)
                    if future is not None and not future.done():
                        future.set_result(reply)
        except aio.AioRpcError as error:
            self._failure = wrap(error, self._address, sent=True)
        finally:
            self._outbox.close()
            writer.cancel()
            call.cancel()
            failure = self._failure or LinkLost(f"The connection to {self._address} ended before the answer")
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(failure)
            await self._channel.close()

    async def _write(self, call: aio.StreamStreamCall[CallBatch, ReplyBatch]) -> None:
        with contextlib.suppress(aio.AioRpcError, asyncio.InvalidStateError):
            while calls := await self._outbox.take():
                await call.write(CallBatch(calls=calls))
