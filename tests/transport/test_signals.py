"""Signals between hosts by framed TLS: who may connect, and couriers of two hosts on real connections."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Callable

import pytest
from couriers import Host, Sending
from local_hosts import eventually

from tenure_api.identity import Identity, Role
from tenure_frames import FRAME_LIMIT, FrameStream
from tenured.core import signalframes
from tenured.core.signalframes import Hello, Refused, Welcome
from tenured.transport.errors import NotConnected, TransportError
from tenured.transport.framed import dial
from tenured.transport.signals import FramedWires, SignalStream
from tenured.transport.tls import TlsFiles

CLUSTER = "demo.shop"
Certificates = Callable[..., TlsFiles]


def wires(certificates: Certificates, name: str) -> FramedWires:
    return FramedWires(CLUSTER, certificates("host", name), "127.0.0.1", 0)


@pytest.fixture
async def two(certificates: Certificates) -> AsyncIterator[tuple[Host, Host]]:
    """a and b; agents 50 to 59 are at b, 60 to 69 at a."""
    a, b = (Host(name, wires(certificates, name)) for name in ("a", "b"))
    for host in (a, b):
        await host.courier.start()
    where = {str(50 + uid): b for uid in range(10)} | {str(60 + uid): a for uid in range(10)}
    for host in (a, b):
        host.read((a, b), where)
    yield a, b
    for host in (a, b):
        await host.courier.stop()


class Heard(FrameStream):
    """A stream that keeps its frames."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.on_frame = self.heard.put_nowait


async def dialled(host: Host, files: TlsFiles) -> Heard:
    expected = Identity(CLUSTER, Role.HOST, host.name).dns_name
    stream = await dial(f"127.0.0.1:{host.courier.port}", expected, files, Heard)
    assert isinstance(stream, Heard)
    return stream


async def said(stream: Heard) -> signalframes.ToSender:
    async with asyncio.timeout(5):
        return signalframes.decode_to_sender(await stream.heard.get())


async def over(stream: FrameStream) -> None:
    async with asyncio.timeout(5):
        await asyncio.shield(stream.lost)


async def test_signals_travel_both_ways_in_order(two: tuple[Host, Host]) -> None:
    a, b = two
    there = [Sending(a, str(uid)) for uid in range(1, 11)]
    back = [Sending(b, str(uid)) for uid in range(11, 21)]
    for number in range(20):
        for sender in (*there, *back):
            receiver = 50 + number % 10 if sender in there else 60 + number % 10
            sender.release(str(receiver), *range(number * 50 + 1, number * 50 + 51))
    for sender in (*there, *back):
        await sender.all_settled(1000)
    for host, senders in ((b, there), (a, back)):
        for uid in range(len(senders)):
            applied = host.agents.applied
            for sender in {each for _, each, _ in applied}:
                numbers = [n for receiver, each, n in applied if each == sender and receiver == f"{50 + uid}"]
                assert numbers == sorted(set(numbers))
        assert len(host.agents.applied) == 10_000


async def test_a_large_body_arrives_whole(two: tuple[Host, Host]) -> None:
    """Larger than the bytes that are granted at first: alone it may pass."""
    a, b = two
    sender = Sending(a)
    bodies: list[int] = []
    take = b.agents.deliver
    b.courier._arrivals.deliver = lambda signal, answered: (bodies.append(len(signal.body)), take(signal, answered))[1]
    sender.release("50", 1, body=bytes(11 << 20))
    sender.release("50", 2)
    await sender.all_settled(2)
    assert bodies == [11 << 20, 4]


async def test_a_host_that_comes_back_gets_what_waits(two: tuple[Host, Host], certificates: Certificates) -> None:
    """The connection dies with its host; the next process start of it takes the agents, and nothing is lost."""
    a, b = two
    sender = Sending(a)
    b.agents.hold.add("50")
    sender.release("50", 1, 2)
    async with asyncio.timeout(5):
        await b.agents.came.wait()
    await b.courier.stop()
    sender.release("50", 3)
    again = Host("b", wires(certificates, "b"), life=2)
    await again.courier.start()
    a.read((again,), {"50": again}, epoch=2)
    assert await sender.all_settled(3) == [(1, "applied"), (2, "applied"), (3, "applied")]
    assert again.agents.applied == [("50", "1", 1), ("50", "1", 2), ("50", "1", 3)]
    await again.courier.stop()


@pytest.mark.parametrize("role", [Role.SERVER, Role.CLIENT, Role.OPERATOR])
async def test_only_hosts_may_send(two: tuple[Host, Host], certificates: Certificates, role: Role) -> None:
    """Also when it has the name of one: the role is in the certificate."""
    stream = await dialled(two[1], certificates(str(role), "a"))
    answer = await said(stream)
    assert isinstance(answer, Refused)
    assert f"is a {role}" in answer.message
    stream.send(signalframes.encode(Hello(signalframes.VERSION, "a.1", "b.1")))
    await over(stream)


async def test_a_refused_dialler_hears_why(two: tuple[Host, Host], certificates: Certificates) -> None:
    """Also when the refusal is there before it listens."""
    stranger = Host("s", FramedWires(CLUSTER, certificates("server", "s"), "127.0.0.1", 0))
    await stranger.courier.start()
    stranger.read((two[1],), {"50": two[1]})
    sender = Sending(stranger)
    sender.release("50", 1)
    await eventually(lambda: "is a server" in sender.out.waiting.stuck["50"][1])
    await stranger.courier.stop()


async def test_a_certificate_of_another_cluster_opens_nothing(
    two: tuple[Host, Host], certificates: Certificates
) -> None:
    files = certificates("host", "a", cluster="other.shop", trust=CLUSTER)
    try:
        stream = await dialled(two[1], files)
    except NotConnected:
        return
    await over(stream)  # with TLS 1.3 the dialler learns it after its own handshake
    assert stream.heard.empty()


async def test_a_listener_without_the_expected_name_is_refused(
    two: tuple[Host, Host], certificates: Certificates
) -> None:
    address = f"127.0.0.1:{two[1].courier.port}"
    with pytest.raises(NotConnected, match=r"is not c\.host\.demo\.shop\.tenure"):
        await wires(certificates, "a").dial("c", address)


async def test_a_frame_that_is_too_long_ends_the_connection(two: tuple[Host, Host], certificates: Certificates) -> None:
    stream = await dialled(two[1], certificates("host", "x"))
    stream.send(signalframes.encode(Hello(signalframes.VERSION, "x.1", "b.1")))
    assert isinstance(await said(stream), Welcome)
    assert stream._transport is not None
    stream._transport.write((FRAME_LIMIT + 1).to_bytes(4, "big"))
    await over(stream)


async def test_a_hello_that_is_here_with_the_handshake_is_heard(two: tuple[Host, Host]) -> None:
    """And a flood before it is heard ends the connection."""
    stream, heard = SignalStream(), list[bytes]()
    stream._keep(b"hello")
    stream.on_frame = heard.append
    stream.hand_over()
    assert heard == [b"hello"]


async def test_garbage_ends_the_connection_and_nothing_else(two: tuple[Host, Host], certificates: Certificates) -> None:
    stream = await dialled(two[1], certificates("host", "x"))
    stream.send(b"\xc1 no msgpack")
    await over(stream)
    sender = Sending(two[0])
    sender.release("50", 1)
    await sender.all_settled(1)


async def test_a_port_that_is_taken_is_told(two: tuple[Host, Host], certificates: Certificates) -> None:
    taken = FramedWires(CLUSTER, certificates("host", "c"), "127.0.0.1", two[0].courier.port)
    with pytest.raises(TransportError, match="Is another process there"):
        await taken.listen(lambda _host, wire: wire.cut())


async def test_a_connection_that_comes_as_the_port_is_closed_is_closed_too(certificates: Certificates) -> None:
    """In whatever moment of being accepted and of its handshake: a daemon that goes must not leave a peer hanging."""
    server, other = certificates("host", "c"), certificates("host", "d").directory
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(other / "ca.crt")
    client.load_cert_chain(other / "tls.crt", other / "tls.key")
    for turns in range(24):
        wires_of = FramedWires(CLUSTER, server, "127.0.0.1", 0)
        await wires_of.listen(lambda _host, wire: wire.cut())
        with socket.create_connection(("127.0.0.1", wires_of.port)) as plain:
            plain.setblocking(False)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            shaking = client.wrap_bio(incoming, outgoing, server_hostname=Identity(CLUSTER, Role.HOST, "c").dns_name)
            for _ in range(turns):
                with contextlib.suppress(ssl.SSLError):
                    shaking.do_handshake()
                with contextlib.suppress(OSError):
                    plain.send(outgoing.read())
                await asyncio.sleep(0)
                with contextlib.suppress(OSError):
                    incoming.write(plain.recv(1 << 16))
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                await wires_of.stop()
                for _ in range(3):
                    await asyncio.sleep(0)
                gc.collect()
            assert not told, f"{turns} turns of the loop after it connected: {told[0].message}"
