"""The daemon's links over the simulated network, at the seams where gRPC is otherwise: `PeerLink`, the stream of
`HostLink`, the watch.

Above the seam everything is the daemon's own: queues, matching of requests and answers, who leads.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

from grpc import aio

from tenure_api.identity import Identity, Role
from tenure_proto.v1 import store_pb2
from tenure_proto.v1.hostlink_pb2 import HostFrame, HostFrames, ServerFrame, ServerFrames
from tenure_proto.v1.registry_pb2 import WatchBatch, WatchRequest
from tenured.host.mirror import Mirror
from tenured.host.watching import SILENCE_LIMIT_S, Watcher
from tenured.raft import Consensus
from tenured.simulation.machines import Process
from tenured.simulation.net import MS, End
from tenured.transport.backoff import Reconnect
from tenured.transport.errors import LinkLost, TimedOut, TransportError
from tenured.transport.serverlinks import LinkEvents, ServerLinks
from tenured.transport.signals import Wire
from tenured.transport.tls import TlsFiles

CLUSTER = "sim.tenure"
RAFT, HOSTLINK, WATCH, CALLS, STORE, SIGNALS = "raft", "hostlink", "watch", "calls", "store", "signals"
HELLO_TIMEOUT_S = 3.0

_BEARABLE = frozenset(
    {"heartbeat", "heartbeat_ack", "seal", "write", "read", "sealed", "written", "records"},
)
"""Frames that the protocol bears to be lost, doubled and late (protocol 1 and 2). Commands are not among them: the
stream keeps their order, and a later report replaces an earlier one.
"""


class Wildness:
    """What happens to single frames that bear it, in worlds that are wilder than TCP."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.loss = 0.0
        self.doubles = 0.0
        self.late = 0.0
        self.late_ns = 2_000 * MS

    def copies(self) -> int:
        """How often a frame arrives."""
        if self.loss and self.rng.random() < self.loss:
            return 0
        return 2 if self.doubles and self.rng.random() < self.doubles else 1

    def delay(self) -> int:
        """How much later than the others it arrives."""
        return int(self.rng.random() * self.late_ns) if self.late and self.rng.random() < self.late else 0


class FrameStream:
    """Either side of a HostLink connection, as hostlink.serve and ServerLinks use gRPC's."""

    def __init__(self, end: End, wild: Wildness, wrap: type[HostFrames | ServerFrames]) -> None:
        self.end = end
        self._wild = wild
        self._wrap: Any = wrap

    async def read(self) -> Any:
        """The next message, aio.EOF at the end."""
        message = await self.end.read()
        return aio.EOF if message is None else message

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.end.read()) is not None:
            yield message

    async def write(self, message: HostFrames | ServerFrames, /) -> None:
        """Send its frames, each by its luck. Raises InvalidStateError, as gRPC does."""
        wild = self._wild
        if wild.loss or wild.doubles or wild.late:
            message = self._by_luck(message)
            if not message.frames:
                return
        if not self.end.write(message):
            raise asyncio.InvalidStateError("the connection has ended")

    def _by_luck(self, message: HostFrames | ServerFrames) -> HostFrames | ServerFrames:
        kept: list[HostFrame | ServerFrame] = []
        for frame in message.frames:
            copies = self._wild.copies() if frame.WhichOneof("body") in _BEARABLE else 1
            for _ in range(copies):
                delay = self._wild.delay() if frame.WhichOneof("body") in _BEARABLE else 0
                if delay:
                    single = self._wrap(frames=[frame])
                    self.end.peer.loop.deliver(self.end.net.timeline.now + delay, self.end.peer.arrived, single)
                else:
                    kept.append(frame)
        return cast("HostFrames | ServerFrames", self._wrap(frames=kept))

    def cancel(self) -> bool:
        """As a gRPC call."""
        self.end.close()
        return True


class SimLinks(ServerLinks):
    """A host's links to the servers."""

    def __init__(self, process: Process, servers: Mapping[str, str], events: LinkEvents, wild: Wildness) -> None:
        super().__init__(CLUSTER, servers, cast("TlsFiles", None), events)
        self._process = process
        self._wild = wild

    async def _session(self, server: str, reconnect: Reconnect) -> None:
        process = self._process
        end = await process.setting.net.dial(process.loop, process.machine.name, server, HOSTLINK)
        stream = FrameStream(end, self._wild, HostFrames)
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                first = await stream.read()
            if not isinstance(first, ServerFrames) or not first.frames or not first.frames[0].HasField("hello"):
                raise TransportError(f"Server {server} closed the stream before its hello")
            reconnect.succeeded()
            await self._run(server, cast("Any", stream), first)
        except TimeoutError as error:
            raise TransportError(f"Server {server} said no hello") from error
        finally:
            end.close()


class SimWatcher(Watcher):
    """A host's watch of one server after the other."""

    def __init__(
        self, process: Process, servers: Mapping[str, str], mirror: Mirror, on_batch: Callable[[WatchBatch], None]
    ) -> None:
        super().__init__(CLUSTER, servers, cast("TlsFiles", None), mirror, on_batch)
        self._process = process

    async def _follow(self, name: str, address: str, reconnect: Reconnect) -> None:  # noqa: ARG002 - the real one's
        process = self._process
        end = await process.setting.net.dial(process.loop, process.machine.name, name, WATCH)
        try:
            revision = self._mirror.revision if self._mirror.synced else 0
            end.write(WatchRequest(from_revision=revision, kinds=["agents", "hosts"]))
            while True:
                async with asyncio.timeout(SILENCE_LIMIT_S):
                    encoded = await end.read()
                if encoded is None:
                    return
                reconnect.succeeded()
                self._on_batch(WatchBatch.FromString(encoded))
        finally:
            end.close()


class SimWire:
    """One side of a connection for signals (`tenured.transport.signals.Wire`)."""

    writable = True

    def __init__(self, end: End) -> None:
        self._end = end
        self.on_frame: Callable[[bytes], None] = _drop
        self.on_lost: Callable[[], None] = _nothing
        self.on_writable: Callable[[], None] = _nothing
        end.on_item, end.on_end = self._came, self._ended

    def send(self, frame: bytes) -> bool:
        """Queue one frame."""
        return self._end.write(frame)

    def cut(self) -> None:
        """End it; the other side hears of it after what was sent."""
        self._end.close()

    close = cut

    def _came(self, frame: bytes) -> None:
        self.on_frame(frame)

    def _ended(self) -> None:
        self.on_lost()


class SimWires:
    """`tenured.transport.signals.Wires`: a host's connections to other hosts."""

    port = 0

    def __init__(self, process: Process) -> None:
        self._process = process

    async def dial(self, host: str, address: str) -> SimWire:  # noqa: ARG002 - a machine has one name only
        """Raises NotConnected."""
        process = self._process
        return SimWire(await process.setting.net.dial(process.loop, process.machine.name, host, SIGNALS))

    async def listen(self, accept: Callable[[str, Wire], None]) -> None:
        """For as long as the process lives."""
        process = self._process
        process.setting.net.listen(
            process.loop, process.machine.name, SIGNALS, lambda end, machine: accept(machine, SimWire(end))
        )

    async def stop(self) -> None:
        """The process's death ends everything."""


class SimPeers:
    """`tenured.raft.PeerLink`: one stream to each peer, and who receives."""

    def __init__(self, process: Process, name: str, peers: tuple[str, ...]) -> None:
        self._process = process
        self._name = name
        self._peers = peers
        self._out: dict[str, End] = {}
        self._in: dict[str, End] = {}
        self._engine: Consensus

    def bind(self, engine: Consensus) -> None:
        """Say who gets frames and news."""
        self._engine = engine

    def send(self, peer: str, frame: bytes) -> bool:
        """Queue one frame."""
        end = self._out.get(peer)
        return end is not None and end.write(frame)

    def start(self) -> None:
        """Listen, and dial every peer."""
        self._process.setting.net.listen(self._process.loop, self._name, RAFT, self._accept)
        for peer in self._peers:
            self._process.spawn(self._dial(peer))

    def _accept(self, end: End, peer: str) -> None:
        old = self._in.get(peer)
        if old is not None:
            old.on_item = _drop  # a newer stream took over: what is left there would arrive out of order
            old.close()
        self._in[peer] = end
        end.on_item = lambda frame: self._engine.received(peer, frame)

    async def _dial(self, peer: str) -> None:
        process = self._process
        reconnect = Reconnect()
        while True:
            try:
                end = await process.setting.net.dial(process.loop, self._name, peer, RAFT)
            except TransportError:
                await reconnect.pause()
                continue
            reconnect.succeeded()
            self._out[peer] = end
            self._engine.connected(peer)
            await end.read()  # nothing comes: it is how the end is noticed
            self._out.pop(peer, None)
            self._engine.disconnected(peer)
            await reconnect.pause()


StoreRequest = store_pb2.ListRecordsRequest | store_pb2.FetchRecordsRequest


class StoreLink:
    """What a server with a new disk asks another one (`server.joining.Peer`)."""

    def __init__(self, process: Process, server: str) -> None:
        self._process, self._server = process, server
        self._end: End | None = None
        self._numbers = itertools.count(1)

    async def list_records(
        self, request: store_pb2.ListRecordsRequest, timeout_s: float
    ) -> store_pb2.ListRecordsResponse:
        """A page."""
        answer: store_pb2.ListRecordsResponse = await self._ask(request, timeout_s)
        return answer

    async def fetch_records(
        self, request: store_pb2.FetchRecordsRequest, timeout_s: float
    ) -> store_pb2.FetchRecordsResponse:
        """Records."""
        answer: store_pb2.FetchRecordsResponse = await self._ask(request, timeout_s)
        return answer

    async def close(self) -> None:
        """End the connection."""
        if self._end is not None:
            self._end.close()

    async def _ask(self, request: StoreRequest, timeout_s: float) -> Any:
        process = self._process
        number = next(self._numbers)
        try:
            async with asyncio.timeout(timeout_s):
                if self._end is None or not self._end.open:
                    self._end = await process.setting.net.dial(process.loop, process.machine.name, self._server, STORE)
                self._end.write((number, request))
                while (answer := await self._end.read()) is not None:
                    if answer[0] == number:
                        return answer[1]
        except TimeoutError as error:
            raise TimedOut(f"{self._server} did not answer") from error
        raise LinkLost(f"{self._server} hung up")


def _nothing() -> None:
    """Nobody listens."""


def _drop(_frame: object) -> None:
    """Of a stream that was replaced."""


def identity(role: Role, machine: str) -> Identity:
    """Who a process is, as its certificate would say."""
    return Identity(CLUSTER, role, machine)
