"""Agents that sleep, on one host: out of memory when nothing is asked, and back for a call, a signal or a timer
(protocol 2, bulk take-over). The scene is that of `played`.
"""

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from played import pack
from played_place import IDLE_S, answered, asked, asleep, call, row, said
from playing import delivered, sends

import tenure_link
from tenure_proto.v1.calls_pb2 import CALL_KIND_QUERY, Call
from tenure_proto.v1.registry_pb2 import AgentRow, HostRow, WatchBatch
from tenured.core.cells import Version
from tenured.core.frames import Known
from tenured.core.signals import Settled, Signal, Verdict
from tenured.core.turns import Wake
from tenured.host.folding import fold
from tenured.host.leasing import boot_ns
from tenured.host.rows import row_of
from tenured.host.sleeping import Sleeper, Sleepers


async def ready(place: Any) -> None:
    """Assigned, and told to be Ready."""
    place.assign(row())
    async with asyncio.timeout(5):
        await place.reports.first.wait()


async def plan_and_sleep(place: Any, key: int) -> tenure_link.Due:
    """A call that plans something for in an hour; asleep."""
    due = tenure_link.Due("later", place.lease.cluster_now + 3600)
    job = call(place, key)
    place.played.done(await place.played.turn(), reply=pack(1), state=pack({"n": 1}), due=(due,))
    await asyncio.wait_for(job.reply, 5)
    await asleep(place)
    return due


def its_time_comes(place: Any, due: tenure_link.Due) -> None:
    """What was planned for in an hour is due, as soon as somebody looks."""
    place.played.due = (due,)
    place.lease.cluster_now += 3601
    place.activations.sleepers.look()


async def fall_asleep(place: Any, state: Any, key: int = 1) -> None:
    """Assigned, one call answered, and asleep."""
    await ready(place)
    await answered(place, call(place, key), state)
    await asleep(place)


async def test_an_idle_agent_leaves_memory_and_a_call_brings_it_back(place: Any) -> None:
    """State, marks and epoch are as they were. Nobody is asked for them: what was committed is kept for a while, as if
    its owner had never been away [sleep_settled].
    """
    await ready(place)
    assert (await answered(place, call(place, 1), {"n": 1})).value == pack(1)
    await asleep(place)
    assert len(place.played.heard(tenure_link.Deactivate)) == 1
    assert (place.activations.holders, len(place.activations.sleepers)) == ({}, 1)
    before = asked(place, "seal", "read")
    async with asyncio.timeout(5):
        assert (await call(place, 1).reply).recorded, "the mark of before is known"
    assert place.played.heard(tenure_link.Activate)[-1].state == pack({"n": 1})
    assert asked(place, "seal", "read") == before
    assert (await answered(place, call(place, 2), {"n": 2})).value == pack(1)
    assert len(place.servers.stored("7", "s")) >= 2


async def test_a_record_that_is_not_kept_is_read_again(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a bound; the epoch is not sealed again."""
    monkeypatch.setattr("tenured.host.sleeping.KEPT_BYTES", 0)
    await fall_asleep(place, {"n": 1})
    seals, reads = asked(place, "seal"), asked(place, "read")
    async with asyncio.timeout(5):
        assert (await call(place, 1).reply).recorded
    assert place.played.heard(tenure_link.Activate)[-1].state == pack({"n": 1})
    assert (asked(place, "seal"), asked(place, "read") > reads) == (seals, True)


def test_the_last_to_sleep_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large record does not push out all others; one that wakes gives its room back."""
    monkeypatch.setattr("tenured.host.folding.ENTRY_BYTES", 0)
    monkeypatch.setattr("tenured.host.sleeping.KEPT_BYTES", 80)
    monkeypatch.setattr("tenured.host.sleeping.KEPT_SHARE", 2)
    site: Any = SimpleNamespace(reports=SimpleNamespace(hibernated=lambda *_: None), lease=None)
    sleepers = Sleepers(site, print)
    records = [Known(Version(1, n), {"s": bytes(size)}) for n, size in enumerate((36, 30, 30, 30))]
    all_ = [Sleeper(str(n), 1, fold(known)) for n, known in enumerate(records)]
    for one in all_[:3]:
        sleepers.lay(one, Wake())
    assert [one.known.record is not None for one in all_] == [False, True, True, True]
    sleepers.take("2")
    sleepers.lay(all_[3], Wake())
    assert all_[1].known.record is not None
    sleepers.lay(all_[2], Wake())
    assert [one.known.known for one in all_[:2]] == [Known(Version(1, 0)), Known(Version(1, 1))]
    assert all_[2].known.record is not None


async def test_the_registry_is_not_told_of_a_short_wake(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit of the registry for each call would cost more than the call."""
    monkeypatch.setattr("tenured.host.standing.WOKEN_S", 60.0)
    await fall_asleep(place, {"n": 1})
    assert said(place) == ["ready", "hibernated"]
    await answered(place, call(place, 2), {"n": 2})
    while place.activations.holders:  # noqa: ASYNC110 - of the loop
        await asyncio.sleep(0)
    assert said(place) == ["ready", "hibernated"]


async def test_the_registry_is_told_of_one_that_stays_awake(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again when it has gone to sleep."""
    monkeypatch.setattr("tenured.host.standing.WOKEN_S", 0.0)
    await fall_asleep(place, {"n": 1})
    await answered(place, call(place, 2), {"n": 2})
    await asleep(place)
    assert said(place) == ["ready", "hibernated"] * 2


async def test_the_registry_is_told_of_another_time_to_wake(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However short it was awake: its row says when."""
    monkeypatch.setattr("tenured.host.standing.WOKEN_S", 60.0)
    await fall_asleep(place, {"n": 1})
    await plan_and_sleep(place, 2)
    assert said(place) == ["ready", "hibernated", "hibernated"]
    assert place.reports.said[-1][3] > 0


async def test_one_that_took_long_to_begin_sleeps_too(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time without anything to do was over before it served."""
    monkeypatch.setattr("tenured.host.resting.boot_ns", lambda: boot_ns() + 10**9)
    place.assign(row())
    await asleep(place)


async def test_a_call_in_the_moment_of_falling_asleep_is_served(place: Any) -> None:
    """Its time without anything to do is over, and a call comes before it has left memory."""
    await ready(place)
    await answered(place, call(place, 1), {"n": 1})
    runner = place.activations.holders["7"]._parts.runner
    runner.rest()
    job = call(place, 2)
    await answered(place, job, {"n": 2})
    assert job.reply.result().value == pack(1)
    assert memory_holds(place), "asked of an activation that the worker was told to forget"
    runner.rest()
    made = Call(agent="shop/a", kind=CALL_KIND_QUERY, method="q", arguments=b"\x80")
    query = place.activations.find("7").submit(made, "spiffe://x", boot_ns() + 5_000_000_000)
    place.played.done(await place.played.turn(), reply=pack(7))
    assert (await asyncio.wait_for(query.reply, 5)).value == pack(7)
    assert memory_holds(place), "asked of an activation that the worker was told to forget"


def memory_holds(place: Any) -> bool:
    """The last turn was sent after the last time that the agent was taken into memory, and not forgotten since."""
    order = [type(frame) for frame in place.played.frames]
    last = {kind: len(order) - 1 - order[::-1].index(kind) for kind in set(order)}
    return last[tenure_link.Turn] > max(last[tenure_link.Activate], last.get(tenure_link.Deactivate, -1))


async def test_a_signal_wakes_it(place: Any) -> None:
    """And is applied once."""
    place.assign(row())
    await asleep(place)
    body = msgspec.msgpack.encode(tenure_link.Work(name="m", arguments=b"\x80"))
    answer = delivered(place.activations, Signal("5", "7", 1, 0, 99.0, body))
    place.played.done(await place.played.turn(), reply=pack(None), state=pack({"n": 1}))
    async with asyncio.timeout(5):
        assert await answer == Settled(Verdict.APPLIED)


async def test_a_plan_wakes_it(place: Any) -> None:
    """The record says when; nothing else is in memory."""
    await ready(place)
    due = await plan_and_sleep(place, 1)
    assert place.reports.said[-1][3] > 0
    its_time_comes(place, due)
    fired = await place.played.turn()
    assert (fired.kind, fired.method, fired.at) == ("timer", "later", due.at)


async def test_an_agent_that_owes_a_turn_sleeps_when_nobody_waits_here_for_its_end(place: Any) -> None:
    """Protocol 9, rule 5: nothing of a suspended turn stays in memory; whoever waits for its reply keeps it awake."""
    await ready(place)
    job = call(place, 1)
    turn = await place.played.turn()
    place.played.worker.answered(tenure_link.Progress(turn.turn, turn.uid, lasts=9999.0))
    while not place.played.heard(tenure_link.Progressed):  # noqa: ASYNC110 - of the loop
        await asyncio.sleep(0)
    place.played.done(turn, waits=tenure_link.Wait(position=0, name="sleep", until=place.lease.cluster_now + 3600))
    holder = place.activations.holders["7"]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(place.slept.wait(), 5 * IDLE_S)
    job.out_of_time()
    await asleep(place)
    assert holder.uid in place.activations.sleepers
    assert place.reports.said[-1][3] > 0, "the end of its wait is known"


async def test_one_that_is_taken_over_asleep_is_sealed_and_sleeps_on(place: Any) -> None:
    """Protocol 2, bulk take-over [wake_highest]: the epoch is sealed in the background; a call adopts the state."""
    await ready(place)
    await answered(place, call(place, 1), {"n": 1})
    await asleep(place)
    place.assign(row(epoch=2, ready_epoch=1, hibernated=True))
    await asleep(place)
    assert place.activations.sleepers.get("7").epoch == 2
    assert {cells["7"][0].sealed for cells in place.servers.cells.values()} == {2}
    async with asyncio.timeout(5):
        assert (await call(place, 1).reply).recorded


async def test_what_is_taken_over_asleep_and_owes_a_signal_is_woken(place: Any) -> None:
    """The registry has not heard that it was awake again before its host was lost; the record says so [wake_owing]."""
    await ready(place)
    job = call(place, 1)
    place.played.done(await place.played.turn(), reply=pack(1), state=pack({"n": 1}), sends=sends("shop/b"))
    await asyncio.wait_for(job.reply, 5)
    before = len(place.played.heard(tenure_link.Activate))
    place.assign(row(epoch=2, ready_epoch=1, hibernated=True))
    async with asyncio.timeout(5):
        while len(place.played.heard(tenure_link.Activate)) == before:  # noqa: ASYNC110 - of the loop
            await asyncio.sleep(0)
    assert place.activations.holders["7"].epoch == 2


async def test_many_are_sealed_a_part_at_a_time(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call does not wait for its agent's turn; whoever leaves meanwhile is not sealed."""
    monkeypatch.setattr("tenured.host.sleeping.SEALING", 1)
    rows = [AgentRow(uid=str(n), epoch=1, spec=row().spec, hibernated=True) for n in range(1, 5)]
    for one in rows:
        place.activations.sleepers.take_over(row_of(one))
    assert len(place.activations.sleepers._sealing) == 1
    place.activations.sleepers.take("3")
    for _ in range(3):
        await asleep(place)
    assert [one[1] for one in place.reports.said] == ["1", "2", "4"]


async def test_who_is_called_does_not_wait_for_the_others_that_came_with_it(place: Any) -> None:
    """A host that takes over thousands compares them part by part; that took minutes when it was busy."""
    others = [AgentRow(uid=str(n), epoch=1, spec=row().spec, host="h", incarnation="h.1") for n in range(1000, 3000)]
    place.mirror_is(*others, row(epoch=2, ready_epoch=0, hibernated=True))
    async with asyncio.timeout(5):
        job = call(place, 1)
        await answered(place, job, {"n": 1})
    assert place.activations.holders["7"].epoch == 2
    assert "2999" not in place.activations.sleepers


async def test_who_waits_for_an_agent_that_was_given_up_is_not_woken_by_looking(place: Any) -> None:
    """Its new holder is news; that it is not here is none. The waiting call spun until its patience was over."""
    await fall_asleep(place, {"n": 1})
    place.activations.release_all(True)
    async with asyncio.timeout(5):
        while "released" not in said(place):
            await place.activations.next_change()
    place.activations.release_all(False)
    for _ in range(5):
        await asyncio.sleep(0)
    change = place.activations.next_change()
    assert place.activations.find("7") is None
    assert not change.done()


async def test_a_snapshot_that_is_being_read_does_not_end_those_that_sleep(place: Any) -> None:
    """What has not come yet is not gone: they were given up, and came back under another epoch."""
    await fall_asleep(place, {"n": 1})
    snapshot = WatchBatch(snapshot=True, hosts=[HostRow(incarnation="h.1")])
    place.activations.rows_changed(place.site.mirror.apply(snapshot))
    signal = Signal("5", "7", 1, 0, 99.0, msgspec.msgpack.encode(tenure_link.Work(name="m", arguments=b"\x80")))
    assert (await delivered(place.activations, signal)).code == "NotReady"
    place.activations.rows_changed(place.site.mirror.apply(WatchBatch(revision=10, synced=True, agents=[row()])))
    async with asyncio.timeout(5):
        assert (await call(place, 1).reply).recorded
    assert "released" not in said(place)


async def test_a_plan_whose_time_comes_while_a_snapshot_is_read_is_not_forgotten(place: Any) -> None:
    """It waits until all rows are known again."""
    await ready(place)
    due = await plan_and_sleep(place, 1)
    place.activations.rows_changed(place.site.mirror.apply(WatchBatch(snapshot=True)))
    its_time_comes(place, due)
    assert "7" in place.activations.sleepers
    place.activations.rows_changed(place.site.mirror.apply(WatchBatch(revision=10, synced=True, agents=[row()])))
    place.activations.sleepers.look()
    assert (await place.played.turn()).method == "later"
    assert "released" not in said(place)


async def test_one_that_sleeps_leaves_at_once(place: Any) -> None:
    """A drain has nothing to wait for."""
    place.assign(row())
    await asleep(place)
    place.activations.release_all(True)
    async with asyncio.timeout(5):
        while ("released", "7", 1) not in place.reports.said:
            await place.activations.next_change()
    assert len(place.activations.sleepers) == 0
