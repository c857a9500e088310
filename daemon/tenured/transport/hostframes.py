"""`HostLink` by framed TLS, on the servers' port 7447: a frame is one HostFrame, or one ServerFrame (docs/adr/0029).

A message on a stream of gRPC costs a host and a server a third of a millisecond of their processors, and each commit
of a turn is one to every server. The listener's first frame says that it is open; then the frames of
`tenured.transport.hostlink` follow. Each side sends an empty frame every `BEAT_S`, and ends a connection on which
nothing came for `SILENT_BEATS` of its own: TCP alone does not notice a frozen peer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence

from google.protobuf.message import DecodeError, Message

from tenure_api.identity import Identity
from tenure_proto.v1.hostlink_pb2 import HostFrame
from tenured.transport.errors import NotConnected, PeerRefused
from tenured.transport.framed import CONNECT_S, FrameStream, dial
from tenured.transport.hostlink import HostLinkHandler, HostSession
from tenured.transport.raft import OPEN
from tenured.transport.tls import TlsFiles

_log = logging.getLogger(__name__)

BEAT_S = 1.0
SILENT_BEATS = 3
"""Own beats and not seconds: after a pause of our own nobody is blamed for what we did not read."""
LIMIT = 64 << 20
"""Bytes of a frame: the largest record and what is around it."""


class FramesLink:
    """One connection, either side."""

    def __init__(self, stream: FrameStream, on_frame: Callable[[bytes], None]) -> None:
        """`on_frame`: called on the loop for each frame; raises DecodeError for one that is none."""
        self.stream = stream
        self._on_frame = on_frame
        self._unheard = 0
        stream.limit = LIMIT
        stream.on_frame = self._took
        self._beating = asyncio.get_running_loop().call_later(BEAT_S, self._beat)
        stream.lost.add_done_callback(lambda _: self._beating.cancel())

    async def write_all(self, take: Callable[[], Awaitable[Sequence[Message]]]) -> None:
        """Send what `take` gives, until it gives nothing or the connection is over."""
        while messages := await take():
            for message in messages:
                await self.stream.drained()
                if not self.stream.send(message.SerializeToString()):
                    return

    def _took(self, frame: bytes) -> None:
        self._unheard = 0
        if not frame:
            return
        try:
            self._on_frame(frame)
        except DecodeError as error:
            _log.warning("a peer sent what is no frame of the host link: %s", error)
            self.stream.cut()

    def _beat(self) -> None:
        self._unheard += 1
        if self._unheard > SILENT_BEATS:
            _log.info("a host link is cut: nothing came for %d s", SILENT_BEATS)
            self.stream.cut()
            return
        self.stream.send(b"")
        self._beating = asyncio.get_running_loop().call_later(BEAT_S, self._beat)


def serve(handler: HostLinkHandler, peer: Identity, stream: FrameStream) -> Coroutine[None, None, None]:
    """One connection of a host at a server. Listens from now on; what is returned is to be run, and ends with it."""
    session = HostSession(peer)
    link = FramesLink(stream, lambda frame: handler.frame(session, HostFrame.FromString(frame)))
    stream.lost.add_done_callback(lambda _: session.close())
    handler.opened(session)
    return _serve(handler, session, link)


async def _serve(handler: HostLinkHandler, session: HostSession, link: FramesLink) -> None:
    try:
        await link.write_all(session.take)
    finally:
        session.close()
        link.stream.cut()
        handler.closed(session)


async def open_link(address: str, expected: str, files: TlsFiles, on_frame: Callable[[bytes], None]) -> FramesLink:
    """A host's link to the server with the DNS name `expected`, at `address` (host:port, 7447).

    Raises NotConnected, PeerRefused and BadFiles.
    """
    hello: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    early: list[bytes] = []

    def came(frame: bytes) -> None:
        if hello.done():
            early.append(frame)
        else:
            hello.set_result(frame)

    def made() -> FrameStream:
        stream = FrameStream()
        stream.on_frame = came
        return stream

    stream = await dial(address, expected, files, made)
    await asyncio.wait((hello, stream.lost), timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
    if not hello.done():
        stream.cut()
        raise NotConnected(f"{address} did not open the link: it ended, or said nothing within {CONNECT_S:.0f} s")
    if (said := hello.result())[:1] != OPEN:
        stream.cut()
        raise PeerRefused(f"{address} refused: {said[1:].decode(errors='replace')}")
    link = FramesLink(stream, on_frame)
    for frame in early:
        stream.on_frame(frame)
    return link
