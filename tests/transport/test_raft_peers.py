"""The Raft engine's links: order, at most once, and that a sender is who its certificate says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from grpc import aio
from local_servers import free_ports

from tenure_api.identity import Identity, Role
from tenure_proto.v1.raft_pb2 import RaftFrames, RaftOpen
from tenured.transport import roles
from tenured.transport.errors import PeerRefused, wrap
from tenured.transport.raft import STREAM, RaftPeers
from tenured.transport.serving import Listener
from tenured.transport.tls import TlsFiles, open_channel

CLUSTER = "demo.shop"


class Engine:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.up: asyncio.Queue[str] = asyncio.Queue()
        self.down: asyncio.Queue[str] = asyncio.Queue()

    def received(self, peer: str, frame: bytes) -> None:
        self.frames.put_nowait((peer, frame))

    def connected(self, peer: str) -> None:
        self.up.put_nowait(peer)

    def disconnected(self, peer: str) -> None:
        self.down.put_nowait(peer)


class Node:
    """One server's links with its listener."""

    def __init__(self, name: str, files: TlsFiles) -> None:
        self.name, self.files, self.engine = name, files, Engine()
        self.peers: RaftPeers | None = None
        self.listener: Listener | None = None
        self.addresses: dict[str, str] = {}

    def method_of(self, addresses: dict[str, str]) -> RaftPeers:
        others = {name: address for name, address in addresses.items() if name != self.name}
        self.peers = RaftPeers(self.name, CLUSTER, others, self.files)
        self.peers.bind(self.engine)
        return self.peers

    async def listen(self, port: int) -> None:
        assert self.peers is not None
        self.listener = Listener(self.files, CLUSTER, [self.peers.method()], roles.SERVER_PEERS)
        await self.listener.start("127.0.0.1", port)

    async def stop(self) -> None:
        if self.peers is not None:
            await self.peers.stop()
        if self.listener is not None:
            await self.listener.stop()


@pytest.fixture
async def two(certificates: Callable[..., TlsFiles]) -> AsyncIterator[tuple[Node, Node]]:
    """s0 and s1, connected both ways."""
    nodes = [Node(name, certificates("server", name)) for name in ("s0", "s1")]
    ports = free_ports(2)
    addresses = {node.name: f"127.0.0.1:{port}" for node, port in zip(nodes, ports, strict=True)}
    for node, port in zip(nodes, ports, strict=True):
        node.addresses = addresses
        node.method_of(addresses)
        await node.listen(port)
    for node in nodes:
        assert node.peers is not None
        await node.peers.start()
    async with asyncio.timeout(5):
        for node in nodes:
            await node.engine.up.get()
    yield nodes[0], nodes[1]
    for node in nodes:
        await node.stop()


async def test_frames_arrive_in_order(two: tuple[Node, Node]) -> None:
    left, right = two
    assert left.peers is not None
    sent = [str(number).encode() for number in range(2000)]
    assert all(left.peers.send("s1", frame) for frame in sent)
    async with asyncio.timeout(10):
        assert [await right.engine.frames.get() for _ in sent] == [("s0", frame) for frame in sent]


async def test_a_lost_peer_is_reported_and_frames_for_it_are_refused(two: tuple[Node, Node]) -> None:
    left, right = two
    await right.stop()
    async with asyncio.timeout(10):
        assert await left.engine.down.get() == "s1"
    assert left.peers is not None
    assert not left.peers.send("s1", b"x")
    port = int(right.addresses["s1"].rpartition(":")[2])
    right.method_of(right.addresses)
    await right.listen(port)
    async with asyncio.timeout(10):
        assert await left.engine.up.get() == "s1"
    assert left.peers.send("s1", b"again")
    async with asyncio.timeout(10):
        assert await right.engine.frames.get() == ("s0", b"again")


async def stream(
    address: str, files: TlsFiles, to: str = "s0"
) -> tuple[aio.Channel, aio.StreamStreamCall[RaftFrames, RaftOpen]]:
    channel = open_channel(address, Identity(CLUSTER, Role.SERVER, to).dns_name, files)
    method: aio.StreamStreamMultiCallable[RaftFrames, RaftOpen] = channel.stream_stream(
        STREAM, RaftFrames.SerializeToString, RaftOpen.FromString
    )
    return channel, method()


async def test_a_server_that_is_no_member_is_refused(
    two: tuple[Node, Node], certificates: Callable[..., TlsFiles]
) -> None:
    channel, call = await stream(two[0].addresses["s0"], certificates("server", "s9"))
    with pytest.raises(aio.AioRpcError) as refused:
        await call.read()
    assert isinstance(wrap(refused.value, "s0", sent=False), PeerRefused)
    assert "s9 is not one of the servers" in str(refused.value.details())
    await channel.close()


async def test_a_newer_stream_ends_the_older_one(certificates: Callable[..., TlsFiles]) -> None:
    """What an old connection still delivers after a reconnect would be out of order."""
    node = Node("s0", certificates("server", "s0"))
    node.method_of({"s0": "", "s1": "127.0.0.1:1"})
    await node.listen(0)
    assert node.listener is not None
    address, files = f"127.0.0.1:{node.listener.port}", certificates("server", "s1")
    async with asyncio.timeout(5):
        old_channel, old = await stream(address, files)
        assert isinstance(await old.read(), RaftOpen)
        new_channel, new = await stream(address, files)
        assert isinstance(await new.read(), RaftOpen)
        await new.write(RaftFrames(frames=[b"new"]))
        assert await node.engine.frames.get() == ("s1", b"new")
        await old.write(RaftFrames(frames=[b"old"]))
        assert await old.read() is aio.EOF
        await new.write(RaftFrames(frames=[b"newer"]))
        assert await node.engine.frames.get() == ("s1", b"newer")
    await old_channel.close()
    await new_channel.close()
    await node.stop()
