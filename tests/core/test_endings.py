"""Agents that end themselves (protocol 3, ends; ADR 0030): what the record holds, and what becomes of the row."""

from __future__ import annotations

import msgspec
import pytest
from core_world import World

from tenured.core import boxes, commands, endings, turns
from tenured.core.agentspec import AgentSpec
from tenured.core.describe import describe
from tenured.core.endings import Ended
from tenured.core.journals import Journal
from tenured.core.lookup import Answer
from tenured.core.signals import Signal


def entry(receiver: str, *, void: bool = False) -> boxes.Entry:
    return boxes.Entry(receiver=receiver, to="shop/x", born=1.0, body=b"", void=void)


# --- the record -----------------------------------------------------------------------------------------------------


def test_the_mark_is_in_the_write_of_its_turn_and_survives() -> None:
    """[end_in_commit, end_kept]: with what the turn sends; it plans nothing, and must be awake at once."""
    draft = turns.Draft(turns.Book(planned=turns.Wake(70.0), wake=turns.Wake(70.0)), 5.0)
    draft.boxes.send(entry("9"))
    draft.end("tired", wall=12.0)
    turn = draft.turn()
    assert {"e", "o/1", "w"} <= set(turn.puts)
    found = turns.load(turn.puts)
    assert found.ended == turn.book.ended == Ended("tired", 1, 12.0)
    assert (turn.book.planned, found.wake) == (turns.Wake(), turns.Wake(0.0))


def test_the_first_end_counts() -> None:
    """A turn of what was accepted before may ask for it again: what it sends to itself is not run."""
    draft = turns.Draft(turns.Book(ended=Ended("first", 3)), 5.0)
    draft.end("second", wall=1.0)
    draft.due(turns.Wake(9.0))
    turn = draft.turn()
    assert "e" not in turn.puts
    assert (turn.book.ended, turn.book.planned) == (Ended("first", 3), turns.Wake())


def test_a_mark_that_cannot_be_read_keeps_the_agent_down() -> None:
    """It must not run on as if there was none."""
    with pytest.raises(turns.Damaged):
        turns.load({"e": msgspec.msgpack.encode({"reason": 1})})


@pytest.mark.parametrize(
    ("out", "journal", "left"),
    [
        ({}, Journal(), False),
        ({3: entry("9")}, Journal(), False),
        ({3: entry("7")}, Journal(), True),
        ({4: entry("7")}, Journal(), False),
        ({3: entry("7", void=True)}, Journal(), False),
        ({}, Journal(inbox={1: Signal("5", "7", 1, 0, 1.0, b"")}), True),
    ],
    ids=["nothing", "to another", "to itself", "to itself, after its end", "given up", "accepted before"],
)
def test_what_is_left_to_run(out: dict[int, boxes.Entry], journal: Journal, left: bool) -> None:
    """[accepted_first]"""
    assert endings.runs_on(Ended("x", 3), "7", boxes.Boxes(out=out), journal) is left


def test_what_the_agent_has_asked_of_itself() -> None:
    """By the numbers up to the mark: so it ends."""
    ended = Ended("x", 3)
    assert endings.own(ended, "7", Signal("7", "7", 3, 0, 1.0, b""))
    assert not endings.own(ended, "7", Signal("7", "7", 4, 0, 1.0, b""))
    assert not endings.own(ended, "7", Signal("5", "7", 1, 0, 1.0, b""))


# --- the row --------------------------------------------------------------------------------------------------------


def held(world: World, door: str) -> str:
    """An agent that is Ready on h0."""
    world.pool()
    world.host("h0")
    spec = AgentSpec(id="shop/a", class_name="Counter", object_uid="o1" if door == "Kubernetes" else "")
    (row,) = world.apply(commands.ApplyAgents(agents=(spec,), managed_by=door)).rows
    world.assign(row.uid, "h0.1")
    world.report(row.uid, ready=True)
    return str(row.uid)


def apply(world: World, door: str, **fields: object) -> object:
    spec = AgentSpec(id="shop/a", class_name="Counter", object_uid="o1" if door == "Kubernetes" else "", **fields)
    (row,) = world.apply(commands.ApplyAgents(agents=(spec,), managed_by=door)).rows
    return row


def test_a_row_of_the_api_goes(world: World) -> None:
    """And its name is free."""
    uid = held(world, "API")
    world.report(uid, ended="done")
    assert world.registry.agents == {}
    again = apply(world, "API")
    assert (again.outcome, again.uid == uid) == ("created", False)


def test_a_row_of_an_object_stands_and_is_never_held_again(world: World) -> None:
    """[row_stays]: the operator's next apply changes what it asks for, and makes no new agent."""
    uid = held(world, "Kubernetes")
    world.report(uid, ended="done")
    agent = world.agent(uid)
    assert (agent.ended, agent.held, agent.ready) == ("done", False, False)
    assert uid not in world.registry.unheld
    assert world.assign(uid, "h0.1").message == "the agent has ended"
    assert apply(world, "Kubernetes", generation=2).outcome == "configured"
    assert (world.agent(uid).ended, set(world.registry.agents)) == ("done", {uid})
    said = describe(world.registry, world.agent(uid))
    assert (said.phase, said.summary, said.reason) == ("Ended", "Ended: done", "Ended")
    assert world.registry.lookup("shop/a").answer is Answer.NOT_FOUND
    assert "has ended: done" in world.registry.lookup("shop/a").message


def test_the_row_goes_with_its_object(world: World) -> None:
    """And one that is applied again begins anew."""
    uid = held(world, "Kubernetes")
    world.report(uid, ended="done")
    delete = commands.DeleteAgents(ids=("shop/a",), managed_by="Kubernetes", object_uid="o1")
    assert world.apply(delete).rows[0].outcome == "gone"
    assert apply(world, "Kubernetes").outcome == "created"


def test_one_that_is_being_deleted_goes_by_its_end_too(world: World) -> None:
    """Whoever is first."""
    uid = held(world, "Kubernetes")
    world.apply(commands.DeleteAgents(ids=("shop/a",), managed_by="Kubernetes", object_uid="o1"))
    world.report(uid, ended="done")
    assert uid not in world.registry.agents


def test_a_late_end_changes_nothing(world: World) -> None:
    """Of an epoch that is over: the record's next holder says it again."""
    uid = held(world, "Kubernetes")
    world.report(uid, released=True)
    world.assign(uid, "h0.1")
    world.report(uid, epoch=1, ended="done")
    assert not world.agent(uid).ended


def test_while_something_is_left_the_row_says_so(world: World) -> None:
    """It is not Ready, it was not restarted, and its name is not free."""
    uid = held(world, "API")
    world.report(
        uid, trouble=commands.TroubleReport(phase="Terminating", reason="Ended", message="done"), dead_letters=2
    )
    agent = world.agent(uid)
    said = describe(world.registry, agent)
    assert (said.phase, said.summary, agent.ready, agent.restarts) == ("Terminating", "Ending: done", False, 0)
    assert "tenure dlq drop" in said.next_action
    assert apply(world, "API").reason == "Deleting"


def test_the_end_at_a_new_holder_ends_the_failover(world: World) -> None:
    """Nothing more is to be waited for, and nothing is paced by it."""
    uid = held(world, "Kubernetes")
    world.host("h1")
    world.expire("h0.1", wall=50.0)
    world.assign(uid, "h1.1", reason="LeaseExpired")
    world.report(uid, ended="done", wall=52.0)
    (record,) = world.registry.failovers.values()
    assert record.done_wall
    assert (world.agent(uid).failover_id, world.registry.starting) == (0, {})
