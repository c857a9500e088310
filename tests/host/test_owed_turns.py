"""Turns that are accepted before their first step, and owed until they have ended (protocol 9): the host's part."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from playing import FAIL, STATE, Scene, answer_of, named, sends

import tenure_link
from tenure_proto.v1.common_pb2 import OUTCOME_UNKNOWN
from tenure_proto.v1.registry_pb2 import AgentSpec, Delivery
from tenured.clocks import boot_ns
from tenured.core.signals import Settled, Verdict
from tenured.host.owing import Owing
from tenured.host.stores import RecordTooLarge

pack = msgspec.msgpack.encode
APPLIED = Settled(Verdict.APPLIED)
PAUSE = AgentSpec(on_exhausted="Pause", delivery=Delivery(max_attempts=1))
SLEEP = tenure_link.Wait(position=0, name="sleep", until=150.0)
APPROVAL = tenure_link.Wait(position=0, name="wait", types=("approved",))


def signal_work(type_: str) -> tenure_link.Work:
    return tenure_link.Work(signal=pack({"type": type_}))


async def owed_call(play: Scene, *, key: int = 1) -> tuple[Any, tenure_link.Turn]:
    """A call whose turn has come to its first step."""
    job = play.call(key)
    return job, await play.accepted()


async def accepting(play: Scene) -> tuple[Any, tenure_link.Turn]:
    """A call whose turn has come to its first step; that is being written."""
    job = play.call(1)
    turn = await play.turn()
    play.servers.writes_answer.clear()
    play.progress(turn)
    await play.quiet()
    return job, turn


async def test_a_turn_is_accepted_before_its_first_step(play: Scene) -> None:
    """Protocol 9, rule 1 [accept_first]: the signal's mark, the signal and an empty journal, in one write."""
    await play.start()
    answer = play.send(1)
    turn = await play.turn()
    before = len(play.servers.frames)
    play.servers.writes_answer.clear()
    play.progress(turn)
    await play.quiet()
    assert not play.played.heard(tenure_link.Progressed), "nothing may be done before it is durable"
    assert not answer.done()
    play.servers.writes_answer.set()
    assert await answer_of(answer) == APPLIED, "the sender's stream goes on"
    assert len(play.servers.frames) - before == 3, "one write, to three servers"
    assert play.book().journal.owed.key == turn.key
    assert play.book().boxes.marks["5"].last == 1


async def test_an_accepted_turn_has_its_own_time_from_then_on(play: Scene) -> None:
    """Protocol 9, rule 7: it is not one that "runs on after its deadline", whose worker would be killed."""
    await play.start()
    _, turn = await owed_call(play)
    (flight,) = play.holder._parts.runner.lineup.flights
    assert flight.number == turn.turn
    left_s = (flight.job.deadline_ns - boot_ns()) / 1e9
    owed = play.book().journal.owed
    assert left_s == pytest.approx(owed.until - play.lease.cluster_now, abs=5)
    play.holder._parts.runner._watchdog._look()
    assert not play.played.worker.lost


async def test_a_step_is_durable_before_the_next(play: Scene) -> None:
    """Protocol 9, rule 2 [journal_first]."""
    await play.start()
    _, turn = await owed_call(play)
    play.servers.writes_answer.clear()
    play.progress(turn, 0, tenure_link.Entry("ask", pack(1)))
    await play.quiet()
    assert len(play.played.heard(tenure_link.Progressed)) == 1
    play.servers.writes_answer.set()
    await play.until(lambda: len(play.played.heard(tenure_link.Progressed)) == 2)
    assert [step.name for step in play.book().journal.steps] == ["ask"]


async def test_the_next_holder_runs_the_turn_with_its_journal_and_its_key(play: Scene) -> None:
    """Protocol 9, rules 2 and 3 [journal_first, stable_key]: never of the epoch, the host or the attempt."""
    await play.start()
    job, turn = await owed_call(play)
    await play.stepped(turn, 0, "ask", 1)
    await play.take_over(2)
    again = await play.turn()
    assert (again.key, again.accepted, [one.name for one in again.journal]) == (turn.key, True, ["ask"])
    assert (await answer_of(job)).error.outcome == OUTCOME_UNKNOWN
    repeated = play.call(1)
    await play.end(again, reply=pack(9))
    assert (await answer_of(repeated)).value == pack(9), "who asks again waits for the same turn"
    assert (await answer_of(play.call(1))).recorded
    assert play.book().journal.owed is None


async def test_different_signals_never_share_a_key(play: Scene) -> None:
    """Protocol 9, rule 3 [stable_key]: of sender and number, also where one was accepted for later, or held."""
    await play.start()
    _, turn = await owed_call(play)
    assert await answer_of(play.send(1)) == APPLIED
    await play.end(turn)
    first = await play.accepted()
    assert await answer_of(play.send(2)) == APPLIED
    await play.end(first)
    second = await play.turn()
    assert [first.key, second.key] == ["7/5/1", "7/5/2"]


async def test_what_is_accepted_while_an_accepted_one_runs_is_run(play: Scene) -> None:
    """Protocol 9, rule 6 [inbox_in_commit]: a place in the inbox may be used again at once."""
    await play.start()
    _, turn = await owed_call(play)
    await answer_of(play.send(1))
    await play.end(turn)
    first = await play.accepted()
    await answer_of(play.send(2))
    assert list(play.book().journal.inbox) == [1]
    await play.end(first)
    assert named(await play.end()) == "do2"
    await play.until(lambda: not play.book().journal.inbox)


async def test_the_inbox_is_run_in_order(play: Scene) -> None:
    """Protocol 9, rule 6 [inbox]: as their senders sent them, before what comes later."""
    await play.start()
    _, turn = await owed_call(play)
    for n in (1, 2, 3):
        assert await answer_of(play.send(n)) == APPLIED
    play.send(4)
    await play.end(turn)
    assert [named(await play.end()) for _ in range(4)] == ["do1", "do2", "do3", "do4"]


async def test_the_inbox_is_not_overtaken_while_the_lease_comes_back(play: Scene) -> None:
    """Protocol 9, rule 6 [inbox_order]: what could not begin for want of a lease stays ahead of its sender's next."""
    await play.start()
    _, turn = await owed_call(play)
    for n in (1, 2):
        assert await answer_of(play.send(n, prev=n - 1)) == APPLIED
    play.lease.held = False
    await play.end(turn)
    await play.until(lambda: play.book().journal.owed is None)
    await play.quiet()
    play.lease.held = True
    play.send(3, prev=2)
    assert [named(await play.end()) for _ in range(3)] == ["do1", "do2", "do3"]
    await play.until(lambda: not play.book().journal.inbox)


async def test_what_comes_during_the_write_of_the_end_keeps_its_order(play: Scene) -> None:
    """Protocol 3, order per sender: neither the inbox nor a new turn overtakes."""
    await play.start()
    _, turn = await owed_call(play)
    play.servers.writes_answer.clear()
    await play.end(turn)
    await play.quiet()
    play.send(1)
    await play.quiet()
    play.servers.writes_answer.set()
    await play.until(lambda: play.book().journal.owed is None)
    play.send(2, prev=1)
    assert [named(await play.end()) for _ in range(2)] == ["do1", "do2"]


async def test_a_failed_one_of_the_inbox_is_not_overtaken(play: Scene) -> None:
    """Protocol 3, order per sender, while it waits to be tried again; and neither is lost."""
    await play.start()
    _, turn = await owed_call(play)
    await answer_of(play.send(1))
    await answer_of(play.send(2))
    await play.end(turn)
    first = await play.turn()
    play.played.done(first, fault=FAIL)
    order = [named(await play.end()) for _ in range(2)]
    while order[-1] != "do2":  # what had run ahead of the failure
        order.append(named(await play.end()))
    assert order[-2:] == ["do1", "do2"]
    await play.until(lambda: not play.book().journal.inbox)


async def test_what_is_tried_alone_does_not_overtake_the_inbox(play: Scene) -> None:
    """Protocol 9, rule 6 [inbox_order], with protocol 3, poison [alone]: a worker ends while one runs, and what has
    ended before it is not written yet.
    """
    await play.start()
    _, turn = await owed_call(play)
    for n in (1, 2, 3):
        assert await answer_of(play.send(n, prev=n - 1)) == APPLIED
    await play.end(turn)
    await play.until(lambda: play.book().journal.owed is None)
    play.servers.writes_answer.clear()
    assert [named(await play.end()) for _ in range(2)] == ["do1", "do2"]
    assert named(await play.turn()) == "do3"
    play.lose_worker()
    await play.quiet()
    play.servers.writes_answer.set()
    assert [named(await play.end()) for _ in range(2)] == ["do2", "do3"]
    await play.until(lambda: not play.book().journal.inbox)


async def test_accepted_signals_are_run_by_the_next_holder(play: Scene) -> None:
    """Protocol 9, rule 6 [inbox_in_commit]."""
    await play.start()
    _, turn = await owed_call(play)
    await answer_of(play.send(1))
    await play.take_over(2)
    await play.end()
    assert named(await play.end()) == "do1"
    assert turn


async def test_writes_come_one_after_the_other(play: Scene) -> None:
    """A step, while a signal comes: what the second write is made of holds the first (protocol 9 [journal_first])."""
    await play.start()
    _, turn = await owed_call(play)
    play.servers.writes_answer.clear()
    play.progress(turn, 0, tenure_link.Entry("ask", pack(1)))
    await play.quiet()
    answer = play.send(1)
    await play.quiet()
    play.servers.writes_answer.set()
    assert await answer_of(answer) == APPLIED
    await play.stepped(turn, 1, "pay", 2)
    journal = play.book().journal
    assert [step.name for step in journal.steps] == ["ask", "pay"]
    assert [one.n for one in journal.inbox.values()] == [1]


async def test_a_sleep_ends_once_by_time(play: Scene) -> None:
    """Protocol 9, rule 5 [wake_in_commit]: the end and its result are one commit."""
    await play.start()
    _, turn = await owed_call(play)
    play.played.done(turn, waits=SLEEP)
    await play.until(lambda: play.book().journal.owed.waiting)
    play.lease.cluster_now = play.lease.cluster_time = 151.0
    play.send(1)  # any commit looks again
    again = await play.turn()
    assert [one.name for one in again.journal] == ["sleep"]
    await play.end(again)
    await play.until(lambda: play.book().journal.owed is None)


async def test_the_end_of_a_wait_survives_a_lapsed_lease(play: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protocol 1, host 3: refused while it has lapsed, and asked for again by nobody but the host itself."""
    monkeypatch.setattr("tenured.host.owing.AGAIN_S", 0.01)
    await play.start()
    _, turn = await owed_call(play)
    play.played.done(turn, waits=SLEEP)
    await play.until(lambda: play.book().journal.owed.waiting)
    play.lease.held, play.lease.cluster_now = False, 151.0
    play.holder._parts.runner.owing.look()
    await play.quiet()
    play.lease.held = True
    assert (await play.turn()).accepted


async def test_a_signal_that_is_awaited_ends_the_wait(play: Scene) -> None:
    """Protocol 9, rule 5 [wake_in_commit]; what is not awaited is kept for later."""
    await play.start()
    _, turn = await owed_call(play)
    play.played.done(turn, waits=APPROVAL)
    await play.until(lambda: play.book().journal.owed.waiting)
    assert await answer_of(play.send(1, work=signal_work("other"))) == APPLIED
    assert await answer_of(play.send(2, work=signal_work("approved"))) == APPLIED
    again = await play.turn()
    assert msgspec.msgpack.decode(again.journal[0].result)["type"] == "approved"
    assert [one.n for one in play.book().journal.inbox.values()] == [1]
    await play.end(again)


async def test_a_wait_looks_into_the_inbox_first(play: Scene) -> None:
    """Protocol 9, rule 6 [inbox_seen]."""
    await play.start()
    _, turn = await owed_call(play)
    await answer_of(play.send(1, work=signal_work("approved")))
    play.played.done(turn, waits=APPROVAL)
    again = await play.turn()
    assert [one.name for one in again.journal] == ["wait"]
    assert not play.book().journal.inbox


async def test_the_end_is_one_commit(play: Scene) -> None:
    """Protocol 9, rule 7 [end_in_commit]: state, reply and what it sends; the journal is gone."""
    play.mirror.know("shop/b", "8")
    await play.start()
    job, turn = await owed_call(play)
    await play.stepped(turn, 0, "ask", 1)
    before = len(play.servers.frames)
    await play.end(turn, reply=pack(5), sends=sends("shop/b"))
    assert (await answer_of(job)).value == pack(5)
    assert len(play.servers.frames) - before == 3
    assert not [name for name in play.entries() if name.startswith("j")]
    assert (await answer_of(play.call(1))).recorded
    assert [one[:2] for one in play.courier.log] == [(1, "8")]


async def paused(play: Scene, *steps: str) -> tenure_link.Turn:
    """A signal's turn has finished these steps, and failed for the last time."""
    await play.start(more=PAUSE)
    play.send(1)
    turn = await play.accepted()
    for position, name in enumerate(steps):
        await play.stepped(turn, position, name, 1)
    play.played.done(turn, fault=FAIL)
    await play.until(lambda: play.holder.phase == "Paused")
    return turn


async def test_an_owed_turn_that_fails_for_the_last_time_pauses_its_agent(play: Scene) -> None:
    """Protocol 9, rule 10 [pause_journal]: nothing is run, also by the next holder; resumed, it goes on with its steps
    and its key.
    """
    turn = await paused(play, "ask")
    held = play.book().boxes.held
    assert (held.what, held.sender, held.attempts) == ("do1", "5", 1)
    assert not play.book().boxes.letters
    assert (await answer_of(play.send(2))).code == "Paused"
    assert (await answer_of(play.call())).error.code == "Paused"
    await play.take_over(2, more=PAUSE)
    assert (await answer_of(play.send(2))).code == "Paused"
    assert play.no_turn()
    assert not (await answer_of(play.control("resume"))).HasField("error")
    again = await play.turn()
    assert (again.key, again.accepted, [one.name for one in again.journal]) == (turn.key, True, ["ask"])
    assert await answer_of(play.send(2)) == APPLIED, "accepted for later, as during any owed turn"
    await play.end(again)
    assert named(await play.end()) == "do2"
    assert (play.book().journal.owed, play.book().boxes.held) == (None, None)


async def test_a_resumed_turn_that_fails_again_pauses_again(play: Scene) -> None:
    """With the steps that it has finished since."""
    await paused(play, "ask")
    await answer_of(play.control("resume"))
    again = await play.turn()
    await play.stepped(again, 1, "pay", 1)
    play.played.done(again, fault=FAIL)
    await play.until(lambda: play.book().boxes.held is not None)
    assert [step.name for step in play.book().journal.steps] == ["ask", "pay"]


async def test_who_waits_for_the_end_of_a_turn_that_pauses_its_agent_is_told(play: Scene) -> None:
    """A call that came meanwhile waits for the end of the turn, which may never come."""
    await play.start(more=PAUSE)
    play.send(1)
    turn = await play.accepted()
    waiting = play.call()
    await play.quiet()
    play.played.done(turn, fault=FAIL)
    assert (await answer_of(waiting)).error.code == "Paused"


async def test_a_turn_whose_time_is_over_pauses_its_agent_and_has_it_again_when_resumed(play: Scene) -> None:
    """Protocol 9, rules 7 and 10: else it would fail at once."""
    await play.start(more=PAUSE)
    play.send(1)
    turn = await play.turn()
    play.progress(turn, lasts=10.0)
    await play.until(lambda: play.played.heard(tenure_link.Progressed))
    play.played.done(turn, waits=tenure_link.Wait(position=0, name="wait", types=("approved",)))
    await play.until(lambda: play.book().journal.owed.waiting is not None)
    play.lease.cluster_time = play.lease.cluster_now = play.lease.cluster_now + 11
    play.holder._parts.runner.owing.look()
    await play.until(lambda: play.holder.phase == "Paused")
    assert "did not end in its time" in play.book().boxes.held.message
    assert not (await answer_of(play.control("resume"))).HasField("error")
    assert play.book().journal.owed.until >= play.lease.cluster_now + 10
    await play.until(lambda: play.holder.phase == "Running")
    assert await answer_of(play.send(2, work=signal_work("approved"))) == APPLIED
    assert [one.name for one in (await play.turn()).journal] == ["wait"]


async def test_skip_ends_an_owed_turn_with_the_truth(play: Scene) -> None:
    """Protocol 9, rule 4: the dead letter names what was done; the order goes on."""
    await paused(play, "ask", "pay")
    assert not (await answer_of(play.control("skip"))).HasField("error")
    (letter,) = play.book().boxes.letters.values()
    assert (letter.verdict, letter.details.splitlines()[0]) == ("unknown", "finished steps: ask, pay")
    assert not [name for name in play.entries() if name.startswith("j")]
    await play.until(lambda: play.holder.phase == "Running")
    play.send(2)
    assert named(await play.end()) == "do2"


async def test_redrive_does_no_finished_step_again(play: Scene) -> None:
    """A new signal would begin anew, under other keys; without steps it may."""
    play.mirror.know("shop/a", "7")
    await paused(play, "ask")
    assert (await answer_of(play.control("redrive"))).error.code == "Conflict"
    assert play.book().boxes.held is not None
    await play.take_over(2, more=PAUSE)
    assert not (await answer_of(play.control("skip"))).HasField("error")
    await play.until(lambda: play.holder.phase == "Running")
    play.send(2)
    turn = await play.accepted()
    play.played.done(turn, fault=FAIL)
    await play.until(lambda: play.book().boxes.held is not None)
    await play.until(lambda: play.holder.phase == "Paused")
    assert not (await answer_of(play.control("redrive"))).HasField("error")
    assert [one.type for one in play.book().boxes.out.values()] == ["do2"]
    assert (play.book().journal.owed, play.book().boxes.held) == (None, None)


async def test_an_owed_turn_goes_on_after_a_pause_of_its_agent(play: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is owed: an activation that failed in between, with all that waited refused, does not forget it."""
    monkeypatch.setattr("tenured.core.backoff.FIRST_NS", 1_000_000, raising=False)
    await play.start()
    job, turn = await owed_call(play)
    await answer_of(play.send(1))
    play.pool.played.refusal = tenure_link.Fault("StateInvalid", "no")
    play.holder._parts.runner.refuse_all("NotReady", "backing off", queued_only=True)
    assert (await answer_of(job)).error.outcome == OUTCOME_UNKNOWN
    play.lose_worker()
    again = await play.turn()
    assert again.key == turn.key
    await play.end(again)
    assert named(await play.end()) == "do1"


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
