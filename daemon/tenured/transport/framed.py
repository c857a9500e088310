"""Framed TLS as the daemon uses it: with its files, and listening (the frames: `tenure_frames`).

Files are read again at each handshake, so that renewed certificates serve new connections without a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

import tenure_frames
from tenure_frames import CONNECT_S, FrameStream
from tenured.transport.errors import BadFiles, NotConnected, PeerRefused, TransportError
from tenured.transport.tls import TlsFiles

_log = logging.getLogger(__name__)

_HANDSHAKES = 64


async def dial(address: str, expected: str, files: TlsFiles, made: Callable[[], FrameStream]) -> FrameStream:
    """A connection to `address` (host:port) that accepts only the holder of the DNS name `expected`.

    Raises NotConnected and BadFiles.
    """
    try:
        return await tenure_frames.dial(address, expected, _context(files, ssl.PROTOCOL_TLS_CLIENT), made)
    except tenure_frames.NotOpened as error:
        raise NotConnected(str(error)) from error


async def opened(address: str, expected: str, files: TlsFiles) -> tuple[FrameStream, list[bytes]]:
    """`tenure_frames.opened`. Raises NotConnected, PeerRefused and BadFiles."""
    try:
        return await tenure_frames.opened(address, expected, _context(files, ssl.PROTOCOL_TLS_CLIENT))
    except tenure_frames.Refused as error:
        raise PeerRefused(str(error)) from error
    except tenure_frames.NotOpened as error:
        raise NotConnected(str(error)) from error


class FrameListener:
    """A port. `accept` makes the stream of each connection, `opened` is called when its handshake is done."""

    def __init__(
        self, files: TlsFiles, accept: Callable[[], FrameStream], opened: Callable[[FrameStream], None]
    ) -> None:
        self._files = files
        self._accept = accept
        self._opened = opened
        self._socket: socket.socket | None = None
        self._resting: asyncio.TimerHandle | None = None
        """Accepting goes on then."""
        self._handshakes: dict[asyncio.Task[None], socket.socket] = {}
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
        self._listen(self._socket)

    async def stop(self) -> None:
        """Refuse new connections and cut the open ones. Does nothing if not started."""
        if self._resting is not None:
            self._resting.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        handshakes = dict(self._handshakes)
        for task in handshakes:
            task.cancel()
        for task, connection in handshakes.items():
            with contextlib.suppress(asyncio.CancelledError):
                await task
            connection.close()  # one whose task never began belongs to nobody else
        streams = list(self._streams)
        for stream in streams:
            stream.cut()
        for stream in streams:
            await stream.lost

    def _listen(self, listening: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(listening, self._accept_one, listening)

    def _accept_one(self, listening: socket.socket) -> None:
        """Without a task: one that is cancelled could hold a connection that nobody closes."""
        loop = asyncio.get_running_loop()
        try:
            connection, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:  # no file descriptors: others may be closed soon
            _log.warning("cannot accept a connection: %s", error)
            loop.remove_reader(listening)
            self._resting = loop.call_later(0.1, self._listen, listening)
            return
        if len(self._handshakes) >= _HANDSHAKES:
            connection.close()
            return
        connection.setblocking(False)
        task = loop.create_task(self._shake_hands(connection))
        self._handshakes[task] = connection
        task.add_done_callback(self._handshakes.pop)

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
        except asyncio.CancelledError:
            stream.cut()  # its handshake may have been done in the last moment
            raise
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
