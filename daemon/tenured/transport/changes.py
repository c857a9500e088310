"""The `Changes` service: many changes under way on one stream, where a call of Registry carries one.

In Python a unary call of gRPC costs more than the change itself, and a message on a stream of gRPC a third of a
millisecond (docs/adr/0013). So there are two ways to the same service: port 7443 by gRPC, and port 7447 by framed TLS,
where each frame is one ChangeBatch, or one ChangedBatch with answers. The listener's first frame says that it is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tenure_api.identity import Identity
from tenure_frames import FrameStream
from tenure_proto.v1.changes_pb2 import ChangeBatch, ChangedBatch
from tenured.transport.framed import opened
from tenured.transport.serving import Duplex, Method, duplex
from tenured.transport.tls import TlsFiles

STREAM = "/tenure.v1.Changes/Stream"


def method(handler: Callable[[Identity, Duplex[ChangeBatch, ChangedBatch]], Awaitable[None]]) -> Method:
    """The service by gRPC, for the API listener."""
    return duplex(STREAM, ChangeBatch, handler)


class ChangesLink:
    """A client's end on framed TLS. `on_answers` is called on the loop for each frame of answers."""

    def __init__(self, stream: FrameStream, on_answers: Callable[[ChangedBatch], None]) -> None:
        """`open_link` makes one."""
        self._stream = stream
        stream.on_frame = lambda frame: on_answers(ChangedBatch.FromString(frame))

    @property
    def lost(self) -> asyncio.Future[None]:
        """Done when the connection is over. What was not answered by then is unknown."""
        return self._stream.lost

    def send(self, batch: ChangeBatch) -> bool:
        """Queue changes. False: the connection is over, and none of them was sent."""
        return self._stream.send(batch.SerializeToString())

    def close(self) -> None:
        """End it. What is under way goes on at the server."""
        self._stream.cut()


async def open_link(
    address: str, expected: str, files: TlsFiles, on_answers: Callable[[ChangedBatch], None]
) -> ChangesLink:
    """A link to the server with the DNS name `expected`, at `address` (host:port, 7447).

    Raises NotConnected, PeerRefused and BadFiles.
    """
    stream, _ = await opened(address, expected, files)
    return ChangesLink(stream, on_answers)
