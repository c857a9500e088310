"""gRPC between simulated processes, for code that runs on it as it is: generated stubs on one side, the methods of a
listener (`transport.serving.Method`) on the other.

`Channel` has of `grpc.aio.Channel` what stubs ask for. Single requests share one connection; each stream has its own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any, NoReturn, cast

import grpc
from grpc import aio

from tenure_api.identity import Identity
from tenure_api.identity import Role as CertificateRole
from tenure_proto.v1.calls_pb2 import Call, CallBatch, LogBatch, LogsRequest, Reply, ReplyBatch
from tenured.simulation.links import identity
from tenured.simulation.machines import Process
from tenured.simulation.net import End
from tenured.transport import calls
from tenured.transport.errors import LinkLost, NotConnected, TimedOut, TransportError
from tenured.transport.serving import Method

RPC = "rpc"
AGAIN_S = 0.05
_SINGLE = ""
"""First message of a connection for single requests; of a stream it is the method's path."""

Answer = tuple[int, grpc.StatusCode, str, bytes]
"""Number of the request, how it ended, why, and what was answered."""


class _Aborted(Exception):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


class _Context:
    """What handlers need of `aio.ServicerContext`."""

    def __init__(self, peer: Identity, end: End, encode: Callable[[Any], bytes]) -> None:
        self.peer = peer
        self._end, self._encode = end, encode

    async def write(self, message: Any) -> None:
        """Send; to nobody when the peer is gone, as its reader hears soon."""
        self._end.write(self._encode(message))

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the request so."""
        raise _Aborted(code, details)


def listen(process: Process, methods: Sequence[Method], servers: Collection[str] = ()) -> None:
    """Serve these methods at the process's machine, for as long as it lives. Who is no server is a client."""

    async def check(context: Any) -> Identity:
        return cast("Identity", context.peer)

    served = {method.path: method.build(check) for method in methods}

    def accept(end: End, machine: str) -> None:
        role = CertificateRole.SERVER if machine in servers else CertificateRole.CLIENT
        process.spawn(_serve(process, served, end, identity(role, machine)))

    process.setting.net.listen(process.loop, process.machine.name, RPC, accept)


async def _serve(process: Process, served: dict[str, Any], end: End, peer: Identity) -> None:
    path = await end.read()
    if path == _SINGLE:
        while (request := await end.read()) is not None:
            process.spawn(_answer(served, end, peer, *request))
    elif path is not None:
        handler = served[path]
        requests = _decoded(end, handler.request_deserializer)
        try:
            await handler.stream_stream(requests, _Context(peer, end, handler.response_serializer))
        except _Aborted:
            pass  # the connection's end says it
        finally:
            end.close()


async def _answer(served: dict[str, Any], end: End, peer: Identity, number: int, path: str, data: bytes) -> None:
    handler = served.get(path)
    answer: Answer
    if handler is None:
        answer = (number, grpc.StatusCode.UNIMPLEMENTED, f"the simulation does not serve {path}", b"")
    else:
        try:
            reply = await handler.unary_unary(handler.request_deserializer(data), _Context(peer, end, bytes))
            answer = (number, grpc.StatusCode.OK, "", handler.response_serializer(reply))
        except _Aborted as error:
            answer = (number, error.code, error.details, b"")
    end.write(answer)


async def _decoded(end: End, decode: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    while (data := await end.read()) is not None:
        yield decode(data)


class Channel:
    """From one process to one machine."""

    def __init__(self, process: Process, machine: str) -> None:
        self._process, self._machine = process, machine
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._end: End | None = None
        self._dialling = asyncio.Lock()

    def unary_unary(
        self, path: str, request_serializer: Any, response_deserializer: Any, **_: object
    ) -> Callable[..., Any]:
        """A method of one request and one answer."""

        async def call(request: Any, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - gRPC's name
            return response_deserializer(await self._ask(path, request_serializer(request), timeout))

        return call

    def stream_stream(
        self, path: str, request_serializer: Any, response_deserializer: Any, **_: object
    ) -> Callable[[], Stream]:
        """A method of streams."""
        return lambda: Stream(self._process, self._machine, path, request_serializer, response_deserializer)

    def unary_stream(self, path: str, *_: object, **__: object) -> Callable[..., Any]:
        """A method of many answers."""

        def call(*_: object, **__: object) -> NoReturn:
            raise _failed(grpc.StatusCode.UNIMPLEMENTED, f"the simulation does not serve {path}")

        return call

    async def channel_ready(self) -> None:
        """Until there is a connection."""
        while True:
            try:
                await self._connected()
            except TransportError:
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def close(self) -> None:
        """End the connection."""
        if self._end is not None:
            self._end.close()

    async def _ask(self, path: str, data: bytes, timeout_s: float | None) -> bytes:
        number = next(self._numbers)
        future = self._waiting[number] = self._process.loop.create_future()
        try:
            async with asyncio.timeout(timeout_s):
                end = await self._connected()
                if not end.write((number, path, data)):
                    raise LinkLost("the connection has ended")
                answer = await future
        except TimeoutError as error:
            raise _failed(grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer of {self._machine}") from error
        except TransportError as error:
            raise _failed(grpc.StatusCode.UNAVAILABLE, str(error)) from error
        finally:
            del self._waiting[number]
        _, code, details, data = answer
        if code is not grpc.StatusCode.OK:
            raise _failed(code, details)
        return data

    async def _connected(self) -> End:
        async with self._dialling:
            if self._end is None or not self._end.open:
                process = self._process
                end = await process.setting.net.dial(process.loop, process.machine.name, self._machine, RPC)
                end.on_item, end.on_end = self._answered, self._lost
                end.write(_SINGLE)
                self._end = end
            return self._end

    def _answered(self, answer: Answer) -> None:
        future = self._waiting.get(answer[0])
        if future is not None and not future.done():
            future.set_result(answer)

    def _lost(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(LinkLost(f"{self._machine} is gone"))


class Stream:
    """Of `aio.StreamStreamCall` what the SDK's sessions use."""

    def __init__(self, process: Process, machine: str, path: str, encode: Any, decode: Any) -> None:
        self._machine, self._encode, self._decode = machine, encode, decode
        self._opening = process.loop.create_task(self._open(process, path))

    async def write(self, message: Any) -> None:
        """Send one message. Raises AioRpcError."""
        if not (await self._opened()).write(self._encode(message)):
            raise _failed(grpc.StatusCode.UNAVAILABLE, f"{self._machine} is gone")

    async def __aiter__(self) -> AsyncIterator[Any]:
        end = await self._opened()
        while (data := await end.read()) is not None:
            yield self._decode(data)
        raise _failed(grpc.StatusCode.UNAVAILABLE, f"{self._machine} is gone")

    def cancel(self) -> None:
        """End it."""
        if not self._opening.done():
            self._opening.cancel()
        elif not self._opening.cancelled() and self._opening.exception() is None:
            self._opening.result().close()

    async def _open(self, process: Process, path: str) -> End:
        end = await process.setting.net.dial(process.loop, process.machine.name, self._machine, RPC)
        end.write(path)
        return end

    async def _opened(self) -> End:
        try:
            return await asyncio.shield(self._opening)
        except TransportError as error:
            raise _failed(grpc.StatusCode.UNAVAILABLE, str(error)) from error


class Passed:
    """A server's stream of calls to one host (`server.passing.Client`)."""

    def __init__(self, process: Process, address: str) -> None:
        self.address = address
        self._process = process
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._stream: Stream | None = None

    async def call(self, call: Call, timeout_s: float) -> Reply:
        """Send it and wait. Raises NotConnected (not applied), LinkLost, TimedOut (unknown)."""
        copy = Call()
        copy.CopyFrom(call)
        copy.seq = next(self._numbers)
        if self._stream is None:
            self._stream = Channel(self._process, self.address).stream_stream(
                calls.SESSION, CallBatch.SerializeToString, ReplyBatch.FromString
            )()
            self._process.spawn(self._read(self._stream))
        future: asyncio.Future[Reply] = self._process.loop.create_future()
        self._waiting[copy.seq] = future
        try:
            async with asyncio.timeout(timeout_s):
                await self._write(self._stream, copy)
                reply = await future
        except TimeoutError as error:
            raise TimedOut(f"{self.address} did not answer") from error
        finally:
            self._waiting.pop(copy.seq, None)
        reply.seq = call.seq
        return reply

    async def logs(self, request: LogsRequest) -> AsyncIterator[LogBatch]:
        """Not simulated."""
        raise NotConnected(f"no logs of {request.agent} in a simulation")
        yield LogBatch()

    async def close(self) -> None:
        """End the stream."""
        if self._stream is not None:
            self._stream.cancel()

    async def _write(self, stream: Stream, call: Call) -> None:
        try:
            await stream.write(CallBatch(calls=[call]))
        except aio.AioRpcError as error:
            raise NotConnected(f"no connection to {self.address}") from error

    async def _read(self, stream: Stream) -> None:
        try:
            async for batch in stream:
                for reply in batch.replies:
                    future = self._waiting.get(reply.seq)
                    if future is not None and not future.done():
                        future.set_result(reply)
        except aio.AioRpcError as error:
            self._stream = None
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(LinkLost(f"{self.address}: {error.details()}"))


def _failed(code: grpc.StatusCode, details: str) -> aio.AioRpcError:
    return aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), details)
