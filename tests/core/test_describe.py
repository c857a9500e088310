"""The sentences that users read, and the catalogue of reasons behind them."""

import re

import msgspec
import pytest
from core_world import World

from tenure_api.reasons import Reason
from tenured.core import backoff as b
from tenured.core import commands as c
from tenured.core.describe import SUMMARY_LIMIT, describe
from tenured.core.profile import NS


def read(world: World, uid: str) -> tuple[str, str, str]:
    found = describe(world.registry, world.agent(uid), wall=100.0)
    return found.phase.value, found.summary, found.reason


@pytest.fixture
def agent(world: World) -> str:
    """An agent, and two hosts on node-1 and node-2."""
    world.pool()
    world.host("h1", "node-1")
    world.host("h2", "node-2")
    return world.create("a")[0]


def test_from_creation_to_failover(world: World, agent: str) -> None:
    """The life that the issue's kubectl column shows."""
    assert read(world, agent) == ("Pending", "Waiting: to be placed", "Scheduled")
    world.assign(agent, "h1.1")
    assert read(world, agent) == ("Starting", "Starting on node-1", "Starting")
    world.report(agent, ready=True)
    assert read(world, agent) == ("Running", "Running on node-1", "Running")
    world.expire("h1.1")
    assert read(world, agent) == ("FailingOver", "Failing over from node-1", "LeaseExpired")
    world.assign(agent, "h2.1")
    assert read(world, agent) == ("FailingOver", "Failing over from node-1 to node-2", "LeaseExpired")
    world.report(agent, ready=True, wall=105.0)
    assert read(world, agent) == ("Running", "Running on node-2", "Running")


def test_a_move_that_was_asked_for(world: World, agent: str) -> None:
    """A release is no failover."""
    world.assign(agent, "h1.1")
    world.report(agent, released=True)
    assert read(world, agent) == ("Migrating", "Moving from node-1", "Released")
    world.assign(agent, "h2.1", reason="Released")
    assert read(world, agent) == ("Migrating", "Moving from node-1 to node-2", "Released")


def test_deleting(world: World, agent: str) -> None:
    """It stops where it runs."""
    world.assign(agent, "h1.1")
    world.apply(c.DeleteAgents(ids=("shop/a",), managed_by="API"))
    assert read(world, agent) == ("Terminating", "Stopping on node-1", "Deleting")


def test_waiting_says_why_and_what_to_do(world: World, agent: str) -> None:
    """The planner's sentence, alone or behind a failover."""
    message = "Waiting: no host of pool gpu fits (2 cordoned, 1 full)"
    item = c.WaitingItem(uid=agent, epoch=0, reason="NoHostFits", message=message, next_action="Add hosts.")
    world.apply(c.SetWaiting(items=(item,)))
    assert read(world, agent) == ("Pending", message, "NoHostFits")
    assert describe(world.registry, world.agent(agent)).next_action == "Add hosts."
    world.assign(agent, "h1.1")
    world.expire("h1.1")
    world.apply(c.SetWaiting(items=(msgspec.structs.replace(item, epoch=1),)))
    assert read(world, agent) == ("FailingOver", f"Failing over from node-1. {message}", "NoHostFits")


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        (
            {"phase": "Backoff", "reason": "CrashLoopBackOff", "attempt": 4, "retry_in_seconds": 8},
            ("Backoff", "Backing off (attempt 4, next in 8 s): ValueError in increment", "CrashLoopBackOff"),
        ),
        (
            {"phase": "Backoff", "reason": "CrashLoopBackOff", "attempt": 4},
            ("Backoff", "Backing off (attempt 4, next now): ValueError in increment", "CrashLoopBackOff"),
        ),
        (
            {"phase": "Unavailable", "reason": "StateUnreadable"},
            ("Unavailable", "Unavailable: ValueError in increment", "StateUnreadable"),
        ),
        (
            {"phase": "Starting", "reason": "WorkerLost"},
            ("Starting", "Starting on node-1: ValueError in increment", "WorkerLost"),
        ),
        (
            {"phase": "Paused", "reason": "Paused", "attempt": 5},
            ("Paused", "Paused: ValueError in increment (tenure resume, skip or redrive)", "Paused"),
        ),
        (
            {"phase": "Starting", "reason": "WordOfTomorrow"},
            ("Starting", "Starting on node-1: ValueError in increment", "WordOfTomorrow"),
        ),
    ],
)
def test_trouble_in_the_holders_words(world: World, agent: str, trouble: dict, expected: tuple) -> None:
    """A crash loop backs off and says why."""
    world.apply(c.Tick(step_ns=0, wall=100.0))
    world.assign(agent, "h1.1")
    world.report(agent, trouble=c.TroubleReport(message="ValueError in increment", **trouble))
    assert read(world, agent) == expected


def test_a_long_message_does_not_push_the_way_out_of_the_sentence(world: World, agent: str) -> None:
    """Of a paused agent: kubectl shows nothing but the summary."""
    world.assign(agent, "h1.1")
    world.report(agent, trouble=c.TroubleReport(phase="Paused", reason="Paused", message="x" * 1000))
    _, summary, _ = read(world, agent)
    assert summary.endswith("… (tenure resume, skip or redrive)")
    assert len(summary) <= SUMMARY_LIMIT
    assert "tenure resume shop/a" in describe(world.registry, world.agent(agent)).next_action


@pytest.mark.parametrize(
    ("wake", "words"),
    [
        (0.0, "a call or a signal"),
        (3723.0, "a call, a signal or at 01:02:03Z"),
        (90_000.0, "a call, a signal or at 1970-01-02T01:00:00Z"),
        (1e18, "a call, a signal or at 1e+18 s"),
    ],
)
def test_a_hibernated_agent_says_what_wakes_it(world: World, agent: str, wake: float, words: str) -> None:
    """The time stands alone if it is today's."""
    world.assign(agent, "h1.1")
    world.report(agent, hibernated=c.HibernationReport(wake_wall=wake))
    assert read(world, agent) == ("Hibernated", f"Hibernated on node-1: wakes on {words}", "Hibernated")


def test_dead_letters_are_counted_in_the_sentence(world: World, agent: str) -> None:
    """With the command that shows them."""
    world.assign(agent, "h1.1")
    world.report(agent, ready=True, dead_letters=1)
    assert read(world, agent)[1] == "Running on node-1, 1 dead letter"
    world.report(agent, dead_letters=3)
    assert read(world, agent)[1] == "Running on node-1, 3 dead letters"
    assert "tenure dlq list shop/a" in describe(world.registry, world.agent(agent)).next_action
    world.report(agent, hibernated=c.HibernationReport())
    assert read(world, agent)[1] == "Hibernated on node-1, 3 dead letters: wakes on a call or a signal"
    world.report(agent, ready=True, dead_letters=0)
    assert read(world, agent)[1] == "Running on node-1"


def test_an_agent_that_is_not_critical_is_unavailable(world: World) -> None:
    """It names the node that it waits for."""
    world.host("h1", "node-1")
    (uid,) = world.create("a", critical=False)
    world.assign(uid, "h1.1")
    world.expire("h1.1")
    phase, summary, reason = read(world, uid)
    assert (phase, reason) == ("Unavailable", "NodeLost")
    assert summary.startswith("Unavailable: node-1 was lost")


def test_a_worker_that_went_away_is_said(world: World, agent: str) -> None:
    """The host's error is the agent's."""
    world.assign(agent, "h1.1")
    world.apply(c.ReportHost(incarnation="h1.1", worker_error="No module named 'shop'", worker_reason="ImportFailed"))
    expected = ("Unavailable", "Unavailable: no worker on node-1: No module named 'shop'", "ImportFailed")
    assert read(world, agent) == expected


def test_summaries_are_bounded(world: World, agent: str) -> None:
    """User code may raise novels."""
    world.assign(agent, "h1.1")
    world.report(agent, trouble=c.TroubleReport(phase="Unavailable", reason="StateInvalid", message="x" * 9999))
    assert len(read(world, agent)[1]) == SUMMARY_LIMIT


# --- the catalogue --------------------------------------------------------------------------------------------------


def test_reasons_are_camel_case_words_and_next_steps_sentences() -> None:
    """Machines compare the word; people read the sentence."""
    for reason in Reason:
        assert re.fullmatch(r"[A-Z][a-z]+[a-zA-Z]*", reason.value), reason
        assert re.fullmatch(r"([A-Z`].*\.)?", reason.next_step), reason
    assert Reason("NoHostFits") is Reason.NO_HOST_FITS
    assert f"{Reason.NO_HOST_FITS}" == "NoHostFits"


def test_the_catalogue_has_every_reason_that_the_api_names() -> None:
    """API.md section 2."""
    named = """ClusterNotFound ClusterAmbiguous PoolNotFound ClassNotFound ImportFailed StateInvalid StateUnreadable
    NoHostFits NoQuorum HostLost LeaseExpired ActivationFailed CrashLoopBackOff Draining Deleting VersionSkew
    EphemeralStorage DeletionBlocked"""
    assert set(named.split()) <= {reason.value for reason in Reason}


# --- back-off -------------------------------------------------------------------------------------------------------


def test_pauses_double_from_one_second_to_five_minutes() -> None:
    """Issue 3, item 5."""
    pauses, off = [], b.Backoff()
    assert off.due(0)
    for _ in range(12):
        off = off.failed(off.until_ns)
        pauses.append(off.delay_ns // NS)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert not off.due(off.until_ns - 1)
    assert off.due(off.until_ns)
    assert b.Backoff(attempt=10**6).delay_ns == b.MAX_NS


def test_ten_minutes_of_peace_forget_the_past() -> None:
    """Counted from the end of the last pause."""
    off = b.Backoff().failed(0).failed(NS)
    assert off.failed(off.until_ns + b.PEACE_NS - 1).attempt == 3
    assert off.failed(off.until_ns + b.PEACE_NS).attempt == 1


def test_a_silent_host_is_in_the_sentence_before_it_is_lost(world: World, agent: str) -> None:
    """Suspicion, the end of its lease, held back. An agent that is not critical will wait for it: it says no more."""
    (plain,) = world.create("plain", critical=False)
    for uid in (agent, plain):
        world.assign(uid, "h1.1")
        world.report(uid, ready=True)
    said = {}
    for silence in ("Silent", "Lapsed", "Held", "Confirmed"):
        world.apply(c.ClassifyHosts(items=(c.HostClass("h1.1", True, silence, 1.0),)))
        said[silence] = read(world, agent)
    assert said == {
        "Silent": ("Running", "Running on node-1 (its host is silent)", "HostSilent"),
        "Lapsed": ("FailingOver", "Failing over from node-1: its lease ends", "HostSilent"),
        "Held": ("FailingOver", "Failing over from node-1: held back, many hosts fell silent at once", "FailoverHeld"),
        "Confirmed": ("FailingOver", "Failing over from node-1: its lease ends", "HostSilent"),
    }
    assert read(world, plain) == ("Running", "Running on node-1 (its host is silent)", "HostSilent")
    world.apply(c.ClassifyHosts(items=(c.HostClass("h1.1"),)))
    assert read(world, agent) == ("Running", "Running on node-1", "Running")
