"""The host's side: one `HostLink` stream to each server, reopened for as long as the host lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from grpc import aio

from tenure_api.identity import Identity, Role
from tenure_proto.v1.hostlink_pb2 import (
    Assigned,
    Heartbeat,
    HeartbeatAck,
    HostFrame,
    HostFrames,
    ServerFrame,
    ServerFrames,
    ServerHello,
)
from tenure_proto.v1.registry_pb2 import WatchBatch, WatchRequest
from tenured.transport.backoff import Reconnect
from tenured.transport.departures import Departures
from tenured.transport.errors import LinkLost, NotConnected, TimedOut, TransportError, wrap
from tenured.transport.hostframes import encoded, open_link
from tenured.transport.outbox import Outbox
from tenured.transport.tls import TlsFiles, open_channel

_log = logging.getLogger(__name__)

CONNECT = "/tenure.v1.HostLink/Connect"
_MAX_QUEUED = 16384
_HELLO_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class LinkEvents:
    """What a host wants to hear. All are called on the loop and must not block."""

    on_connected: Callable[[str, ServerHello], None]
    on_disconnected: Callable[[str], None]
    on_hello: Callable[[str, ServerHello], None]
    """A later hello: the leader, or the view, has changed."""
    on_ack: Callable[[str, HeartbeatAck], None]
    on_assigned: Callable[[Assigned], None] = lambda _: None
    """Rows ahead of the watch."""


class _Link:
    """The stream to one server while it is open."""

    def __init__(self, server: str, outbox: Outbox[HostFrame] | Departures[HostFrame]) -> None:
        self.server = server
        self.outbox = outbox
        self.waiting: dict[int, asyncio.Future[ServerFrame]] = {}
        self.watches = False
        """The server serves a watch on this link."""
        self.watch: tuple[int, asyncio.Queue[bytes]] | None = None
        """Id and batches of the watch that runs, encoded; an empty one is the end."""

    def fail_all(self) -> None:
        if self.watch is not None:
            self.watch[1].put_nowait(b"")
        waiting, self.waiting = self.waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(LinkLost(f"The connection to server {self.server} broke before its answer"))
                # Whoever asked may have gone (a majority answered): the error is then nobody's news.
                future.exception()


class ServerLinks:
    """The links of one host to all servers of its cluster."""

    def __init__(
        self,
        cluster: str,
        servers: Mapping[str, str],
        files: TlsFiles,
        events: LinkEvents,
        frames: Mapping[str, str] | None = None,
    ) -> None:
        """`servers`: name to host:port of their peer ports (7444); `frames`: of their ports for framed TLS (7447).

        A server without the latter is reached by gRPC.
        """
        self._frames = dict(frames or {})
        self._cluster = cluster
        self._servers = dict(servers)
        self._files = files
        self._events = events
        self._links: dict[str, _Link] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._next_id = 0
        self.leader: str | None = None
        """As far as the last hello of any connected server says; a hint, never a permission."""
        self.views: dict[str, int] = {}
        """The store's view, as each connected server's last hello says."""
        self.last_error: dict[str, str] = {}
        self._news: asyncio.Future[None] | None = None
        """Ends when a server is connected."""

    @property
    def names(self) -> tuple[str, ...]:
        """All servers, connected or not."""
        return tuple(self._servers)

    @property
    def connected(self) -> frozenset[str]:
        """Servers that frames can be sent to now."""
        return frozenset(self._links)

    @property
    def view(self) -> int:
        """The highest view of the store that any server has named."""
        return max(self.views.values(), default=0)

    async def start(self) -> None:
        """Dial every server, and again after every loss, until `stop`."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._dial(name), name=f"link to {name}") for name in self._servers]

    async def stop(self) -> None:
        """Close every link; requests under way end with LinkLost."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()

    def heartbeat(self, beat: Heartbeat) -> tuple[str, ...]:
        """Send a heartbeat to the leader, or to every connected server while none is known. Answers whom it went to."""
        leader = self.leader
        to = (leader,) if leader is not None and leader in self._links else tuple(self._links)
        frame = HostFrame(heartbeat=beat)
        return tuple(name for name in to if self._links[name].outbox.put(frame))

    def submit(self, server: str, frame: HostFrame, timeout_s: float) -> asyncio.Future[ServerFrame]:
        """Send a request and answer a future of the frame that answers it. The id is filled in, once: a frame may be
        submitted to several servers, each of which gets it once.

        The future ends with LinkLost or TimedOut (outcome unknown). Raises NotConnected (nothing was sent).
        """
        link = self._links.get(server)
        loop = asyncio.get_running_loop()
        if not frame.id:
            self._next_id += 1
            frame.id = self._next_id
        if link is None or not link.outbox.put(frame):
            raise NotConnected(f"Not connected to server {server}{self._why(server)}")
        future: asyncio.Future[ServerFrame] = loop.create_future()
        link.waiting[frame.id] = future
        timer = loop.call_later(timeout_s, self._time_out, link, frame.id, timeout_s)
        future.add_done_callback(lambda _: timer.cancel())
        return future

    async def request(self, server: str, frame: HostFrame, timeout_s: float) -> ServerFrame:
        """`submit`, awaited."""
        return await self.submit(server, frame, timeout_s)

    async def reached(self, server: str, within_s: float) -> bool:
        """Wait until that server is connected; False when the time passed first."""
        try:
            async with asyncio.timeout(within_s):
                while server not in self._links:
                    self._news = self._news or asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._news)
        except TimeoutError:
            return False
        return True

    def watches(self, server: str) -> bool:
        """Whether that server is connected and serves a watch on its link: an older one does not."""
        link = self._links.get(server)
        return link is not None and link.watches

    async def watch(self, server: str, request: WatchRequest) -> AsyncGenerator[WatchBatch]:
        """One watch on the link to a server that `watches`, until it ends or the link does. One at a time.

        Raises NotConnected.
        """
        link = self._links.get(server)
        self._next_id += 1
        number = self._next_id
        if link is None or not link.outbox.put(HostFrame(id=number, watch=request)):
            raise NotConnected(f"Not connected to server {server}{self._why(server)}")
        _, batches = link.watch = (number, asyncio.Queue[bytes]())
        try:
            while encoded := await batches.get():
                yield WatchBatch.FromString(encoded)
        finally:
            if link.watch == (number, batches):
                link.watch = None

    def _why(self, server: str) -> str:
        error = self.last_error.get(server)
        return f": {error}" if error else ""

    @staticmethod
    def _time_out(link: _Link, frame_id: int, timeout_s: float) -> None:
        future = link.waiting.pop(frame_id, None)
        if future is not None and not future.done():
            future.set_exception(TimedOut(f"Server {link.server} did not answer within {timeout_s:g} s"))
            future.exception()

    async def _dial(self, server: str) -> None:
        reconnect = Reconnect()
        while True:
            try:
                await (self._framed if server in self._frames else self._session)(server, reconnect)
            except TransportError as error:
                reconnect.failed(_log, f"link to server {server}", str(error))
                self.last_error[server] = str(error)
            except Exception:  # noqa: BLE001 - a defect: without its link a host may never find a majority again
                _log.exception("the link to server %s failed", server)
            await reconnect.pause()

    async def _session(self, server: str, reconnect: Reconnect) -> None:
        expected = Identity(self._cluster, Role.SERVER, server).dns_name
        channel = open_channel(self._servers[server], expected, self._files)
        opened = False
        try:
            method: aio.StreamStreamMultiCallable[HostFrames, ServerFrames] = channel.stream_stream(
                CONNECT, HostFrames.SerializeToString, ServerFrames.FromString
            )
            call = method()
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                first = await call.read()
            if not isinstance(first, ServerFrames) or not first.frames or not first.frames[0].HasField("hello"):
                raise TransportError(f"Server {server} closed the stream before its hello")
            opened = True
            reconnect.succeeded()
            await self._run(server, call, first)
        except aio.AioRpcError as error:
            raise wrap(error, f"server {server}", sent=opened) from error
        except (asyncio.InvalidStateError, TimeoutError) as error:
            raise TransportError(f"Server {server} said no hello within {_HELLO_TIMEOUT_S:.0f} s") from error
        finally:
            await channel.close()

    async def _framed(self, server: str, reconnect: Reconnect) -> None:
        """One connection by framed TLS, from its dialling to its end."""
        expected = Identity(self._cluster, Role.SERVER, server).dns_name
        hello: asyncio.Future[ServerHello] = asyncio.get_running_loop().create_future()
        early: list[ServerFrame] = []
        take: Callable[[ServerFrame], None] = early.append

        def came(encoded: bytes) -> None:
            frame = ServerFrame.FromString(encoded)
            if hello.done():
                take(frame)
            else:
                hello.set_result(frame.hello)

        framed = await open_link(self._frames[server], expected, self._files, came)
        link = _Link(server, Departures(framed.stream, encoded, _MAX_QUEUED))
        try:
            await asyncio.wait((hello, framed.stream.lost), timeout=_HELLO_TIMEOUT_S, return_when=FIRST_COMPLETED)
            if not hello.done():
                raise TransportError(f"Server {server} said no hello within {_HELLO_TIMEOUT_S:.0f} s")
            reconnect.succeeded()
            self._began(link, hello.result())
            try:
                self._events.on_connected(server, hello.result())
                self._take(link, early)  # what it said before it was heard: the leader may have changed in between
                take = partial(self._take_one, link)
                await asyncio.wait((framed.stream.lost,))
            finally:
                self._ended(link)
        finally:
            framed.stream.cut()

    def _take_one(self, link: _Link, frame: ServerFrame) -> None:
        self._take(link, (frame,))

    async def _run(
        self, server: str, call: aio.StreamStreamCall[HostFrames, ServerFrames], first: ServerFrames
    ) -> None:
        outbox: Outbox[HostFrame] = Outbox(_MAX_QUEUED)
        link = _Link(server, outbox)
        self._began(link, first.frames[0].hello)
        writer = asyncio.ensure_future(self._write(outbox, call))
        try:
            self._events.on_connected(server, first.frames[0].hello)
            self._take(link, list(first.frames)[1:])
            while isinstance(batch := await call.read(), ServerFrames):
                self._take(link, batch.frames)
        finally:
            writer.cancel()
            call.cancel()
            self._ended(link)

    def _began(self, link: _Link, hello: ServerHello) -> None:
        link.watches = hello.watches
        self._links[link.server] = link
        self.last_error.pop(link.server, None)
        self._learn(link.server, hello)
        if self._news is not None:
            self._news.set_result(None)
            self._news = None

    def _ended(self, link: _Link) -> None:
        del self._links[link.server]
        self.views.pop(link.server, None)
        if self.leader == link.server:
            self.leader = None
        link.outbox.close()
        link.fail_all()
        self._events.on_disconnected(link.server)

    @staticmethod
    async def _write(outbox: Outbox[HostFrame], call: aio.StreamStreamCall[HostFrames, ServerFrames]) -> None:
        with contextlib.suppress(
            aio.AioRpcError, asyncio.InvalidStateError
        ):  # the reader reports the end of the stream
            while frames := await outbox.take():
                await call.write(HostFrames(frames=frames))
        call.cancel()

    def _take(self, link: _Link, frames: Iterable[ServerFrame]) -> None:
        for frame in frames:
            match frame.WhichOneof("body"):
                case "heartbeat_ack":
                    self._events.on_ack(link.server, frame.heartbeat_ack)
                case "watched":
                    if link.watch is not None and link.watch[0] == frame.id:
                        link.watch[1].put_nowait(frame.watched)
                case "assigned":
                    self._events.on_assigned(frame.assigned)
                case "hello":
                    self._learn(link.server, frame.hello)
                    self._events.on_hello(link.server, frame.hello)
                case _:
                    future = link.waiting.pop(frame.id, None)
                    if future is not None and not future.done():
                        future.set_result(frame)

    def _learn(self, server: str, hello: ServerHello) -> None:
        self.views[server] = hello.view
        if hello.is_leader:
            self.leader = server
        elif self.leader == server or (self.leader is None and hello.leader):
            self.leader = hello.leader or None
