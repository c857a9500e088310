"""The framed port of a host (7448): signals of other hosts (docs/adr/0028), and calls of clients (docs/adr/0032).

Who may connect, and connections of hosts as wires. The sending host dials; answers come back on the same connection.
Only the certificate says who a peer is, and with that what the connection is for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from tenure_api.identity import Identity, Role
from tenure_frames import FrameStream
from tenured.core import signalframes
from tenured.transport.calls import SESSION
from tenured.transport.framed import FrameListener, dial
from tenured.transport.roles import HOST_CALLS
from tenured.transport.serving import judge
from tenured.transport.tls import TlsFiles

_log = logging.getLogger(__name__)

_PORT_NAME = "the framed port"
_CALLERS = HOST_CALLS[SESSION] - {Role.HOST}
_HOSTS = frozenset({Role.HOST})

AcceptCaller = Callable[[Identity, FrameStream], None]


class Wire(Protocol):
    """A connection that carries frames in order and at most once."""

    on_frame: Callable[[bytes], None]
    """Called on the loop for each frame."""
    on_lost: Callable[[], None]
    """Called once when it is over."""
    on_writable: Callable[[], None]
    """Called when `writable` has become true again."""

    @property
    def writable(self) -> bool:
        """The peer keeps up: more may be sent."""
        ...

    def send(self, frame: bytes) -> bool:
        """Queue one frame. False: it is over."""
        ...

    def cut(self) -> None:
        """End it at once."""
        ...

    def close(self) -> None:
        """End it after what was sent."""
        ...


class Wires(Protocol):
    """Where connections come from."""

    @property
    def port(self) -> int:
        """Where it listens."""
        ...

    async def dial(self, host: str, address: str) -> Wire:
        """A connection to the host of that name, at host:port. Raises TransportError."""
        ...

    async def listen(self, accept: Callable[[str, Wire], None]) -> None:
        """Take connections: `accept(name of the host, connection)`. Raises TransportError."""
        ...

    async def stop(self) -> None:
        """Close the port and what came in by it."""
        ...


class SignalStream(FrameStream):
    """A framed connection that says when its peer keeps up."""

    def __init__(self) -> None:
        super().__init__()
        # The dialler's hello may be here before the listener's task hears that the handshake is done.
        self._early: list[bytes] = []
        self.on_frame = self._keep
        self.writable = True
        self.on_writable: Callable[[], None] = _nothing
        self.on_lost: Callable[[], None] = _nothing

    def hand_over(self) -> None:
        """`on_frame` is set: give it what has come before."""
        early, self._early = self._early, []
        for frame in early:
            self.on_frame(frame)

    def _keep(self, frame: bytes) -> None:
        self._early.append(frame)
        if len(self._early) > 1:
            _log.warning("a peer sent more than its hello before it was heard; the connection is cut")
            self.cut()

    def pause_writing(self) -> None:
        """Enough waits."""
        super().pause_writing()
        self.writable = False

    def resume_writing(self) -> None:
        """Most of it is gone."""
        super().resume_writing()
        self.writable = True
        self.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        super().connection_lost(exc)
        self.on_lost()
        self.on_lost = self.on_writable = _nothing


class FramedWires:
    """`Wires` of a real host."""

    def __init__(
        self, cluster: str, files: TlsFiles, address: str, port: int, callers: AcceptCaller | None = None
    ) -> None:
        """`address`, `port`: where to listen; port 0: the system chooses. `callers`: serves clients; None: refused."""
        self._callers = callers
        self._cluster, self._files = cluster, files
        self._address, self._wanted = address, port
        self._accept: Callable[[str, Wire], None] = _refuse
        self._listener = FrameListener(files, SignalStream, self._opened)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listener.port

    async def dial(self, host: str, address: str) -> Wire:
        """Raises NotConnected and BadFiles."""
        stream = await dial(address, Identity(self._cluster, Role.HOST, host).dns_name, self._files, SignalStream)
        assert isinstance(stream, SignalStream)  # noqa: S101 - what `made` made
        asyncio.get_running_loop().call_soon(stream.hand_over)  # a refusal may be here already
        return stream

    async def listen(self, accept: Callable[[str, Wire], None]) -> None:
        """Raises TransportError when the port is taken, BadFiles."""
        self._accept = accept
        await self._listener.start(self._address, self._wanted)

    async def stop(self) -> None:
        """Does nothing if not started."""
        await self._listener.stop()

    def _opened(self, stream: FrameStream) -> None:
        """A handshake is done: the peer has a certificate of our authority. Whose?"""
        allowed = _HOSTS if self._callers is None else _HOSTS | _CALLERS
        identity, reason = judge(stream.peer_names(), self._cluster, _PORT_NAME, allowed)
        if identity is None or not isinstance(stream, SignalStream):
            _log.warning("refused a connection: %s", reason)
            stream.send(signalframes.encode(signalframes.Refused(reason)))
            stream.close()
        elif identity.role is Role.HOST:
            self._accept(identity.holder, stream)
            stream.hand_over()
        elif self._callers is not None:
            self._callers(identity, stream)


def _nothing() -> None:
    """Nobody listens."""


def _refuse(_host: str, wire: Wire) -> None:
    wire.cut()
