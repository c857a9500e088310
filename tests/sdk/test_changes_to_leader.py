"""New agents by framed TLS straight to the leader, and by gRPC wherever that is not to be had, as the same command."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sdk_cluster import FakeCluster

from tenure import errors
from tenure._remote import Remote, registry
from tenure_api.identity import Identity, Role
from tenure_frames import FrameStream
from tenure_proto.v1 import changes_pb2, common_pb2, registry_pb2
from tenured.server.changing import Changing
from tenured.transport.raft import RaftPeers
from tenured.transport.serving import Refusal
from tenured.transport.tls import TlsFiles

CLUSTER = "main.shop"


class Engine:
    """Of servers, which do not come here."""

    def received(self, peer: str, frame: bytes) -> None:
        raise NotImplementedError

    def connected(self, peer: str) -> None:
        raise NotImplementedError

    def disconnected(self, peer: str) -> None:
        raise NotImplementedError


class Leader:
    """The framed port of a server that leads; the rows are those of the cluster's registry."""

    def __init__(self, files: TlsFiles) -> None:
        self.applied: list[registry_pb2.ApplyAgentsRequest] = []
        self.peers: list[Identity] = []
        self.streams: list[FrameStream] = []
        self.came, self.let = asyncio.Event(), asyncio.Event()
        self.let.set()
        self.problem: common_pb2.Error | None = None
        self.refusal = ""
        self.says = ""
        self.route: common_pb2.Route | None = None
        self._changing = Changing(self)
        self._port = RaftPeers("server-0", CLUSTER, {}, files)
        self._port.bind(Engine())
        self._port.accept_users(self._accept)

    async def listen(self) -> None:
        await self._port.listen("127.0.0.1", 0)
        self.says = self.address

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port.port}"

    async def stop(self) -> None:
        await self._port.stop()

    def _accept(self, peer: Identity, stream: FrameStream) -> None:
        self.peers.append(peer)
        self.streams.append(stream)
        self._changing.accept(peer, stream)

    async def apply_agents(
        self, _: Identity, request: registry_pb2.ApplyAgentsRequest
    ) -> registry_pb2.ApplyAgentsResponse:
        self.applied.append(request)
        self.came.set()
        await self.let.wait()
        if self.refusal:
            raise Refusal(self.refusal)
        result = registry_pb2.RowResult(id=request.agents[0].id, outcome="created", error=self.problem)
        if self.route is not None:
            result.route.CopyFrom(self.route)
        return registry_pb2.ApplyAgentsResponse(results=[result], changes_address=self.says)

    async def delete_agents(
        self, _: Identity, request: registry_pb2.DeleteAgentsRequest
    ) -> registry_pb2.DeleteAgentsResponse:
        raise NotImplementedError


@contextlib.asynccontextmanager
async def leading(cluster: FakeCluster, path: Path) -> AsyncIterator[Leader]:
    """A leader that the cluster's servers name."""
    made = Leader(TlsFiles(cluster.directory(path, Role.SERVER, "server-0")))
    await made.listen()
    cluster.registry.changes_address = made.address
    try:
        yield made
    finally:
        await made.stop()


async def apply(remote: Remote, name: str = "shop/a") -> registry_pb2.RowResult:
    (result,) = await remote.apply_agents([registry_pb2.AgentSpec(id=name)])
    return result


async def connected(remote: Remote, leader: Leader) -> None:
    """Two applies by gRPC, after which it has a connection."""
    await apply(remote)
    await apply(remote)
    async with asyncio.timeout(5):
        session = remote._to_leader._session
        assert session is not None
        assert session.peer == leader.address
        await session.connected.wait()


async def test_who_applies_often_asks_the_leader(cluster: FakeCluster, tmp_path: Path) -> None:
    """Under its own name, and learns there too where the first call goes."""
    async with leading(cluster, tmp_path) as leader, Remote(cluster.endpoint()) as remote:
        await connected(remote, leader)
        leader.route = common_pb2.Route(agent="shop/b", uid="9", host="h0", epoch=1)
        assert (await apply(remote, "shop/b")).outcome == "created"
        assert [request.agents[0].id for request in leader.applied] == ["shop/b"]
        assert leader.applied[0].command_id
        assert [peer.uri for peer in leader.peers] == ["spiffe://main.shop/client/alice"]
        assert len(cluster.registry.applied) == 2
        known = remote._routes.known("shop/b")
        assert known is not None
        assert known.host == "h0"


async def test_who_applies_once_makes_no_connection(cluster: FakeCluster, tmp_path: Path) -> None:
    """As a command line does."""
    async with leading(cluster, tmp_path) as leader, Remote(cluster.endpoint()) as remote:
        await apply(remote)
        assert remote._to_leader._session is None
        assert leader.streams == []


async def test_many_at_once_get_each_its_answer(cluster: FakeCluster, tmp_path: Path) -> None:
    async with leading(cluster, tmp_path) as leader, Remote(cluster.endpoint()) as remote:
        await connected(remote, leader)
        names = [f"shop/a{number}" for number in range(200)]
        results = await asyncio.gather(*(apply(remote, name) for name in names))
        assert [result.id for result in results] == names
        assert len(leader.applied) == 200


async def test_servers_that_name_no_leader_are_asked_by_grpc(cluster: FakeCluster) -> None:
    """Older ones, and those that know none."""
    async with Remote(cluster.endpoint()) as remote:
        for _ in range(3):
            assert (await apply(remote)).outcome == "created"
    assert len(cluster.registry.applied) == 3


async def test_behind_a_port_forward_there_is_one_way(cluster: FakeCluster, tmp_path: Path) -> None:
    async with leading(cluster, tmp_path) as leader, Remote(cluster.endpoint(proxied=True)) as remote:
        for _ in range(3):
            await apply(remote)
        assert leader.streams == []


async def test_a_leader_that_cannot_be_reached_holds_nothing_up(cluster: FakeCluster, tmp_path: Path) -> None:
    """A firewall may know one port. It is left alone for a while."""
    async with leading(cluster, tmp_path):
        pass
    async with Remote(cluster.endpoint()) as remote:
        await apply(remote)
        await apply(remote)
        session = remote._to_leader._session
        assert session is not None
        await asyncio.wait([session._task])
        for _ in range(3):
            assert (await apply(remote)).outcome == "created"
        assert remote._to_leader._session is None
    assert len(cluster.registry.applied) == 5


async def test_a_connection_that_is_lost_repeats_the_same_command(cluster: FakeCluster, tmp_path: Path) -> None:
    """What was done there is not done again: the id says so (registry, command ids)."""
    async with leading(cluster, tmp_path) as leader, Remote(cluster.endpoint()) as remote:
        await connected(remote, leader)
        leader.let.clear()
        asking = asyncio.create_task(apply(remote, "shop/b"))
        async with asyncio.timeout(5):
            await leader.came.wait()
            leader.streams[0].cut()
            assert (await asking).outcome == "created"
        assert cluster.registry.applied[-1].command_id == leader.applied[0].command_id
        assert (await apply(remote)).outcome == "created"


async def test_a_frozen_leader_is_left(cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time of one attempt, as one server is by gRPC."""
    async with leading(cluster, tmp_path) as leader, Remote(cluster.endpoint()) as remote:
        await connected(remote, leader)
        leader.let.clear()
        monkeypatch.setattr(registry, "ATTEMPT_S", 0.05)
        assert (await apply(remote, "shop/b")).outcome == "created"
        assert (await apply(remote, "shop/c")).outcome == "created"
        assert [request.agents[0].id for request in leader.applied] == ["shop/b"]
        assert cluster.registry.applied[-2].command_id == leader.applied[0].command_id


async def test_rows_that_are_not_decided_are_asked_again(cluster: FakeCluster, tmp_path: Path) -> None:
    """A server that leads no more cannot decide: another one is asked, as the same command."""
    async with leading(cluster, tmp_path) as leader, Remote(cluster.endpoint()) as remote:
        await connected(remote, leader)
        leader.problem = common_pb2.Error(code="NoQuorum", message="later", retryable=True)
        result = await apply(remote, "shop/b")
        assert (result.outcome, result.HasField("error")) == ("created", False)
        assert cluster.registry.applied[-1].command_id == leader.applied[0].command_id


async def test_a_row_that_is_refused_is_refused(cluster: FakeCluster, tmp_path: Path) -> None:
    async with leading(cluster, tmp_path) as leader, Remote(cluster.endpoint()) as remote:
        await connected(remote, leader)
        leader.problem = common_pb2.Error(code="Conflict", message="use kubectl")
        with pytest.raises(errors.Conflict, match="use kubectl"):
            await remote.create("shop/b", "Counter", pool="default", state=b"", config=b"")
    assert len(cluster.registry.applied) == 2


async def test_a_request_that_is_refused_as_a_whole_is_refused_in_the_words_of_grpc(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    """Nothing of it was applied, and there is one place that knows which error that is."""
    async with leading(cluster, tmp_path) as leader, Remote(cluster.endpoint()) as remote:
        await connected(remote, leader)
        leader.refusal = "not yours"
        assert (await apply(remote, "shop/b")).outcome == "created"  # it was not refused by gRPC
        assert cluster.registry.applied[-1].command_id == leader.applied[0].command_id


async def test_another_leader_is_followed(cluster: FakeCluster, tmp_path: Path) -> None:
    """The one that led passes the change on, and says who leads."""
    async with leading(cluster, tmp_path) as one, leading(cluster, tmp_path) as two:
        cluster.registry.changes_address = one.address
        async with Remote(cluster.endpoint()) as remote:
            await connected(remote, one)
            cluster.registry.changes_address = one.says = two.address
            await apply(remote)
            assert one.applied
            await connected(remote, two)
            before = len(cluster.registry.applied)
            await apply(remote, "shop/b")
            assert two.applied[-1].agents[0].id == "shop/b"
            assert len(cluster.registry.applied) == before


async def test_what_is_no_answer_ends_the_connection(cluster: FakeCluster, tmp_path: Path) -> None:
    async with leading(cluster, tmp_path) as leader, Remote(cluster.endpoint()) as remote:
        await connected(remote, leader)
        leader.let.clear()
        asking = asyncio.create_task(apply(remote, "shop/b"))
        async with asyncio.timeout(5):
            await leader.came.wait()
            leader.streams[0].send(b"\xff\xff\xff")
            assert (await asking).outcome == "created"


async def test_closing_ends_what_waits(cluster: FakeCluster, tmp_path: Path) -> None:
    async with leading(cluster, tmp_path) as leader:
        remote = Remote(cluster.endpoint())
        await connected(remote, leader)
        leader.let.clear()
        session = remote._to_leader._session
        assert session is not None
        change = changes_pb2.Change(apply=registry_pb2.ApplyAgentsRequest(agents=[registry_pb2.AgentSpec(id="shop/b")]))
        waiting = asyncio.create_task(session.ask(change))
        async with asyncio.timeout(5):
            await leader.came.wait()
            await remote.close()
            with pytest.raises(ConnectionError):
                await waiting
