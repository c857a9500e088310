"""The `Changes` service: many changes under way on one stream, where a call of Registry carries one.

In Python a unary call of gRPC costs more than the change itself, and a message on a stream of gRPC a third of a
millisecond (docs/adr/0013). So there are two ways to the same service: port 7443 by gRPC, and port 7447 by framed TLS,
where each frame is one ChangeBatch, or one ChangedBatch with answers. The listener's first frame says that it is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tenure_api.identity import Identity
from tenure_proto.v1.changes_pb2 import ChangeBatch, ChangedBatch
from tenured.transport.errors import NotConnected, PeerRefused
from tenured.transport.framed import CONNECT_S, FrameStream, dial
from tenured.transport.raft import OPEN
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
    hello: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def made() -> FrameStream:
        stream = FrameStream()
        stream.on_frame = hello.set_result
        return stream

    stream = await dial(address, expected, files, made)
    await asyncio.wait((hello, stream.lost), timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
    if not hello.done():
        stream.cut()
        raise NotConnected(f"{address} did not open the stream: it ended, or said nothing within {CONNECT_S:.0f} s")
    if (said := hello.result())[:1] != OPEN:
        stream.cut()
        raise PeerRefused(f"{address} refused: {said[1:].decode(errors='replace')}")
    return ChangesLink(stream, on_answers)
