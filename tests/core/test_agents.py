"""Entries about agents: what users ask for, assignments under rule R, and what holders report."""

import msgspec
import pytest
from core_world import World

from tenured.core import commands as c
from tenured.core.agentspec import Delivery, Spread
from tenured.core.model import Hibernation
from tenured.core.results import RowResult


def pack(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def rows(world: World, *specs: c.AgentSpec, door: str = "API") -> list:
    return list(world.apply(c.ApplyAgents(agents=specs, managed_by=door)).rows)


def spec(name: str = "shop/a", class_name: str = "Counter", **fields: object) -> c.AgentSpec:
    return c.AgentSpec(id=name, class_name=class_name, **fields)


# --- creating and changing ------------------------------------------------------------------------------------------


def test_the_uid_is_the_revision_that_created_the_row(world: World) -> None:
    """Protocol additions 2: never used again, so an agent made anew under an old name is another one."""
    world.pool()
    (first,) = world.create("a")
    assert first == str(world.registry.revision) == "2"
    world.apply(c.DeleteAgents(ids=("shop/a",), managed_by="API"))
    (second,) = world.create("a")
    assert int(second) > int(first)
    assert world.registry.agent("shop/a").uid == second


def test_ticks_do_not_raise_the_revision_and_add_up_to_cluster_time(world: World) -> None:
    """Protocol 1, cluster time: it never goes back."""
    for step in (0, 5, -3, 7):
        world.apply(c.Tick(step_ns=step, wall=12.0))
    assert (world.registry.revision, world.registry.cluster_ns, world.registry.wall) == (0, 12, 12.0)


def test_a_change_configures_and_the_same_again_changes_nothing(world: World) -> None:
    """Level-triggered callers may repeat themselves for free."""
    assert rows(world, spec())[0].outcome == "created"
    revision = world.registry.revision
    assert rows(world, spec())[0].outcome == "unchanged"
    assert world.registry.revision == revision
    assert rows(world, spec(config=pack({"a": 1}), generation=2))[0].outcome == "configured"
    assert world.registry.agent("shop/a").spec.generation == 2


def test_the_class_is_fixed_for_life(world: World) -> None:
    """API.md 2: immutable."""
    rows(world, spec())
    row = rows(world, spec(class_name="Other"))[0]
    assert (row.outcome, row.reason) == ("refused", "ImmutableField")
    assert "Counter" in row.message
    assert "Other" in row.message


def test_state_is_initial_only_and_a_later_edit_is_noted(world: World) -> None:
    """API.md 2: a later edit changes nothing and says so in a condition."""
    rows(world, spec(state=pack({"count": 1})))
    rows(world, spec(state=pack({"count": 9})))
    agent = world.registry.agent("shop/a")
    assert agent.spec.state == pack({"count": 1})
    assert agent.state_ignored
    rows(world, spec(state=pack({"count": 1})))
    assert not world.registry.agent("shop/a").state_ignored


@pytest.mark.parametrize(
    ("made_by", "changed_by", "command"),
    [("Kubernetes", "API", "kubectl delete agent a -n shop"), ("API", "Kubernetes", "tenure delete shop/a")],
)
def test_the_other_door_is_refused_with_the_right_command(
    world: World,
    made_by: str,
    changed_by: str,
    command: str,
) -> None:
    """API.md 1: the message names the command that works."""
    rows(world, spec(), door=made_by)
    row = rows(world, spec(pool="gpu"), door=changed_by)[0]
    assert row.reason == "ManagedElsewhere"
    row = world.apply(c.DeleteAgents(ids=("shop/a",), managed_by=changed_by)).rows[0]
    assert row.reason == "ManagedElsewhere"
    assert command in row.message
    assert "shop/a" in world.registry.by_id


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"name": "noslash"}, "SpecInvalid"),
        ({"name": "Shop/A"}, "SpecInvalid"),
        ({"class_name": ""}, "SpecInvalid"),
        ({"pool": ""}, "SpecInvalid"),
        ({"strategy": "Nearest"}, "SpecInvalid"),
        ({"capabilities": ("",)}, "SpecInvalid"),
        ({"spread": (Spread(by="Rack"),)}, "SpecInvalid"),
        ({"labels": {str(n): "x" for n in range(300)}}, "SpecInvalid"),
        ({"cpu_milli": -1}, "SpecInvalid"),
        ({"config": b"\x01"}, "SpecInvalid"),
        ({"state": b"\x01"}, "StateInvalid"),
        ({"state": b"\x91" * 5000}, "StateInvalid"),
        ({"state": pack({"a": "x" * 70_000})}, "StateInvalid"),
    ],
)
def test_one_bad_spec_gets_a_sentence_and_disturbs_no_other(world: World, wrong: dict, reason: str) -> None:
    """Issue 3, bad input: one clear sentence, and nothing else is disturbed."""
    name = wrong.pop("name", "shop/bad")
    bad, good = rows(world, spec(name, **wrong), spec("shop/good"))
    assert (bad.outcome, bad.reason) == ("refused", reason)
    assert bad.message
    assert good.outcome == "created"


def test_two_agents_with_one_name_in_a_request(world: World) -> None:
    """The second is refused."""
    assert [row.reason for row in rows(world, spec(), spec())] == ["", "NameTaken"]


def test_an_object_that_was_made_anew_waits_for_the_old_row(world: World) -> None:
    """A row belongs to one Kubernetes object; a delete for another object leaves it alone."""
    rows(world, spec(object_uid="old"), door="Kubernetes")
    assert rows(world, spec(object_uid="new"), door="Kubernetes")[0].reason == "NameTaken"
    delete = c.DeleteAgents(ids=("shop/a",), managed_by="Kubernetes", object_uid="new")
    assert world.apply(delete).rows[0].outcome == "gone"
    assert "shop/a" in world.registry.by_id


# --- assignments ----------------------------------------------------------------------------------------------------


@pytest.fixture
def held(world: World) -> tuple[World, str]:
    """One agent, ready on h0, and a second host."""
    world.pool()
    world.host("h0")
    world.host("h1")
    (uid,) = world.create("a")
    assert world.assign(uid, "h0.1").outcome == "assigned"
    world.report(uid, ready=True)
    return world, uid


def test_an_assignment_is_a_compare_and_set(held: tuple[World, str]) -> None:
    """Protocol 4 [cas]."""
    world, uid = held
    world.report(uid, released=True)
    assert world.assign(uid, "h1.1", epoch=0).reason == "StaleAssignment"
    assert world.assign(uid, "h1.1", epoch=1).outcome == "assigned"
    assert world.assign(uid, "h1.1", epoch=1).reason == "StaleAssignment"
    assert world.agent(uid).epoch == 2


def test_rule_r_a_live_holder_keeps_its_agent(held: tuple[World, str]) -> None:
    """Protocol 4, rule R: whatever the reason is."""
    world, uid = held
    row = world.assign(uid, "h1.1", reason="Draining")
    assert row.reason == "StaleAssignment"
    assert "neither released it nor expired" in row.message
    assert world.agent(uid).incarnation == "h0.1"


def test_a_dead_incarnation_gets_nothing(held: tuple[World, str]) -> None:
    """An assignment that races with the expiry of its target is refused."""
    world, uid = held
    world.report(uid, released=True)
    world.expire("h1.1")
    assert world.assign(uid, "h1.1").reason == "StaleAssignment"
    assert world.assign(uid, "unknown").reason == "StaleAssignment"
    assert world.assign("99", "h0.1", epoch=0).reason == "StaleAssignment"


def test_late_reports_change_nothing(held: tuple[World, str]) -> None:
    """A report of an old epoch, or of another incarnation, is late."""
    world, uid = held
    world.expire("h0.1")
    world.assign(uid, "h1.1")
    before = world.agent(uid)
    assert world.report(uid, incarnation="h0.1", epoch=1, released=True).reason == "IncarnationEnded"
    world.report(uid, incarnation="h1.1", epoch=1, released=True)
    assert world.agent(uid) == before


def test_a_failover_is_recorded_with_its_duration(held: tuple[World, str]) -> None:
    """From the last sign of life to Ready at the new holder."""
    world, uid = held
    world.expire("h0.1", wall=50.0)
    agent = world.agent(uid)
    assert (agent.host, agent.last_host, agent.last_node, agent.unheld_reason) == ("", "h0", "node-h0", "LeaseExpired")
    assert not agent.ready
    world.assign(uid, "h1.1", reason="LeaseExpired")
    world.report(uid, ready=True, wall=52.5)
    agent = world.agent(uid)
    moved = agent.last_failover
    assert (moved.from_host, moved.to_host, moved.to_node, moved.reason) == ("h0", "h1", "node-h1", "LeaseExpired")
    assert (moved.duration_ms, moved.wall) == (2500, 50.0)
    assert (agent.restarts, agent.ready_epoch, agent.epoch) == (1, 2, 2)


def test_a_release_is_no_failover_and_no_restart(held: tuple[World, str]) -> None:
    """Somebody asked for it."""
    world, uid = held
    world.report(uid, released=True)
    world.assign(uid, "h1.1")
    assert (world.agent(uid).restarts, world.agent(uid).last_failover) == (0, None)


def test_trouble_is_kept_until_ready(held: tuple[World, str]) -> None:
    """Each failed attempt is an activation that nobody asked for."""
    world, uid = held
    world.apply(c.Tick(step_ns=0, wall=100.0))
    for attempt in (1, 2):
        trouble = c.TroubleReport(
            phase="Backoff",
            reason="CrashLoopBackOff",
            message="ValueError in increment",
            attempt=attempt,
            retry_in_seconds=8,
        )
        world.report(uid, trouble=trouble)
        world.report(uid, trouble=trouble)
    agent = world.agent(uid)
    assert (agent.ready, agent.restarts, agent.trouble.attempt, agent.trouble.retry_wall) == (False, 2, 2, 108.0)
    world.report(uid, ready=True)
    assert world.agent(uid).trouble is None


def test_a_hibernated_agent_stays_ready(held: tuple[World, str]) -> None:
    """What it is asked wakes it; a state must exist from now on, as if it had said Ready [nothing]."""
    world, uid = held
    world.report(uid, hibernated=c.HibernationReport(wake_wall=70.0), dead_letters=2)
    agent = world.agent(uid)
    assert (agent.ready, agent.ready_epoch, agent.hibernation.wake_wall, agent.dead_letters) == (True, 1, 70.0, 2)
    world.report(uid, ready=True)
    assert (world.agent(uid).hibernation, world.agent(uid).dead_letters) == (None, 2)


def test_a_hibernated_agent_moves_asleep(held: tuple[World, str]) -> None:
    """Its next holder is told, to leave it asleep (protocol 2, bulk take-over), and starts nothing."""
    world, uid = held
    world.report(uid, hibernated=c.HibernationReport(wake_wall=70.0))
    world.report(uid, released=True)
    asleep = world.agent(uid)
    assert (asleep.hibernation, asleep.ready, asleep.ready_epoch) == (Hibernation(wake_wall=70.0), False, 1)
    world.assign(uid, "h1.1")
    taken = world.agent(uid)
    assert (taken.hibernation, taken.ready, taken.starting) == (Hibernation(wake_wall=70.0), False, False)
    world.report(uid, trouble=c.TroubleReport(phase="Backoff", reason="ActivationFailed", message="it failed"))
    assert world.agent(uid).hibernation is None


def test_a_paused_agent_is_not_ready_and_was_not_restarted(held: tuple[World, str]) -> None:
    """It is in memory and answers what is asked of it, so a state must exist from now on [nothing]."""
    world, uid = held
    paused = c.TroubleReport(phase="Paused", reason="Paused", message="increment failed 5 times", attempt=5)
    world.report(uid, trouble=paused, dead_letters=1)
    agent = world.agent(uid)
    assert (agent.ready, agent.ready_epoch, agent.restarts, agent.dead_letters) == (False, 1, 0, 1)
    assert not agent.starting
    world.report(uid, ready=True)
    assert (world.agent(uid).trouble, world.agent(uid).ready) == (None, True)


def test_a_failover_of_a_paused_agent_ends_when_its_new_holder_says_so(held: tuple[World, str]) -> None:
    """Its pause is in its record: it comes back paused, and nothing more is to be waited for."""
    world, uid = held
    world.report(uid, ready=True)
    world.expire("h0.1", wall=50.0)
    world.host("h1")
    world.assign(uid, "h1.1", reason="LeaseExpired")
    world.report(uid, trouble=c.TroubleReport(phase="Paused", reason="Paused", message="m", attempt=5), wall=52.0)
    agent = world.agent(uid)
    (record,) = world.registry.failovers.values()
    assert (agent.last_failover.duration_ms, agent.failover_id, record.ready) == (2000, 0, 1)
    assert record.done_wall


@pytest.mark.parametrize(
    "what",
    [
        {"dead_letters": 9},
        {"hibernated": c.HibernationReport()},
        {"trouble": c.TroubleReport(phase="Paused", reason="Paused", message="m")},
    ],
    ids=["dead letters", "hibernated", "paused"],
)
def test_a_report_of_an_older_epoch_changes_nothing(held: tuple[World, str], what: dict) -> None:
    """Whoever says it holds the agent no more."""
    world, uid = held
    world.report(uid, released=True)
    world.assign(uid, "h0.1")
    before = world.agent(uid)
    world.report(uid, epoch=1, **what)
    assert world.agent(uid) == before


def test_a_count_that_did_not_change_is_no_change(held: tuple[World, str]) -> None:
    """Nobody who watches is told twice."""
    world, uid = held
    world.report(uid, dead_letters=3)
    assert world.changed
    world.report(uid, dead_letters=3)
    assert not world.changed


def test_dead_letters_outlive_the_holder(held: tuple[World, str]) -> None:
    """They are in the record: the row says so while nobody holds it, too."""
    world, uid = held
    world.report(uid, ready=True, dead_letters=3)
    world.expire("h0.1")
    assert world.agent(uid).dead_letters == 3


def test_durability_is_fixed_for_life(world: World) -> None:
    """It says whether there is a record."""
    world.create("a")
    late = rows(world, spec("shop/a", durability="Volatile"))[0]
    assert (late.outcome, late.reason) == ("refused", "ImmutableField")
    assert rows(world, spec("shop/a", reads="Quorum", on_exhausted="Pause"))[0].outcome == "configured"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"durability": "Disk"}, "durability 'Disk' is unknown (known: Quorum, Volatile)"),
        ({"reads": "Any"}, "reads 'Any' is unknown"),
        ({"on_exhausted": "Drop"}, "onExhausted 'Drop' is unknown"),
        ({"delivery": Delivery(max_attempts=0)}, "delivery.maxAttempts must be 1 to 100"),
        ({"delivery": Delivery(backoff_s=61)}, "delivery.backoff must be more than 0 and at most 60"),
        ({"delivery": Delivery(ttl_s=float("nan"))}, "delivery.ttl must be 1 to 3600"),
        ({"idle_timeout_s": -1.0}, "lifecycle.idleTimeout must be at most"),
        ({"idle_timeout_s": float("nan")}, "lifecycle.idleTimeout must be at most"),
        ({"durability": "Volatile", "idle_timeout_s": 9.0}, "needs the durability Quorum"),
        ({"durability": "Volatile", "reads": "Quorum"}, "needs the durability Quorum"),
    ],
)
def test_how_it_works_is_checked(world: World, fields: dict, words: str) -> None:
    """Through whatever door it came."""
    refused = rows(world, spec("shop/a", **fields))[0]
    assert (refused.outcome, refused.reason) == ("refused", "SpecInvalid")
    assert words in refused.message


# --- deleting -------------------------------------------------------------------------------------------------------


def delete(world: World) -> str:
    return world.apply(c.DeleteAgents(ids=("shop/a",), managed_by="API")).rows[0].outcome


def test_a_never_assigned_agent_goes_at_once(world: World) -> None:
    """Nobody holds anything of it."""
    world.create("a")
    assert delete(world) == "gone"
    assert world.registry.agents == {}
    assert delete(world) == "gone"


@pytest.mark.parametrize("end", ["stopped", "expired", "left"])
def test_a_held_agent_goes_when_its_holder_stopped_or_is_dead(held: tuple[World, str], end: str) -> None:
    """Protocol 4: "Delete" sets a mark; the row goes when the host said Stopped(epoch) or expired."""
    world, uid = held
    assert delete(world) == "deleting"
    assert world.agent(uid).deleting
    assert rows(world, spec())[0].reason == "Deleting"
    if end == "stopped":
        world.report(uid, stopped=True)
    elif end == "expired":
        world.expire("h0.1")
    else:
        world.apply(c.ReleaseHost(incarnation="h0.1"))
    assert uid not in world.registry.agents
    assert [key.name for key in world.changed.gone] == [uid]


def test_a_stop_of_another_epoch_deletes_nothing(held: tuple[World, str]) -> None:
    """Late reports cannot delete."""
    world, uid = held
    delete(world)
    world.report(uid, epoch=7, stopped=True)
    assert uid in world.registry.agents


def test_a_change_that_is_based_on_an_old_row_is_refused(world: World) -> None:
    """CONS-01: of two who change one row at the same revision, one succeeds and the other is told."""
    world.pool()
    (uid,) = world.create("a")
    base = world.agent(uid).asked_revision
    world.assign(uid, world.host("h"))  # what the cluster does is no change of what was asked for

    def change(cpu_milli: int, revision: int) -> RowResult:
        new = spec("shop/a", cpu_milli=cpu_milli)
        return world.apply(c.ApplyAgents(agents=(new,), managed_by="API", expected_revision=revision)).rows[0]

    assert change(1, base).outcome == "configured"
    late = change(2, base)
    assert (late.outcome, late.reason) == ("refused", "Conflict")
    assert f"after {base}, which this is based on" in late.message
    gone = world.apply(c.DeleteAgents(ids=("shop/a",), managed_by="API", expected_revision=base)).rows[0]
    assert gone.reason == "Conflict"
    assert change(2, world.agent(uid).asked_revision).outcome == "configured"
