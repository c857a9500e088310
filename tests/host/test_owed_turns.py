"""Turns that are accepted before their first step, and owed until they have ended (protocol 9): the host's part."""

from __future__ import annotations

import msgspec
import pytest
from owed import APPLIED, APPROVAL, SLEEP, owed_call, pack, signal_work
from played import answer_of
from playing import FAIL, Scene, named

import tenure_link
from tenure_proto.v1.common_pb2 import OUTCOME_UNKNOWN
from tenured.clocks import boot_ns


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
