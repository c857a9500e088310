"""What a server says to hosts on their links (ADR 0033): what they are to begin, ahead of the watch, and the watch."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from tenure_api.identity import Identity, Role
from tenure_proto.v1.hostlink_pb2 import Heartbeat, HostFrame, ServerFrame
from tenure_proto.v1.registry_pb2 import WatchBatch, WatchRequest
from tenured.core import commands
from tenured.core.agentspec import AgentSpec
from tenured.core.model import AgentClass, Pool
from tenured.core.registry import Registry
from tenured.raft import Outcome
from tenured.raft import Role as Stance
from tenured.server.hosts import ASSIGNED_ROWS, Hosts
from tenured.server.replica import Replica
from tenured.server.store import Store
from tenured.server.watching import WatchHub
from tenured.transport.hostlink import MAX_QUEUED, HostSession
from tenured.transport.outbox import Outbox


class Consensus:
    """Says who leads."""

    def __init__(self) -> None:
        self.leads = True

    async def propose(self, command: bytes, timeout_s: float, *, term: int | None = None) -> Outcome:
        raise NotImplementedError

    def role(self) -> Stance:
        return Stance("s0", 1, "s0" if self.leads else "s1", self.leads, True, 0, 0, 0, True, {})


class World:
    """A server with two hosts in its registry; the first has a link to it."""

    def __init__(self) -> None:
        self.replica, self.consensus, self.index = Replica(), Consensus(), 0
        self.hub = WatchHub(self.replica)
        self.hosts = Hosts("s0", self.replica, self.consensus, cast("Store", None), self.hub)
        self.replica.listen(self.hub)
        self.replica.listen(self.hosts)
        self.hub.open()
        self.place(commands.ApplyPools(pools=(Pool(name="default"),)))
        for name, incarnation in (("h0", "i0"), ("h1", "i1")):
            self.place(commands.RegisterHost(name=name, incarnation=incarnation, pool="default", node=f"n-{name}"))
            self.place(commands.ReportHost(incarnation=incarnation, ready=True, classes=(AgentClass(name="Counter"),)))
        self.outbox: Outbox[ServerFrame] = Outbox(MAX_QUEUED)
        self.session = HostSession(Identity("demo.shop", Role.HOST, "h0"), self.outbox)
        self.hosts.opened(self.session)
        self.hosts.frame(self.session, HostFrame(heartbeat=Heartbeat(incarnation="i0")))

    def place(self, command: commands.Command) -> None:
        self.index += 1
        self.replica.apply(self.index, commands.encode(command))

    def create(self, *names: str, at: str) -> list[str]:
        """As the leader completes it: rows with their places."""
        agents = tuple(AgentSpec(id=f"shop/{name}", class_name="Counter") for name in names)
        places = tuple(commands.Place(incarnation=at) for _ in agents)
        self.place(commands.ApplyAgents(agents=agents, managed_by="API", places=places))
        return [self.replica.registry.by_id[agent.id] for agent in agents]

    async def told(self) -> list[ServerFrame]:
        """What the first host was sent of assignments since the last time."""
        frames = await self.outbox.take()
        return [frame for frame in frames if frame.HasField("assigned")]


@pytest.fixture
def world() -> World:
    return World()


async def test_a_new_holder_is_told_at_once_and_of_its_own_agents_only(world: World) -> None:
    (uid,) = world.create("a", at="i0")
    world.create("b", at="i1")
    (frame,) = await world.told()
    assert [(row.uid, row.incarnation, row.epoch) for row in frame.assigned.agents] == [(uid, "i0", 1)]
    assert frame.assigned.agents[0].revision == world.replica.registry.agents[uid].revision


async def test_many_are_told_in_frames_of_bounded_size(world: World) -> None:
    world.create(*(f"a{number}" for number in range(ASSIGNED_ROWS + 50)), at="i0")
    assert [len(frame.assigned.agents) for frame in await world.told()] == [ASSIGNED_ROWS, 50]


async def test_an_agent_that_is_ready_is_no_news_for_its_holder(world: World) -> None:
    (uid,) = world.create("a", at="i0")
    await world.told()
    ready = commands.AgentReport(uid=uid, epoch=1, ready=True)
    world.place(commands.AgentReports(incarnation="i0", reports=(ready,)))
    world.place(commands.DeleteAgents(ids=("shop/a",), managed_by="API"))
    world.hosts.role_changed(world.consensus.role())
    assert await world.told() == []


async def test_what_a_holder_says_is_no_news_for_it(world: World) -> None:
    """It reports trouble at each try: a frame back each time would cost it and the leader for nothing."""
    (uid,) = world.create("a", at="i0")
    await world.told()
    for attempt in range(3):
        trouble = commands.TroubleReport(phase="Backoff", reason="WorkerCrashed", message="It died.", attempt=attempt)
        report = commands.AgentReport(uid=uid, epoch=1, trouble=trouble)
        world.place(commands.AgentReports(incarnation="i0", reports=(report,)))
    world.hosts.role_changed(world.consensus.role())
    assert await world.told() == []


async def test_a_server_that_does_not_lead_says_nothing(world: World) -> None:
    """The leader does: hosts have a link to every server."""
    world.consensus.leads = False
    world.create("a", at="i0")
    assert await world.told() == []


async def watched(world: World, number: int) -> list[WatchBatch | None]:
    """What has come of that watch, None for its end; waits for the first."""
    found: list[WatchBatch | None] = []
    async with asyncio.timeout(5):
        while not found:
            frames = [frame for frame in await world.outbox.take() if frame.HasField("watched")]
            assert {frame.id for frame in frames} <= {number}
            found = [WatchBatch.FromString(frame.watched) if frame.watched else None for frame in frames]
    return found


async def begun(world: World, number: int, **asked: int) -> list[WatchBatch]:
    """Begin a watch: a snapshot, and the batch that brings it where all others are."""
    world.hosts.frame(world.session, HostFrame(id=number, watch=WatchRequest(**asked)))
    found: list[WatchBatch] = []
    while sum(batch.synced for batch in found) < 2:
        found += [batch for batch in await watched(world, number) if batch is not None]
    return found


async def test_a_watch_on_the_link_is_as_every_watch(world: World) -> None:
    (uid,) = world.create("a", at="i1")
    snapshot = await begun(world, 5)
    assert snapshot[0].snapshot
    assert [row.uid for batch in snapshot for row in batch.agents] == [uid]
    (later,) = world.create("b", at="i1")
    (delta,) = await watched(world, 5)
    assert delta is not None
    assert ([row.uid for row in delta.agents], delta.snapshot) == ([later], False)


async def test_a_later_watch_takes_the_place_of_the_one_before(world: World) -> None:
    await begun(world, 5)
    await begun(world, 6)
    assert len(world.hub) == 1
    world.create("a", at="i1")
    assert len(await watched(world, 6)) == 1


async def test_a_watch_that_the_server_ends_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it missed is not known any more: its host asks again, and gets a snapshot."""
    await begun(world, 5)
    monkeypatch.setattr(Registry, "since", lambda *_: None)
    world.hub.replaced()
    assert await watched(world, 5) == [None]


async def test_a_watch_ends_with_its_session(world: World) -> None:
    await begun(world, 5)
    world.session.close()
    world.hosts.closed(world.session)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(world.hub) == 0


async def test_a_host_that_does_not_read_holds_up_the_watch_and_not_the_server(world: World) -> None:
    """What waits for it is bounded; when it reads again it gets each row once, and follows."""
    await begun(world, 5)
    for number in range(700):
        world.create(f"a{number}", at="i1")
        world.hub.flush()
        await asyncio.sleep(0)
    assert len(world.hub) == 0, "it is left out of what all others are told"
    found: list[WatchBatch] = []
    while not found or found[-1].revision < world.replica.registry.revision:
        found += [batch for batch in await watched(world, 5) if batch is not None]
    uids = [row.uid for batch in found for row in batch.agents]
    assert set(uids) == set(world.replica.registry.agents)
    assert not any(batch.snapshot for batch in found)
    assert len(found) < 300
    assert len(world.hub) == 1
