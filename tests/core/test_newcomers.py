"""Agents whose rows are created and assigned by one entry (DESIGN.md section 5; protocol 4, rule R)."""

import pytest
from core_world import World

from tenured.core import commands as c
from tenured.core import machine
from tenured.core.failover import Planner
from tenured.core.lease import LeaderLeases
from tenured.core.profile import FAST, NS


def spec(name: str, **fields: object) -> c.AgentSpec:
    return c.AgentSpec(id=f"shop/{name}", class_name="Counter", **fields)


def create(*names: str, places: tuple[c.Place, ...] = (), **fields: object) -> c.ApplyAgents:
    return c.ApplyAgents(agents=tuple(spec(n, **fields) for n in names), managed_by="API", places=places)


def at(incarnation: str) -> c.Place:
    return c.Place(incarnation=incarnation, explanation="why")


class Leader:
    def __init__(self, world: World) -> None:
        self.world = world
        self.leases = LeaderLeases(FAST)
        self.leases.elected()
        self.leases.first_commit(0)
        self.planner = Planner()
        self.now = NS

    def complete(self, command: c.ApplyAgents) -> c.ApplyAgents:
        return self.planner.complete(self.world.registry, self.leases, command, self.now)


@pytest.fixture
def leader(world: World) -> Leader:
    """Of two hosts that were heard of just now."""
    world.pool()
    made = Leader(world)
    for name in ("h0", "h1"):
        made.leases.heartbeat(made.now, world.host(name), 0)
    return made


# --- where it is applied --------------------------------------------------------------------------------------------


def test_one_entry_creates_a_row_and_assigns_it(world: World) -> None:
    """As two entries would: the same epoch, reason, explanation and record of the decision."""
    world.pool()
    world.host("h0")
    (row,) = world.apply(create("a", places=(at("h0.1"),))).rows
    agent = world.agent(row.uid)
    assert (row.outcome, agent.epoch, agent.host, agent.incarnation) == ("created", 1, "h0", "h0.1")
    assert (agent.assigned_reason, agent.explanation, agent.ready) == ("Scheduled", "why", False)
    assert [decision.uid for decision in world.registry.decisions] == [row.uid]
    assert world.registry.unheld == set()


@pytest.mark.parametrize("trouble", ["expired", "unknown", "quarantined", "full"])
def test_a_place_that_the_rules_refuse_leaves_a_row_that_waits(world: World, trouble: str) -> None:
    """Rule R, quarantine and room are checked where the entry is applied, whoever planned it."""
    world.pool(limit=1)
    world.host("h0")
    if trouble == "expired":
        world.expire("h0.1")
    elif trouble == "quarantined":
        world.apply(c.QuarantineHost(name="h0", reason="tests"))
    elif trouble == "full":
        world.assign(*world.create("other"), "h0.1")
    (row,) = world.apply(create("a", places=(at("h9.9" if trouble == "unknown" else "h0.1"),))).rows
    agent = world.agent(row.uid)
    assert (row.outcome, agent.held, agent.epoch) == ("created", False, 0)
    assert row.uid in world.registry.unheld


def test_a_place_moves_no_agent_that_was_there_before(world: World) -> None:
    """Rule R: an apply of an old row is no assignment, held or not."""
    world.pool()
    world.host("h0")
    world.host("h1")
    held, waiting = world.create("held", "waiting")
    world.assign(held, "h0.1")
    world.apply(create("held", "waiting", places=(at("h1.1"), at("h1.1")), config=b"\x80"))
    assert (world.agent(held).incarnation, world.agent(held).epoch) == ("h0.1", 1)
    assert not world.agent(waiting).held


def test_more_or_fewer_places_than_rows_disturb_nothing(world: World) -> None:
    """The state machine is total: any command that decodes is applied."""
    world.pool()
    world.host("h0")
    (lone,) = world.apply(create("a", places=(at("h0.1"), at("h0.1")))).rows
    first, second = world.apply(create("b", "c", places=(at("h0.1"),))).rows
    assert [world.agent(row.uid).held for row in (lone, first, second)] == [True, True, False]


def test_the_same_command_again_assigns_nothing_twice(world: World) -> None:
    """A repetition of a command id answers the first result."""
    world.pool()
    world.host("h0")
    command = c.ApplyAgents(command_id="1", agents=(spec("a"),), managed_by="API", places=(at("h0.1"),))
    first = world.apply(command)
    assert world.apply(command) == first
    assert world.agent(first.rows[0].uid).epoch == 1


def test_replicas_that_apply_the_same_entries_agree(world: World) -> None:
    """Deterministic: the places are in the entry, nothing is planned where it is applied."""
    world.pool()
    world.host("h0")
    world.apply(create("a", "b", places=(at("h0.1"), at("h9.9"))))
    other = World()
    for index, entry in enumerate(world.log, 1):
        machine.apply_bytes(other.registry, index, entry)
    assert other.registry.agents == world.registry.agents


# --- where it is planned --------------------------------------------------------------------------------------------


def test_the_leader_adds_places_and_spreads_them(leader: Leader) -> None:
    """As the planner would place the rows."""
    completed = leader.complete(create(*"abcd"))
    assert sorted(place.incarnation for place in completed.places) == ["h0.1", "h0.1", "h1.1", "h1.1"]
    assert all(place.explanation for place in completed.places)
    leader.world.apply(completed)
    assert leader.planner.plan(leader.world.registry, leader.leases, leader.now, 1.0) == []


def test_places_of_entries_that_are_not_applied_yet_count(leader: Leader) -> None:
    """Otherwise a burst of single creations would go to one host."""
    under_way = [leader.complete(create(name)) for name in "abcdef"]
    chosen = [command.places[0].incarnation for command in under_way]
    assert sorted(chosen) == ["h0.1"] * 3 + ["h1.1"] * 3
    for command in under_way:
        leader.world.apply(command)
    assert len(leader.world.registry.held_by["h0.1"]) == len(leader.world.registry.held_by["h1.1"]) == 3


def test_only_rows_that_the_entry_creates_get_places(leader: Leader) -> None:
    """What is there, and what will be refused, is left alone."""
    leader.world.create("old")
    found = leader.complete(create("old", "new", "Bad Name"))
    assert [bool(place.incarnation) for place in found.places] == [False, True, False]


def test_what_fits_nowhere_stays_as_it_came(leader: Leader) -> None:
    """Its row waits, and the planner says why."""
    command = create("a", requires=("gpu",))
    assert leader.complete(command) is command


def test_new_rows_wait_behind_a_failover_under_way(leader: Leader) -> None:
    """Failover is paced: newcomers do not take the places of those that were lost."""
    uids = leader.world.create(*"abc")
    for uid in uids:
        leader.world.assign(uid, "h0.1")
        leader.world.report(uid, ready=True)
    leader.world.expire("h0.1")
    assert leader.planner.plan(leader.world.registry, leader.leases, leader.now, 1.0)
    command = create("new")
    assert leader.complete(command) is command


def test_who_does_not_lead_adds_nothing(world: World) -> None:
    """A new leader whose first entry is not committed yet included (protocol 1, leader 4)."""
    world.pool()
    world.host("h0")
    command = create("a")
    assert Planner().complete(world.registry, LeaderLeases(FAST), command, NS) is command


def test_an_encoded_apply_is_told_from_other_entries() -> None:
    """Without decoding: the leader looks at every entry that it places."""
    assert c.applies_agents(c.encode(create("a")))
    assert c.applies_agents(c.encode(c.ApplyAgents(command_id="1", wall=2.0, agents=(), managed_by="API")))
    assert not c.applies_agents(c.encode(c.Tick(step_ns=1)))
    assert not c.applies_agents(c.encode(c.DeleteAgents(ids=("ApplyAgents",), managed_by="API")))
