"""Dead letters, pauses, states, timers and hibernation on a local cluster, by the command line as a user types it."""

import asyncio
import json
from pathlib import Path
from typing import Any, cast

import pytest

from tenure_cli.ports import Rows
from tenure_proto.v1 import registry_pb2
from tests.cluster.cluster_local import DEADLINE_S, Local

pytestmark = pytest.mark.cluster
TWICE = registry_pb2.Delivery(max_attempts=2, backoff_s=0.01)


async def post(local: Local, desk: str, *numbers: int) -> None:
    """Through an agent: what a signal fails on is nobody's reply."""
    clerk = await local.running_agent(class_="Clerk")
    await local.call(clerk, "post", desk=desk, numbers=list(numbers))


async def done(local: Local, desk: str, *expected: int, order: bool = True) -> None:
    """Until the desk took exactly these, in this order if it matters."""
    found: list[int] = []
    seen = list if order else sorted
    try:
        async with asyncio.timeout(DEADLINE_S):
            while seen(found := await local.call(desk, "done")) != seen(expected):
                pass  # a query is a round trip
    except TimeoutError:
        raise AssertionError(f"{desk} took {found}, not {expected}") from None


async def good(local: Local, *words: str, stdin: str = "") -> str:
    """What a command prints that succeeds."""
    result = await local.tenure(*words, stdin=stdin)
    assert result.status == 0, result.err
    return result.out


async def mend(local: Local, desk: str) -> None:
    """No action would run: the state is put."""
    await good(local, "state", "put", desk, "--set", "broken=false")


async def test_how_an_agent_works_is_said_and_kept(local: Local) -> None:
    """Through the command line; what is fixed for life is refused with the reason."""
    name = local.name()
    options = ("--reads", "Quorum", "--on-exhausted", "Pause", "--max-attempts", "3", "--idle-timeout", "600")
    await good(local, "create", name, "--class", "Desk", *options)
    shown = await good(local, "describe", "agent", name)
    assert "durability Quorum, reads Quorum, Pause after 3 attempts, hibernates after 600 s" in shown
    row = await local.until(name, lambda row: row.ready, "Ready")
    volatile = registry_pb2.AgentSpec()
    volatile.CopyFrom(row.spec)
    volatile.durability = "Volatile"
    volatile.idle_timeout_s, volatile.reads = 0, "Local"
    (result,) = await local.cluster.apply_agents([volatile])
    assert (result.outcome, result.error.code) == ("refused", "ImmutableField")
    refused = await local.tenure(
        "create", local.name(), "--class", "Desk", "--durability", "Volatile", "--idle-timeout", "5"
    )
    assert (refused.status, "needs the durability Quorum" in refused.err) == (1, True)


async def test_what_a_class_hears_is_known_to_the_registry(local: Local) -> None:
    """From the worker's module to every watcher."""

    def heard(rows: Rows) -> list[str]:
        return [word for host in rows.live_hosts() for kind in host.classes for word in kind.subscribes]

    assert "desk.*" in cast("list[str]", await local.until_rows(heard, "some class hears something"))


async def test_a_letter_is_found_read_and_sent_again(local: Local) -> None:
    """Protocol 3, dead letters (a): it had no effect, so sending it again is one effect."""
    desk = await local.running_agent(class_="Desk", delivery=TWICE)
    await post(local, desk, 7)
    row = await local.until(desk, lambda row: row.dead_letters == 1, "left with one dead letter")
    assert row.ready
    assert row.summary.endswith(", 1 dead letter")
    (letter,) = json.loads(await good(local, "dlq", "list", desk, "-o", "json"))["items"]
    assert (letter["agent"], letter["to"], letter["verdict"], letter["attempts"]) == (desk, desk, "not applied", 2)
    assert f"{desk} {letter['id']}" in await good(local, "dlq", "list", "-n", "shop", "-o", "name")
    shown = await good(local, "dlq", "show", desk, letter["id"])
    assert "ValueError" in shown
    assert "the desk is broken" in shown
    await mend(local, desk)
    await good(local, "dlq", "redrive", desk, letter["id"])
    await done(local, desk, 7)
    await local.until(desk, lambda row: row.dead_letters == 0, "without dead letters")
    gone = await local.tenure("dlq", "redrive", desk, letter["id"])
    assert (gone.status, letter["id"] in gone.err) == (1, True)


async def test_letters_can_be_dropped(local: Local) -> None:
    """All of them at once, for good."""
    desk = await local.running_agent(class_="Desk", delivery=TWICE)
    await post(local, desk, 1, 2)
    await local.until(desk, lambda row: row.dead_letters == 2, "left with two dead letters")
    assert "2 dead letters dropped" in await good(local, "dlq", "drop", desk, "--all", "--yes")
    await local.until(desk, lambda row: row.dead_letters == 0, "without dead letters")


@pytest.mark.parametrize(
    ("verb", "taken", "letters"), [("resume", (1, 2), 0), ("skip", (2,), 1), ("redrive", (1, 2), 0)]
)
async def test_a_paused_agent_goes_on_as_it_is_told(
    local: Local, verb: str, taken: tuple[int, ...], letters: int
) -> None:
    """Protocol 3, Pause: the order stands until somebody decides about the first. What is redriven is a new signal, of
    another sender: the two come in any order.
    """
    desk = await local.running_agent(class_="Desk", delivery=TWICE, on_exhausted="Pause")
    await post(local, desk, 1, 2)
    row = await local.until(desk, lambda row: row.phase == "Paused", "paused")
    assert not row.ready
    assert row.summary.endswith("(tenure resume, skip or redrive)")
    await mend(local, desk)
    await good(local, verb, desk)
    await done(local, desk, *taken, order=verb != "redrive")
    await local.until(desk, lambda row: row.ready and row.dead_letters == letters, f"left with {letters} letters")
    again = await local.tenure(verb, desk)
    assert (again.status, "not paused" in again.err) == (1, True)


async def test_a_plan_is_shown(local: Local) -> None:
    """By its name, with when and what."""
    desk = await local.running_agent(class_="Desk")
    await local.call(desk, "remind", number=3, seconds=3600)
    (timer,) = json.loads(await good(local, "timers", desk, "-o", "json"))["items"]
    assert (timer["name"], timer["clock"], timer["every"]) == ("later", "cluster", None)
    assert "take" in timer["what"]
    assert "in 59m" in await good(local, "timers", desk)


async def test_a_state_is_written_only_where_it_was_read(local: Local) -> None:
    """And never one that does not fit the class."""
    name = await local.running_agent(state={"count": 4})
    whole = json.loads(await good(local, "state", "get", name, "-o", "json"))
    assert (whole["class"], whole["state"]) == ("Counter", {"count": 4})
    at = ".".join(map(str, whole["at"]))
    await local.call(name, "increment")
    late = await local.tenure("state", "put", name, "-f", "-", "--at", at, stdin='{"count": 100}')
    assert late.status == 1, late.err
    wrong = await local.tenure("state", "put", name, "--set", "count=many")
    assert (wrong.status, "count" in wrong.err) == (1, True)
    assert await local.call(name, "value") == 5
    await good(local, "state", "put", name, "--set", "count=40")
    assert await local.call(name, "increment") == 41


async def test_states_come_back_from_a_file(local: Local, tmp_path: Path) -> None:
    """One that is gone is created, one that has changed is put back, and a second time there is nothing to do."""
    gone = await local.running_agent(state={"count": 1}, labels={"team": "atlas-2"})
    there = await local.running_agent(state={"count": 2})
    file = str(tmp_path / "states.jsonl")
    await good(local, "state", "export", gone, there, "-f", file)
    await local.call(there, "increment")
    await local.cluster.delete_agents([gone])
    await local.until_rows(lambda rows: rows.agent(gone) is None, f"{gone} is gone")
    assert "2 agents: 1 created, 1 changed" in await good(local, "state", "import", file)
    assert [await local.call(name, "value") for name in (gone, there)] == [1, 2]
    assert (await local.until(gone, lambda row: row.ready, "Ready")).spec.labels["team"] == "atlas-2"
    assert "2 unchanged" in await good(local, "state", "import", file)


async def test_an_idle_agent_hibernates_and_a_query_wakes_it(local: Local) -> None:
    """It is Ready all the while; an operation on it works too."""
    name = await local.running_agent(state={"count": 4}, idle_timeout_s=0.5)
    row = await local.until(name, lambda row: row.phase == "Hibernated", "hibernated")
    assert row.ready
    assert row.summary.endswith("wakes on a call or a signal")
    assert json.loads(await good(local, "state", "get", name)) == {"count": 4}
    assert await local.call(name, "increment") == 5


async def test_a_timer_wakes_a_hibernated_agent(local: Local) -> None:
    """The row says when."""
    desk = await local.running_agent(class_="Desk", state={"broken": False}, idle_timeout_s=0.2)
    await local.call(desk, "remind", number=3, seconds=3.0)
    row = await local.until(desk, lambda row: row.phase == "Hibernated", "hibernated")
    assert row.wake_wall > 0
    await local.until(desk, lambda row: row.phase == "Running", "awake")
    await done(local, desk, 3)


async def test_an_operation_takes_effect_once(local: Local) -> None:
    """Its call id is marked as an action's is (protocol 3, external clients)."""
    desk = await local.running_agent(class_="Desk", delivery=TWICE, on_exhausted="Pause")
    await post(local, desk, 1, 2)
    await local.until(desk, lambda row: row.phase == "Paused", "paused")
    answers = await repeated(local, desk, "skip")
    assert answers[0] == answers[1]
    await local.until(desk, lambda row: row.dead_letters == 1, "left with one dead letter")


async def repeated(local: Local, agent: str, method: str) -> list[Any]:
    """What the host answers to one operation that is sent twice under one id."""
    remote = local.remote.remote
    first = await remote.control(agent, method, {}, timeout_s=DEADLINE_S)
    remote._ids.streams[agent].last -= 1
    return [first, await remote.control(agent, method, {}, timeout_s=DEADLINE_S)]
