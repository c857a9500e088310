"""How owed turns end (protocol 9): in one commit, as a pause of their agent, by resume, skip or redrive."""

from __future__ import annotations

import pytest
from owed import APPLIED, PAUSE, owed_call, pack, signal_work
from played import answer_of
from playing import FAIL, Scene, named, sends

import tenure_link
from tenure_proto.v1.common_pb2 import OUTCOME_UNKNOWN


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
