"""Frames over TLS, where gRPC is too dear: a length of four bytes, big endian, then the frame. Why: docs/adr/0013.

Used by servers and hosts among each other (`tenured.transport`) and by clients that call hosts (`tenure._remote`). Both
sides show a certificate; whose it is is judged by the listener from `peer_names`, and by the dialler in the handshake,
which takes only the DNS name that it expects. The listener speaks first: one frame that opens the connection, or says
why not.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import cast

_log = logging.getLogger(__name__)

FRAME_LIMIT = 16 << 20
"""Bytes of the longest frame that is taken, unless a link has another limit. A longer one ends the connection."""
LONG_FRAME_LIMIT = 64 << 20
"""The same of links that carry states or arguments of calls: the largest record and what is around it."""
QUEUE_LIMIT = 64 << 20
"""Bytes that wait to be sent. Beyond it the connection is cut: its peer does not read."""
CONNECT_S = 3.0
"""To connect and shake hands, and then until the listener's first frame."""
OPEN, REFUSED = b"\x00", b"\x01"
"""First byte of the listener's first frame; the rest is its name, or a sentence."""
BEAT_S = 1.0
SILENT_BEATS = 3
"""Own beats and not seconds: after a pause of our own nobody is blamed for what we did not read."""
_SILENT_MS = 3000
"""Unacknowledged bytes for so long end the connection (TCP_USER_TIMEOUT)."""


class NotOpened(ConnectionError):
    """There is no connection. The message is a sentence for users."""


class Refused(NotOpened):
    """The listener said that it does not serve us, and why."""


class FrameStream(asyncio.Protocol):
    """One connection. `on_frame` is called on the loop for each frame in order, `lost` is done when it is over."""

    def __init__(self) -> None:
        """Set `on_frame` before the first turn of the loop after the connection is made."""
        self.on_frame: Callable[[bytes], None] = lambda _: None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.limit = FRAME_LIMIT
        """Bytes of the longest frame that is taken."""
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self.full = False
        """So much waits to be sent that no more should be given; `on_room` is called when most of it is gone."""
        self.on_room: Callable[[], None] = lambda: None

    def send(self, frame: bytes) -> bool:
        """Queue one frame. False: the connection is over, or was cut because its peer does not read."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if transport.get_write_buffer_size() > QUEUE_LIMIT:
            self.cut()
            return False
        transport.write(len(frame).to_bytes(4, "big") + frame)
        return True

    def cut(self) -> None:
        """End the connection at once; what waits is dropped."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End the connection after what waits was sent."""
        if self._transport is not None:
            self._transport.close()

    def pause(self) -> None:
        """Take nothing more until `resume`: the peer feels it. Frames that have come already are still handed over."""
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Take frames again. Does nothing unless paused."""
        if self._transport is not None and not self._transport.is_closing() and not self._transport.is_reading():
            self._transport.resume_reading()

    def peer_names(self) -> list[str]:
        """The identities (URI names) in the peer's certificate, which the handshake has verified."""
        found = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        certificate = cast("ssl.SSLObject", found).getpeercert() if found is not None else None
        names = cast("tuple[tuple[str, str], ...]", (certificate or {}).get("subjectAltName", ()))
        return [value for kind, value in names if kind == "URI" and value.startswith("spiffe://")]

    def peer_host(self) -> str:
        """The address of the peer's side of the connection, without its port; empty once the connection is over."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return str(name[0]) if name else ""

    # --- what the loop calls ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done."""
        self._transport = cast("asyncio.Transport", transport)
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENT_MS)

    def data_received(self, data: bytes) -> None:
        """Take whole frames out of what has come so far."""
        buffer = self._buffer
        buffer += data
        at, end = 0, len(buffer)
        while end - at >= 4:
            size = int.from_bytes(buffer[at : at + 4], "big")
            if size > self.limit:
                _log.warning("a peer sent a frame of %d bytes; the connection is cut", size)
                self.cut()
                return
            if end - at - 4 < size:
                break
            frame = bytes(memoryview(buffer)[at + 4 : at + 4 + size])
            at += 4 + size
            self.on_frame(frame)
        if at:
            del buffer[:at]

    def pause_writing(self) -> None:
        """Enough waits to be sent."""
        self.full = True

    def resume_writing(self) -> None:
        """Most of it is gone."""
        self.full = False
        self.on_room()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - of asyncio.Protocol
        """It is over."""
        self.on_frame, self.on_room = lambda _: None, lambda: None
        if not self.lost.done():
            self.lost.set_result(None)


class Link:
    """A stream on which both sides send an empty frame every `BEAT_S`, and end it when nothing came for `SILENT_BEATS`:
    TCP acknowledges for a frozen process too.
    """

    def __init__(self, stream: FrameStream, on_frame: Callable[[bytes], None]) -> None:
        """`on_frame` is called on the loop for each frame that is not a beat."""
        self.stream = stream
        self._on_frame = on_frame
        self._unheard = 0
        stream.limit = LONG_FRAME_LIMIT
        stream.on_frame = self._took
        self._beating = asyncio.get_running_loop().call_later(BEAT_S, self._beat)
        stream.lost.add_done_callback(lambda _: self._beating.cancel())

    def _took(self, frame: bytes) -> None:
        self._unheard = 0
        if frame:
            self._on_frame(frame)

    def _beat(self) -> None:
        self._unheard += 1
        if self._unheard > SILENT_BEATS:
            _log.info("a link is cut: nothing came for %d s", SILENT_BEATS)
            self.stream.cut()
            return
        self.stream.send(b"")
        self._beating = asyncio.get_running_loop().call_later(BEAT_S, self._beat)


async def dial(
    address: str, expected: str, context: ssl.SSLContext, made: Callable[[], FrameStream] = FrameStream
) -> FrameStream:
    """A connection to `address` (host:port) that accepts only the holder of the DNS name `expected`.

    Raises NotOpened.
    """
    host, _, port = address.rpartition(":")
    loop, stream = asyncio.get_running_loop(), made()
    try:
        async with asyncio.timeout(CONNECT_S):
            await loop.create_connection(
                lambda: stream, host.strip("[]"), int(port), ssl=context, server_hostname=expected
            )
    except ssl.SSLCertVerificationError as error:
        raise NotOpened(f"Who answers at {address} is not {expected}: {error.verify_message}") from error
    except TimeoutError as error:
        raise NotOpened(f"No connection to {address} within {CONNECT_S:.0f} s") from error
    except (OSError, ssl.SSLError) as error:
        raise NotOpened(f"No connection to {address}: {error}") from error
    return stream


async def opened(address: str, expected: str, context: ssl.SSLContext) -> tuple[FrameStream, list[bytes]]:
    """`dial`, and the listener's word; frames that have come after it already are in the list: hand them on first.

    Later ones are appended until the caller sets `on_frame`. Raises NotOpened, Refused.
    """
    frames: list[bytes] = []
    spoke: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def came(frame: bytes) -> None:
        frames.append(frame)
        if not spoke.done():
            spoke.set_result(None)

    def made() -> FrameStream:
        stream = FrameStream()
        stream.on_frame = came
        return stream

    stream = await dial(address, expected, context, made)
    try:
        await asyncio.wait((spoke, stream.lost), timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not frames or frames[0][:1] != OPEN:
            stream.cut()
    if not frames:
        # With TLS 1.3 a client's certificate is judged after the client believes itself connected.
        ended = "ended the connection at once: our certificate is not of its cluster's authority"
        raise NotOpened(f"{address} {ended if stream.lost.done() else f'said nothing within {CONNECT_S:.0f} s'}")
    said = frames.pop(0)
    if said[:1] != OPEN:
        raise Refused(f"{address} refused: {said[1:].decode(errors='replace')}")
    return stream, frames
