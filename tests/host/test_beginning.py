"""A new agent's first state: written with the first turn, or soon; seen by nobody before it is durable (protocol 2,
[ready_written], [first_epoch]).
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from played import answer_of, pack, submit

import tenure_link
from tenure_proto.v1.calls_pb2 import CALL_KIND_CONTROL, CALL_KIND_QUERY, Call
from tenure_proto.v1.registry_pb2 import AgentRow, AgentSpec
from tenured.host import beginning, newborns
from tenured.host.holder import Holder, Phase
from tenured.host.leasing import boot_ns
from tenured.host.rows import row_of

FIRST, ONE = pack({"n": 0}), pack({"n": 1})


@pytest.fixture
async def newborn(scene: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An agent that serves, and whose first state waits for as long as the test lets it."""
    monkeypatch.setattr(newborns, "FIRST_WRITE_S", 3600.0)
    spec = AgentSpec(id="shop/a", **{"class": "C"})
    holder = Holder(scene.site, row_of(AgentRow(uid="7", epoch=1, spec=spec)))
    async with asyncio.timeout(5):
        while not scene.played.heard(tenure_link.Activate):  # noqa: ASYNC110 - a step of the loop at a time
            await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    yield SimpleNamespace(holder=holder, **vars(scene))
    await holder.stop(finish_turn=False)


def kinds(servers: Any) -> list[str]:
    return [frame.WhichOneof("body") for _, frame in servers.frames]


def version(servers: Any) -> set[tuple[int, int]]:
    cells = (cells["7"][0].version for cells in servers.cells.values())
    return {(cell.epoch, cell.seq) for cell in cells}


async def test_a_new_agent_serves_with_nothing_written_or_sealed(newborn: Any) -> None:
    """Before its first epoch nobody held it: nobody is to be silenced, nothing to be adopted [first_epoch]."""
    assert kinds(newborn.servers) == []
    assert newborn.reports.said == []
    assert newborn.holder.phase is Phase.STARTING


async def test_the_first_turn_carries_the_first_state(newborn: Any) -> None:
    """One write at each server, then the reply, then Ready [ready_written]."""
    job = submit(newborn.holder)
    newborn.played.done(await newborn.played.turn(), reply=pack(1), state=ONE)
    assert (await answer_of(job)).value == pack(1)
    assert kinds(newborn.servers) == ["write"] * 3
    assert version(newborn.servers) == {(1, 1)}
    assert newborn.servers.stored("7", "s") == [ONE] * 3
    assert newborn.reports.said == [("ready", "7", 1)]


async def test_a_first_turn_that_changes_nothing_keeps_the_first_state(newborn: Any) -> None:
    """The state that it ran on is in the record beside its mark: another first state may be another one."""
    job = submit(newborn.holder)
    newborn.played.done(await newborn.played.turn(), reply=pack(None))
    await answer_of(job)
    assert newborn.servers.stored("7", "s") == [FIRST] * 3
    assert newborn.reports.said == [("ready", "7", 1)]


async def test_a_first_turn_that_fails_writes_nothing(newborn: Any) -> None:
    """The first state waits on, and the next turn has it."""
    failed = submit(newborn.holder)
    fault = tenure_link.Fault(code="ActionFailed", message="no")
    newborn.played.done(await newborn.played.turn(), fault=fault)
    assert (await answer_of(failed)).error.code == "ActionFailed"
    assert kinds(newborn.servers) == []
    job = submit(newborn.holder, key=2)
    newborn.played.done(await newborn.played.turn(), reply=pack(None))
    await answer_of(job)
    assert newborn.servers.stored("7", "s") == [FIRST] * 3


async def test_a_query_waits_until_what_it_shows_is_durable(newborn: Any) -> None:
    """And hurries it: the next holder might make another first state."""
    newborn.servers.writes_answer.clear()
    job = submit(newborn.holder, kind=CALL_KIND_QUERY)
    for _ in range(10):
        await asyncio.sleep(0)
    assert kinds(newborn.servers) == ["write"] * 3
    assert not newborn.played.heard(tenure_link.Turn)
    newborn.servers.writes_answer.set()
    newborn.played.done(await newborn.played.turn(), reply=pack(0))
    assert (await answer_of(job)).value == pack(0)
    assert newborn.servers.stored("7", "s") == [FIRST] * 3


async def test_a_query_behind_a_first_turn_waits_for_its_write(newborn: Any) -> None:
    """It is asked once the state is durable, whichever write has it."""
    newborn.servers.writes_answer.clear()
    call = submit(newborn.holder)
    newborn.played.done(await newborn.played.turn(), reply=pack(1), state=ONE)
    query = submit(newborn.holder, key=2, kind=CALL_KIND_QUERY)
    await asyncio.sleep(0)
    assert newborn.played.turns.empty()
    newborn.servers.writes_answer.set()
    newborn.played.done(await newborn.played.turn(), reply=pack(1))
    assert (await answer_of(query)).value == (await answer_of(call)).value
    assert kinds(newborn.servers) == ["write"] * 3


async def test_an_operation_finds_a_durable_state_or_is_told_to_come_again(newborn: Any) -> None:
    """`tenure state get` shows no state that may never have been."""

    def ask(key: int) -> Any:
        call = Call(agent="shop/a", kind=CALL_KIND_CONTROL, method="state.get", client_id="c", key=key, born=99.0)
        return newborn.holder.submit(call, "spiffe://x", boot_ns() + 5 * 10**9)

    assert (await answer_of(ask(1))).error.code == "NotReady"
    async with asyncio.timeout(5):
        await newborn.reports.first.wait()
    assert (await answer_of(ask(2))).HasField("value")


async def test_nobody_asks_and_it_is_written_and_ready_all_the_same(scene: Any) -> None:
    """After a moment, by itself."""
    await scene.start()
    assert kinds(scene.servers) == ["write"] * 3
    assert scene.servers.stored("7", "s") == [FIRST] * 3


async def test_a_worker_that_dies_before_the_first_write_takes_its_state_along(newborn: Any) -> None:
    """Another worker makes one, of the same row and under the same epoch: nobody has seen the other."""
    newborn.played.worker.abandon("killed")
    newborn.played.worker.dead.set()
    newborn.played.worker = type(newborn.played.worker)(newborn.played, 12)
    async with asyncio.timeout(5):
        while len(newborn.played.heard(tenure_link.Activate)) < 2:  # noqa: ASYNC110 - a step of the loop at a time
            await asyncio.sleep(0)
    assert newborn.played.heard(tenure_link.Activate)[1].state is None
    job = submit(newborn.holder)
    newborn.played.done(await newborn.played.turn(), reply=pack(1), state=ONE)
    assert (await answer_of(job)).value == pack(1)
    assert newborn.reports.said == [("ready", "7", 1)]


async def test_the_next_holder_begins_anew_where_nothing_was_written(
    newborn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds nothing, and no Ready says that there was something [ready_written, nothing]."""
    await newborn.holder.stop(finish_turn=False)
    monkeypatch.setattr(newborns, "FIRST_WRITE_S", 0.0)
    await newborn.start(epoch=2, ready_epoch=0)
    assert newborn.reports.said == [("ready", "7", 2)]
    assert newborn.servers.stored("7", "s") == [FIRST] * 3
    assert version(newborn.servers) == {(2, 1)}


async def test_a_first_holder_that_was_taken_over_writes_nothing(newborn: Any) -> None:
    """It has sealed nothing, and the next one's seal silences it all the same [seal]."""
    job = submit(newborn.holder)
    turn = await newborn.played.turn()
    newborn.servers.seal_above("7", 2)
    newborn.played.done(turn, reply=pack(1), state=ONE)
    assert (await answer_of(job)).error.code == "Fenced"
    assert newborn.servers.stored("7", "s") == []


async def test_a_large_first_state_is_written_before_anything_runs_on_it(
    scene: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether it fits is known then."""
    monkeypatch.setattr(beginning, "FIRST_BYTES", 1)
    monkeypatch.setattr(newborns, "FIRST_WRITE_S", 3600.0)
    await scene.start()
    assert scene.servers.stored("7", "s") == [FIRST] * 3


async def test_first_states_of_a_burst_wait_longer(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their calls come later; each counts until its own is written, or it leaves."""
    monkeypatch.setattr(newborns, "FIRST_WRITE_S", 0.0)
    alone = scene.site.newborns.patience_s
    scene.site.newborns.count = 10_000
    assert alone < scene.site.newborns.patience_s <= newborns.LONGEST_S
    scene.site.newborns.count = 0
    await scene.start()
    assert scene.site.newborns.count == 0
