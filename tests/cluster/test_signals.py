"""Signals between agents on hosts that are killed: to whom, once, in order; and what becomes of those that fail."""

import asyncio
import json

import pytest

from tenure_cli.ports import Rows
from tenure_proto.v1 import registry_pb2
from tests.cluster.cluster_local import DEADLINE_S, Local
from tests.cluster.test_operating import good

pytestmark = pytest.mark.cluster
TWICE = registry_pb2.Delivery(max_attempts=2, backoff_s=0.01)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def hears(local: Local, ear: str, *expected: str) -> None:
    """Until it has heard exactly this, in this order."""
    await local.until_answer(ear, "heard", lambda found: found == list(expected), str(expected))


async def until_class_is_known(local: Local, class_: str) -> None:
    """Who subscribes is known to a host by what living hosts say of their classes."""

    def known(rows: Rows) -> bool:
        return any(info.name == class_ for host in rows.live_hosts() for info in host.classes)

    await local.until_rows(known, f"{class_} is known")


# --- to whom ---------------------------------------------------------------------------------------------------------


async def test_a_signal_reaches_one_agent_on_another_host(local: Local) -> None:
    """By `emit` and by `send`, in the order of asking."""
    mouth, ear = await local.on(1, class_="Mouth"), await local.on(2, class_="Ear")
    assert await local.host_of(mouth) != await local.host_of(ear)
    await local.call(mouth, "shout", type="news.told", what="one", to=ear)
    await local.call(mouth, "ask", to=ear, what="two")
    await hears(local, ear, "one", "two")


async def test_subscribers_on_all_hosts_hear_a_topic(local: Local) -> None:
    """`*` is one word, `**` any number; who subscribes to something else hears nothing."""
    mouth = await local.on(1, class_="Mouth")
    news = [await local.on(node, class_="NewsEar") for node in (1, 2, 3)]
    deep = await local.on(2, class_="DeepEar")
    plain = await local.on(3, class_="Ear")
    for type_ in ("news.a", "deep", "deep.b", "deep.b.c", "news.d"):
        await local.call(mouth, "shout", type=type_, what=type_)
    await hears(local, deep, "deep", "deep.b", "deep.b.c")
    for ear in news:
        await hears(local, ear, "news.a", "news.d")
    assert await local.call(plain, "heard") == []


async def test_a_capability_a_group_and_all_are_resolved_to_agents(local: Local) -> None:
    """A capability of the agent's own, the group of a spread; one whose class cannot do it leaves a dead letter."""
    mouth = await local.on(1, class_="Mouth")
    spread = registry_pb2.Spread(by="Host", max_skew=1, group="choir")
    choir = [await local.running_agent(class_="Ear", spread=[spread]) for _ in range(3)]
    diver = await local.running_agent(class_="Ear", capabilities=["diving"])
    await local.call(mouth, "ask", to="group:choir", what="a")
    await local.call(mouth, "ask", to="capability:diving", what="b")
    await local.call(mouth, "ask", to="capability:hearing", what="c")
    await hears(local, diver, "b", "c")
    for ear in choir:
        await hears(local, ear, "a", "c")
    await local.call(mouth, "ask", to="all:", what="d")
    await hears(local, diver, "b", "c", "d")
    for ear in choir:
        await hears(local, ear, "a", "c", "d")


async def test_what_belongs_to_a_signal_is_handed_on(local: Local) -> None:
    """Trace and flow, over two hops and three hosts; what caused a signal is said in it."""
    first, second = await local.on(1, class_="Mouth"), await local.on(2, class_="Mouth")
    ear = await local.on(3, class_="Ear")
    await local.call(first, "begin", via=second, to=ear, trace=TRACE, flow="flow-7")
    (cause,) = await local.until_answer(ear, "heard", lambda found: len(found) == 1, "one signal")
    carried = await local.call(ear, "carried")
    assert (carried["traceparent"], carried["correlationid"], carried["causationid"]) == (TRACE, "flow-7", cause)
    assert carried["id"] != cause


# --- once, in order, whoever is killed --------------------------------------------------------------------------------


async def test_signals_arrive_once_and_in_order_while_everybody_is_killed(whole: Local) -> None:
    """Invariant 3, protocol 3: hosts of senders and receivers and their workers, by `kill -9`, one after the other.

    A signal that was being tried alone at three of the kills is put aside as the one that ended them (poison): a dead
    letter tells of it, it had no effect, and a redrive brings it.
    """
    mouths = [await whole.on(node, class_="Mouth") for node in (1, 2)]
    ears = [await whole.on(node, class_="Ear") for node in (2, 3)]
    count, per_call = 240, 4

    async def talk(mouth: str) -> None:
        for first in range(0, count, per_call):
            await whole.call(mouth, "tell", to=ears, first=first, count=per_call)

    async def kill() -> None:
        victims = [mouths[0], ears[0], ears[1], mouths[1]]
        number = 0
        while number < len(victims) or not all(task.done() for task in talking):
            victim = victims[number % 4]
            row = await whole.until(victim, lambda row: row.ready, "Ready")
            (whole.kill_worker if number % 3 == 2 else whole.kill_host)(row.host)
            number += 1
            await whole.until(victim, lambda row, old=row: row.epoch > old.epoch or row.ready, "told of")
            await whole.call(victim, "said" if victim in mouths else "heard")

    talking = [asyncio.create_task(talk(mouth)) for mouth in mouths]
    await kill()
    await asyncio.gather(*talking)
    names = [mouth.rpartition("/")[2] for mouth in mouths]
    for ear in ears:
        heard, letters = await all_told_of(whole, ear, 2 * count)
        for name in names:
            numbers = [int(one.partition(":")[2]) for one in heard if one.startswith(f"{name}:")]
            assert numbers == sorted(set(numbers)), "in order, and none twice"
        assert {(letter["code"], letter["verdict"]) for letter in letters} <= {("WorkerCrashed", "not applied")}
        if letters:
            await good(whole, "dlq", "redrive", ear, *(letter["id"] for letter in letters))
        again = await whole.until_answer(ear, "heard", lambda found: len(found) >= 2 * count, "told all")
        assert sorted(again) == sorted(f"{name}:{n}" for name in names for n in range(count))
    assert [await whole.call(mouth, "said") for mouth in mouths] == [count, count]


async def all_told_of(local: Local, ear: str, count: int) -> tuple[list[str], list[dict[str, str]]]:
    """What it has heard, and its dead letters, once they are so many together."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            letters = json.loads(await good(local, "dlq", "list", ear, "-o", "json"))["items"]
            heard = await local.call(ear, "heard")
            if len(heard) + len(letters) >= count:
                return heard, letters


async def test_a_signal_waits_for_a_host_that_is_silent(whole: Local) -> None:
    """Nothing is reset, nobody says goodbye: it is sent again to the next holder, once."""
    mouth, ear = await whole.on(1, class_="Mouth"), await whole.on(2, class_="Ear")
    before = await whole.until(ear, lambda row: row.ready, "Ready")
    victim = whole.running.process(before.host)
    victim.freeze()
    for number in range(5):
        await whole.call(mouth, "ask", to=ear, what=str(number))
    after = await whole.until(ear, lambda row: row.ready and row.epoch > before.epoch, "Ready elsewhere")
    assert after.host != before.host
    await hears(whole, ear, *"01234")
    victim.thaw()
    await whole.call(mouth, "ask", to=ear, what="5")
    await hears(whole, ear, *"012345")


# --- what cannot be delivered, or fails -------------------------------------------------------------------------------


async def test_who_does_not_exist_leaves_a_dead_letter_at_the_sender(local: Local) -> None:
    """It says so, and it had no effect: once there is such an agent, it can be sent again."""
    mouth, nobody = await local.running_agent(class_="Mouth"), local.name()
    await local.call(mouth, "ask", to=nobody, what="hello")
    await local.until(mouth, lambda row: row.dead_letters == 1, "left with one dead letter")
    (letter,) = json.loads(await good(local, "dlq", "list", mouth, "-o", "json"))["items"]
    assert (letter["to"], letter["verdict"], letter["code"]) == (nobody, "not applied", "NotFound")
    assert f"there is no agent {nobody}" in await good(local, "dlq", "show", mouth, letter["id"])
    await local.running_agent(id=nobody, class_="Ear")
    await good(local, "dlq", "redrive", mouth, letter["id"])
    await hears(local, nobody, "hello")
    await local.until(mouth, lambda row: row.dead_letters == 0, "without dead letters")


async def test_who_is_created_a_moment_later_is_reached(local: Local) -> None:
    """The host may know less than the sender's program: it waits for a while."""
    mouth, later = await local.running_agent(class_="Mouth"), local.name()
    for what in ("1", "2", "3"):
        await local.call(mouth, "ask", to=later, what=what)
    await local.create(id=later, class_="Ear")
    await hears(local, later, "1", "2", "3")
    assert (await local.until(mouth, lambda row: row.ready, "Ready")).dead_letters == 0


async def test_an_action_that_fails_is_tried_again_and_put_aside(local: Local) -> None:
    """Signals behind it go on; `tenure dlq show` has the traceback, `redrive` and `drop` end it."""
    mouth, ear = await local.on(1, class_="Mouth"), await local.on(2, class_="Ear", delivery=TWICE)
    await good(local, "state", "put", ear, "--set", "deaf=true")
    await local.call(mouth, "tell", to=[ear], first=0, count=2)
    await local.until(ear, lambda row: row.dead_letters == 2, "left with two dead letters")
    letters = json.loads(await good(local, "dlq", "list", ear, "-o", "json"))["items"]
    assert {(one["what"], one["verdict"], one["attempts"]) for one in letters} == {
        ("take", "not applied", 2),
        ("news.told", "not applied", 2),
    }
    kept = next(one["id"] for one in letters if one["what"] == "news.told")
    dropped = next(one["id"] for one in letters if one["what"] == "take")
    assert "was not heard" in await good(local, "dlq", "show", ear, kept)
    await good(local, "state", "put", ear, "--set", "deaf=false")
    await good(local, "dlq", "drop", ear, dropped, "--yes")
    await good(local, "dlq", "redrive", ear, kept)
    await hears(local, ear, f"{mouth.rpartition('/')[2]}:1")
    await local.until(ear, lambda row: row.dead_letters == 0, "without dead letters")


async def test_a_signal_that_ends_its_worker_is_put_aside(whole: Local) -> None:
    """Protocol 3, poison: after some tries alone [count_first]; what came behind it is processed."""
    mouth, ear = await whole.on(1, class_="Mouth"), await whole.on(2, class_="Ear")
    await whole.call(mouth, "harm", to=ear)
    await whole.call(mouth, "ask", to=ear, what="behind")
    await hears(whole, ear, "behind")
    await whole.until(ear, lambda row: row.dead_letters == 1, "left with one dead letter")
    (letter,) = json.loads(await good(whole, "dlq", "list", ear, "-o", "json"))["items"]
    assert (letter["what"], letter["code"]) == ("crash", "WorkerCrashed")


@pytest.mark.parametrize("verb", ["resume", "skip", "redrive"])
async def test_a_paused_agent_keeps_the_order_of_another_host(local: Local, verb: str) -> None:
    """Protocol 3, Pause: what comes behind is kept by its sender until somebody decides."""
    mouth = await local.on(1, class_="Mouth")
    ear = await local.on(2, class_="Ear", delivery=TWICE, on_exhausted="Pause")
    await good(local, "state", "put", ear, "--set", "deaf=true")
    await local.call(mouth, "tell", to=[ear], first=0, count=4)
    await local.until(ear, lambda row: row.phase == "Paused", "paused")
    await good(local, "state", "put", ear, "--set", "deaf=false")
    await good(local, verb, ear)
    said = [f"{mouth.rpartition('/')[2]}:{n}" for n in range(4)]
    expected = said[1:] if verb == "skip" else said
    heard = await local.until_answer(ear, "heard", lambda found: len(found) == len(expected), str(expected))
    if verb == "redrive":  # it is a new signal, of another sender
        assert [one for one in heard if one != said[0]] == said[1:]
    else:
        assert heard == expected
    row = await local.until(ear, lambda row: row.ready, "Ready")
    assert row.dead_letters == (1 if verb == "skip" else 0)
