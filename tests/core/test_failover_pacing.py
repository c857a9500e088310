"""A mass failover: in order, a bounded number at a time on each host, everybody told, nobody for ever."""

from __future__ import annotations

from collections import Counter

import pytest
from core_world import World

from tenured.core import commands as c
from tenured.core._apply_cluster import AT_ONCE
from tenured.core.describe import describe
from tenured.core.failover import Planner, planner
from tenured.core.failover.pacing import BUSY_SHARE, STARTING_PER_CORE, free_places, places
from tenured.core.failover.queue import AGED_NS, HELD_BACK_NS, TOLD_AGAIN_NS
from tenured.core.lease import LeaderLeases, Load
from tenured.core.placement import Placement, place
from tenured.core.profile import FAST, NS

PLACES = STARTING_PER_CORE


class Leader:
    """Of some hosts that are heard all the time; `h0` is the one that is lost."""

    def __init__(self, world: World, survivors: int = 2) -> None:
        self.world = world
        self.leases = LeaderLeases(FAST)
        self.leases.elected()
        self.leases.first_commit(0)
        self.planner = Planner()
        self.now = NS
        world.pool()
        self.hosts = [world.host(f"h{n}") for n in range(survivors + 1)]
        self.beat()

    def beat(self, load: Load | None = None) -> None:
        for incarnation in self.hosts:
            self.leases.heartbeat(self.now, incarnation, 0, load)

    def hold(self, *names: str, **fields: object) -> list[str]:
        """Agents that h0 holds, Ready."""
        uids = self.world.create(*names, **fields)
        for uid in uids:
            self.world.assign(uid, "h0.1")
            self.world.report(uid, ready=True)
        return uids

    def lose(self) -> None:
        self.hosts.remove("h0.1")
        self.world.expire("h0.1")

    def round(self) -> list[c.Command]:
        """Plan once, and carry it out."""
        found = self.planner.plan(self.world.registry, self.leases, self.now, self.now / NS)
        for command in found:
            self.world.apply(command)
            self.planner.settled(command)
        return found

    def assigned(self) -> list[str]:
        """What one round assigned, in order."""
        return [item.uid for command in self.round() if isinstance(command, c.Assign) for item in command.items]

    def finish(self) -> list[str]:
        """What is assigned until there is nothing left to do; each is Ready at once."""
        found: list[str] = []
        while commands := self.round():
            found += [item.uid for each in commands if isinstance(each, c.Assign) for item in each.items]
            self.ready()
        return found

    def later(self, ns: int) -> None:
        for _ in range(ns // FAST.tick_ns):
            self.now += FAST.tick_ns
            self.beat()

    def ready(self) -> None:
        """Every agent that is being started is Ready."""
        for agent in [agent for agent in self.world.registry.agents.values() if agent.starting]:
            self.world.report(agent.uid, ready=True)

    def summary(self, uid: str) -> str:
        return describe(self.world.registry, self.world.agent(uid)).summary


@pytest.fixture
def leader(world: World) -> Leader:
    """With two survivors."""
    return Leader(world)


def test_each_survivor_starts_a_bounded_number_at_a_time(leader: Leader) -> None:
    """And the agents are spread, not piled up."""
    uids = leader.hold(*(f"a-{n}" for n in range(5 * PLACES)))
    leader.lose()
    seen: list[str] = []
    while batch := leader.assigned():
        assert leader.planner.waits_for_places == (len(seen) + len(batch) < len(uids))
        assert max(leader.world.registry.starting.values()) <= PLACES
        seen += batch
        assert leader.assigned() == [], "nothing more before some are Ready"
        leader.ready()
    assert sorted(seen) == sorted(uids)
    spread = Counter(agent.host for agent in leader.world.registry.agents.values())
    assert spread["h1"] == pytest.approx(spread["h2"], abs=2)
    assert leader.world.registry.starting == {}
    assert not leader.planner.waits_for_places


def test_the_agents_of_a_large_host_leave_it_in_parts(leader: Leader) -> None:
    """Its end is one small entry: one that moved them all would hold up every server's loop at the same moment, and
    with it elections and leases (protocol 4, rule R).
    """
    registry = leader.world.registry
    plain = leader.hold(*(f"p-{n}" for n in range(AT_ONCE)), critical=False)
    uids = leader.hold(*(f"a-{n}" for n in range(AT_ONCE + 100)))
    leader.lose()
    assert (registry.ended("h0.1"), len(registry.held_by["h0.1"])) == (True, 2 * AT_ONCE + 100)
    assert leader.world.assign(uids[0], "h1.1").outcome == "refused", "it has not left its holder"
    assert leader.summary(uids[0]) == "Failing over from node-h0"
    assert registry.lookup("shop/a-0").answer == "NodeUnavailable"
    leader.world.apply(c.DeleteAgents(ids=("shop/a-0", "shop/p-0"), managed_by="API"))
    assert {uids[0], plain[0]}.isdisjoint(registry.agents), "its holder is gone, nobody is waited for"
    assert leader.assigned() == []
    assert set(uids[1:]).intersection(registry.held_by["h0.1"]) == set(uids[AT_ONCE + 1 :]), "the critical ones first"
    leader.planner.reset()  # another leader goes on
    assert sorted(leader.finish()) == sorted(uids[1:])
    assert "h0.1" not in registry.held_by
    (record,) = registry.failovers.values()
    assert (record.agents, record.ready, record.left) == (2 * AT_ONCE + 100, AT_ONCE + 99, 2)


def test_the_row_of_a_large_host_stays_while_agents_leave_it(leader: Leader) -> None:
    """Its successor, and the time for which rows are kept, find it there."""
    world = leader.world
    leader.hold(*(f"a-{n}" for n in range(AT_ONCE + 1)))
    leader.lose()
    world.host("h0", incarnation="h0.2")
    world.apply(c.ForgetHosts(incarnations=("h0.1",)))
    assert "h0.1" in world.registry.hosts
    leader.hosts.append("h0.2")
    leader.beat()
    leader.finish()
    world.apply(c.ForgetHosts(incarnations=("h0.1",)))
    assert "h0.1" not in world.registry.hosts


def test_those_that_sleep_are_moved_asleep_and_take_no_places(leader: Leader) -> None:
    """They are sealed, and not started: many at a time, while others wait until there is room."""
    awake = leader.hold(*(f"a-{n}" for n in range(3 * PLACES)))
    asleep = leader.hold(*(f"s-{n}" for n in range(20 * PLACES)))
    for uid in asleep:
        leader.world.report(uid, hibernated=c.HibernationReport())
    leader.lose()
    assert leader.assigned() == awake[: 2 * PLACES], "whoever was awake goes first"
    assert leader.assigned() == asleep
    assert leader.assigned() == []
    assert leader.planner.waits_for_places
    leader.ready()
    assert leader.assigned() == awake[2 * PLACES :]
    spread = Counter(leader.world.agent(uid).host for uid in asleep)
    assert spread["h1"] == pytest.approx(spread["h2"], abs=2 * PLACES)


def test_critical_agents_go_first_and_then_the_older_ones(leader: Leader) -> None:
    """An agent that is not critical and was just created waits behind all that are."""
    leader.hold(*(f"a-{n}" for n in range(2 * PLACES)))
    leader.world.create("plain", critical=False)
    leader.lose()
    first = leader.assigned()
    assert len(first) == 2 * PLACES
    leader.ready()
    assert leader.assigned() == leader.world.registry.agent("shop/plain").uid.split()


def test_what_waits_for_its_turn_is_told_how_many_are_before_it(leader: Leader) -> None:
    """After half a second, and again every five; the sentence goes with the assignment."""
    uids = leader.hold(*(f"a-{n}" for n in range(4 * PLACES)))
    leader.lose()
    leader.assigned()
    assert leader.summary(uids[-1]) == "Failing over from node-h0"
    leader.later(HELD_BACK_NS)
    leader.round()
    ahead = f"Failing over from node-h0. Waiting: failing over, {4 * PLACES - 1} ahead of it"
    assert leader.summary(uids[-1]) == ahead
    assert leader.round() == []
    for uid in uids[:PLACES]:
        leader.world.report(uid, ready=True)
    leader.later(TOLD_AGAIN_NS)
    leader.round()
    assert leader.summary(uids[-1]).endswith(f"{3 * PLACES - 1} ahead of it")
    leader.ready()
    leader.assigned()
    assert "ahead" not in leader.summary(uids[-1])


def test_an_agent_in_trouble_takes_no_place(leader: Leader) -> None:
    """Crash loops on the survivors do not stop the failover of others."""
    leader.hold(*(f"a-{n}" for n in range(3 * PLACES)))
    leader.lose()
    for uid in leader.assigned():
        trouble = c.TroubleReport(phase="Backoff", reason="CrashLoopBackOff", message="boom", attempt=1)
        leader.world.report(uid, trouble=trouble)
    assert len(leader.assigned()) == PLACES


def test_what_fits_nowhere_does_not_stand_in_the_way(leader: Leader) -> None:
    """Its class is gone with its host; the agents behind it are placed all the same."""
    lost = leader.hold(*(f"x-{n}" for n in range(3 * PLACES)), class_name="Gone")
    good = leader.hold("good")
    leader.lose()
    leader.later(FAST.ttl_ns)
    found = leader.assigned() + leader.assigned() + leader.assigned() + leader.assigned()
    assert found == good
    assert leader.world.agent(lost[0]).waiting.reason == "ClassNotFound"


def test_what_is_too_large_for_the_survivors_waits_and_never_oversubscribes(world: World) -> None:
    """Admitted by CPU and memory: requests against what is left, checked again where it is applied."""
    leader = Leader(world, survivors=0)
    uids = leader.hold(*(f"a-{n}" for n in range(6)), memory_bytes=1 << 30, cpu_milli=100)
    leader.hosts += [world.host("h1", memory_bytes=2 << 30, cpu_milli=4000)]
    leader.hosts += [world.host("h2", memory_bytes=16 << 30, cpu_milli=200)]
    leader.beat()
    leader.lose()
    leader.later(FAST.ttl_ns)
    for _ in range(3):
        leader.round()
        leader.ready()
    assert Counter(world.agent(uid).host for uid in uids) == {"h1": 2, "h2": 2, "": 2}


def test_a_host_that_is_busy_starts_fewer() -> None:
    """By what its heartbeats say of processor and loop; larger hosts start more."""
    world = World()
    world.host("small")
    world.host("large", cpu_milli=8000)
    small, large = world.registry.hosts["small.1"], world.registry.hosts["large.1"]
    assert places(large, None) == 8 * places(small, None) == 8 * PLACES
    assert places(small, Load(cpu=0.95)) == places(small, Load(loop_lag_ms=150.0)) == PLACES // BUSY_SHARE
    assert free_places(world.registry, {}, {"large.1"}) == {"small.1": PLACES}


def test_nothing_waits_for_ever_behind_what_comes_later(leader: Leader) -> None:
    """Aging: an agent that is not critical comes first after ten seconds, whatever else arrives."""
    leader.hold(*(f"a-{n}" for n in range(4 * PLACES)))
    (plain,) = leader.world.create("plain", critical=False)
    leader.lose()
    served: list[str] = []
    for number in range(AGED_NS // NS + 2):
        served += leader.assigned()
        if plain in served:
            break
        for uid in [agent.uid for agent in leader.world.registry.agents.values() if agent.starting][:8]:
            leader.world.report(uid, ready=True)
        leader.world.create(*(f"late-{number}-{n}" for n in range(8)))
        leader.later(NS)
    assert plain in served


def test_a_lost_agent_that_fits_nowhere_paces_nobody(leader: Leader) -> None:
    """New agents go at once as soon as that is known, whatever waits for a class that is gone."""
    leader.hold("x", class_name="Gone")
    leader.lose()
    leader.later(FAST.ttl_ns)
    leader.round()
    leader.world.create(*(f"a-{n}" for n in range(10 * PLACES)))
    assert len(leader.assigned() + leader.assigned() + leader.assigned()) == 10 * PLACES


def test_first_placements_alone_are_not_paced(leader: Leader) -> None:
    """A large apply goes at once, as before."""
    leader.world.create(*(f"a-{n}" for n in range(10 * PLACES)))
    assert len(leader.assigned()) == 10 * PLACES


def test_a_round_of_a_mass_failover_looks_at_no_more_than_has_a_place(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5,000 agents lost: the leader's loop goes on."""
    leader = Leader(world)
    leader.hold(*(f"a-{n}" for n in range(5000)))
    leader.lose()
    looked: list[int] = []

    def counting(registry: object, agents: list[object], **options: object) -> list[Placement]:
        looked.append(len(agents))
        return place(registry, agents, **options)

    assert [type(command) for command in leader.round()] == [c.FreeAgents]
    monkeypatch.setattr(planner, "place", counting)
    for _ in range(5):
        leader.round()
        leader.ready()
    assert looked == [2 * PLACES] * 5
