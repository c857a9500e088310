"""The watch hub without a network: what a watcher is sent, and when one is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tenure_proto.v1.registry_pb2 import WatchBatch, WatchRequest
from tenured.core import commands
from tenured.core.agentspec import AgentSpec
from tenured.core.model import AgentClass, Pool
from tenured.server import watching
from tenured.server.replica import Replica
from tenured.server.watching import WatchHub


class Stream:
    """What gRPC would send; `stuck` takes nothing, like a watcher that does not read."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[WatchBatch] = asyncio.Queue()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.encoded: list[bytes] = []

    async def write(self, encoded: bytes) -> None:
        await self.flowing.wait()
        self.encoded.append(encoded)
        self.batches.put_nowait(WatchBatch.FromString(encoded))

    async def next(self) -> WatchBatch:
        async with asyncio.timeout(5):
            return await self.batches.get()

    async def synced(self) -> list[WatchBatch]:
        """The snapshot, up to and with the batch that says so."""
        found = [await self.next()]
        while not found[-1].synced:
            found.append(await self.next())
        return found


class World:
    def __init__(self) -> None:
        self.replica = Replica()
        self.hub = WatchHub(self.replica)
        self.replica.listen(self.hub)
        self.index = 0
        self.place(commands.ApplyPools(pools=(Pool(name="default"),)))
        self.place(commands.RegisterHost(name="h0", incarnation="i0", pool="default", node="n0"))
        self.place(commands.ReportHost(incarnation="i0", ready=True, classes=(AgentClass(name="Counter"),)))

    def place(self, command: commands.Command) -> None:
        self.index += 1
        self.replica.apply(self.index, commands.encode(command))

    def create(self, *names: str) -> list[str]:
        agents = tuple(AgentSpec(id=f"shop/{name}", class_name="Counter") for name in names)
        self.place(commands.ApplyAgents(agents=agents, managed_by="API"))
        return [self.replica.registry.by_id[agent.id] for agent in agents]

    def rows(self) -> dict[str, int]:
        """uid -> revision of the row."""
        return {uid: row.revision for uid, row in self.replica.registry.agents.items()}

    def assign(self, uid: str) -> None:
        item = commands.Assignment(uid=uid, epoch=0, incarnation="i0", reason="Scheduled")
        self.place(commands.Assign(items=(item,)))

    def say(self, uids: list[str], message: str) -> None:
        """Change rows."""
        items = (commands.WaitingItem(uid=uid, epoch=0, reason="NoHostFits", message=message) for uid in uids)
        self.place(commands.SetWaiting(items=tuple(items)))

    @asynccontextmanager
    async def watching(self, request: WatchRequest | None = None) -> AsyncIterator[Stream]:
        stream = Stream()
        task = asyncio.ensure_future(self.hub.serve(request or WatchRequest(), stream))  # type: ignore[arg-type]
        yield stream
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
def world() -> World:
    made = World()
    made.hub.open()
    return made


async def test_nobody_is_told_anything_before_the_registry_is_caught_up() -> None:
    """An empty snapshot of a server that has just started would say that nothing exists."""
    world = World()
    async with world.watching() as stream:
        for _ in range(5):
            await asyncio.sleep(0)
        assert stream.batches.empty()
        world.hub.open()
        assert (await stream.next()).snapshot


async def test_a_snapshot_then_deltas(world: World) -> None:
    world.create("a")
    async with world.watching() as stream:
        batches = await stream.synced()
        assert batches[0].snapshot
        assert [row.spec.id for batch in batches for row in batch.agents] == ["shop/a"]
        assert batches[-1].revision == world.replica.registry.revision
        await stream.next()  # where all others are
        world.create("b")
        delta = await stream.next()
        assert ([row.spec.id for row in delta.agents], delta.snapshot) == (["shop/b"], False)


async def test_a_large_snapshot_comes_in_chunks_and_misses_nothing_that_changes_meanwhile(world: World) -> None:
    world.create(*(f"a{number}" for number in range(900)))
    async with world.watching() as stream:
        first = await stream.next()
        assert len(first.agents) <= 200
        world.create("meanwhile")
        seen = {row.spec.id for row in first.agents}
        while "shop/meanwhile" not in seen:
            seen |= {row.spec.id for row in (await stream.next()).agents}
        assert len(seen) == 901


async def test_changes_of_one_moment_share_a_batch(world: World) -> None:
    async with world.watching() as stream:
        await stream.synced()
        await stream.next()
        for number in range(50):
            world.create(f"a{number}")
        assert len((await stream.next()).agents) == 50


async def test_many_changes_at_once_are_sent_in_pieces_and_only_the_last_claims_the_revision(world: World) -> None:
    """No turn of the loop encodes more than some hundred rows."""
    async with world.watching() as stream:
        await stream.synced()
        await stream.next()
        world.create(*(f"a{number}" for number in range(900)))
        target = world.replica.registry.revision
        pieces = [await stream.next()]
        while pieces[-1].revision < target:
            pieces.append(await stream.next())
        assert max(len(piece.agents) for piece in pieces) <= 200
        assert len({row.uid for piece in pieces for row in piece.agents}) == 900
        assert len({piece.revision for piece in pieces[:-1]}) == 1


async def test_a_watch_is_resumed_without_a_snapshot(world: World) -> None:
    world.create("a")
    revision = world.replica.registry.revision
    world.create("b")
    async with world.watching(WatchRequest(from_revision=revision)) as stream:
        batch = await stream.next()
        assert (batch.snapshot, [row.spec.id for row in batch.agents]) == (False, ["shop/b"])


async def test_a_revision_that_is_no_longer_held_restarts_with_a_snapshot(world: World) -> None:
    world.create("a")
    restore = world.replica.restore()
    for chunk in world.replica.snapshot():
        restore.feed(chunk)
    restore.finish()  # the history does not reach back over it
    world.create("b")
    async with world.watching(WatchRequest(from_revision=1)) as stream:
        assert (await stream.next()).snapshot


async def test_what_is_gone_is_said(world: World) -> None:
    (uid,) = world.create("a")
    async with world.watching() as stream:
        await stream.synced()
        await stream.next()
        world.place(commands.DeleteAgents(ids=("shop/a",), managed_by="API"))
        assert list((await stream.next()).gone_agents) == [uid]


async def test_only_the_kinds_asked_for_are_sent(world: World) -> None:
    world.create("a")
    async with world.watching(WatchRequest(kinds=["hosts"])) as stream:
        batches = await stream.synced()
        assert not any(batch.agents or batch.pools for batch in batches)
        assert [row.name for batch in batches for row in batch.hosts] == ["h0"]


async def test_a_watcher_that_does_not_read_costs_nothing_more(world: World) -> None:
    async with world.watching() as stream:
        await stream.synced()
        await stream.next()
        stream.flowing.clear()
        assert len(world.hub) == 1
        for number in range(700):
            world.create(f"a{number}")
            world.hub.flush()
            await asyncio.sleep(0)
        assert len(world.hub) == 0


async def test_a_batch_is_encoded_once_for_all_who_asked_for_the_same(world: World) -> None:
    """A hundred hosts that follow cost one encoding: they get the same bytes, not equal ones."""
    async with (
        world.watching() as one,
        world.watching() as other,
        world.watching(WatchRequest(kinds=["hosts"])) as third,
    ):
        for stream in (one, other, third):
            await stream.synced()
            await stream.next()
        world.create("a")
        for stream in (one, other, third):
            await stream.next()
        assert one.encoded[-1] is other.encoded[-1]
        assert third.encoded[-1] != one.encoded[-1]


async def test_a_watcher_that_fell_behind_goes_on_with_what_is_and_follows_again(world: World) -> None:
    """On the same stream, without a snapshot; each row once, as it is by then."""
    async with world.watching() as stream:
        await stream.synced()
        await stream.next()
        stream.flowing.clear()
        for number in range(700):
            world.create(f"a{number % 350}", f"b{number}")
            world.hub.flush()
            await asyncio.sleep(0)
        stream.flowing.set()
        seen: dict[str, int] = {}
        while seen != world.rows():
            batch = await stream.next()
            assert not batch.snapshot
            seen |= {row.uid: row.revision for row in batch.agents}
        for _ in range(10):  # the last step of joining is a turn of the loop away
            await asyncio.sleep(0)
        assert len(world.hub) == 1
        world.create("after")
        while "shop/after" not in (row.spec.id for row in (await stream.next()).agents):
            pass


async def test_the_loss_of_a_large_host_does_not_outrun_a_watcher_that_reads_slowly(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows change several times each while it reads one part of them. It was sent one snapshot after the other, and
    was blind during each, until all was over.
    """
    monkeypatch.setattr(watching, "_MAX_QUEUED", 4)
    uids = world.create(*(f"a{number}" for number in range(1000)))
    async with world.watching(WatchRequest(kinds=["agents"])) as stream:
        await stream.synced()
        await stream.next()
        stream.flowing.clear()
        seen = world.rows()

        def take(batch: WatchBatch) -> None:
            assert not batch.snapshot
            seen.update({row.uid: row.revision for row in batch.agents})

        for change in range(40):
            world.say(uids[change % 4 :: 4], f"change {change}")
            world.hub.flush()
            for _ in range(4):
                await asyncio.sleep(0)
            stream.flowing.set()
            take(await stream.next())  # it reads one batch, and no more
            stream.flowing.clear()
        stream.flowing.set()
        while seen != world.rows():
            take(await stream.next())


async def test_a_word_that_the_server_lives_claims_nothing_that_was_not_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who loses the stream after it resumes behind what it claimed: a row that was not sent would never come."""
    monkeypatch.setattr(watching, "_ALIVE_S", 0.0)
    async with world.watching() as stream:
        await stream.synced()
        seen: dict[str, int] = {}
        for number in range(300):
            world.create(f"a{number}")
            world.hub.flush()
            for _ in range(number % 5):
                await asyncio.sleep(0)
            while not stream.batches.empty():
                batch = stream.batches.get_nowait()
                seen |= {row.uid: row.revision for row in batch.agents}
                assert {uid for uid, at in world.rows().items() if at <= batch.revision} <= seen.keys()


async def test_sentences_that_depend_on_a_host_follow_it(world: World) -> None:
    (uid,) = world.create("a")
    world.assign(uid)
    async with world.watching() as stream:
        await stream.synced()
        await stream.next()
        world.place(commands.ReportHost(incarnation="i0", worker_error="no module shop", worker_reason="ImportFailed"))
        (row,) = (await stream.next()).agents
        assert "no module shop" in row.summary


async def test_when_a_host_falls_silent_the_sentences_of_all_its_agents_are_sent(world: World) -> None:
    """And when it is heard again; any other change of its row repeats only those that wait for it."""
    uid, starting = world.create("a", "b")
    world.assign(uid)
    world.assign(starting)
    ready = commands.AgentReport(uid=uid, epoch=1, ready=True)
    world.place(commands.AgentReports(incarnation="i0", reports=(ready,)))
    async with world.watching() as stream:
        await stream.synced()
        await stream.next()
        world.place(commands.ClassifyHosts(items=(commands.HostClass("i0", True, "Silent", 1.0),)))
        said = {row.uid: row.summary for row in (await stream.next()).agents}
        assert said[uid] == "Running on n0 (its host is silent)"
        report = commands.ReportHost(incarnation="i0", ready=True, draining=True)
        world.place(report)
        assert [row.uid for row in (await stream.next()).agents] == [starting]
        world.place(commands.ClassifyHosts(items=(commands.HostClass("i0"),)))
        said = {row.uid: row.summary for row in (await stream.next()).agents}
        assert said[uid] == "Running on n0"
