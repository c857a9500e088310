"""Calls of clients to a host by framed TLS (docs/adr/0032): a frame is one CallBatch, or one ReplyBatch.

On the port on which other hosts send signals (7448). The first frame of the host says that it is open; both sides send
beats (`tenure_frames.Link`). The same calls by gRPC are in `tenured.transport.calls`; a client that cannot connect here
uses those.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from google.protobuf.message import DecodeError

from tenure_api.identity import Identity
from tenure_frames import OPEN, FrameStream, Link
from tenure_proto.v1.calls_pb2 import CallBatch, Reply, ReplyBatch
from tenured.transport.calls import MAX_WAITING, Answering, CallsHandler
from tenured.transport.departures import Departures

_log = logging.getLogger(__name__)

FRAME_BYTES = 1 << 20
"""Replies of so many bytes leave in a frame, or one that is longer."""


class CallFrames:
    """All connections of clients to one host."""

    def __init__(self, host: str, handler: CallsHandler) -> None:
        self._host = host
        self._handler = handler

    def accept(self, peer: Identity, stream: FrameStream) -> None:
        """Serve a connection whose peer was judged, until it ends."""
        answering = Answering(peer, self._handler, Departures(stream, _encoded, MAX_WAITING))

        def came(frame: bytes) -> None:
            try:
                answering.take(CallBatch.FromString(frame).calls)
            except DecodeError as error:
                _log.warning("%s sent what is no batch of calls: %s", peer.uri, error)
                stream.cut()

        Link(stream, came)
        stream.send(OPEN + self._host.encode())


def _encoded(replies: list[Reply]) -> Iterator[bytes]:
    return (batch.SerializeToString() for batch in in_frames(replies))


def in_frames(replies: Iterable[Reply]) -> Iterator[ReplyBatch]:
    """In their order, `FRAME_BYTES` in each."""
    batch, size = ReplyBatch(), 0
    for reply in replies:
        if size and size + reply.ByteSize() > FRAME_BYTES:
            yield batch
            batch, size = ReplyBatch(), 0
        size += reply.ByteSize()
        batch.replies.append(reply)
    yield batch
