"""Changes on a stream: each is answered by its number, together or not, as Registry.ApplyAgents would answer it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from grpc import aio
from local_servers import LocalServers

from tenure_api.identity import Identity, Role
from tenure_frames import FrameStream
from tenure_proto.v1 import changes_pb2, registry_pb2
from tenure_proto.v1.changes_pb2 import Change, ChangeBatch, Changed, ChangedBatch
from tenure_proto.v1.hostlink_pb2 import HostFrame, ReadMany, ServerFrame
from tenured.server.changing import UNDER_WAY, Changing
from tenured.transport import hostframes
from tenured.transport.changes import STREAM, ChangesLink, open_link
from tenured.transport.serving import Refusal
from tenured.transport.tls import open_channel

PEER = Identity("demo.shop", Role.CLIENT, "tester")


class Api:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.requests: list[registry_pb2.ApplyAgentsRequest] = []
        self.asked = asyncio.Event()
        self.let = asyncio.Event()
        self.let.set()

    async def apply_agents(
        self, _: Identity, request: registry_pb2.ApplyAgentsRequest
    ) -> registry_pb2.ApplyAgentsResponse:
        self.requests.append(request)
        self.asked.set()
        await self.let.wait()
        if any(spec.id == "shop/forbidden" for spec in request.agents):
            raise Refusal("not yours")
        rows = [registry_pb2.RowResult(id=spec.id, outcome="created") for spec in request.agents]
        return registry_pb2.ApplyAgentsResponse(results=rows, revision=len(self.requests))

    async def delete_agents(
        self, _: Identity, request: registry_pb2.DeleteAgentsRequest
    ) -> registry_pb2.DeleteAgentsResponse:
        rows = [registry_pb2.RowResult(id=name, outcome="gone") for name in request.ids]
        return registry_pb2.DeleteAgentsResponse(results=rows)


class Stream:
    """A client's end without a network."""

    def __init__(self, *batches: list[Change]) -> None:
        self.batches = list(batches)
        self.taken = 0
        self.answers: dict[int, Changed] = {}

    def __aiter__(self) -> AsyncIterator[ChangeBatch]:
        return self._read()

    async def _read(self) -> AsyncIterator[ChangeBatch]:
        for changes in self.batches:
            self.taken += 1
            yield ChangeBatch(changes=changes)

    async def write(self, message: ChangedBatch) -> None:
        self.answers.update({answer.seq: answer for answer in message.answers})


def apply(seq: int, *ids: str, command_id: str = "") -> Change:
    request = registry_pb2.ApplyAgentsRequest(
        agents=[registry_pb2.AgentSpec(id=name) for name in ids], command_id=command_id
    )
    return Change(seq=seq, apply=request)


async def served(api: Api, stream: Stream) -> dict[int, Changed]:
    async with asyncio.timeout(5):
        await Changing(api).serve(PEER, stream)  # type: ignore[arg-type]
    return stream.answers


async def test_changes_of_one_message_share_an_entry_and_keep_their_own_answers() -> None:
    api = Api()
    answers = await served(api, Stream([apply(7, "shop/a"), apply(8, "shop/b", "shop/c"), apply(9)]))
    assert [[spec.id for spec in request.agents] for request in api.requests] == [["shop/a", "shop/b", "shop/c"]]
    assert [row.id for row in answers[7].applied.results] == ["shop/a"]
    assert [row.id for row in answers[8].applied.results] == ["shop/b", "shop/c"]
    assert not answers[9].applied.results


async def test_what_has_a_command_id_or_repeats_a_row_goes_alone() -> None:
    api = Api()
    delete = Change(seq=4, delete=registry_pb2.DeleteAgentsRequest(ids=["shop/a"]))
    batch = [apply(1, "shop/a"), apply(2, "shop/b", command_id="x"), apply(3, "shop/a"), delete, apply(5, "shop/a")]
    answers = await served(api, Stream(batch))
    assert [(request.command_id, len(request.agents)) for request in api.requests] == [
        ("", 1),
        ("x", 1),
        ("", 1),
        ("", 1),
    ]
    assert set(answers) == {1, 2, 3, 4, 5}
    assert answers[4].deleted.results[0].outcome == "gone"


async def test_a_group_stays_below_the_rows_of_an_entry() -> None:
    api = Api()
    await served(api, Stream([apply(number, f"shop/a{number}") for number in range(1, 451)]))
    assert [len(request.agents) for request in api.requests] == [200, 200, 50]


async def test_a_refusal_is_an_answer_and_the_stream_goes_on() -> None:
    answers = await served(Api(), Stream([apply(1, "shop/forbidden")], [apply(2, "shop/b")], [Change(seq=3)]))
    assert answers[1].error.message == "not yours"
    assert answers[2].applied.results[0].outcome == "created"
    assert answers[3].error.code == "Refused"


async def test_a_sender_that_is_ahead_is_not_read() -> None:
    api = Api()
    api.let.clear()
    stream = Stream([apply(seq) for seq in range(UNDER_WAY + 1)], [apply(UNDER_WAY + 2)])
    serving = asyncio.ensure_future(served(api, stream))
    async with asyncio.timeout(5):
        await api.asked.wait()
        for _ in range(50):
            await asyncio.sleep(0)
        assert stream.taken == 1
        api.let.set()
        assert len(await serving) == UNDER_WAY + 2


async def test_a_stream_at_a_real_server(servers: LocalServers, fresh: Callable[[], str]) -> None:
    server = next(iter(servers.servers.values()))
    expected = Identity(servers.cluster, Role.SERVER, server.name).dns_name
    ids = [fresh() for _ in range(3)]
    batch = ChangeBatch(changes=[created(seq, name) for seq, name in enumerate(ids)])
    async with open_channel(server.api, expected, servers.tls("client", "tester")) as channel, asyncio.timeout(10):
        call: aio.StreamStreamCall[ChangeBatch, ChangedBatch] = channel.stream_stream(
            STREAM, ChangeBatch.SerializeToString, ChangedBatch.FromString
        )()
        await call.write(batch)
        answers: dict[int, Changed] = {}
        while len(answers) < len(ids):
            batch = await call.read()
            assert isinstance(batch, ChangedBatch)
            answers.update({answer.seq: answer for answer in batch.answers})
        await call.done_writing()
        assert await call.read() is aio.EOF
    assert [answers[seq].applied.results[0].outcome for seq in range(3)] == ["created"] * 3


def created(seq: int, name: str) -> Change:
    spec = registry_pb2.AgentSpec(id=name, pool="default", strategy="LoadBalanced")
    setattr(spec, "class", "Counter")
    return Change(seq=seq, apply=registry_pb2.ApplyAgentsRequest(agents=[spec]))


async def framed(servers: LocalServers, role: str, answers: asyncio.Queue[Changed], number: int = 0) -> ChangesLink:
    server = list(servers.servers.values())[number]
    expected = Identity(servers.cluster, Role.SERVER, server.name).dns_name
    address = f"127.0.0.1:{server.raft_port}"

    def heard(batch: ChangedBatch) -> None:
        for answer in batch.answers:
            answers.put_nowait(answer)

    return await open_link(address, expected, servers.tls(role, "tester"), heard)


async def test_changes_by_framed_tls_at_any_server(servers: LocalServers, fresh: Callable[[], str]) -> None:
    for number in range(len(servers.servers)):
        answers: asyncio.Queue[Changed] = asyncio.Queue()
        async with asyncio.timeout(10):
            link = await framed(servers, "client", answers, number)
            assert link.send(ChangeBatch(changes=[created(1, fresh()), created(2, fresh())]))
            assert link.send(ChangeBatch(changes=[created(3, fresh()), Change(seq=4)]))
            found = {answer.seq: answer for answer in [await answers.get() for _ in range(4)]}
        assert [found[seq].applied.results[0].outcome for seq in (1, 2, 3)] == ["created"] * 3
        assert found[4].error.code == "Refused"
        link.close()


async def test_every_server_says_where_the_leader_takes_changes(
    servers: LocalServers, fresh: Callable[[], str]
) -> None:
    """So that whoever has asked one of them by gRPC may ask the leader next (ADR 0033)."""
    leader = servers.servers[await servers.leader()]
    for name in servers.servers:
        answer = await servers.registry(name=name).ApplyAgents(created(1, fresh()).apply)
        assert answer.changes_address == f"127.0.0.1:{leader.raft_port}"


async def test_a_command_that_is_repeated_another_way_is_applied_once(
    servers: LocalServers, fresh: Callable[[], str]
) -> None:
    """As a client does that has lost its connection to the leader: one row, and the answer of the first time."""
    change, answers = created(1, fresh()), asyncio.Queue[Changed]()
    change.apply.command_id = f"both-ways-{change.apply.agents[0].id}"
    async with asyncio.timeout(10):
        link = await framed(servers, "client", answers)
        assert link.send(ChangeBatch(changes=[change]))
        first = (await answers.get()).applied.results[0]
        again = (await servers.registry().ApplyAgents(change.apply)).results[0]
        link.close()
    assert (again.uid, again.outcome) == (first.uid, "created")


async def test_a_frame_that_is_no_change_ends_the_stream(servers: LocalServers) -> None:
    async with asyncio.timeout(10):
        link = await framed(servers, "operator", asyncio.Queue())
        assert link._stream.send(b"\xff\xff\xff")
        await asyncio.shield(link.lost)
    assert not link.send(ChangeBatch())


async def test_a_host_may_not_change_rows_by_framed_tls(servers: LocalServers, fresh: Callable[[], str]) -> None:
    """What a host sends there is read as frames of its link, whatever it is."""
    server, name, heard = next(iter(servers.servers.values())), fresh(), asyncio.Queue[ServerFrame]()
    expected, address = Identity(servers.cluster, Role.SERVER, server.name).dns_name, f"127.0.0.1:{server.raft_port}"
    async with asyncio.timeout(10):
        files = servers.tls("host", "h9")
        link = await hostframes.open_link(
            address, expected, files, lambda frame: heard.put_nowait(ServerFrame.FromString(frame))
        )
        assert link.stream.send(ChangeBatch(changes=[created(1, name)]).SerializeToString())
        asked = HostFrame(id=7, read=ReadMany(view=0, uids=["1"], incarnation="i"))
        assert link.stream.send(asked.SerializeToString())
        while (await heard.get()).id != 7:  # in order: the change has been read
            pass
        link.stream.cut()
        answers: asyncio.Queue[Changed] = asyncio.Queue()
        client = await framed(servers, "client", answers)
        assert client.send(ChangeBatch(changes=[created(1, name)]))
        assert (await answers.get()).applied.results[0].outcome == "created"
        client.close()


class Wire(FrameStream):
    """A client's end of framed TLS without a network."""

    def __init__(self) -> None:
        super().__init__()
        self.paused = False
        self.answers: asyncio.Queue[Changed] = asyncio.Queue()

    def send(self, frame: bytes) -> bool:
        for answer in ChangedBatch.FromString(frame).answers:
            self.answers.put_nowait(answer)
        return True

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


async def test_a_sender_that_is_ahead_is_not_read_by_framed_tls() -> None:
    api, wire = Api(), Wire()
    api.let.clear()
    Changing(api).accept(PEER, wire)
    wire.on_frame(ChangeBatch(changes=[apply(seq) for seq in range(UNDER_WAY)]).SerializeToString())
    assert not wire.paused
    wire.on_frame(ChangeBatch(changes=[apply(UNDER_WAY + 1)]).SerializeToString())
    assert wire.paused
    api.let.set()
    async with asyncio.timeout(5):
        for _ in range(UNDER_WAY + 1):
            await wire.answers.get()
    assert not wire.paused


async def test_a_host_may_not_change_rows(servers: LocalServers) -> None:
    server = next(iter(servers.servers.values()))
    expected = Identity(servers.cluster, Role.SERVER, server.name).dns_name
    async with open_channel(server.api, expected, servers.tls("host", "h9")) as channel, asyncio.timeout(10):
        call = channel.stream_stream(STREAM, ChangeBatch.SerializeToString, changes_pb2.ChangedBatch.FromString)()
        with pytest.raises(aio.AioRpcError, match="may be called by"):
            await call.read()
