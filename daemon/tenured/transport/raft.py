"""The Raft engine's way to the other servers (`tenured.raft.PeerLink`).

One stream in each direction; this side dials and sends, the other side's only message says that the way is open. Frames
arrive in order and at most once: a queue is dropped on reconnect, and what a replaced stream still delivers is ignored.
A queue that overflows breaks the connection, because a gap in the middle would not be "in order". The sender is who its
certificate says it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Protocol

from grpc import aio

from tenure_api.identity import Identity, Role
from tenure_proto.v1.raft_pb2 import RaftFrames, RaftOpen
from tenured.transport.backoff import Reconnect
from tenured.transport.errors import TransportError, wrap
from tenured.transport.outbox import Outbox
from tenured.transport.serving import Duplex, Method, Refusal, duplex
from tenured.transport.tls import TlsFiles, open_channel

_log = logging.getLogger(__name__)

STREAM = "/tenure.v1.Raft/Stream"
_MAX_QUEUED = 8192
_MAX_BATCH = 256
_HELLO_TIMEOUT_S = 3.0


class Receiver(Protocol):
    """What the engine offers (docs/architecture.md, "tenured.raft")."""

    def received(self, peer: str, frame: bytes) -> None:
        """One frame of that peer."""

    def connected(self, peer: str) -> None:
        """Frames sent from now on can reach it."""

    def disconnected(self, peer: str) -> None:
        """What was sent and not answered may be lost."""


class RaftPeers:
    """All links of one server to its peers. `bind` the engine, register `method()` on the peer port, then `start`."""

    def __init__(self, name: str, cluster: str, peers: Mapping[str, str], files: TlsFiles) -> None:
        """`peers`: name to host:port of the other servers."""
        self._name = name
        self._cluster = cluster
        self._peers = dict(peers)
        self._files = files
        self._engine: Receiver | None = None
        self._outboxes: dict[str, Outbox[bytes]] = {}
        self._inbound: dict[str, object] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.last_error: dict[str, str] = {}

    def bind(self, engine: Receiver) -> None:
        """Say who gets frames and news of connections. Before `start`."""
        self._engine = engine

    def method(self) -> Method:
        """The receiving side, for a listener."""
        return duplex(STREAM, RaftFrames, self._serve)

    def connected_peers(self) -> frozenset[str]:
        """Peers that frames can be sent to now."""
        return frozenset(self._outboxes)

    def send(self, peer: str, frame: bytes) -> bool:
        """Queue one frame. False: not connected (or the queue overflowed, which ends the connection)."""
        outbox = self._outboxes.get(peer)
        if outbox is None:
            return False
        if outbox.put(frame):
            return True
        outbox.close()
        return False

    async def start(self) -> None:
        """Dial every peer, and again after every loss, until `stop`."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._dial(peer), name=f"raft to {peer}") for peer in self._peers]

    async def stop(self) -> None:
        """Close every link."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()

    async def _dial(self, peer: str) -> None:
        reconnect = Reconnect()
        while True:
            try:
                await self._session(peer, reconnect)
            except TransportError as error:
                if self.last_error.get(peer) != str(error):  # once per reason, not ten times a second
                    _log.warning("raft link to %s: %s", peer, error)
                self.last_error[peer] = str(error)
            await reconnect.pause()

    async def _session(self, peer: str, reconnect: Reconnect) -> None:
        expected = Identity(self._cluster, Role.SERVER, peer).dns_name
        channel = open_channel(self._peers[peer], expected, self._files)
        opened = False
        try:
            method: aio.StreamStreamMultiCallable[RaftFrames, RaftOpen] = channel.stream_stream(
                STREAM, RaftFrames.SerializeToString, RaftOpen.FromString
            )
            call = method()
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                hello = await call.read()
            if not isinstance(hello, RaftOpen):
                raise TransportError(f"{peer} closed the stream before it opened")
            opened = True
            reconnect.succeeded()
            await self._feed(peer, call)
        except aio.AioRpcError as error:
            raise wrap(error, peer, sent=opened) from error
        except (asyncio.InvalidStateError, TimeoutError) as error:
            raise TransportError(f"{peer} did not open the stream in {_HELLO_TIMEOUT_S:.0f} s") from error
        finally:
            await channel.close()

    async def _feed(self, peer: str, call: aio.StreamStreamCall[RaftFrames, RaftOpen]) -> None:
        outbox: Outbox[bytes] = Outbox(_MAX_QUEUED, _MAX_BATCH)
        ended = asyncio.ensure_future(self._watch(call, outbox))
        self._outboxes[peer] = outbox
        self.last_error.pop(peer, None)
        _log.info("raft link to %s is open", peer)
        try:
            self._bound().connected(peer)
            while frames := await outbox.take():
                await call.write(RaftFrames(frames=frames))
        finally:
            self._outboxes.pop(peer, None)
            ended.cancel()
            call.cancel()
            self._bound().disconnected(peer)
            _log.info("raft link to %s is closed", peer)

    @staticmethod
    async def _watch(call: aio.StreamStreamCall[RaftFrames, RaftOpen], outbox: Outbox[bytes]) -> None:
        """A reader that expects nothing: it is how the end of an idle stream is noticed."""
        try:
            with contextlib.suppress(aio.AioRpcError):
                await call.read()
        finally:
            outbox.close()

    async def _serve(self, peer: Identity, stream: Duplex[RaftFrames, RaftOpen]) -> None:
        if peer.holder not in self._peers:
            raise Refusal(f"{peer.holder} is not one of the servers of this cluster: {', '.join(sorted(self._peers))}")
        current = self._inbound[peer.holder] = object()
        await stream.write(RaftOpen(server=self._name))
        async for batch in stream:
            if self._inbound[peer.holder] is not current:
                return  # a newer stream took over: what is left here would arrive out of order
            for frame in batch.frames:
                self._bound().received(peer.holder, frame)

    def _bound(self) -> Receiver:
        if self._engine is None:
            raise RuntimeError("bind() the engine before start()")
        return self._engine
