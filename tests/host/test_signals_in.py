"""Signals that an agent receives (protocol 3, receiver): marks, order, duplicates, poison, pause."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from played import answer_of
from playing import FAIL, STATE, Scene, named, sends

import tenure_link
from tenure_proto.v1.calls_pb2 import CALL_KIND_QUERY
from tenure_proto.v1.registry_pb2 import AgentSpec, Delivery
from tenured.core import boxdraft, boxes
from tenured.core.signals import Again, Settled, Verdict
from tenured.host.turning import AHEAD

pack = msgspec.msgpack.encode
APPLIED = Settled(Verdict.APPLIED)
PAUSE = AgentSpec(on_exhausted="Pause", delivery=Delivery(max_attempts=1))
ONCE = AgentSpec(delivery=Delivery(max_attempts=1))


async def test_mark_and_state_are_one_commit_and_the_ack_follows(play: Scene) -> None:
    """Protocol 3, receiver 4 [mark_in_commit, ack_committed]."""
    await play.start()
    answer = play.send(1)
    play.servers.writes_answer.clear()
    before = len(play.servers.frames)
    await play.end()
    await play.quiet()
    assert not answer.done()
    play.servers.writes_answer.set()
    assert await answer_of(answer) == APPLIED
    assert len(play.servers.frames) - before == 3, "one write, to three servers"
    assert (play.book().boxes.marks["5"].last, play.servers.stored("7", "s")[0]) == (1, STATE)


async def test_a_duplicate_of_the_next_holder_is_not_run_again(play: Scene) -> None:
    """Protocol 3, receiver 1 [mark_in_commit]."""
    await play.start()
    answer = play.send(1)
    await play.end()
    assert await answer_of(answer) == APPLIED
    await play.take_over(2)
    assert await answer_of(play.send(1)) == APPLIED
    assert play.no_turn()


async def test_a_duplicate_in_flight_is_answered_by_the_first(play: Scene) -> None:
    """By the committed mark only [ack_committed]; it is run once."""
    await play.start()
    answers = [play.send(1), play.send(1)]
    await play.end()
    assert [await answer_of(one) for one in answers] == [APPLIED, APPLIED]
    assert play.no_turn()


async def test_what_overtook_another_is_held_back(play: Scene) -> None:
    """Protocol 3, receiver 2 [prev]."""
    await play.start()
    answer = await answer_of(play.send(2, prev=1))
    assert (type(answer), answer.code) == (Again, "OutOfOrder")
    assert play.no_turn()


async def test_nothing_overtakes_a_signal_that_is_tried_again(play: Scene) -> None:
    """Protocol 3 [prev]: of its sender; other senders go on."""
    await play.start()
    first, second = play.send(1), play.send(2, prev=1)
    turn = await play.turn()
    play.played.done(turn, fault=FAIL)
    other = play.send(1, sender="6", work=tenure_link.Work(name="other"))
    order: list[str] = []
    while len({*order}) < 3 or not second.done():
        order.append(named(await play.end()))
        await play.quiet()
    assert [await answer_of(one) for one in (first, second, other)] == [APPLIED] * 3
    assert order.index("do1") < len(order) - 1 - order[::-1].index("do2")


async def test_a_void_is_settled_without_a_turn(play: Scene) -> None:
    """Protocol 3 [void, void_memory]: and remembered by the next holder."""
    await play.start()
    assert await answer_of(play.send(1, void=True)) == Settled(Verdict.NOT_APPLIED)
    assert play.no_turn()
    await play.take_over(2)
    assert await answer_of(play.send(1)) == Settled(Verdict.NOT_APPLIED)
    assert play.no_turn()


async def test_marks_of_a_run_are_written_at_once(play: Scene) -> None:
    """Protocol 3, several turns in one write [batch_whole, batch_release]."""
    await play.start()
    play.servers.writes_answer.clear()
    before = len(play.servers.frames)
    answers = [play.send(1), play.send(2, prev=1), play.send(3, prev=2), play.send(1, sender="6")]
    for _ in answers:
        await play.end()
    await play.quiet()
    assert not any(one.done() for one in answers)
    play.servers.writes_answer.set()
    assert [await answer_of(one) for one in answers] == [APPLIED] * 4
    assert len(play.servers.frames) - before == 6, "the first, and then all others in one write"
    assert {uid: mark.last for uid, mark in play.book().boxes.marks.items()} == {"5": 3, "6": 1}


async def test_a_turn_that_failed_for_good_takes_nothing_with_it(play: Scene) -> None:
    """Protocol 3 [batch_restart]: later turns of the run never saw it, and stay; its mark and its dead letter go with
    theirs.
    """
    await play.start(more=ONCE)
    play.servers.writes_answer.clear()
    answers = [play.send(1), play.send(2, prev=1), play.send(3, prev=2)]
    turns = [await play.turn() for _ in answers]
    await play.end(turns[0])
    play.played.done(turns[1], fault=FAIL)
    await play.end(turns[2])
    play.servers.writes_answer.set()
    assert [await answer_of(one) for one in answers] == [APPLIED] * 3
    assert not play.played.heard(tenure_link.Drop)
    (letter,) = play.book().boxes.letters.values()
    assert (letter.what, letter.side, letter.verdict) == ("do2", boxes.Side.RECEIVER, "not applied")


async def test_a_lost_worker_loses_no_signal_and_blames_the_one_that_ran(play: Scene) -> None:
    """Protocol 3, poison [alone, count_first]: tried alone, which is written down before."""
    await play.start()
    first, second = play.send(1), play.send(2, prev=1)
    await play.turn()
    play.lose_worker()
    alone = await play.turn()
    assert named(alone) == "do1"
    assert play.book().boxes.tries == {"5/1": 1}
    assert play.pool.trials == 1
    await play.end(alone)
    assert await answer_of(first) == APPLIED
    await play.end()
    assert await answer_of(second) == APPLIED
    assert not play.book().boxes.tries


async def test_a_signal_that_had_not_begun_when_its_worker_ended_is_no_suspect(play: Scene) -> None:
    """Protocol 3, poison [note_first]: it was on its way to a worker that something else ended, and keeps its place."""
    await play.start()
    first, second = play.send(1), play.send(2, prev=1)
    await play.turn()
    play.lose_worker(begun=())
    for answer, name in ((first, "do1"), (second, "do2")):
        again = await play.end()
        assert named(again) == name
        assert await answer_of(answer) == APPLIED
    assert play.pool.trials == 0
    assert not play.book().boxes.tries


async def test_what_had_begun_is_a_suspect_and_a_query_beside_it_that_had_not_is_none(play: Scene) -> None:
    """Protocol 3, poison [alone, note_first]: each by the number of its own turn."""
    await play.start()
    call, query = play.call(), play.call(key=2, kind=CALL_KIND_QUERY)
    ran, asked = await play.turn(), await play.turn()
    assert (ran.kind, asked.kind) == ("action", "query")
    play.lose_worker(begun=(ran.turn,))
    await play.end()
    assert (await answer_of(call)).value == pack(None)
    assert play.pool.trials == 1
    await play.end(state=None)
    assert (await answer_of(query)).value == pack(None)
    assert play.pool.trials == 1


async def test_a_trial_that_was_ended_for_no_fault_of_its_suspect_is_made_again(play: Scene) -> None:
    """PID 1 ends a worker when the lease passes, or the modules are imported anew: it blames nobody, and is no try."""
    await play.start()
    call = play.call()
    await play.turn()
    play.lose_worker()
    await play.turn()
    play.lose_worker(no_fault=True)
    await play.end()
    assert (await answer_of(call)).value == pack(None)
    signal = play.send(1)
    await play.turn()
    play.lose_worker()
    for _ in range(4):  # more than the tries that it has
        await play.turn()
        assert play.book().boxes.tries == {"5/1": 1}
        play.lose_worker(no_fault=True)
    await play.end()
    assert await answer_of(signal) == APPLIED
    assert not play.book().boxes.letters


async def test_a_suspect_of_the_last_holder_is_tried_alone(play: Scene) -> None:
    """Protocol 3, poison [count]: the attempt is in the record, and not in a host that may be gone with it."""
    await play.start()
    play.send(1)
    await play.turn()
    play.lose_worker()
    await play.turn()
    await play.take_over(2)
    trials = play.pool.trials
    answer = play.send(1)
    await play.end()
    assert await answer_of(answer) == APPLIED
    assert play.pool.trials == trials + 1


async def test_a_paused_agent_keeps_its_order(play: Scene) -> None:
    """Protocol 3, pause [pause_mark, pause_refuse]: the held signal is acked, later ones and calls and timers wait."""
    await play.start(more=PAUSE)
    answer = play.send(1)
    play.played.done(await play.turn(), fault=FAIL)
    assert await answer_of(answer) == APPLIED
    held = play.book().boxes.held
    assert (held.what, held.sender, held.n) == ("do1", "5", 1)
    assert (await answer_of(play.send(2))).code == "Paused"
    assert (await answer_of(play.call())).error.code == "Paused"
    assert await answer_of(play.send(1)) == APPLIED, "resent: settled, and not run"
    await play.take_over(2, more=PAUSE)
    assert (await answer_of(play.send(2))).code == "Paused"
    assert not (await answer_of(play.control("resume"))).HasField("error")
    turn = await play.end()
    assert (named(turn), turn.key) == ("do1", "7/5/1")
    await play.until(lambda: play.holder.phase == "Running")  # it knows; the servers know earlier
    later = play.send(2)
    await play.end()
    assert await answer_of(later) == APPLIED


async def test_urgent_signals_overtake_those_of_others_in_a_backlog(play: Scene) -> None:
    """Between senders; what one sender sends keeps its order whatever its priorities are [prev]. What has begun is not
    overtaken; calls count as 0.
    """
    await play.start()
    many = [play.send(n, prev=n - 1) for n in range(1, AHEAD + 3)]
    begun = [await play.turn() for _ in range(AHEAD)]
    assert [named(turn) for turn in begun] == [f"do{n}" for n in range(1, AHEAD + 1)]
    call = play.call()
    play.send(500, sender="6", priority=5)
    play.send(501, prev=500, sender="6", priority=7)
    last = play.send(AHEAD + 3, prev=AHEAD + 2, priority=9)
    play.send(600, sender="8", priority=-1)
    play.send(700, sender="9")
    for turn in begun:
        await play.end(turn)
    order: list[str] = []
    while len(order) < 8:
        turn = await play.end()
        order.append("call" if turn.kind == "action" else named(turn))
    own = [f"do{AHEAD + more}" for more in (1, 2, 3)]
    assert order == ["do500", "do501", *own, "call", "do700", "do600"]
    assert [await answer_of(one) for one in (*many, last)] == [APPLIED] * (AHEAD + 3)
    assert (await answer_of(call)).value == pack(None)


async def test_what_ran_ahead_of_a_pause_waits_too(play: Scene) -> None:
    """Protocol 3, pause [pause_refuse]: the agent keeps its order."""
    await play.start(more=PAUSE)
    first, second = play.send(1), play.send(2, prev=1)
    turns = [await play.turn(), await play.turn()]
    play.played.done(turns[0], fault=FAIL)
    assert await answer_of(first) == APPLIED
    assert (await answer_of(second)).code == "Paused"
    assert play.book().boxes.marks["5"].last == 1
    assert play.no_turn()


async def test_a_pause_holds_back_what_was_accepted_for_later(play: Scene) -> None:
    """Protocol 3, pause [pause_refuse], and protocol 9 [inbox]: neither run before its time nor lost."""
    await play.start(more=PAUSE)
    play.call()
    turn = await play.accepted()
    await answer_of(play.send(1))
    await answer_of(play.send(2, prev=1))
    await play.end(turn)
    play.played.done(await play.turn(), fault=FAIL)
    await play.until(lambda: play.holder.phase == "Paused")
    while not play.no_turn():
        await play.turn()  # had run ahead, and is cut off
    assert not (await answer_of(play.control("skip"))).HasField("error")
    assert named(await play.end()) == "do2"
    await play.until(lambda: not play.book().journal.inbox)


async def test_a_held_signal_that_ends_workers_pauses_again(play: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protocol 3, poison [count] and pause: it does not end workers for ever."""
    await at_once(monkeypatch)
    await play.start(more=PAUSE)
    play.send(1)
    play.played.done(await play.turn(), fault=FAIL)
    await play.until(
        lambda: play.holder.phase == "Paused"
    )  # a server has it before its holder knows that a majority has
    for _ in range(4):
        await play.until(lambda: play.holder._unavailable() is None)
        await answer_of(play.control("resume"))
        await play.turn()
        play.lose_worker()
        await play.until(lambda: not play.played.worker.lost)
    await answer_of(play.control("resume"))
    await play.until(lambda: play.book().boxes.held.code == "WorkerCrashed")
    assert not play.book().boxes.tries


async def test_what_is_asked_for_with_a_reply_is_answered_in_its_commit(play: Scene) -> None:
    """A call of another agent's turn: mark and answer are one write [mark_in_commit, box_in_commit]."""
    await play.start(more=ONCE)
    play.send(1, work=tenure_link.Work(name="do1", reply="5/k/0"))
    await play.end(reply=pack(3))
    play.send(2, work=tenure_link.Work(name="do2", reply="5/k/1"))
    play.played.done(await play.turn(), fault=FAIL)
    await play.until(lambda: len(play.book().boxes.out) == 2)
    answers = [msgspec.msgpack.decode(one.body, type=tenure_link.Work) for one in play.book().boxes.out.values()]
    assert [one.answer for one in answers] == ["5/k/0", "5/k/1"]
    outcomes = [msgspec.msgpack.decode(one.arguments) for one in answers]
    assert outcomes[0] == {"reply": pack(3)}
    assert outcomes[1]["fault"][0] == "ActionFailed"
    assert not play.book().boxes.letters, "who asked is told"


async def test_an_answer_that_finds_no_room_does_not_stop_the_host(
    play: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protocol 3, bounds [limit]: tried again later; never an endless loop, never an ack without the answer."""
    monkeypatch.setattr("tenured.host.retrying.NO_ROOM_S", 0.01)
    play.mirror.know("shop/b", "8")
    await play.start(more=ONCE)
    await_sent = play.call()
    await play.end(sends=sends("shop/b"))
    await answer_of(await_sent)
    monkeypatch.setattr(boxdraft, "MAX_OUT", 1)
    answer = play.send(1, work=tenure_link.Work(name="do1", reply="5/k/0"))
    await play.end()
    turn = await play.turn()
    assert not answer.done()
    monkeypatch.setattr(boxdraft, "MAX_OUT", 10)
    await play.end(turn)
    assert await answer_of(answer) == APPLIED


async def test_a_volatile_agent_takes_a_stream_up_where_it_stands(play: Scene) -> None:
    """Protocol 3, volatile agents [vol_gap, vol_ack]: and never says `applied` of what it did not apply itself."""
    await play.start(more=AgentSpec(durability="Volatile"))
    answer = play.send(5, prev=4)
    await play.end()
    assert await answer_of(answer) == APPLIED
    assert await answer_of(play.send(4, prev=3)) == Settled(Verdict.UNKNOWN)
    assert await answer_of(play.send(5, prev=4)) == APPLIED


async def test_starts_of_a_volatile_sender_are_told_apart(play: Scene) -> None:
    """Protocol 3, volatile agents [vol_epoch, vol_highest]: number 1 of a new start is not that of the old one, also
    while that runs; and a mark never goes back.
    """
    await play.start()
    old = play.send(1, epoch=3)
    new = play.send(1, epoch=4)
    await play.end()
    await play.end()
    assert [await answer_of(one) for one in (old, new)] == [APPLIED, APPLIED]
    mark = play.book().boxes.marks["5"]
    assert (mark.epoch, mark.last) == (4, 1)
    assert await answer_of(play.send(9, epoch=3)) == Settled(Verdict.UNKNOWN)


async def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of an activation end at once."""

    async def back_off(holder: Any, reason: str, message: str) -> None:
        holder._mailbox.refuse("NotReady", message)

    monkeypatch.setattr("tenured.host.holder.Holder._back_off", back_off)
