"""Owed turns (protocol 9) and what goes wrong: callers without time, lost workers, poison, full records, defects."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from owed import SLEEP, accepting, owed_call, pack
from played import answer_of
from playing import STATE, Scene

import tenure_link
from tenure_proto.v1.common_pb2 import OUTCOME_UNKNOWN
from tenured.host.owing import Owing
from tenured.host.stores import RecordTooLarge


async def test_a_repeated_call_of_an_accepted_turn_is_never_told_not_applied(play: Scene) -> None:
    """Protocol 3, errors [deadline_drop]: its turn goes on, and will be applied."""
    await play.start()
    await owed_call(play)
    repeated = play.call(1)
    await play.quiet()
    repeated.out_of_time()
    assert (await answer_of(repeated)).error.outcome == OUTCOME_UNKNOWN


async def test_a_repeated_call_under_way_is_never_told_not_applied(play: Scene) -> None:
    """Protocol 3, errors [deadline_drop]: the first one may still be committed."""
    await play.start()
    first = play.call(1)
    turn = await play.turn()
    repeated = play.call(1)
    repeated.out_of_time()
    assert (await answer_of(repeated)).error.outcome == OUTCOME_UNKNOWN
    await play.end(turn)
    assert not (await answer_of(first)).HasField("error")


async def test_a_worker_that_ends_during_the_acceptance_costs_no_turn(play: Scene) -> None:
    """Protocol 9, rule 1 [accept_first]: once durable it is owed, and run once."""
    await play.start()
    job, turn = await accepting(play)
    play.lose_worker()
    await play.quiet()
    play.servers.writes_answer.set()
    again = await play.turn()
    assert (again.key, again.accepted) == (turn.key, True)
    await play.end(again, reply=pack(3))
    assert (await answer_of(job)).value == pack(3)
    await play.quiet()
    assert play.no_turn()


async def test_a_caller_whose_time_ends_during_the_acceptance_costs_no_turn(play: Scene) -> None:
    """Protocol 9, rule 1 [accept_runs]: once durable it is owed, and run; what comes later waits for its end only."""
    await play.start()
    job, turn = await accepting(play)
    job.out_of_time()
    play.played.done(turn, fault=tenure_link.Fault("DeadlineExceeded", "the deadline passed in x; it was cancelled"))
    await play.quiet()
    play.servers.writes_answer.set()
    again = await play.turn()
    assert (again.key, again.accepted) == (turn.key, True)
    await play.end(again, reply=pack(3))
    assert (await answer_of(job)).error.outcome == OUTCOME_UNKNOWN
    second = play.call(2)
    await play.end()
    assert not (await answer_of(second)).HasField("error")
    await play.quiet()
    assert play.no_turn()


async def test_a_turn_that_came_to_its_first_step_on_a_draft_that_went_is_run_again(play: Scene) -> None:
    """Nothing begins until it is known whether it is owed; that is known, too, when the turn before it is dropped."""
    await play.start()
    written = play.call(1)
    play.servers.writes_answer.clear()
    await play.end(state=pack({"n": 1}))
    await play.quiet()
    late, steps = play.call(2), play.call(3)
    await play.end(state=pack({"n": 2}))
    play.progress(await play.turn())
    await play.quiet()
    late.out_of_time()
    play.servers.writes_answer.set()
    assert not (await answer_of(written)).HasField("error")
    await play.end(await play.accepted(), reply=pack(3))
    assert (await answer_of(steps)).value == pack(3)


async def test_poison_in_a_step_ends_as_a_dead_letter_that_lists_the_steps(
    play: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protocol 3, poison [alone, count]; protocol 9, rule 4: what was done is said."""

    async def at_once(holder: Any, reason: str, message: str) -> None:
        holder._mailbox.refuse("NotReady", message)

    monkeypatch.setattr("tenured.host.holder.Holder._back_off", at_once)
    await play.start()
    play.send(1)
    turn = await play.accepted()
    await play.stepped(turn, 0, "ask", 1)
    play.lose_worker()  # others may have done it
    for _ in range(3):
        await play.turn()
        play.lose_worker()
    (letter,) = await play.until(lambda: list(play.book().boxes.letters.values()))
    assert (letter.code, letter.verdict) == ("WorkerCrashed", "unknown")
    assert "finished steps: ask" in letter.details
    assert play.book().journal.owed is None
    assert not play.book().boxes.tries
    assert play.pool.trials == 3


async def test_a_step_that_does_not_fit_ends_the_turn(play: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """RecordTooLarge is raised before anything is sent: a step of it must not wait for ever."""
    await play.start()
    job, turn = await owed_call(play)
    refuse_larger_than(play, monkeypatch, 5000)
    play.progress(turn, 0, tenure_link.Entry("ask", b"x" * 9000))
    error = (await answer_of(job)).error
    assert (error.code, error.outcome) == ("StateInvalid", OUTCOME_UNKNOWN)
    assert play.book().journal.owed is None


async def test_a_full_record_refuses_what_does_not_fit_and_nothing_else(
    play: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run of turns only the one that is too large is refused."""
    await play.start()
    refuse_larger_than(play, monkeypatch, 5000)
    play.servers.writes_answer.clear()
    jobs = [play.call(key) for key in (1, 2, 3)]
    turns = [await play.turn() for _ in jobs]
    await play.end(turns[0])
    await play.quiet()
    await play.end(turns[1], reply=b"x" * 9000)
    await play.end(turns[2])
    play.servers.writes_answer.set()
    assert not (await answer_of(jobs[0])).HasField("error")
    assert (await answer_of(jobs[1])).error.code == "StateInvalid"
    await play.end()  # it had run on the draft of the one that is refused
    assert not (await answer_of(jobs[2])).HasField("error")


async def test_a_defect_in_a_callback_ends_the_activation(play: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged and given up, and nobody waits for ever: an agent never stands still without a word."""
    await play.start()

    def defect(_: Owing) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr(Owing, "look", defect)
    job, other = play.call(1), play.call(2)
    await play.end()
    await play.until(lambda: play.holder.failure is not None)
    assert isinstance(play.holder.failure, KeyError)
    assert (await answer_of(other)).HasField("error")
    async with asyncio.timeout(5):
        await job.reply
    assert STATE in play.servers.stored("7", "s")


def refuse_larger_than(play: Scene, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """A store whose limit is small."""
    record = play.holder._parts.ledger._record
    write = record.write

    def small(_: Any, now: int, puts: Any, deletes: Any = ()) -> Any:
        if sum(map(len, puts.values())) > limit:
            raise RecordTooLarge(f"the limit is {limit}")
        return write(now, puts, deletes)

    monkeypatch.setattr(type(record), "write", small)


@pytest.mark.parametrize("held", [True, False])
async def test_a_wait_that_is_all_but_over_does_not_spin(play: Scene, held: bool) -> None:
    """The rest of it may be less than the loop can tell, and without a lease cluster time stands still."""
    await play.start()
    _, turn = await owed_call(play)
    play.played.done(turn, waits=SLEEP)
    await play.until(lambda: play.book().journal.owed.waiting)
    play.lease.held, play.lease.cluster_now = held, 150.0 - 1e-9
    looks = 0
    owing = play.holder._parts.runner.owing
    look = owing.look

    def counted() -> None:
        nonlocal looks
        looks += 1
        look()

    owing.look = counted
    counted()
    for _ in range(200):
        await asyncio.sleep(0)
    assert looks < 100
