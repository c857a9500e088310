"""The leader's duties with a log that the test decides for, and a clock that it moves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest

from tenured.core import commands
from tenured.core.agentspec import AgentSpec
from tenured.core.lease import Ack, Load
from tenured.core.model import AgentClass, Pool
from tenured.core.profile import FAST
from tenured.raft import Applied, NotApplied, Outcome, Role
from tenured.server.leading import Leader
from tenured.server.replica import Replica


class Log:
    """Places entries at once while `open`; keeps what was proposed with its term."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.index = 0
        self.open = True
        self.proposed: list[tuple[int | None, commands.Command]] = []
        self.news = asyncio.Event()

    async def propose(self, command: bytes, timeout_s: float, *, term: int | None = None) -> Outcome:
        self.proposed.append((term, commands.decode(command)))
        self.news.set()
        await asyncio.sleep(0)
        if not self.open:
            return NotApplied("closed")
        return self.place(commands.decode(command))

    def place(self, command: commands.Command) -> Applied:
        self.index += 1
        return Applied(self.index, self.replica.apply(self.index, commands.encode(command)))

    def kinds(self) -> list[str]:
        return [type(command).__name__ for _, command in self.proposed]

    async def until(self, kind: str) -> commands.Command:
        async with asyncio.timeout(5):
            while kind not in self.kinds():
                self.news.clear()
                await self.news.wait()
        return next(command for _, command in self.proposed if type(command).__name__ == kind)


class World:
    def __init__(self) -> None:
        self.now = 1_000_000_000_000
        self.replica = Replica()
        self.log = Log(self.replica)
        self.acks: asyncio.Queue[Ack] = asyncio.Queue()
        self.leader = Leader(
            FAST, self.replica, self.log, self.acks.put_nowait, clock=lambda: self.now, wall=lambda: 1.0
        )
        self.replica.listen(self.leader)
        self.log.place(commands.ApplyPools(pools=()))
        self.log.place(commands.RegisterHost(name="h0", incarnation="i0", pool="default", node="n0"))

    async def lead(self, term: int) -> None:
        """Elected, and its first entry committed."""
        self.leader.role_changed(self.role(term))
        for _ in range(10):
            await asyncio.sleep(0)
        assert self.leader.leading

    async def settle(self) -> None:
        """What was proposed is applied, and what follows from it at once is proposed."""
        for _ in range(10):
            await asyncio.sleep(0)

    def pass_ticks(self, number: int) -> None:
        for _ in range(number):
            self.now += FAST.tick_ns
            self.leader.tick()

    def role(self, term: int, *, leads: bool = True) -> Role:
        return Role("s0", term, "s0" if leads else "s1", leads, True, self.log.index, self.log.index, 0, True)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.leader.stop()


async def test_a_heartbeat_is_acknowledged_only_after_a_tick_proposed_later(world: World) -> None:
    """protocol 1, leader 2 and 3 [after, commit]."""
    await world.lead(1)
    world.leader.heartbeat("i0", 42, Load())
    assert world.acks.empty()
    async with asyncio.timeout(5):
        ack = await world.acks.get()
    assert (ack.incarnation, ack.sent_at_ns, ack.gone) == ("i0", 42, False)
    assert ack.index == world.log.index


async def test_a_tick_that_is_not_decided_acknowledges_nothing(world: World) -> None:
    await world.lead(1)
    world.log.open = False
    world.leader.heartbeat("i0", 42, Load())
    count = len(world.log.proposed)
    async with asyncio.timeout(5):
        while len(world.log.proposed) < count + 2:
            world.log.news.clear()
            await world.log.news.wait()
    assert world.acks.empty()


async def test_a_follower_counts_no_heartbeats(world: World) -> None:
    """protocol 1, leader 5 [no_relay_ack]."""
    world.leader.role_changed(world.role(1, leads=False))
    world.leader.heartbeat("i0", 42, Load())
    await world.lead(2)
    world.log.news.clear()
    await world.log.news.wait()
    assert world.acks.empty()


async def test_everything_a_leader_proposes_is_bound_to_its_term(world: World) -> None:
    """In a successor's log a tick would confirm heartbeats that it never saw, an expiry would ignore its leases."""
    await world.lead(7)
    world.pass_ticks(13)
    await world.log.until("ExpireHost")
    assert {term for term, _ in world.log.proposed} == {7}


async def test_a_silent_host_is_expired_only_after_lease_and_margin(world: World) -> None:
    """protocol 1, leader 4 [margin, wait_new]."""
    await world.lead(1)
    world.pass_ticks(11)
    await asyncio.sleep(0)
    assert "ExpireHost" not in world.log.kinds()
    world.pass_ticks(2)
    expired = await world.log.until("ExpireHost")
    assert isinstance(expired, commands.ExpireHost)
    assert expired.incarnation == "i0"


async def test_a_lease_that_ends_between_two_ticks_is_seen_at_once(world: World) -> None:
    """Not up to a tick later. The loop's timer runs in real time, the leases' clock is moved by the test."""
    await world.lead(1)
    world.pass_ticks(11)
    await world.settle()
    assert world.leader._ticker is not None
    world.leader._ticker.cancel()  # no tick comes any more
    world.now += FAST.tick_ns // 2
    world.leader.replaced()  # plans, 50 ms before the end
    await world.settle()
    world.now += FAST.tick_ns // 2
    await world.log.until("ExpireHost")


async def test_a_change_of_a_hosts_row_does_not_put_off_its_end(world: World) -> None:
    """Leader 4: silence counts from the first commit. That the host was written down as silent is no sign of life."""
    await world.lead(1)
    world.pass_ticks(5)
    await world.log.until("ClassifyHosts")
    await world.settle()
    world.pass_ticks(7)
    assert world.replica.registry.hosts["i0"].suspect
    expired = await world.log.until("ExpireHost")
    assert isinstance(expired, commands.ExpireHost)


async def test_a_host_that_registers_later_is_silent_from_then_on(world: World) -> None:
    """It had no lease before."""
    await world.lead(1)
    world.pass_ticks(6)
    world.log.place(commands.RegisterHost(name="h1", incarnation="i1", pool="default", node="n1"))
    world.pass_ticks(7)
    expired = await world.log.until("ExpireHost")
    await asyncio.sleep(0)
    assert isinstance(expired, commands.ExpireHost)
    assert expired.incarnation == "i0"
    assert world.log.kinds().count("ExpireHost") == 1


async def test_steps_of_the_wall_clock_expire_nobody() -> None:
    """Leases are counted on the boot clock; wall time is for display."""
    made = World()
    made.leader = Leader(
        FAST, made.replica, made.log, made.acks.put_nowait, clock=lambda: made.now, wall=lambda: next(steps)
    )
    steps = itertools.cycle([1e9, 0.0, 2e9, -1e9])
    await made.lead(1)
    for _ in range(200):
        made.leader.heartbeat("i0", made.now, Load())
        made.pass_ticks(1)
        await asyncio.sleep(0)
    assert "ExpireHost" not in made.log.kinds()
    made.leader.stop()


async def test_agents_that_wait_for_places_are_planned_as_soon_as_others_are_ready(world: World) -> None:
    """Not at the next tick: a mass failover goes as fast as the hosts do."""
    from tenured.core.failover.pacing import STARTING_PER_CORE

    many = 2 * STARTING_PER_CORE + 1
    await lose_a_host(world, many)
    first = await world.log.until("Assign")
    assert isinstance(first, commands.Assign)
    assert len(first.items) == STARTING_PER_CORE
    await world.settle()
    world.log.proposed.clear()
    reports = tuple(commands.AgentReport(uid=item.uid, epoch=item.epoch + 1, ready=True) for item in first.items)
    world.log.place(commands.AgentReports(incarnation="i0", reports=reports))
    second = await world.log.until("Assign")
    assert isinstance(second, commands.Assign)
    assert len(second.items) == STARTING_PER_CORE
    assert {item.uid for item in first.items}.isdisjoint(item.uid for item in second.items)


async def lose_a_host(world: World, many: int) -> None:
    """h1 held `many` agents, and is proven dead under this leader; h0 is left."""
    from tenured.core.agentspec import AgentSpec
    from tenured.core.model import AgentClass, Pool

    world.log.place(commands.ApplyPools(pools=(Pool(name="default"),)))
    world.log.place(commands.RegisterHost(name="h1", incarnation="i1", pool="default", node="n1"))
    agents = tuple(AgentSpec(id=f"shop/a{number}", class_name="Counter") for number in range(many))
    world.log.place(commands.ApplyAgents(agents=agents, managed_by="API"))
    uids = list(world.replica.registry.agents)
    items = tuple(commands.Assignment(uid=uid, epoch=0, incarnation="i1", reason="Scheduled") for uid in uids)
    world.log.place(commands.Assign(items=items))
    world.log.place(commands.ReportHost(incarnation="i0", ready=True, classes=(AgentClass(name="Counter"),)))
    await world.lead(1)
    world.leader.heartbeat("i0", 1, Load())
    world.log.place(
        commands.RegisterHost(name="h1", incarnation="i2", pool="default", node="n1", dead_incarnations=("i1",))
    )


async def test_a_leader_that_stood_still_begins_its_wait_anew(world: World) -> None:
    """protocol 1, leader 6: heartbeats may lie unread in its sockets."""
    await world.lead(1)
    world.now += 20 * FAST.expiry_ns
    world.leader.replaced()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert "ExpireHost" not in world.log.kinds()


async def test_the_first_tick_of_a_leader_adds_no_time(world: World) -> None:
    """protocol 1, cluster time: the step is the leader's own, 0 for its first."""
    world.leader.role_changed(world.role(1))
    first = await world.log.until("Tick")
    assert isinstance(first, commands.Tick)
    assert first.step_ns == 0


async def test_cluster_time_does_not_jump_over_a_leader_that_stood_still(world: World) -> None:
    """protocol 1, cluster time: no deadline passes because nobody could see. A lone server that slept still leads."""
    await world.lead(1)
    world.log.proposed.clear()
    world.now += 3600 * 10**9
    world.leader.tick()
    slept = await world.log.until("Tick")
    assert isinstance(slept, commands.Tick)
    assert slept.step_ns == 2 * FAST.tick_ns
    world.log.proposed.clear()
    world.now += FAST.tick_ns
    world.leader.tick()
    after = await world.log.until("Tick")
    assert isinstance(after, commands.Tick)
    assert after.step_ns == FAST.tick_ns


async def test_agents_are_placed_without_waiting_for_a_tick(world: World) -> None:
    from tenured.core.agentspec import AgentSpec
    from tenured.core.model import AgentClass, Pool

    world.log.place(commands.ApplyPools(pools=(Pool(name="default"),)))
    report = commands.ReportHost(incarnation="i0", ready=True, classes=(AgentClass(name="Counter"),))
    world.log.place(report)
    await world.lead(1)
    world.leader.heartbeat("i0", 1, Load())
    agents = tuple(AgentSpec(id=f"shop/a{number}", class_name="Counter") for number in range(200))
    world.log.place(commands.ApplyAgents(agents=agents, managed_by="API"))
    assigned = await world.log.until("Assign")
    assert isinstance(assigned, commands.Assign)
    assert len(assigned.items) == 200


async def test_a_first_entry_that_is_refused_at_once_does_not_hold_the_loop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that is being stopped refuses without waiting: the leader asks again a tick later, not in a tight loop."""
    refused = 0

    async def refuse(_command: bytes, _timeout_s: float, *, term: int | None = None) -> Outcome:
        nonlocal refused
        refused += 1
        if refused > 100:
            world.leader.stop()  # so that a leader that spins ends the test and not the session
        return NotApplied(f"not in term {term}")

    monkeypatch.setattr(world.log, "propose", refuse)
    world.leader.role_changed(world.role(1))
    for _ in range(10):
        await asyncio.sleep(0)
    assert refused == 1


async def test_a_new_agent_is_assigned_by_the_entry_that_creates_it(world: World) -> None:
    """One commit, and no entry of the leader's own."""
    world.log.place(commands.ApplyPools(pools=(Pool(name="default"),)))
    world.log.place(
        commands.ReportHost(incarnation="i0", ready=True, classes=(AgentClass(name="Counter"),)),
    )
    await world.lead(1)
    world.leader.heartbeat("i0", 0, Load())
    create = commands.ApplyAgents(agents=(AgentSpec(id="shop/a", class_name="Counter"),), managed_by="API")
    completed = world.leader.complete(commands.encode(create))
    world.log.place(commands.decode(completed))
    await world.settle()
    agent = world.replica.registry.agent("shop/a")
    assert agent is not None
    assert (agent.host, agent.epoch) == ("h0", 1)
    assert "Assign" not in world.log.kinds()


async def test_other_entries_and_those_of_a_server_that_does_not_lead_stay_as_they_are(world: World) -> None:
    """Consensus asks for each entry that it places."""
    create = commands.encode(commands.ApplyAgents(agents=(AgentSpec(id="shop/a", class_name="C"),), managed_by="API"))
    assert world.leader.complete(create) == create
    await world.lead(1)
    tick = commands.encode(commands.Tick(step_ns=1))
    assert world.leader.complete(tick) == tick
