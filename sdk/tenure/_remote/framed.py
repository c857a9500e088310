"""Calls to a host by framed TLS: the same as `sessions.Session`, at a tenth of a gRPC stream's processor time."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable

from tenure._remote.framing import OverFrames
from tenure._remote.sessions import SessionLost, failed
from tenure.errors import InvalidArguments
from tenure_frames import LONG_FRAME_LIMIT, FrameStream, Link
from tenure_proto.v1 import calls_pb2

FRAME_BYTES = 1 << 20
"""Calls of so many bytes leave in a frame, or one that is longer."""
_AROUND = 64
"""Bytes that a batch adds to a call, at most."""


class FramedSession(OverFrames[calls_pb2.Reply]):
    """One connection, to one host."""

    def __init__(self, peer: str, expected: str, context: ssl.SSLContext) -> None:
        super().__init__(peer, expected, context)
        self.heard = float("-inf")
        """When the last replies came, on the loop's clock."""
        self._unsent = calls_pb2.CallBatch()
        self._size = 0
        self._flushing = False

    def send(self, call: calls_pb2.Call) -> asyncio.Future[calls_pb2.Reply]:
        """Send a copy of the call; the reply comes in the future, or SessionLost, or InvalidArguments (too long)."""
        size = call.ByteSize() + _AROUND
        if self.lost:
            return failed(SessionLost(self.lost, sent=False))
        if size > LONG_FRAME_LIMIT:
            words = f"the arguments have {size >> 20} MiB; a call may have {LONG_FRAME_LIMIT >> 20}"
            return failed(InvalidArguments(words, agent=call.agent))
        if self._size and self._size + size > FRAME_BYTES:
            self._flush()
        number, future = self._expect()
        numbered = self._unsent.calls.add()
        numbered.CopyFrom(call)
        numbered.seq = number
        self._size += size
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush_turn)
        return future

    def _flush_turn(self) -> None:
        """What one turn of the loop asked for leaves together."""
        self._flushing = False
        self._flush()

    def _flush(self) -> None:
        if self._stream is not None and self._size:
            batch, self._unsent, self._size = self._unsent, calls_pb2.CallBatch(), 0
            self._stream.send(batch.SerializeToString())  # False: the end of the connection is told to all

    def _withdraw(self) -> None:
        """Calls that nobody waits for any more do not leave: it was said that they were not applied."""
        wanted = [call for call in self._unsent.calls if self._wanted(call.seq)]
        self._unsent, self._size = calls_pb2.CallBatch(calls=wanted), self._size if wanted else 0

    def _listen(self, stream: FrameStream) -> None:
        Link(stream, self._came)

    def _stood(self) -> None:
        self._withdraw()
        self._flush()

    def _read(self, frame: bytes) -> Iterable[calls_pb2.Reply]:
        replies = calls_pb2.ReplyBatch.FromString(frame).replies
        self.heard = asyncio.get_running_loop().time()
        return replies
