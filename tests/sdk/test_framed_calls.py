"""Calls to a host by framed TLS: the client and the host's side of it are real; agents answer what a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from cutting_proxy import CuttingProxy
from sdk_cluster import Answer, Calls, FakeCluster, value

import tenure_frames
from tenure import errors
from tenure._remote import Remote
from tenure._remote.framed import FramedSession
from tenure_api.identity import Identity, Role
from tenure_frames import FrameStream
from tenure_proto.v1.calls_pb2 import Call, LogBatch, LogsRequest, Reply
from tenured.transport.callframes import CallFrames
from tenured.transport.calls import Answered
from tenured.transport.signals import FramedWires
from tenured.transport.tls import TlsFiles

AGENT = "shop/c"
CLUSTER = "main.shop"


class Framed:
    """The framed port of a host; its agents are those of the host's gRPC."""

    def __init__(self, host: Calls, files: TlsFiles, *, older: bool = False) -> None:
        """`older`: it takes signals there, and no calls."""
        self.host = host
        self.peers: list[Identity] = []
        self.streams: list[FrameStream] = []
        self.seen: list[Call] = []
        self.held: list[tuple[Call, Answered]] = []
        """Calls that were answered by nobody."""
        self.wires = FramedWires(CLUSTER, files, "127.0.0.1", 0, None if older else self._accept)
        self._frames = CallFrames(host.name, self)

    async def listen(self) -> None:
        await self.wires.listen(lambda _host, wire: wire.cut())
        self.host.frames_address = f"127.0.0.1:{self.wires.port}"

    def _accept(self, peer: Identity, stream: FrameStream) -> None:
        self.streams.append(stream)
        self._frames.accept(peer, stream)

    def begin(self, peer: Identity, call: Call, answered: Answered) -> None:
        self.peers.append(peer)
        self.seen.append(call)
        reply = self.host.answers[0](call)
        if reply is None:
            self.held.append((call, answered))
            self.host.came.set()
        else:
            answered(reply)

    def logs(self, _: Identity, request: LogsRequest) -> AsyncIterator[LogBatch]:
        raise NotImplementedError


@contextlib.asynccontextmanager
async def framed(cluster: FakeCluster, path: Path, answer: Answer, *, older: bool = False) -> AsyncIterator[Framed]:
    """A host with both ports, which holds the agent."""
    host = await cluster.host("host-0", answer)
    made = Framed(host, TlsFiles(cluster.directory(path, Role.HOST, "host-0")), older=older)
    await made.listen()
    await cluster.place(AGENT, host)
    try:
        yield made
    finally:
        await made.wires.stop()


async def call(remote: Remote, by: object = 2, timeout_s: float = 10) -> object:
    packed = msgspec.msgpack.encode({"by": by})
    return msgspec.msgpack.decode((await remote.call(AGENT, "action", "increment", packed, timeout_s=timeout_s)).value)


def silent(_: Call) -> None:
    """As an agent whose turn takes long."""


async def test_a_call_goes_by_frames_where_the_route_says_so(cluster: FakeCluster, tmp_path: Path) -> None:
    """And its caller is who the certificate says."""
    async with framed(cluster, tmp_path, value(3)) as host, Remote(cluster.endpoint()) as remote:
        assert await call(remote) == 3
    assert [peer.uri for peer in host.peers] == ["spiffe://main.shop/client/alice"]
    assert host.host.seen == []


async def test_a_call_that_was_given_up_before_there_was_a_connection_never_leaves(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    """The caller was told that it was not applied, so it must not be applied later (DESIGN.md, invariant 5)."""
    async with framed(cluster, tmp_path, value(3)) as host, CuttingProxy(host.wires.port) as proxy:
        proxy.hold_answers()
        host.host.frames_address = f"127.0.0.1:{proxy.port}"
        await cluster.place(AGENT, host.host)
        async with Remote(cluster.endpoint()) as remote:
            with pytest.raises(errors.CallError) as caught:
                await call(remote, timeout_s=0.3)
            proxy.pass_answers()
            assert await call(remote) == 3
    assert caught.value.outcome == "not_applied"
    assert [one.key for one in host.seen] == [2]


async def test_many_calls_share_frames_and_each_gets_its_reply(cluster: FakeCluster, tmp_path: Path) -> None:
    def doubled(one: Call) -> Reply:
        return Reply(value=msgspec.msgpack.encode(2 * msgspec.msgpack.decode(one.arguments)["by"]), epoch=1)

    async with framed(cluster, tmp_path, doubled) as host, Remote(cluster.endpoint()) as remote:
        await call(remote)
        came: list[bytes] = []
        take = host.streams[0].on_frame
        host.streams[0].on_frame = lambda frame: (came.append(frame), take(frame))  # type: ignore[assignment]
        assert await asyncio.gather(*(call(remote, by) for by in range(500))) == [2 * by for by in range(500)]
    assert len([frame for frame in came if frame]) < 50


async def test_a_slow_call_delays_no_other(cluster: FakeCluster, tmp_path: Path) -> None:
    def slow_first(one: Call) -> Reply | None:
        return None if one.key == 1 else Reply(value=msgspec.msgpack.encode(one.key), epoch=1)

    async with framed(cluster, tmp_path, slow_first) as host, Remote(cluster.endpoint()) as remote:
        slow = asyncio.create_task(call(remote))
        await host.host.came.wait()
        assert await call(remote) == 2
        assert not slow.done()
        host.held[0][1](Reply(value=msgspec.msgpack.encode("late"), epoch=1))
        assert await slow == "late"


async def test_a_host_that_serves_no_frames_is_called_by_grpc(cluster: FakeCluster, tmp_path: Path) -> None:
    """One of an older version takes signals there only; the call does not fail, and later ones do not try again."""
    async with framed(cluster, tmp_path, value(3), older=True) as host, Remote(cluster.endpoint()) as remote:
        assert await call(remote) == 3
        assert await call(remote) == 3
        sessions = [type(session) for session in remote._sessions.values()]
    assert len(host.host.seen) == 2
    assert FramedSession not in sessions


async def test_a_port_that_nobody_listens_on_is_passed_by(cluster: FakeCluster, tmp_path: Path) -> None:
    """As behind a firewall that knows one port."""
    async with framed(cluster, tmp_path, value(3)) as host:
        await host.wires.stop()
        async with Remote(cluster.endpoint()) as remote:
            assert await call(remote) == 3
    assert len(host.host.seen) == 1


async def test_a_connection_that_breaks_repeats_the_same_id(cluster: FakeCluster, tmp_path: Path) -> None:
    """The first send may have been applied; the agent recognises the second (protocol 3, external clients)."""
    async with framed(cluster, tmp_path, silent) as host, Remote(cluster.endpoint()) as remote:
        calling = asyncio.create_task(call(remote))
        await host.host.came.wait()
        host.host.answers = [value(3)]
        host.streams[0].cut()
        assert await calling == 3
    first, second = host.seen
    assert (first.client_id, first.key, first.born) == (second.client_id, second.key, second.born)


async def test_a_frozen_host_is_noticed(cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP acknowledges for it; no beats come. What was sent may have been applied."""
    monkeypatch.setattr(tenure_frames, "BEAT_S", 0.05)
    async with framed(cluster, tmp_path, silent) as host, Remote(cluster.endpoint()) as remote:
        calling = asyncio.create_task(remote.call(AGENT, "action", "increment", b"\x80", timeout_s=20))
        await host.host.came.wait()
        (session,) = remote._sessions.values()
        for stream in host.streams:
            monkeypatch.setattr(stream, "send", lambda _: True)
        host.host.answers = [value(3)]
        reply = await calling
    assert "ended" in session.lost
    assert msgspec.msgpack.decode(reply.value) == 3
    assert len(host.seen) == 2


async def test_arguments_that_do_not_fit_are_refused_and_cost_no_connection(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    async with framed(cluster, tmp_path, value(3)) as host, Remote(cluster.endpoint()) as remote:
        assert await call(remote) == 3
        with pytest.raises(errors.InvalidArguments, match="64"):
            await call(remote, b"x" * tenure_frames.LONG_FRAME_LIMIT)
        assert await call(remote, b"x" * (2 << 20)) == 3
    assert len(host.streams) == 1


async def test_garbage_ends_the_connection_and_nothing_else(cluster: FakeCluster, tmp_path: Path) -> None:
    """In either direction."""
    async with framed(cluster, tmp_path, value(3)) as host, Remote(cluster.endpoint()) as remote:
        assert await call(remote) == 3
        (session,) = remote._sessions.values()
        assert isinstance(session, FramedSession)
        assert session._stream is not None
        session._stream.send(b"\xff\xff\xff")
        await asyncio.wait_for(host.streams[0].lost, 5)
        assert await call(remote) == 3
        host.streams[1].send(b"\xff\xff\xff")
        await asyncio.wait_for(host.streams[1].lost, 5)
        assert await call(remote) == 3


async def test_a_client_that_is_closed_tells_its_calls(cluster: FakeCluster, tmp_path: Path) -> None:
    async with framed(cluster, tmp_path, silent) as host:
        remote = Remote(cluster.endpoint())
        calling = asyncio.create_task(call(remote))
        await host.host.came.wait()
        (session,) = remote._sessions.values()
        waiting = session.send(Call(agent=AGENT, method="x"))
        await session.close()
        with pytest.raises(ConnectionError, match="closed"):
            await waiting
        calling.cancel()
        await asyncio.wait({calling})
        await remote.close()
