"""What the leader proposes next, and how cheap it is to ask."""

import time

import pytest
from core_world import World

from tenured.core import commands as c
from tenured.core.failover import BATCH, HOST_ROWS_KEPT_NS, UNSETTLED_NS, Planner
from tenured.core.lease import LeaderLeases
from tenured.core.profile import FAST, NS


class Leader:
    """A leader over a world: its leases, its planner, its clock."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.leases = LeaderLeases(FAST)
        self.leases.elected()
        self.leases.first_commit(0)
        self.planner = Planner()
        self.now = NS

    def beat(self, *incarnations: str) -> None:
        for incarnation in incarnations:
            self.leases.heartbeat(self.now, incarnation, 0)

    def plan(self) -> list[c.Command]:
        return self.planner.plan(self.world.registry, self.leases, self.now, 1000.0)

    def carry_out(self) -> list[c.Command]:
        """Plan, apply and settle until there is nothing left to do."""
        done = []
        while found := self.plan():
            for command in found:
                self.world.apply(command)
                self.planner.settled(command)
            done += found
        return done


@pytest.fixture
def leader(world: World) -> Leader:
    """Of two hosts that were heard of just now."""
    world.pool()
    world.host("h0")
    world.host("h1")
    made = Leader(world)
    made.beat("h0.1", "h1.1")
    return made


def names(found: list[c.Command]) -> list[str]:
    return [type(command).__name__ for command in found]


def test_a_server_that_does_not_lead_plans_nothing(world: World) -> None:
    """Before the own first commit (protocol 1, leader 4)."""
    world.pool()
    world.create("a")
    leases = LeaderLeases(FAST)
    assert Planner().plan(world.registry, leases, 10**12, 0.0) == []


def test_new_agents_are_assigned_critical_first(leader: Leader) -> None:
    """One batch; while it is under way, none other."""
    leader.world.create("a", "b", critical=False)
    leader.world.create("c")
    (batch,) = leader.plan()
    assert [item.uid for item in batch.items] == ["8", "6", "7"]
    assert {item.reason for item in batch.items} == {"Scheduled"}
    assert leader.plan() == []
    leader.world.apply(batch)
    leader.planner.settled(batch)
    assert leader.plan() == []
    assert leader.world.registry.unheld == set()


def test_a_silent_host_is_expired_then_its_agents_are_assigned(leader: Leader) -> None:
    """Expiries first; the wall time is that of the last sign of life."""
    uids = leader.world.create("a", "b")
    for uid in uids:
        leader.world.assign(uid, "h0.1")
    leader.now += FAST.expiry_ns
    leader.beat("h1.1")
    expire, classes = leader.plan()
    assert [(item.incarnation, item.silence) for item in classes.items] == [("h0.1", "Lapsed")]
    assert (expire.incarnation, expire.last_heard_wall) == ("h0.1", pytest.approx(1000 - FAST.expiry_ns / NS))
    assert leader.plan() == [], "it is proposed once while its fate is open"
    leader.world.apply(expire)
    leader.planner.settled(expire)
    assert names(leader.carry_out()) == ["Assign"]
    assert {leader.world.agent(uid).host for uid in uids} == {"h1"}
    assert {leader.world.agent(uid).assigned_reason for uid in uids} == {"LeaseExpired"}


def test_what_was_not_applied_is_planned_again(leader: Leader) -> None:
    """Level-triggered: a lost proposal costs time only, told or not."""
    leader.world.create("a")
    (batch,) = leader.plan()
    leader.planner.settled(batch)
    assert names(leader.plan()) == ["Assign"]
    leader.now += UNSETTLED_NS
    leader.beat("h0.1", "h1.1")
    assert names(leader.plan()) == ["Assign"]
    leader.planner.reset()
    assert names(leader.plan()) == ["Assign"]


def test_a_suspected_host_gets_nothing_until_it_is_heard_again(leader: Leader) -> None:
    """DESIGN.md 5, detection: suspicion places nothing new there and moves nothing away."""
    leader.now += leader.leases.detector.first_limit_ns
    leader.world.create("a")
    classes, waiting = leader.carry_out()
    assert {item.silence for item in classes.items} == {"Silent"}
    assert waiting.items[0].message == "Waiting: no host of pool default fits (2 silent)"
    leader.beat("h0.1", "h1.1")
    assert leader.carry_out() == [], "a class is written at most once a second"
    leader.now += NS
    leader.beat("h1.1")
    found = leader.carry_out()
    assert names(found) == ["ClassifyHosts", "Assign"]
    assert [(item.incarnation, item.suspect) for item in found[0].items] == [("h0.1", True), ("h1.1", False)]
    assert leader.world.registry.agent("shop/a").host == "h1"


def test_a_new_leader_places_as_soon_as_it_hears_and_spreads_no_alarm(leader: Leader) -> None:
    """Right after the election all hosts are unheard: nobody is told that nothing fits."""
    leader.world.create("a")
    leader.leases.elected()
    leader.leases.first_commit(leader.now)
    assert leader.plan() == []
    leader.beat("h0.1")
    assert names(leader.plan()) == ["Assign"]


def test_why_nothing_fits_is_written_once_and_goes_with_the_assignment(leader: Leader) -> None:
    """A row changes only with the sentence."""
    world = leader.world
    world.create("a", pool="gpu")
    assert names(leader.carry_out()) == ["SetWaiting"]
    agent = world.registry.agent("shop/a")
    assert (agent.waiting.reason, bool(agent.waiting.next_action)) == ("PoolNotFound", True)
    world.create("b")
    assert names(leader.carry_out()) == ["Assign"]
    world.pool("default", "gpu")
    world.host("g0", pool="gpu")
    leader.beat("g0.1")
    assert names(leader.carry_out()) == ["Assign"]
    assert world.registry.agent("shop/a").waiting is None


def test_a_late_sentence_does_not_stick(leader: Leader) -> None:
    """It stands only for an agent that is still unheld at that epoch."""
    (uid,) = leader.world.create("a")
    item = c.WaitingItem(uid=uid, epoch=0, reason="NoHostFits", message="Waiting")
    leader.world.assign(uid, "h0.1")
    leader.world.apply(c.SetWaiting(items=(item,)))
    leader.world.report(uid, released=True)
    leader.world.apply(c.SetWaiting(items=(item,)))
    assert leader.world.agent(uid).waiting is None


def test_rows_of_hosts_that_ended_long_ago_are_dropped(leader: Leader) -> None:
    """Bounded: they are shown for ten minutes."""
    leader.world.expire("h0.1")
    assert leader.plan() == []
    leader.world.apply(c.Tick(step_ns=HOST_ROWS_KEPT_NS + 1))
    assert names(leader.carry_out()) == ["ForgetHosts"]
    assert "h0.1" not in leader.world.registry.hosts


def test_large_batches_are_cut(leader: Leader) -> None:
    """Entries stay small."""
    leader.world.create(*(f"a-{n}" for n in range(BATCH + 1)))
    assert [len(batch.items) for batch in leader.plan()] == [BATCH, 1]


def test_asking_is_cheap_when_nothing_changed(leader: Leader) -> None:
    """With ten thousand agents, held or waiting, a tick costs next to nothing."""
    leader.world.create(*(f"a-{n}" for n in range(5_000)))
    leader.world.create(*(f"w-{n}" for n in range(5_000)), pool="gpu")
    leader.carry_out()
    start = time.process_time()
    for _ in range(100):
        assert leader.plan() == []
    assert (time.process_time() - start) / 100 < 0.001
