"""The server's side of the link to hosts: one `HostLink` stream per host, frames in order in each direction."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from tenure_api.identity import Identity
from tenure_proto.v1.hostlink_pb2 import HostFrame, HostFrames, ServerFrame, ServerFrames
from tenured.transport.outbox import Outbox
from tenured.transport.serving import Duplex, Method, duplex

CONNECT = "/tenure.v1.HostLink/Connect"
MAX_QUEUED = 16384
"""Frames that may wait for one host; one that reads so slowly is cut off."""
_ROOM = 16
"""Frames that wait, when the watch may add one: pieces of it have up to 200 rows, and acks should not wait behind many.
"""


class Stream(Protocol):
    """What carries one connection: messages in order, each way."""

    def __aiter__(self) -> AsyncIterator[HostFrames]:
        """What the host sends, until the stream ends."""
        ...

    async def write(self, message: ServerFrames, /) -> None:
        """Send; returns when there is room for more."""
        ...


class Queue(Protocol):
    """Where frames wait to be sent to a host."""

    closed: bool

    def put(self, item: ServerFrame, /) -> bool:
        """Queue one; false: too many wait, or the stream has ended."""
        ...

    async def room(self, most: int, /) -> None:
        """Until at most so many wait, or it is closed."""
        ...

    def close(self) -> None:
        """Drop what waits."""
        ...


class HostSession:
    """One connected host, as the server's handlers see it."""

    def __init__(self, peer: Identity, outbox: Queue, ended: Callable[[], None] | None = None) -> None:
        """`ended`: called when the session is closed here."""
        self.host = peer.holder
        self.peer = peer
        self._outbox = outbox
        self._ended = ended

    def send(self, frame: ServerFrame) -> bool:
        """Queue one frame. False: the stream has ended, or the host reads so slowly that it is cut off."""
        if self._outbox.put(frame):
            return True
        self.close()
        return False

    async def room(self) -> None:
        """Until what is queued is little, or the session has ended: for the watch, which has much to say."""
        await self._outbox.room(_ROOM)

    @property
    def open(self) -> bool:
        """Whether frames can still reach the host."""
        return not self._outbox.closed

    def close(self) -> None:
        """End the session."""
        self._outbox.close()
        if self._ended is not None:
            self._ended()


class HostLinkHandler(Protocol):
    """What the server does with its hosts. None of these may block; a handler that must wait starts a task."""

    def opened(self, session: HostSession) -> None:
        """A host connected: the first frame to it is a ServerHello."""

    def frame(self, session: HostSession, frame: HostFrame) -> None:
        """One frame of that host, in order."""

    def closed(self, session: HostSession) -> None:
        """The stream ended, for whatever reason. Silence is not death: nothing else follows from it."""


def method(handler: HostLinkHandler) -> Method:
    """The service, for a listener."""

    async def served(peer: Identity, stream: Duplex[HostFrames, ServerFrames]) -> None:
        await serve(handler, peer, stream)

    return duplex(CONNECT, HostFrames, served)


async def serve(handler: HostLinkHandler, peer: Identity, stream: Stream) -> None:
    """One connection of a host, from its hello to its end, over whatever carries it."""
    outbox: Outbox[ServerFrame] = Outbox(MAX_QUEUED)
    session = HostSession(peer, outbox)
    reader = asyncio.ensure_future(_read(session, stream, handler))
    handler.opened(session)
    try:
        while frames := await outbox.take():
            await stream.write(ServerFrames(frames=frames))
    finally:
        session.close()
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader
        handler.closed(session)


async def _read(session: HostSession, stream: Stream, handler: HostLinkHandler) -> None:
    try:
        async for batch in stream:
            for frame in batch.frames:
                handler.frame(session, frame)
    finally:
        session.close()
