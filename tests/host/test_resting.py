"""Agents at rest, on one host: in the worker's memory, and here next to nothing, until something is asked. The scene is
that of `played_place`; the agents never sleep, unless a test says so.
"""

import asyncio
import gc
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from played import SERVERS, pack
from played_place import answered, asked, asleep, call, row, said
from playing import Pool, delivered, sends

import tenure_link
from tenure_proto.v1.calls_pb2 import CALL_KIND_CONTROL, CALL_KIND_QUERY, Call
from tenure_proto.v1.registry_pb2 import AgentRow, WatchBatch
from tenured.core.signals import Settled, Signal, Verdict
from tenured.host import resting
from tenured.host.folding import PACKED_BYTES
from tenured.host.holder import Holder
from tenured.host.leasing import boot_ns
from tenured.host.resting import Resting

MANY = 150
IDLE_BYTES = 2000
"""Of an agent at rest, in its host, which has called nobody and was called by nobody; 1,400 are measured."""
pytestmark = pytest.mark.usefixtures("soon")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "REST_S", 0.02)
    monkeypatch.setattr("tenured.host.holder.REST_S", 0.02)
    monkeypatch.setattr(resting, "LATER_S", 0.02)


def wakeful(**more: Any) -> AgentRow:
    made = row(**more)
    made.spec.idle_timeout_s = 0
    return made


async def until(condition: Any, within_s: float = 5.0, look_s: float = 0.001) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - callbacks, of no event that a test could see
            await asyncio.sleep(look_s)


def rests(place: Any) -> bool:
    return isinstance(place.activations.holders.get("7"), Resting)


async def come_to_rest(place: Any, one: AgentRow | None = None, key: int = 1) -> None:
    """Assigned, one call answered, and at rest."""
    place.assign(one or wakeful())
    async with asyncio.timeout(5):
        await place.reports.first.wait()
    await answered(place, call(place, key), {"n": 1})
    await until(lambda: rests(place))


async def query(place: Any) -> Any:
    made = Call(agent="shop/a", kind=CALL_KIND_QUERY, method="q", arguments=b"\x80")
    job = place.activations.find("7").submit(made, "spiffe://x", boot_ns() + 5_000_000_000)
    place.played.done(await place.played.turn(), reply=pack(7))
    return await asyncio.wait_for(job.reply, 5)


async def test_a_call_finds_it_as_it_was(place: Any) -> None:
    """Its worker has it, its marks are known, and nobody was told or asked of anything."""
    await come_to_rest(place)
    before = (asked(place, "seal", "read"), said(place))
    async with asyncio.timeout(5):
        assert (await call(place, 1).reply).recorded, "the mark of before is known"
    assert (await answered(place, call(place, 2), {"n": 2})).value == pack(1)
    await until(lambda: rests(place))
    assert (await query(place)).value == pack(7)
    await until(lambda: rests(place))
    assert (asked(place, "seal", "read"), said(place)) == before
    assert len(place.played.heard(tenure_link.Activate)) == 1
    assert not place.played.heard(tenure_link.Deactivate)
    assert len(place.servers.stored("7", "s")) >= 2
    assert place.activations.phases() == {"Running": 1.0, "Hibernated": 0.0}


async def test_its_record_is_closed_once_every_server_has_it(place: Any) -> None:
    """As long as one lacks a write, the owner is there that repeats it."""
    store, away = place.site.store, SERVERS[2]
    await come_to_rest(place)
    assert not store._records
    place.servers.away.add(away)
    store.disconnected(away)
    assert (await answered(place, call(place, 2), {"n": 2})).value == pack(1)
    await until(lambda: rests(place))
    place.activations._compare(("7",))
    assert len(store._records) == 1
    place.servers.away.clear()
    store.connected(away)
    await until(lambda: place.servers.cells[away]["7"][1].get("s") == pack({"n": 2}))
    await until(lambda: next(iter(store._records)).settled)
    place.activations._compare(("7",))
    assert not store._records
    assert (await call(place, 2).reply).recorded
    assert (await answered(place, call(place, 3), {"n": 3})).value == pack(1)
    assert len(place.played.heard(tenure_link.Activate)) == 1


async def test_a_large_record_is_kept_as_it_is(place: Any) -> None:
    """To read it again would take long."""
    await come_to_rest(place)
    large = {"n": 1, "text": "x" * (2 * PACKED_BYTES)}
    await answered(place, call(place, 2), large)
    await until(lambda: rests(place))
    assert len(place.site.store._records) == 1
    assert (await call(place, 2).reply).recorded
    await until(lambda: rests(place))
    assert place.activations.holders["7"].known.known.entries["s"] == pack(large)
    await answered(place, call(place, 3), {"n": 2})
    await until(lambda: rests(place) and not place.site.store._records)


async def test_it_takes_signals_and_operations(place: Any) -> None:
    """As any agent does."""
    await come_to_rest(place)
    answer = delivered(
        place.activations, Signal("5", "7", 1, 0, 99.0, pack(tenure_link.Work(name="m", arguments=b"\x80")))
    )
    place.played.done(await place.played.turn(), reply=pack(None), state=pack({"n": 2}))
    assert await asyncio.wait_for(answer, 5) == Settled(Verdict.APPLIED)
    await until(lambda: rests(place))
    made = Call(agent="shop/a", kind=CALL_KIND_CONTROL, method="state.get", arguments=pack({}))
    job = place.activations.find("7").submit(made, "spiffe://x", boot_ns() + 5_000_000_000)
    assert b"n" in (await asyncio.wait_for(job.reply, 5)).value


async def test_what_comes_as_it_goes_to_rest_is_served(place: Any) -> None:
    """The worker keeps it all the while."""
    place.assign(wakeful())
    async with asyncio.timeout(5):
        await place.reports.first.wait()
    holder = place.activations.holders["7"]
    await until(lambda: resting.idle_s(holder._parts) > resting.REST_S or rests(place))
    holder = place.activations.find("7")
    holder.look()
    await answered(place, call(place, 1), {"n": 1})
    assert len(place.played.heard(tenure_link.Activate)) == 1
    assert not place.played.heard(tenure_link.Deactivate)


async def test_another_worker_takes_it_when_its_own_is_lost(place: Any) -> None:
    """At once, and not before that one is dead (protocol additions 3): nobody need ask for it."""
    pool = Pool()
    pool.played = place.played
    object.__setattr__(place.site, "pool", pool)
    await come_to_rest(place)
    first = place.played.worker
    first.abandon("gone")
    await until(lambda: not rests(place))
    for _ in range(50):
        await asyncio.sleep(0)
    assert pool.played is place.played, "it went on while its worker may have lived"
    first.dead.set()
    await until(lambda: pool.played is not place.played and pool.played.heard(tenure_link.Activate))
    assert pool.played.heard(tenure_link.Activate)[0].state == pack({"n": 1})
    await until(lambda: rests(place))


@pytest.mark.parametrize("how", ["moved", "deleted", "released"])
async def test_it_leaves_from_rest(place: Any, how: str) -> None:
    """The worker forgets it, its record is closed, and the registry hears what it has to."""
    place.reports.stopped = lambda uid, epoch: place.reports.said.append(("stopped", uid, epoch))
    await come_to_rest(place)
    if how == "released":
        place.activations.release_all(True)
    else:
        place.assign(wakeful(deleting=True) if how == "deleted" else AgentRow(uid="7", epoch=2, incarnation="other"))
    assert place.activations.find("7") is None or how == "released"
    await until(lambda: "7" not in place.activations.holders)
    assert len(place.played.heard(tenure_link.Deactivate)) == 1
    assert not place.site.store._records
    assert said(place)[1:] == {"moved": [], "deleted": ["stopped"], "released": ["released"]}[how]


async def test_it_leaves_in_the_moment_in_which_it_is_woken(place: Any) -> None:
    """Before the first step of what runs it: its record is closed all the same, the worker forgets it, and whoever
    woke it is answered.
    """
    await come_to_rest(place)
    job = call(place, 2)
    place.activations.abort()
    async with asyncio.timeout(5):
        assert (await job.reply).error.code == "NotReady"
        await place.activations.holders["7"].stop(finish_turn=False)
    assert not place.site.store._records
    assert len(place.played.heard(tenure_link.Deactivate)) == 1


async def test_one_that_was_taken_over_learns_it_with_the_next_call(place: Any) -> None:
    """The store fences it, as any holder [seal]."""
    await come_to_rest(place)
    place.servers.seal_above("7", 2)
    job = call(place, 2)
    place.played.done(await place.played.turn(), reply=pack(1), state=pack({"n": 2}))
    error = (await asyncio.wait_for(job.reply, 5)).error
    assert error.code == "Fenced"


async def test_one_that_is_wanted_often_rests_later(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """To rest and to come back is some work: who is called every few seconds is spared it."""
    await come_to_rest(place)
    one = place.activations.holders["7"]
    waits = []
    for _ in range(9):
        waits.append(one.next_patience_s)
        one.patience_s = one.next_patience_s
    assert waits == [0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 8.0]
    monkeypatch.setattr(resting, "AGAIN_S", 0.0)
    assert one.next_patience_s == resting.REST_S


async def test_it_goes_from_rest_to_sleep(place: Any) -> None:
    """After the time that its spec says; nothing of it is in the worker then [sleep_settled]."""
    one = wakeful()
    one.spec.idle_timeout_s = 0.2
    await come_to_rest(place, one)
    await asleep(place)
    assert (place.activations.holders, len(place.activations.sleepers)) == ({}, 1)
    assert len(place.played.heard(tenure_link.Deactivate)) == 1
    assert not place.site.store._records
    async with asyncio.timeout(5):
        assert (await call(place, 1).reply).recorded


async def test_one_that_plans_owes_or_is_paused_does_not_rest(place: Any) -> None:
    """What it waits for is waited for by its activation."""
    place.assign(wakeful())
    async with asyncio.timeout(5):
        await place.reports.first.wait()
    job = call(place, 1)
    due = (tenure_link.Due("later", place.lease.cluster_now + 3600),)
    place.played.done(await place.played.turn(), reply=pack(1), state=pack({"n": 1}), due=due)
    await asyncio.wait_for(job.reply, 5)
    holder = place.activations.holders["7"]
    await until(lambda: resting.idle_s(holder._parts) > resting.REST_S)
    assert holder.look() == resting.LATER_S
    job = call(place, 2)
    place.played.done(await place.played.turn(), reply=pack(1), state=pack({"n": 1}), due=(), sends=sends("shop/b"))
    await asyncio.wait_for(job.reply, 5)
    await until(lambda: resting.idle_s(holder._parts) > resting.REST_S)
    assert holder.look() == resting.LATER_S
    assert not holder._tires


async def test_nothing_of_an_activation_stays_when_it_rests(place: Any) -> None:
    """Not until a collector of cycles comes by, either: that is minutes, or never."""
    await come_to_rest(place)
    gc.collect()
    gc.disable()
    try:
        holder = place.activations.find("7")
        assert isinstance(holder, Holder)
        left = [weakref.ref(one) for one in (holder, holder._parts, holder._parts.runner, holder._parts.alarms)]
        del holder
        await answered(place, call(place, 2), {"n": 2})
        await until(lambda: rests(place))
        await until(lambda: not any(one() for one in left))
    finally:
        gc.enable()


async def test_what_an_idle_agent_takes(place: Any) -> None:
    """Its host's part of the 5 KB of an idle agent in memory, with all that the host keeps of it."""

    def rows(first: int, count: int) -> list[AgentRow]:
        made = [wakeful() for _ in range(count)]
        for number, one in enumerate(made, first):
            one.uid, one.spec.id = str(number), f"shop/agent-{number}"
        return made

    async def at_rest(first: int, count: int) -> None:
        batch = WatchBatch(revision=first, snapshot=first == 1, synced=True, agents=rows(first, count))
        place.activations.rows_changed(place.site.mirror.apply(batch))
        holders = place.activations.holders

        def all_rest() -> bool:
            return all(isinstance(holders.get(str(n)), Resting) for n in range(first, first + count))

        await until(all_rest, within_s=60, look_s=0.05)

    await at_rest(1, 50)
    gc.collect()
    tracemalloc.start()
    try:
        await at_rest(51, MANY)
        place.servers.frames.clear()
        gc.collect()
        of_host = tracemalloc.Filter(True, f"{Path(resting.__file__).parents[1]}/*")
        statistics = tracemalloc.take_snapshot().filter_traces([of_host]).statistics("filename")
    finally:
        tracemalloc.stop()
    assert sum(one.size for one in statistics) / MANY < IDLE_BYTES


def test_who_is_at_rest_is_put_to_sleep_in_order() -> None:
    """And only if it is there still."""

    async def story() -> list[str]:
        slept: list[str] = []
        rests = resting.Rests(slept.append)
        for uid, idle_s in (("1", 0.06), ("2", 0.03), ("3", 0.04), ("4", None)):
            rests.lay(SimpleNamespace(uid=uid, patience_s=0.0), idle_s)  # type: ignore[arg-type]
        rests.drop("3")
        await until(lambda: len(slept) == 2)
        rests.stop()
        return slept

    assert asyncio.run(story()) == ["2", "1"]


class CountingLoop(uvloop.Loop):
    """Counts the timers that are set."""

    timers = 0

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any | None = None
    ) -> asyncio.TimerHandle:
        self.timers += 1
        return super().call_later(delay, callback, *args, context=context)


def test_who_tires_one_after_the_other_is_looked_at_together() -> None:
    """A host's loop sets its timers to whole milliseconds, so they may come early: one that is set again for what is
    left is no way to wait.
    """
    looked = 0

    async def story() -> None:
        over = asyncio.Event()

        def look() -> None:
            nonlocal looked
            looked += 1
            if looked == MANY:
                over.set()

        rests = resting.Rests(lambda _: None)
        for _ in range(MANY):
            rests.watch(SimpleNamespace(look=look))
            await asyncio.sleep(0.0013)
        await over.wait()
        rests.stop()

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(story())
        loop = runner.get_loop()
    sleeps = MANY
    assert isinstance(loop, CountingLoop)
    assert loop.timers - sleeps < MANY / 4
