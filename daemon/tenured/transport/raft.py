"""The Raft engine's way to the other servers (`tenured.raft.PeerLink`): framed TLS, one connection in each direction.

This side dials and sends. The other side sends one frame only: that the way is open, or why not. Frames arrive in order
and at most once: what waits is dropped with the connection, and what a replaced connection still delivers is ignored.
Too much that waits cuts the connection, because a gap in the middle would not be "in order". The sender is who its
certificate says it is.

Users of the API may dial the same port (`accept_users`): what they are answered is no business of Raft's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from tenure_api.identity import Identity, Role
from tenure_frames import OPEN, REFUSED, FrameStream
from tenured.transport.backoff import Reconnect
from tenured.transport.errors import TransportError
from tenured.transport.framed import FrameListener, opened
from tenured.transport.serving import judge
from tenured.transport.tls import TlsFiles

_log = logging.getLogger(__name__)

_PORT_NAME = "Raft"
_SERVERS = frozenset({Role.SERVER})
_USERS = frozenset({Role.CLIENT, Role.OPERATOR})
_HOSTS = frozenset({Role.HOST})

Accept = Callable[[Identity, FrameStream], None]


class Receiver(Protocol):
    """What the engine offers (docs/architecture.md, "tenured.raft")."""

    def received(self, peer: str, frame: bytes) -> None:
        """One frame of that peer."""

    def connected(self, peer: str) -> None:
        """Frames sent from now on can reach it."""

    def disconnected(self, peer: str) -> None:
        """What was sent and not answered may be lost."""


class RaftPeers:
    """All links of one server to its peers. `bind` the engine, `listen`, then `start`."""

    def __init__(self, name: str, cluster: str, peers: Mapping[str, str], files: TlsFiles) -> None:
        """`peers`: name to host:port of the other servers."""
        self._name = name
        self._cluster = cluster
        self._peers = dict(peers)
        self._files = files
        self._engine: Receiver | None = None
        self._users: dict[Role, Accept] = {}
        self._open: dict[str, FrameStream] = {}
        self._inbound: dict[str, FrameStream] = {}
        self._listener = FrameListener(files, FrameStream, self._accepted)
        self._tasks: list[asyncio.Task[None]] = []
        self.last_error: dict[str, str] = {}

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listener.port

    def bind(self, engine: Receiver) -> None:
        """Say who gets frames and news of connections. Before `listen`."""
        self._engine = engine

    def accept_users(self, accept: Accept) -> None:
        """Say who serves clients and the operator that dial this port; without it they are refused."""
        self._users |= dict.fromkeys(_USERS, accept)

    def accept_hosts(self, accept: Accept) -> None:
        """Say who serves hosts that dial this port; without it they are refused."""
        self._users |= dict.fromkeys(_HOSTS, accept)

    def connected_peers(self) -> frozenset[str]:
        """Peers that frames can be sent to now."""
        return frozenset(self._open)

    def send(self, peer: str, frame: bytes) -> bool:
        """Queue one frame. False: not connected (or too much waits, which ends the connection)."""
        stream = self._open.get(peer)
        return stream is not None and stream.send(frame)

    async def listen(self, address: str, port: int) -> None:
        """Take connections of the other servers. Raises TransportError when the port is taken, BadFiles."""
        self._bound()
        await self._listener.start(address, port)

    async def start(self) -> None:
        """Dial every peer, and again after every loss, until `stop`."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._dial(peer), name=f"raft to {peer}") for peer in self._peers]

    async def stop(self) -> None:
        """Close every link and the port."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        await self._listener.stop()

    # --- sending ------------------------------------------------------------------------------------------------------

    async def _dial(self, peer: str) -> None:
        reconnect = Reconnect()
        for attempt in itertools.count():
            try:
                await self._session(peer, self._address(peer, attempt), reconnect)
            except TransportError as error:
                reconnect.failed(_log, f"raft link to {peer}", str(error))
                self.last_error[peer] = str(error)
            await reconnect.pause()

    def _address(self, peer: str, attempt: int) -> str:
        """Where to dial: where the peer is said to be, and in turns with that where it has called from. A pod that
        begins anew has another address, which the cluster's DNS may learn a minute later when the API server was away.
        Who answers must show that peer's certificate, wherever it is.
        """
        said, caller = self._peers[peer], self._inbound.get(peer)
        if attempt % 2 == 0 or caller is None or caller.lost.done():
            return said
        host, port = caller.peer_host(), said.rpartition(":")[2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def _session(self, peer: str, address: str, reconnect: Reconnect) -> None:
        expected = Identity(self._cluster, Role.SERVER, peer).dns_name
        stream, _ = await opened(address, expected, self._files)
        try:
            reconnect.succeeded()
            await self._keep(peer, stream)
        finally:
            stream.cut()

    async def _keep(self, peer: str, stream: FrameStream) -> None:
        self._open[peer] = stream
        self.last_error.pop(peer, None)
        _log.info("raft link to %s is open", peer)
        try:
            self._bound().connected(peer)
            await stream.lost
        finally:
            del self._open[peer]
            self._bound().disconnected(peer)
            _log.info("raft link to %s is closed", peer)

    # --- receiving ----------------------------------------------------------------------------------------------------

    def _accepted(self, stream: FrameStream) -> None:
        """A handshake is done: the peer has a certificate of our authority. Whose?"""
        allowed = _SERVERS | self._users.keys()
        identity, reason = judge(stream.peer_names(), self._cluster, _PORT_NAME, allowed)
        if identity is not None and (serve := self._users.get(identity.role)) is not None:
            serve(identity, stream)
            stream.send(OPEN + self._name.encode())
            return
        if identity is not None and identity.holder not in self._peers:
            known = ", ".join(sorted(self._peers))
            reason = f"{identity.holder} is not one of the servers of this cluster: {known}"
        if identity is None or reason:
            _log.warning("refused a raft link: %s", reason)
            stream.send(REFUSED + reason.encode())
            stream.close()
            return
        peer, engine = identity.holder, self._bound()
        older = self._inbound.get(peer)
        if older is not None:  # what is left in it would arrive out of order
            older.on_frame = lambda _: None
            older.cut()
        self._inbound[peer] = stream
        stream.on_frame = lambda frame: engine.received(peer, frame)
        stream.send(OPEN + self._name.encode())

    def _bound(self) -> Receiver:
        if self._engine is None:
            raise RuntimeError("bind() the engine before listen() and start()")
        return self._engine
