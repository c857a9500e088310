"""The unix socket of the worker link: bytes in, frames out, and nobody but our own user (docs/architecture.md,
Processes).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import msgspec

import tenure_link
from tenured.host.gathering import Gathering

log = logging.getLogger("tenured.host.link")

_CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7): pid, uid, gid."""
SOON_S = 0.005


class Events(Protocol):
    """What happens on the link; called on the loop, in order per connection."""

    def received(self, connection: Connection, frame: tenure_link.FromProcess) -> None:
        """A frame that decoded."""

    def lost(self, connection: Connection) -> None:
        """The connection is gone, whoever ended it; called once."""


class Connection(asyncio.Protocol):
    """One process on the other end."""

    def __init__(self, events: Events, allowed_uids: frozenset[int], gathering: Gathering) -> None:
        self._events = events
        self._gathering = gathering
        self._allowed_uids = allowed_uids
        self._splitter = tenure_link.Splitter()
        self._transport: asyncio.Transport | None = None
        self.why_closed = ""
        self._unsent: list[bytes] = []
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: checks SO_PEERCRED before a single byte is read."""
        stream = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of asyncio's
        uid = _peer_uid(stream)
        if uid not in self._allowed_uids:
            log.warning("refused a process of user %d on the worker socket", uid)
            stream.abort()
            return
        self._transport = stream

    def data_received(self, data: bytes) -> None:
        """asyncio: hands on what is complete. Bytes that are no frame end the connection: the other side is broken or
        hostile.
        """
        try:
            with self._gathering:
                for body in self._splitter.feed(data):
                    if self._transport is None:
                        return
                    self._events.received(self, tenure_link.decode_from_process(body))
        except (msgspec.DecodeError, tenure_link.FrameTooLarge) as error:
            self.close(f"sent what is no frame of the worker link: {error}")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        """asyncio: the end."""
        self._transport = None
        self._events.lost(self)

    def send(self, frame: tenure_link.Frame) -> None:
        """Queues a frame; dropped silently when the connection is gone, as one in a socket buffer would be. What is
        sent in one turn of the loop leaves together: a write of its own would cost more than the frame.
        """
        if self._transport is not None:
            if not self._flushing:
                self._flushing = True
                asyncio.get_running_loop().call_soon(self._flush)
            self._unsent.append(tenure_link.encode(frame))

    def send_soon(self, frame: tenure_link.Frame) -> None:
        """As `send`, for what nobody waits for: it leaves with the next frame, or after `SOON_S`."""
        if self._transport is not None:
            if not self._flushing and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(SOON_S, self._flush)
            self._unsent.append(tenure_link.encode(frame))

    def _flush(self) -> None:
        self._flushing = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and unsent:
            self._transport.write(b"".join(unsent))

    def finish(self, frame: tenure_link.Frame, why: str) -> None:
        """Sends a last frame and closes once it has left."""
        self.send(frame)
        self._flush()
        self.why_closed = self.why_closed or why
        if self._transport is not None:
            self._transport.close()

    def close(self, why: str) -> None:
        """Drops the connection at once; `why` is for the log."""
        self.why_closed = self.why_closed or why
        if self._transport is not None:
            log.warning("closing a connection of the worker link: %s", why)
            self._transport.abort()


def _peer_uid(transport: asyncio.Transport) -> int:
    """The user of the process that connected, from the kernel."""
    peer = transport.get_extra_info("socket")
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


async def listen(
    path: Path, events: Events, extra_uids: frozenset[int] = frozenset(), gathering: Gathering | None = None
) -> asyncio.Server:
    """Listens on the socket, replacing the one of a dead daemon. Processes of our own user, and of `extra_uids`, may
    connect. `gathering`: what is asked for while the frames of one read are handed on.
    """
    together = gathering or Gathering()
    await asyncio.to_thread(path.unlink, missing_ok=True)
    allowed = frozenset({os.geteuid()}) | extra_uids
    factory: Callable[[], Connection] = lambda: Connection(events, allowed, together)  # noqa: E731
    server = await asyncio.get_running_loop().create_unix_server(factory, str(path))
    await asyncio.to_thread(path.chmod, 0o660)
    return server
