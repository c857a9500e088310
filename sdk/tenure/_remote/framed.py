"""Calls to a host by framed TLS: the same as `sessions.Session`, at a tenth of a gRPC stream's processor time."""

from __future__ import annotations

import asyncio
import functools
import ssl

from google.protobuf.message import DecodeError

from tenure._remote.sessions import SessionLost, ended
from tenure.errors import InvalidArguments
from tenure_frames import LONG_FRAME_LIMIT, FrameStream, Link, NotOpened, opened
from tenure_proto.v1 import calls_pb2

FRAME_BYTES = 1 << 20
"""Calls of so many bytes leave in a frame, or one that is longer."""
_AROUND = 64
"""Bytes that a batch adds to a call, at most."""


class FramedSession:
    """Connects when it is made. Once lost it stays lost: make another."""

    def __init__(self, peer: str, expected: str, context: ssl.SSLContext) -> None:
        """`peer`: host:port; `expected`: the DNS name in its certificate."""
        self.peer = peer
        self.lost: str = ""
        """Why it ended; empty: it has not."""
        self.opened = False
        """It stood, if only for a moment."""
        self.heard = float("-inf")
        """When the last replies came, on the loop's clock."""
        self._waiting: dict[int, asyncio.Future[calls_pb2.Reply]] = {}
        self._unsent = calls_pb2.CallBatch()
        self._size = 0
        self._next = 0
        self._flushing = False
        self._stream: FrameStream | None = None
        self._task = asyncio.get_running_loop().create_task(self._connect(expected, context))

    @property
    def waiting(self) -> int:
        """How many calls have no answer yet."""
        return len(self._waiting)

    def send(self, call: calls_pb2.Call) -> asyncio.Future[calls_pb2.Reply]:
        """Send a copy of the call; the reply comes in the future, or SessionLost, or InvalidArguments (too long)."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[calls_pb2.Reply] = loop.create_future()
        size = call.ByteSize() + _AROUND
        if self.lost:
            future.set_exception(SessionLost(self.lost, sent=False))
        elif size > LONG_FRAME_LIMIT:
            words = f"the arguments have {size >> 20} MiB; a call may have {LONG_FRAME_LIMIT >> 20}"
            future.set_exception(InvalidArguments(words, agent=call.agent))
        else:
            if self._size and self._size + size > FRAME_BYTES:
                self._flush()
            self._add(call, size, future)
            if not self._flushing:
                self._flushing = True
                loop.call_soon(self._flush_turn)
        return future

    def _add(self, call: calls_pb2.Call, size: int, future: asyncio.Future[calls_pb2.Reply]) -> None:
        self._next += 1
        numbered = self._unsent.calls.add()
        numbered.CopyFrom(call)
        numbered.seq = self._next
        self._size += size
        self._waiting[self._next] = future
        future.add_done_callback(functools.partial(self._forget, self._next))

    def _forget(self, number: int, _: object) -> None:
        self._waiting.pop(number, None)

    def _flush_turn(self) -> None:
        """What one turn of the loop asked for leaves together."""
        self._flushing = False
        self._flush()

    def _flush(self) -> None:
        if self._stream is not None and self._size:
            batch, self._unsent, self._size = self._unsent, calls_pb2.CallBatch(), 0
            self._stream.send(batch.SerializeToString())  # False: the end of the connection is told to all

    async def close(self) -> None:
        """End the connection; what waits gets SessionLost."""
        self._fail("the session was closed")
        await ended([self._task])

    async def _connect(self, expected: str, context: ssl.SSLContext) -> None:
        try:
            stream, early = await opened(self.peer, expected, context)
        except NotOpened as error:
            self._fail(str(error))
            return
        try:
            self.opened, self._stream = True, stream
            Link(stream, self._came)
            for frame in early:
                stream.on_frame(frame)
            self._flush()
            await stream.lost
            self._fail("the connection ended")
        finally:
            stream.cut()

    def _came(self, frame: bytes) -> None:
        try:
            replies = calls_pb2.ReplyBatch.FromString(frame).replies
        except DecodeError as error:
            self._fail(f"sent what is no batch of replies: {error}")
            return
        self.heard = asyncio.get_running_loop().time()
        for reply in replies:
            future = self._waiting.get(reply.seq)
            if future is not None and not future.done():
                future.set_result(reply)

    def _fail(self, why: str) -> None:
        if self.lost:
            return
        self.lost = f"{self.peer}: {why}"
        if self._stream is not None:
            self._stream.cut()
        for future in list(self._waiting.values()):
            if not future.done():
                future.set_exception(SessionLost(self.lost, sent=self.opened))
        self._waiting.clear()
