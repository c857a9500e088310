"""Frames over TLS without gRPC: a length of four bytes, big endian, then the frame. Why: docs/adr/0013.

For links between processes of the cluster that carry many small messages. Both sides show a certificate; a side learns
whom the other's names (`peer_names`), and the dialler checks the name that it expects in the handshake. Files are read
again at each handshake, so that renewed certificates serve new connections without a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import cast

from tenured.transport.errors import BadFiles, NotConnected, TransportError
from tenured.transport.tls import TlsFiles

_log = logging.getLogger(__name__)

FRAME_LIMIT = 16 << 20
"""Bytes of the longest frame that is taken, unless a link has another limit. A longer one ends the connection."""
QUEUE_LIMIT = 64 << 20
"""Bytes that wait to be sent. Beyond it the connection is cut: its peer does not read."""
CONNECT_S = 3.0
"""To connect and shake hands."""
_HANDSHAKES = 64
_SILENT_MS = 3000
"""Unacknowledged bytes for so long end the connection (TCP_USER_TIMEOUT)."""


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
        self._full: asyncio.Future[None] | None = None

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

    async def drained(self) -> None:
        """Until little waits to be sent, or the connection is over: for those who have much to send."""
        while self._full is not None and not self.lost.done():
            await asyncio.wait((self._full, self.lost), return_when=asyncio.FIRST_COMPLETED)

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
        self._full = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Most of it is gone."""
        if self._full is not None:
            self._full.set_result(None)
            self._full = None

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self.on_frame = lambda _: None
        if not self.lost.done():
            self.lost.set_result(None)


async def dial(address: str, expected: str, files: TlsFiles, made: Callable[[], FrameStream]) -> FrameStream:
    """A connection to `address` (host:port) that accepts only the holder of the DNS name `expected`.

    Raises NotConnected and BadFiles.
    """
    host, _, port = address.rpartition(":")
    context = _context(files, ssl.PROTOCOL_TLS_CLIENT)
    loop, stream = asyncio.get_running_loop(), made()
    try:
        async with asyncio.timeout(CONNECT_S):
            await loop.create_connection(
                lambda: stream, host.strip("[]"), int(port), ssl=context, server_hostname=expected
            )
    except ssl.SSLCertVerificationError as error:
        raise NotConnected(f"Who answers at {address} is not {expected}: {error.verify_message}") from error
    except TimeoutError as error:
        raise NotConnected(f"No connection to {address} within {CONNECT_S:.0f} s") from error
    except (OSError, ssl.SSLError) as error:
        raise NotConnected(f"No connection to {address}: {error}") from error
    return stream


class FrameListener:
    """A port. `accept` makes the stream of each connection, `opened` is called when its handshake is done."""

    def __init__(
        self, files: TlsFiles, accept: Callable[[], FrameStream], opened: Callable[[FrameStream], None]
    ) -> None:
        self._files = files
        self._accept = accept
        self._opened = opened
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
        self._streams: set[FrameStream] = set()
        self.port = 0

    async def start(self, address: str, port: int) -> None:
        """Listen. Port 0: the system chooses one, see `port`. Raises TransportError when it is taken, BadFiles."""
        _context(self._files, ssl.PROTOCOL_TLS_SERVER)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            self._socket = socket.create_server((address, port), family=family, backlog=128)
        except OSError as error:
            raise TransportError(f"Cannot listen on {address}:{port}: {error}. Is another process there?") from error
        self._socket.setblocking(False)
        self.port = int(self._socket.getsockname()[1])
        self._task = asyncio.get_running_loop().create_task(self._run(self._socket), name="frames: accept")

    async def stop(self) -> None:
        """Refuse new connections and cut the open ones. Does nothing if not started."""
        tasks = [task for task in (self._task, *self._handshakes) if task is not None]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._task = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        streams = list(self._streams)
        for stream in streams:
            stream.cut()
        for stream in streams:
            await stream.lost

    async def _run(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:  # no file descriptors: others may be closed soon
                _log.warning("cannot accept a connection: %s", error)
                await asyncio.sleep(0.1)
                continue
            if len(self._handshakes) >= _HANDSHAKES:
                connection.close()
                continue
            task = loop.create_task(self._shake_hands(connection))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, connection: socket.socket) -> None:
        stream = self._accept()  # uvloop answers with a protocol of its own in place of ours
        try:
            context = _context(self._files, ssl.PROTOCOL_TLS_SERVER)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: stream, connection, ssl=context, ssl_handshake_timeout=CONNECT_S
            )
        except (OSError, ssl.SSLError, TransportError) as error:
            _log.info("refused a connection: %s", error)
            connection.close()
            return
        self._streams.add(stream)
        stream.lost.add_done_callback(lambda _: self._streams.discard(stream))
        self._opened(stream)


def _context(files: TlsFiles, side: int) -> ssl.SSLContext:
    """Of the files as they are now. Raises BadFiles."""
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    material = files.read()
    try:
        context.load_cert_chain(files.directory / "tls.crt", files.directory / "tls.key")
        context.load_verify_locations(cadata=material.authority.decode("ascii"))
    except (OSError, ssl.SSLError, ValueError) as error:  # also while files are being replaced
        raise BadFiles(f"The files in {files.directory} do not fit together: {error}") from error
    return context
