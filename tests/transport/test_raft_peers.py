"""The Raft engine's links: order, at most once, and that a sender is who its certificate says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable

import pytest
from local_servers import free_ports

from tenure_api.identity import Identity, Role
from tenure_frames import FRAME_LIMIT, OPEN, REFUSED, FrameStream
from tenured.transport.errors import NotConnected
from tenured.transport.framed import dial
from tenured.transport.raft import RaftPeers
from tenured.transport.tls import TlsFiles

CLUSTER = "demo.shop"
Certificates = Callable[..., TlsFiles]


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
    """One server's links."""

    def __init__(self, name: str, files: TlsFiles, addresses: dict[str, str]) -> None:
        self.name, self.engine, self.addresses = name, Engine(), addresses
        others = {other: address for other, address in addresses.items() if other != name}
        self.peers = RaftPeers(name, CLUSTER, others, files)
        self.peers.bind(self.engine)

    @property
    def port(self) -> int:
        return int(self.addresses[self.name].rpartition(":")[2])


@pytest.fixture
async def two(certificates: Certificates) -> AsyncIterator[tuple[Node, Node]]:
    """s0 and s1, connected both ways."""
    names = ("s0", "s1")
    addresses = {name: f"127.0.0.1:{port}" for name, port in zip(names, free_ports(2), strict=True)}
    nodes = [Node(name, certificates("server", name), addresses) for name in names]
    for node in nodes:
        await node.peers.listen("127.0.0.1", node.port)
    for node in nodes:
        await node.peers.start()
    async with asyncio.timeout(5):
        for node in nodes:
            await node.engine.up.get()
    yield nodes[0], nodes[1]
    for node in nodes:
        await node.peers.stop()


class Heard(FrameStream):
    """A stream that keeps its frames."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.on_frame = self.heard.put_nowait


async def dialled(address: str, files: TlsFiles, to: str = "s0") -> Heard:
    stream = await dial(address, Identity(CLUSTER, Role.SERVER, to).dns_name, files, Heard)
    assert isinstance(stream, Heard)
    return stream


async def said(stream: Heard) -> bytes:
    async with asyncio.timeout(5):
        return await stream.heard.get()


async def over(stream: FrameStream) -> None:
    async with asyncio.timeout(5):
        await asyncio.shield(stream.lost)


async def test_frames_arrive_in_order(two: tuple[Node, Node]) -> None:
    left, right = two
    sent = [str(number).encode() * (number % 400) for number in range(2000)]
    assert all(left.peers.send("s1", frame) for frame in sent)
    async with asyncio.timeout(10):
        assert [await right.engine.frames.get() for _ in sent] == [("s0", frame) for frame in sent]


async def test_a_large_frame_arrives_whole(two: tuple[Node, Node]) -> None:
    left, right = two
    frame = bytes(range(256)) * (1 << 14)
    assert left.peers.send("s1", frame)
    assert left.peers.send("s1", b"next")
    async with asyncio.timeout(10):
        assert await right.engine.frames.get() == ("s0", frame)
        assert await right.engine.frames.get() == ("s0", b"next")


async def test_a_lost_peer_is_reported_and_frames_for_it_are_refused(
    two: tuple[Node, Node], certificates: Certificates
) -> None:
    left, right = two
    await right.peers.stop()
    async with asyncio.timeout(10):
        assert await left.engine.down.get() == "s1"
    assert left.peers.connected_peers() == frozenset()
    assert not left.peers.send("s1", b"x")
    again = Node("s1", certificates("server", "s1"), right.addresses)
    await again.peers.listen("127.0.0.1", again.port)
    async with asyncio.timeout(10):
        assert await left.engine.up.get() == "s1"
    assert left.peers.send("s1", b"again")
    async with asyncio.timeout(10):
        assert await again.engine.frames.get() == ("s0", b"again")  # and nothing of what was refused
    await again.peers.stop()


async def test_a_peer_that_began_anew_elsewhere_is_reached_where_it_called_from(certificates: Certificates) -> None:
    """Its name still leads to where it was: a cluster's DNS that heard nothing of a new pod for a minute."""
    ports = free_ports(2)
    stale = {"s0": f"127.0.0.1:{ports[0]}", "s1": f"127.0.0.9:{ports[1]}"}
    left, right = Node("s0", certificates("server", "s0"), stale), Node("s1", certificates("server", "s1"), stale)
    await left.peers.listen("127.0.0.1", left.port)
    await right.peers.listen("127.0.0.1", right.port)
    await left.peers.start()
    await right.peers.start()
    async with asyncio.timeout(5):
        assert await left.engine.up.get() == "s1"
        assert left.peers.send("s1", b"x")
        assert await right.engine.frames.get() == ("s0", b"x")
    await left.peers.stop()
    await right.peers.stop()


async def test_a_server_that_is_no_member_is_refused(two: tuple[Node, Node], certificates: Certificates) -> None:
    stream = await dialled(two[0].addresses["s0"], certificates("server", "s9"))
    answer = await said(stream)
    assert answer[:1] == REFUSED
    assert b"s9 is not one of the servers" in answer
    await over(stream)


@pytest.mark.parametrize("role", [Role.HOST, Role.CLIENT, Role.OPERATOR])
async def test_only_servers_may_send(two: tuple[Node, Node], certificates: Certificates, role: Role) -> None:
    """Also when it has the name of one: the role is in the certificate."""
    stream = await dialled(two[0].addresses["s0"], certificates(str(role), "s1"))
    assert (await said(stream))[:1] == REFUSED
    stream.send(b"a frame all the same")
    await over(stream)
    assert two[0].engine.frames.empty()


async def test_a_certificate_of_another_cluster_opens_nothing(
    two: tuple[Node, Node], certificates: Certificates
) -> None:
    """Its authority is not ours: the handshake fails, whatever name is in it."""
    files = certificates("server", "s1", cluster="other.shop", trust=CLUSTER)
    try:
        stream = await dialled(two[0].addresses["s0"], files)
    except NotConnected:
        return
    stream.send(b"x")  # with TLS 1.3 the dialler learns it after its own handshake
    await over(stream)
    assert stream.heard.empty()
    assert two[0].engine.frames.empty()


async def test_a_listener_without_the_expected_name_is_refused(
    two: tuple[Node, Node], certificates: Certificates
) -> None:
    with pytest.raises(NotConnected, match=r"is not s1\.server\.demo\.shop\.tenure"):
        await dialled(two[0].addresses["s0"], certificates("server", "s1"), to="s1")


async def test_no_certificate_opens_nothing(two: tuple[Node, Node], certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=certificates("server", "s1").directory / "ca.crt")
    host, _, port = two[0].addresses["s0"].rpartition(":")
    expected = Identity(CLUSTER, Role.SERVER, "s0").dns_name
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=expected)
    writer.write(b"\x00\x00\x00\x01x")
    async with asyncio.timeout(5):
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    writer.close()
    assert two[0].engine.frames.empty()


async def test_a_frame_that_is_too_long_ends_the_connection(two: tuple[Node, Node], certificates: Certificates) -> None:
    node = two[0]
    stream = await dialled(node.addresses["s0"], certificates("server", "s1"))
    assert (await said(stream))[:1] == OPEN
    assert stream._transport is not None
    stream._transport.write((FRAME_LIMIT + 1).to_bytes(4, "big"))
    await over(stream)
    assert node.engine.frames.empty()


async def test_a_newer_connection_ends_the_older_one(certificates: Certificates) -> None:
    """What an old connection still delivers after a reconnect would be out of order."""
    node = Node("s0", certificates("server", "s0"), {"s0": "127.0.0.1:0", "s1": "127.0.0.1:1"})
    await node.peers.listen("127.0.0.1", 0)
    address, files = f"127.0.0.1:{node.peers.port}", certificates("server", "s1")
    async with asyncio.timeout(5):
        old = await dialled(address, files)
        assert await said(old) == OPEN + b"s0"
        new = await dialled(address, files)
        assert await said(new) == OPEN + b"s0"
        assert new.send(b"new")
        assert await node.engine.frames.get() == ("s1", b"new")
        old.send(b"old")
        await over(old)
        assert new.send(b"newer")
        assert await node.engine.frames.get() == ("s1", b"newer")
    new.close()
    await node.peers.stop()
