"""Turns of one agent on one host: what is durable before what is said, and what becomes of a lapsed lease, of a lost
epoch, of a deadline. The scene is that of `played`.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from played import answer_of, pack, submit

import tenure_link
from tenure_proto.v1.calls_pb2 import CALL_KIND_QUERY
from tenure_proto.v1.common_pb2 import OUTCOME_NOT_APPLIED, OUTCOME_UNKNOWN
from tenure_proto.v1.registry_pb2 import AgentSpec
from tenured.core import cells
from tenured.core.signals import Settled, Verdict
from tenured.host import mailbox


async def test_the_first_state_is_durable_before_ready(scene: SimpleNamespace) -> None:
    """Ready means that user code has answered and that its first state is at a majority."""
    await scene.start()
    assert scene.reports.said == [("ready", "7", 1)]
    assert len(scene.servers.stored("7", "s")) >= 2


async def test_what_a_hook_makes_of_a_stored_state_is_durable_before_ready(scene: SimpleNamespace) -> None:
    """Marks and clock stay as they were: a call of before is still recognised."""
    holder = await scene.start()
    job = submit(holder)
    turn = await scene.played.turn()
    scene.played.worker.answered(tenure_link.TurnDone(turn=turn.turn, reply=pack(1), state=pack({"n": 1})))
    assert (await answer_of(job)).value == pack(1)
    await holder.stop(finish_turn=True)
    scene.played.hooked = pack({"n": 100})
    later = await scene.start(epoch=2)
    assert scene.servers.stored("7", "s").count(pack({"n": 100})) >= 2
    assert (await answer_of(submit(later))).value == pack(1)


async def test_a_turn_is_durable_before_its_reply(scene: SimpleNamespace) -> None:
    """State, mark and reply at a majority; then Commit to the worker; then the caller."""
    holder = await scene.start()
    scene.servers.writes_answer.clear()
    job = submit(holder)
    scene.played.done(await scene.played.turn(), reply=pack(1), state=pack({"n": 1}))
    await asyncio.sleep(0)
    assert not job.answered
    assert not scene.played.heard(tenure_link.Commit)
    scene.servers.writes_answer.set()
    assert (await answer_of(job)).value == pack(1)
    assert scene.servers.stored("7", "s").count(pack({"n": 1})) >= 2
    assert len(scene.played.heard(tenure_link.Commit)) == 1


async def test_a_lapsed_lease_starts_no_turn(scene: SimpleNamespace) -> None:
    """Protocol 1, host 3: answer Fenced, not applied, and the worker hears nothing."""
    holder = await scene.start()
    scene.lease.held = False
    error = (await answer_of(submit(holder))).error
    assert (error.code, error.outcome, error.retryable) == ("Fenced", OUTCOME_NOT_APPLIED, True)
    assert not scene.played.heard(tenure_link.Turn)


async def test_a_lease_that_lapses_after_the_commit_holds_the_reply_back(scene: SimpleNamespace) -> None:
    """Protocol 1, host 2: the check is after the commit. Kept in the store, unknown to the caller; a repetition reads
    it.
    """
    holder = await scene.start()
    job = submit(holder)
    turn = await scene.played.turn()
    scene.lease.held = False
    scene.played.done(turn, reply=pack(1), state=pack({"n": 1}))
    error = (await answer_of(job)).error
    assert (error.code, error.outcome) == ("Fenced", OUTCOME_UNKNOWN)
    scene.lease.held = True
    again = await answer_of(submit(holder))
    assert (again.value, again.recorded) == (pack(1), True)
    assert len(scene.played.heard(tenure_link.Turn)) == 1


async def test_a_lease_that_lapses_during_a_read_holds_the_answer_back(scene: SimpleNamespace) -> None:
    """The check is after the read; a read has no effect, so: not applied."""
    holder = await scene.start()
    job = submit(holder, kind=CALL_KIND_QUERY)
    turn = await scene.played.turn()
    scene.lease.held = False
    scene.played.done(turn, reply=pack(1))
    error = (await answer_of(job)).error
    assert (error.code, error.outcome) == ("Fenced", OUTCOME_NOT_APPLIED)


async def test_a_query_commits_nothing(scene: SimpleNamespace) -> None:
    """No frame to any server."""
    holder = await scene.start()
    before = len(scene.servers.frames)
    job = submit(holder, kind=CALL_KIND_QUERY)
    scene.played.done(await scene.played.turn(), reply=pack(5))
    assert (await answer_of(job)).value == pack(5)
    assert len(scene.servers.frames) == before


async def test_a_quorum_read_asks_a_majority_after_it_came(scene: SimpleNamespace) -> None:
    """Protocol 2, quorum reads [check_after, check_sealed]: one that a newer holder has overtaken is not answered, even
    by a host that believes in its lease.
    """
    holder = await scene.start(spec=AgentSpec(id="shop/a", reads="Quorum", **{"class": "C"}))
    job = submit(holder, kind=CALL_KIND_QUERY)
    scene.played.done(await scene.played.turn(), reply=pack(5))
    assert (await answer_of(job)).value == pack(5)
    scene.servers.seal_above("7", 2)
    job = submit(holder, kind=CALL_KIND_QUERY)
    scene.played.done(await scene.played.turn(), reply=pack(5))
    error = (await answer_of(job)).error
    assert (error.code, error.outcome) == ("Fenced", OUTCOME_NOT_APPLIED)


async def test_a_failed_turn_changes_nothing(scene: SimpleNamespace) -> None:
    """The fault reaches the caller, no server hears of it; the traceback is in the log."""
    holder = await scene.start()
    before = len(scene.servers.frames)
    job = submit(holder)
    fault = tenure_link.Fault(code="ActionFailed", message="ValueError in m: no", details="Traceback ...")
    scene.played.done(await scene.played.turn(), fault=fault)
    error = (await answer_of(job)).error
    assert (error.code, error.outcome, error.retryable) == ("ActionFailed", OUTCOME_NOT_APPLIED, False)
    assert len(scene.servers.frames) == before
    lines = [line.text async for batch in scene.site.logs.read("7", 9, follow=False) for line in batch.lines]
    assert lines == ["ValueError in m: no", "Traceback ..."]


async def test_signals_leave_with_the_state(scene: SimpleNamespace) -> None:
    """In the agent's log, after the commit."""
    holder = await scene.start()
    job = submit(holder)
    signal = tenure_link.Signal(id="x", type="counter.changed", data=pack({"count": 1}))
    scene.played.done(await scene.played.turn(), reply=pack(1), state=pack({"n": 1}), signals=(signal,))
    await answer_of(job)
    lines = [line.text async for batch in scene.site.logs.read("7", 9, follow=False) for line in batch.lines]
    assert lines == ['signal counter.changed {"count":1}']


async def test_a_write_of_settlements_alone_is_waited_for_by_the_next(scene: SimpleNamespace) -> None:
    """Protocol 3, one write per turn [numbers_in_state, keep_box]: a draft that was made while it was under way would
    bring back what it took from the outbox.
    """
    way = scene.site.courier
    scene.site.mirror.rows["shop/b"] = SimpleNamespace(uid="8")
    holder = await scene.start()

    async def turn(key: int) -> Any:
        job = submit(holder, key)
        sends = (tenure_link.Outgoing(to="shop/b", work=b"\x80"),)
        scene.played.done(await scene.played.turn(), reply=pack(key), state=pack({"n": key}), sends=sends)
        return job

    await answer_of(await turn(1))
    scene.servers.writes_answer.clear()
    before = len(scene.servers.frames)
    way.settle(1, Settled(Verdict.APPLIED))
    async with asyncio.timeout(5):
        while len(scene.servers.frames) == before:  # noqa: ASYNC110 - of a fake
            await asyncio.sleep(0.005)
    job = await turn(2)
    scene.servers.writes_answer.set()
    await answer_of(job)
    assert way.released == [1, 2]
    assert len(scene.servers.stored("7", "o/2")) >= 2
    assert holder._parts is not None
    assert list(holder._parts.ledger.book.boxes.out) == [2]


async def test_a_deadline_before_the_write_is_not_applied_and_stays_so(scene: SimpleNamespace) -> None:
    """The worker may end the turn later: its result is dropped, never written."""
    holder = await scene.start()
    before = len(scene.servers.frames)
    job = submit(holder, within_s=0.05)
    turn = await scene.played.turn()
    error = (await answer_of(job)).error
    assert (error.code, error.outcome) == ("DeadlineExceeded", OUTCOME_NOT_APPLIED)
    scene.played.done(turn, reply=pack(1), state=pack({"n": 1}))
    after = submit(holder, key=2)
    scene.played.done(await scene.played.turn(), fault=tenure_link.Fault(code="ActionFailed", message="no"))
    await answer_of(after)
    assert len(scene.servers.frames) == before


async def test_a_deadline_during_the_write_is_unknown(scene: SimpleNamespace) -> None:
    """Then a repetition of the call id finds out."""
    holder = await scene.start()
    before = len(scene.servers.frames)
    scene.servers.writes_answer.clear()
    job = submit(holder)
    scene.played.done(await scene.played.turn(), reply=pack(1), state=pack({"n": 1}))
    while len(scene.servers.frames) < before + 3:  # noqa: ASYNC110 - the write at each server
        await asyncio.sleep(0)
    job.out_of_time()
    error = (await answer_of(job)).error
    assert (error.code, error.outcome) == ("DeadlineExceeded", OUTCOME_UNKNOWN)
    scene.servers.writes_answer.set()
    assert (await answer_of(submit(holder))).recorded


async def test_the_queue_is_bounded(scene: SimpleNamespace) -> None:
    """Busy, not applied, beyond the limit."""
    holder = await scene.start()
    submit(holder, key=0)
    await scene.played.turn()
    waiting = [submit(holder, key=key) for key in range(1, mailbox.CALLS)]
    error = (await answer_of(submit(holder, key=9999))).error
    assert (error.code, error.outcome, error.retryable) == ("Busy", OUTCOME_NOT_APPLIED, True)
    assert not any(job.answered for job in waiting)


async def test_a_holder_that_lost_its_epoch_says_unknown_once_and_serves_nobody(scene: SimpleNamespace) -> None:
    """Protocol 2, owner 5: a refused owner stops; its last write may or may not be adopted."""
    holder = await scene.start()
    scene.servers.seal_above("7", 2)
    job = submit(holder)
    scene.played.done(await scene.played.turn(), reply=pack(1), state=pack({"n": 1}))
    error = (await answer_of(job)).error
    assert (error.code, error.outcome) == ("Fenced", OUTCOME_UNKNOWN)
    assert (await answer_of(submit(holder, key=2))).error.code == "NotReady"
    assert scene.servers.stored("7", "s").count(pack({"n": 1})) == 0


async def test_one_server_away_costs_nothing(scene: SimpleNamespace) -> None:
    """A majority is enough."""
    scene.servers.away.add("s2")
    holder = await scene.start()
    job = submit(holder)
    scene.played.done(await scene.played.turn(), reply=pack(1), state=pack({"n": 1}))
    assert (await answer_of(job)).value == pack(1)


async def test_the_next_holder_goes_on_where_the_last_one_was(scene: SimpleNamespace) -> None:
    """State and marks are adopted: the worker gets the committed bytes, a repeated call its recorded reply."""
    first = await scene.start()
    job = submit(first)
    scene.played.done(await scene.played.turn(), reply=pack(1), state=pack({"n": 1}))
    await answer_of(job)
    await first.stop(finish_turn=True)
    second = await scene.start(epoch=2, ready_epoch=1)
    assert scene.played.heard(tenure_link.Activate)[-1].state == pack({"n": 1})
    assert (await answer_of(submit(second))).recorded


async def test_nothing_where_there_was_something_is_no_beginning(scene: SimpleNamespace) -> None:
    """The registry says that an earlier epoch was Ready, the store has nothing: stay down with the reason."""
    holder = await scene.start(epoch=2, ready_epoch=1)
    assert scene.reports.said[-1][:2] == ("trouble", "StateUnreadable")
    assert not scene.played.heard(tenure_link.Activate)
    assert (await answer_of(submit(holder))).error.code == "NotReady"


async def test_a_record_that_cannot_be_read_is_no_beginning(scene: SimpleNamespace) -> None:
    """Damaged marks: the agent stays down, and the record is left alone."""
    for kept in scene.servers.cells.values():
        kept["7"] = (cells.Cell(1, cells.Version(1, 1)), {"s": pack({"n": 1}), "c": b"\xc1"})
    await scene.start(epoch=2, ready_epoch=1)
    assert scene.reports.said[-1][:2] == ("trouble", "StateUnreadable")


async def test_a_refused_activation_backs_off_and_says_why(scene: SimpleNamespace) -> None:
    """The attempt goes on from where the registry says that the last holder was."""
    scene.played.refusal = tenure_link.Fault(code="StateInvalid", message="n: not a number")
    holder = await scene.start(attempt=2)
    assert scene.reports.said == [("trouble", "StateInvalid", "n: not a number", 3, 4.0)]
    error = (await answer_of(submit(holder))).error
    assert (error.code, error.message) == ("NotReady", "shop/a: backing off (attempt 3, next in 4 s): n: not a number")


async def test_stopping_lets_the_running_turn_end(scene: SimpleNamespace) -> None:
    """Drain: the turn is committed and answered; what waits is refused, not applied; the worker forgets the agent."""
    holder = await scene.start()
    job, waiting = submit(holder), submit(holder, key=2)
    turn = await scene.played.turn()
    stopping = asyncio.ensure_future(holder.stop(finish_turn=True))
    await asyncio.sleep(0)
    scene.played.done(turn, reply=pack(1), state=pack({"n": 1}))
    await stopping
    assert (await answer_of(job)).value == pack(1)
    error = (await answer_of(waiting)).error
    assert (error.code, error.outcome) == ("NotReady", OUTCOME_NOT_APPLIED)
    assert len(scene.played.heard(tenure_link.Deactivate)) == 1


async def test_stopping_at_once_drops_the_running_turn(scene: SimpleNamespace) -> None:
    """Moved away: nothing of the turn is written, its caller hears so."""
    holder = await scene.start()
    before = len(scene.servers.frames)
    job = submit(holder)
    await scene.played.turn()
    await holder.stop(finish_turn=False)
    assert (await answer_of(job)).error.outcome == OUTCOME_NOT_APPLIED
    assert len(scene.servers.frames) == before


async def test_a_turn_that_runs_on_after_its_deadline_costs_the_worker_its_life(
    scene: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would block its agent for good."""
    monkeypatch.setattr("tenured.host.stuck.STUCK_LIMIT_S", 0.05)
    holder = await scene.start()
    job = submit(holder, within_s=0.05)
    await scene.played.turn()
    assert (await answer_of(job)).error.code == "DeadlineExceeded"
    async with asyncio.timeout(5):
        await scene.played.worker.dead.wait()
    assert "ran on" in scene.pool.killed[0]
