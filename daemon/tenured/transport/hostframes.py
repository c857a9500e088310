"""`HostLink` by framed TLS, on the servers' port 7447: a frame is one HostFrame, or one ServerFrame (docs/adr/0029).

A message on a stream of gRPC costs a host and a server a third of a millisecond of their processors, and each commit
of a turn is one to every server. The listener's first frame says that it is open; then the frames of
`tenured.transport.hostlink` follow, and beats (`tenure_frames.Link`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from tenure_api.identity import Identity
from tenure_frames import FrameStream, Link
from tenure_proto.v1.hostlink_pb2 import HostFrame, ServerFrame
from tenured.transport.departures import Departures
from tenured.transport.framed import opened
from tenured.transport.hostlink import MAX_QUEUED, HostLinkHandler, HostSession
from tenured.transport.tls import TlsFiles

MessageT = TypeVar("MessageT", bound=Message)
_log = logging.getLogger(__name__)


class FramesLink(Link):
    """One connection, either side."""

    def __init__(self, stream: FrameStream, on_frame: Callable[[bytes], None]) -> None:
        """`on_frame`: called on the loop for each frame; raises DecodeError for one that is none."""

        def guarded(frame: bytes) -> None:
            try:
                on_frame(frame)
            except DecodeError as error:
                _log.warning("a peer sent what is no frame of this link: %s", error)
                stream.cut()

        super().__init__(stream, guarded)


def encoded(messages: list[MessageT]) -> Iterator[bytes]:
    """A frame each."""
    return (message.SerializeToString() for message in messages)


def serve(handler: HostLinkHandler, peer: Identity, stream: FrameStream) -> None:
    """One connection of a host at a server, from now on until it ends. Returns at once; nothing is sent before that."""
    frames: Departures[ServerFrame] = Departures(stream, encoded, MAX_QUEUED)
    session = HostSession(peer, frames, stream.cut)
    FramesLink(stream, lambda frame: handler.frame(session, HostFrame.FromString(frame)))
    stream.lost.add_done_callback(lambda _: handler.closed(session))
    handler.opened(session)


async def open_link(address: str, expected: str, files: TlsFiles, on_frame: Callable[[bytes], None]) -> FramesLink:
    """A host's link to the server with the DNS name `expected`, at `address` (host:port, 7447).

    Raises NotConnected, PeerRefused and BadFiles.
    """
    stream, early = await opened(address, expected, files)
    link = FramesLink(stream, on_frame)
    for frame in early:
        stream.on_frame(frame)
    return link
