"""The link between a host and a server, over real TLS on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest

import tenure_frames
from tenure_api.identity import Identity, Role
from tenure_frames import FrameStream
from tenure_proto.v1.hostlink_pb2 import (
    Assigned,
    CommandResult,
    Heartbeat,
    HeartbeatAck,
    HostFrame,
    ReleaseHost,
    ServerFrame,
    ServerHello,
)
from tenure_proto.v1.registry_pb2 import AgentRow, WatchBatch, WatchRequest
from tenured.transport import hostframes, hostlink, roles
from tenured.transport.errors import LinkLost, NotConnected, TimedOut
from tenured.transport.framed import FrameListener
from tenured.transport.hostlink import HostSession
from tenured.transport.raft import OPEN
from tenured.transport.serverlinks import LinkEvents, ServerLinks
from tenured.transport.serving import Listener
from tenured.transport.tls import TlsFiles

CLUSTER = "demo.shop"
PEER = Identity(CLUSTER, Role.HOST, "h0")
T = TypeVar("T")


Pair = tuple[dict[str, "Server"], dict[str, Listener | FrameListener], ServerLinks, "Events"]


class Server:
    """Answers requests with ok, heartbeats with an ack, and nothing at all to an incarnation called `mute`."""

    def __init__(self, name: str, leader: str) -> None:
        self.name, self.leader = name, leader
        self.sessions: list[HostSession] = []
        self.watches: asyncio.Queue[HostFrame] = asyncio.Queue()

    def opened(self, session: HostSession) -> None:
        self.sessions.append(session)
        leads = self.leader == self.name
        hello = ServerHello(server=self.name, leader=self.leader, is_leader=leads, view=1, watches=leads)
        session.send(ServerFrame(hello=hello))

    def frame(self, session: HostSession, frame: HostFrame) -> None:
        if frame.HasField("heartbeat"):
            ack = HeartbeatAck(incarnation=frame.heartbeat.incarnation, sent_at_ns=frame.heartbeat.sent_at_ns)
            session.send(ServerFrame(heartbeat_ack=ack))
        elif frame.HasField("watch"):
            self.watches.put_nowait(frame)
        elif frame.release_host.incarnation != "mute":
            session.send(ServerFrame(id=frame.id, result=CommandResult(ok=True)))

    def closed(self, session: HostSession) -> None:
        self.sessions.remove(session)


class Events:
    """What the host heard, with queues to wait on."""

    def __init__(self) -> None:
        self.connected: asyncio.Queue[str] = asyncio.Queue()
        self.lost: asyncio.Queue[str] = asyncio.Queue()
        self.acks: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self.hellos: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.assigned: asyncio.Queue[Assigned] = asyncio.Queue()
        self.links = LinkEvents(
            on_connected=lambda name, _: self.connected.put_nowait(name),
            on_disconnected=self.lost.put_nowait,
            on_hello=lambda name, hello: self.hellos.put_nowait((name, hello.leader)),
            on_ack=lambda name, ack: self.acks.put_nowait((name, ack.sent_at_ns)),
            on_assigned=self.assigned.put_nowait,
        )


async def within(awaitable: Awaitable[T], seconds: float = 5) -> T:
    async with asyncio.timeout(seconds):
        return await awaitable


def framed_listener(server: Server, files: TlsFiles) -> FrameListener:
    """As a server's port 7447 serves hosts."""

    def opened(stream: FrameStream) -> None:
        hostframes.serve(server, PEER, stream)
        stream.send(OPEN + server.name.encode())

    return FrameListener(files, FrameStream, opened)


@pytest.fixture(params=["gRPC", "framed"])
async def pair(certificates: Callable[..., TlsFiles], request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """Two servers (s0 leads) and one host that is connected to both, by either carrier."""
    servers = {name: Server(name, "s0") for name in ("s0", "s1")}
    listeners: dict[str, Listener | FrameListener] = {}
    for name, server in servers.items():
        files = certificates("server", name)
        listeners[name] = (
            Listener(files, CLUSTER, [hostlink.method(server)], roles.SERVER_PEERS)
            if request.param == "gRPC"
            else framed_listener(server, files)
        )
        await listeners[name].start("127.0.0.1", 0)
    events = Events()
    addresses = {name: f"127.0.0.1:{listener.port}" for name, listener in listeners.items()}
    frames = addresses if request.param == "framed" else {}
    links = ServerLinks(CLUSTER, addresses, certificates("host", "h0"), events.links, frames)
    await links.start()
    assert {await within(events.connected.get()), await within(events.connected.get())} == {"s0", "s1"}
    yield servers, listeners, links, events
    await links.stop()
    for listener in listeners.values():
        await listener.stop()


class Hasty(Server):
    """Says who leads, and at once that somebody else does."""

    def opened(self, session: HostSession) -> None:
        self.leader = "s1"
        super().opened(session)
        self.leader = "s0"
        super().opened(session)


async def test_a_server_may_have_more_to_say_before_its_host_has_heard_the_first_word(
    certificates: Callable[..., TlsFiles],
) -> None:
    """A server that has just started finds its leader in that moment."""
    listener = framed_listener(Hasty("s0", "s0"), certificates("server", "s0"))
    await listener.start("127.0.0.1", 0)
    events = Events()
    address = {"s0": f"127.0.0.1:{listener.port}"}
    links = ServerLinks(CLUSTER, address, certificates("host", "h0"), events.links, address)
    await links.start()
    assert await within(events.connected.get()) == "s0"
    answer = await links.request("s0", HostFrame(release_host=ReleaseHost(incarnation="i")), 2)
    assert answer.result.ok
    assert links.leader == "s0"
    await links.stop()
    await listener.stop()


async def test_a_request_is_answered_and_the_leader_is_known(pair: Pair) -> None:
    _, _, links, _ = pair
    answer = await links.request("s1", HostFrame(release_host=ReleaseHost(incarnation="i")), 2)
    assert answer.result.ok
    assert links.leader == "s0"
    assert links.view == 1


async def test_heartbeats_go_to_the_leader_only_while_it_is_known(pair: Pair) -> None:
    servers, _, links, events = pair
    assert links.heartbeat(Heartbeat(incarnation="i", sent_at_ns=7)) == ("s0",)
    assert await within(events.acks.get()) == ("s0", 7)
    servers["s0"].sessions[0].send(ServerFrame(hello=ServerHello(server="s0", leader="", is_leader=False)))
    assert await within(events.hellos.get()) == ("s0", "")
    assert set(links.heartbeat(Heartbeat(incarnation="i", sent_at_ns=8))) == {"s0", "s1"}


async def test_an_answer_that_does_not_come_is_unknown_not_refused(pair: Pair) -> None:
    _, _, links, _ = pair
    with pytest.raises(TimedOut, match=r"s0 did not answer within 0\.05 s"):
        await links.request("s0", HostFrame(release_host=ReleaseHost(incarnation="mute")), 0.05)


async def test_a_broken_stream_ends_its_requests_and_is_opened_again(pair: Pair) -> None:
    servers, _, links, events = pair
    waiting = links.submit("s0", HostFrame(release_host=ReleaseHost(incarnation="mute")), 10)
    answered = await links.request("s0", HostFrame(release_host=ReleaseHost(incarnation="i")), 2)  # it has arrived
    assert answered.result.ok
    servers["s0"].sessions[0].close()
    with pytest.raises(LinkLost):
        await within(waiting)
    assert await within(events.lost.get()) == "s0"
    assert await within(events.connected.get()) == "s0"
    assert (await links.request("s0", HostFrame(release_host=ReleaseHost(incarnation="i")), 2)).result.ok


async def test_without_a_stream_nothing_is_sent(pair: Pair) -> None:
    _, listeners, links, events = pair
    await listeners["s1"].stop()
    assert await within(events.lost.get()) == "s1"
    with pytest.raises(NotConnected):
        await links.request("s1", HostFrame(release_host=ReleaseHost(incarnation="i")), 2)


async def test_a_server_that_falls_silent_is_noticed(
    certificates: Callable[..., TlsFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen process keeps its connections open, and TCP acknowledges for it: only its beats are missing."""
    monkeypatch.setattr(tenure_frames, "BEAT_S", 0.02)
    silent: list[FrameStream] = []

    def opened(stream: FrameStream) -> None:
        hello = ServerHello(server="s0", leader="s0", is_leader=True, view=1)
        stream.send(OPEN + b"s0")
        stream.send(ServerFrame(hello=hello).SerializeToString())
        silent.append(stream)

    listener, events = FrameListener(certificates("server", "s0"), FrameStream, opened), Events()
    await listener.start("127.0.0.1", 0)
    address = {"s0": f"127.0.0.1:{listener.port}"}
    links = ServerLinks(CLUSTER, address, certificates("host", "h0"), events.links, address)
    await links.start()
    try:
        assert await within(events.connected.get()) == "s0"
        assert await within(events.lost.get()) == "s0"
        assert links.leader is None
    finally:
        await links.stop()
        await listener.stop()


async def test_a_frame_for_several_servers_is_answered_by_each(pair: Pair) -> None:
    """The same id on several links, each of which gets it once."""
    _, _, links, _ = pair
    frame = HostFrame(release_host=ReleaseHost(incarnation="i"))
    answers = await within(asyncio.gather(*(links.submit(server, frame, 2) for server in ("s0", "s1"))))
    assert [answer.id for answer in answers] == [frame.id, frame.id]


async def test_a_host_hears_what_it_is_to_begin(pair: Pair) -> None:
    servers, _, _, events = pair
    servers["s0"].sessions[0].send(ServerFrame(assigned=Assigned(agents=[AgentRow(uid="7")])))
    assert [row.uid for row in (await within(events.assigned.get())).agents] == ["7"]


def batch(revision: int, number: int) -> ServerFrame:
    """Of the watch with that number."""
    return ServerFrame(id=number, watched=WatchBatch(revision=revision).SerializeToString())


async def test_a_watch_on_the_link(pair: Pair) -> None:
    """Its batches only, in order, until the server ends it."""
    servers, _, links, _ = pair
    stream = links.watch("s0", WatchRequest(from_revision=3, kinds=["agents"]))
    first = asyncio.ensure_future(anext(stream))
    asked = await within(servers["s0"].watches.get())
    assert (asked.watch.from_revision, list(asked.watch.kinds)) == (3, ["agents"])
    for frame in (
        batch(9, asked.id + 100),
        batch(4, asked.id),
        batch(5, asked.id),
        ServerFrame(id=asked.id, watched=b""),
    ):
        servers["s0"].sessions[0].send(frame)
    assert (await within(first)).revision == 4
    assert [one.revision async for one in stream] == [5]


async def test_a_watch_ends_with_its_link(pair: Pair) -> None:
    servers, _, links, _ = pair
    stream = links.watch("s0", WatchRequest())
    first = asyncio.ensure_future(anext(stream, None))
    await within(servers["s0"].watches.get())
    servers["s0"].sessions[0].close()
    assert await within(first) is None


async def test_a_watch_that_was_given_up_is_heard_no_more(pair: Pair) -> None:
    servers, _, links, _ = pair
    given_up = links.watch("s0", WatchRequest())
    first = asyncio.ensure_future(anext(given_up))
    number = (await within(servers["s0"].watches.get())).id
    servers["s0"].sessions[0].send(batch(1, number))
    await within(first)
    await given_up.aclose()
    again = links.watch("s0", WatchRequest())
    first = asyncio.ensure_future(anext(again))
    later = (await within(servers["s0"].watches.get())).id
    servers["s0"].sessions[0].send(batch(2, number))
    servers["s0"].sessions[0].send(batch(3, later))
    assert (await within(first)).revision == 3
    await again.aclose()


async def test_which_servers_serve_a_watch_on_their_link(pair: Pair) -> None:
    """An older one says nothing of it in its hello, and one that is not connected serves none."""
    _, listeners, links, events = pair
    assert (links.watches("s0"), links.watches("s1")) == (True, False)
    await listeners["s0"].stop()
    assert await within(events.lost.get()) == "s0"
    assert not links.watches("s0")
    assert not await links.reached("s0", 0.01)
    with pytest.raises(NotConnected):
        await anext(links.watch("s0", WatchRequest()))
    assert await links.reached("s1", 0.01)
