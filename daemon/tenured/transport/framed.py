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
