"""Agents that are not moved for now: marked, shown, freed when their node or capacity is back; and the record of it."""

from __future__ import annotations

import pytest
from core_world import World
from test_failover_pacing import Leader

from tenured.core import commands as c
from tenured.core.describe import describe
from tenured.core.failover.marks import UNPLACED_NS
from tenured.core.model import FailoverRecord
from tenured.core.profile import FAST, NS
from tenured.core.registry import Registry


@pytest.fixture
def leader(world: World) -> Leader:
    """With two survivors."""
    return Leader(world)


def settle(leader: Leader, rounds: int = 4) -> None:
    """Let the leader know its hosts, and carry out what it plans."""
    leader.later(FAST.ttl_ns)
    for _ in range(rounds):
        leader.round()


def record(world: World) -> FailoverRecord:
    (found,) = world.registry.failovers.values()
    return found


def test_what_is_not_critical_is_marked_and_waits_for_its_node(leader: Leader) -> None:
    """FAIL-05: it is not moved, and runs again where it was."""
    (plain,), (vital,) = leader.hold("plain", critical=False), leader.hold("vital")
    leader.lose()
    settle(leader)
    world = leader.world
    assert world.agent(vital).host in ("h1", "h2")
    said = describe(world.registry, world.agent(plain))
    assert (said.phase, said.reason) == ("Unavailable", "NodeLost")
    assert said.summary == "Unavailable: node-h0 was lost, and an agent that is not critical waits for it"
    assert said.next_action
    leader.hosts.append(world.host("h0", incarnation="h0.2"))
    leader.beat()
    settle(leader)
    assert (world.agent(plain).host, world.agent(plain).epoch) == ("h0", 2)
    assert world.agent(plain).unavailable == ""
    assert world.agent(plain).last_failover.to_host == "h0"


def test_a_daemon_that_is_restarted_at_once_marks_nobody(leader: Leader) -> None:
    """Proof of death: the host is there again before its worker is."""
    (plain,) = leader.hold("plain", critical=False)
    world = leader.world
    leader.hosts = ["h1.1", "h2.1", world.host("h0", incarnation="h0.2", ready=False, dead=["h0.1"])]
    leader.beat()
    settle(leader)
    assert (world.agent(plain).unavailable, world.agent(plain).held) == ("", False)
    world.apply(c.ReportHost(incarnation="h0.2", ready=True, classes=world.registry.hosts["h1.1"].classes))
    leader.round()
    assert world.agent(plain).host == "h0"


def test_a_node_that_was_replaced_by_another_frees_its_agents(leader: Leader) -> None:
    """Capacity is back: as many ready hosts as before the loss. The node of that name never comes back."""
    (plain,) = leader.hold("plain", critical=False)
    leader.lose()
    settle(leader)
    world = leader.world
    assert world.agent(plain).unavailable == "NodeLost"
    leader.hosts.append(world.host("h9"))
    leader.beat()
    settle(leader)
    agent = world.agent(plain)
    assert (agent.unavailable, agent.held, agent.assigned_reason) == ("", True, "CapacityReturned")
    assert (agent.last_failover.to_host, agent.restarts) == (agent.host, 1)


def test_an_agent_that_is_made_critical_moves(leader: Leader) -> None:
    """The next step that the sentence names."""
    (plain,) = leader.hold("plain", critical=False)
    leader.lose()
    settle(leader)
    leader.world.create("plain", critical=True)
    settle(leader)
    assert leader.world.agent(plain).host in ("h1", "h2")


def test_a_critical_agent_that_fits_nowhere_is_marked_and_goes_on_being_tried(leader: Leader) -> None:
    """FAIL-09: Unavailable with the reason; retried when capacity returns."""
    (uid,) = leader.hold("heavy", class_name="Gone")
    leader.lose()
    settle(leader)
    world = leader.world
    assert describe(world.registry, world.agent(uid)).phase == "FailingOver"
    leader.later(UNPLACED_NS)
    settle(leader)
    said = describe(world.registry, world.agent(uid))
    assert (said.phase, said.reason) == ("Unavailable", "ClassNotFound")
    assert said.summary.startswith("Unavailable: pool default has no class Gone")
    from core_world import AgentClass

    leader.hosts.append(world.host("h9", classes=(AgentClass(name="Gone"),)))
    leader.beat()
    settle(leader)
    assert (world.agent(uid).host, world.agent(uid).unavailable) == ("h9", "")


def test_the_record_says_what_became_of_each(leader: Leader) -> None:
    """FAIL-01, FAIL-03: cause, agents, durations; complete once everybody is Ready or marked."""
    world = leader.world
    (plain,), vital = leader.hold("plain", critical=False), leader.hold("v-1", "v-2")
    world.registry.wall = 1000.0
    leader.hosts.remove("h0.1")
    world.apply(c.ExpireHost(incarnation="h0.1", last_heard_wall=997.6, wall=1000.0))
    found = record(world)
    assert (found.host, found.node, found.cause, found.agents) == ("h0", "node-h0", "LeaseExpired", 3)
    assert (found.pool, found.hosts, found.last_heard_wall) == ("default", 3, 997.6)
    assert [item.uid for item in found.items] == [*vital, plain]
    settle(leader)
    found = record(world)
    assert (found.moved, found.marked_unavailable, found.ready, found.done_wall) == (2, 1, 0, 0.0)
    for uid in vital:
        world.report(uid, ready=True, wall=1000.5)
    found = record(world)
    assert (found.ready, found.done_wall) == (2, 1000.5)
    assert {item.to_host for item in found.items if item.critical} <= {"h1", "h2"}
    assert [item.unavailable for item in found.items] == ["", "", "NodeLost"]
    assert world.agent(vital[0]).recovered_from == "h0/node-h0"


def test_what_is_starting_is_counted_through_everything(leader: Leader) -> None:
    """The index that pacing rests on, and after a restart from a snapshot."""
    leader.hold(*(f"a-{n}" for n in range(50)))
    leader.lose()
    leader.assigned()
    world = leader.world
    counted = {
        name: sum(agent.starting and agent.incarnation == name for agent in world.registry.agents.values())
        for name in ("h1.1", "h2.1")
    }
    assert world.registry.starting == counted
    assert Registry.restore(world.registry.snapshot()).starting == counted
    world.expire("h1.1")
    assert set(world.registry.starting) == {"h2.1"}


def test_silence_is_written_down_step_by_step_and_at_a_bounded_rate(leader: Leader) -> None:
    """At most once a second and host, except that one silence goes on to its next step."""
    (uid,) = leader.hold("a")
    world = leader.world
    leader.hosts.remove("h0.1")
    changes: list[tuple[str, int]] = []
    for _ in range(11):
        leader.later(FAST.tick_ns)
        before = world.registry.hosts["h0.1"].silence
        leader.round()
        after = world.registry.hosts["h0.1"].silence
        if after != before:
            changes.append((after, leader.now))
            summaries = {"Silent": "Running on node-h0 (its host is silent)"}
            assert leader.summary(uid) == summaries.get(after, "Failing over from node-h0: its lease ends")
    assert [name for name, _ in changes] == ["Silent", "Lapsed"]
    assert changes[0][1] - NS <= FAST.ttl_ns // 2
    writes = 0
    leader.hosts.append("h0.1")
    for number in range(100):
        leader.now += FAST.tick_ns
        if number % 5 == 0:
            leader.beat()
        leader.leases.heartbeat(leader.now, "h1.1", 0)
        leader.leases.heartbeat(leader.now, "h2.1", 0)
        writes += sum(
            item.incarnation == "h0.1"
            for command in leader.round()
            if isinstance(command, c.ClassifyHosts)
            for item in command.items
        )
    assert writes <= 11
