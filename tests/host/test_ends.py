"""Agents that end themselves (protocol 3, ends; ADR 0030): the host's part, and hosts that die on the way."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from played import answer_of
from playing import FAIL, STATE, Scene, named, playing, sends

import tenure_link
from tenure_proto.v1.calls_pb2 import CALL_KIND_QUERY, Call
from tenure_proto.v1.common_pb2 import OUTCOME_NOT_APPLIED
from tenure_proto.v1.registry_pb2 import AgentRow, AgentSpec, WatchBatch
from tenured.clocks import boot_ns
from tenured.core import turns
from tenured.core.signals import Again, Settled, Verdict
from tenured.host import holder, outgoing
from tenured.host.activations import Activations
from tenured.host.mirror import Mirror

pack = msgspec.msgpack.encode
APPLIED, NOT_APPLIED = Settled(Verdict.APPLIED), Settled(Verdict.NOT_APPLIED)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settlements wait for nothing, and nobody for callers that ask again."""
    monkeypatch.setattr(outgoing, "SETTLE_S", 0.0)
    monkeypatch.setattr(holder, "LINGER_S", 0.01)
    monkeypatch.setattr(holder, "TELL_S", 0.0)


async def ended(play: Scene, **what: Any) -> Any:
    """A call whose turn ends the agent; its reply."""
    job = play.call()
    await play.end(stop="done", **what)
    return await answer_of(job)


def query(play: Scene) -> Any:
    call = Call(agent="shop/a", kind=CALL_KIND_QUERY, method="m", arguments=b"\x80")
    return play.holder.submit(call, "spiffe://x", boot_ns() + int(5e9))


async def over(play: Scene) -> list[str]:
    """Why it ended, once its holder owes nothing any more."""
    return await play.until(lambda: play.over)


async def test_the_end_is_in_the_commit_of_its_turn(play: Scene) -> None:
    """[end_in_commit]: with the state, what it sends, and the reply; before that commit nothing of it is seen."""
    play.mirror.know("shop/b", "9")
    await play.start()
    job = play.call()
    turn = await play.turn()
    play.servers.writes_answer.clear()
    await play.end(turn, state=pack({"n": 7}), reply=pack(3), stop="tired", sends=sends("shop/b"))
    await play.quiet()
    assert not job.answered
    assert not play.courier.carried
    play.servers.writes_answer.set()
    assert (await answer_of(job)).value == pack(3)
    book = play.book()
    assert (book.ended.reason, book.ended.n, play.entries()["s"]) == ("tired", 1, pack({"n": 7}))
    assert list(book.boxes.out) == [1]


async def test_it_leaves_when_what_it_sent_is_taken(play: Scene) -> None:
    """[box_first]: not before, and its row says why; its worker has forgotten it long since."""
    play.mirror.know("shop/b", "9")
    await play.start()
    await ended(play, sends=sends("shop/b"))
    await play.until(lambda: play.played.heard(tenure_link.Deactivate))
    await play.until(lambda: play.reports.said[-1][0] == "trouble")
    assert not play.over
    assert ("trouble", "Ended", "done (on their way: 1, dead letters: 0)", 0, 0) in play.reports.said
    play.courier.answer(1)
    assert await over(play) == ["done"]


async def test_what_comes_after_the_end_is_refused_for_good(play: Scene) -> None:
    """Calls and queries `NotFound`, signals `not applied`; a duplicate as it was; the ending call its reply."""
    play.mirror.know("shop/b", "9")
    await play.start()
    first = play.send(1)
    await play.end()
    assert await answer_of(first) == APPLIED
    reply = await ended(play, reply=pack(3), sends=sends("shop/b"))
    assert reply.value == pack(3)
    for job in (play.call(2), query(play)):
        error = (await answer_of(job)).error
        assert (error.code, error.outcome, error.retryable) == ("NotFound", OUTCOME_NOT_APPLIED, False)
        assert "shop/a has ended: done" in error.message
    assert await answer_of(play.send(2, prev=1)) == NOT_APPLIED
    assert await answer_of(play.send(1)) == APPLIED
    assert await answer_of(play.send(3, prev=2, void=True)) == NOT_APPLIED
    again = await answer_of(play.call(1))
    assert (again.value, again.recorded) == (pack(3), True)
    assert play.no_turn()


async def test_turns_that_ran_ahead_of_the_end_did_not_happen(play: Scene) -> None:
    """They are refused once the end is committed, and not before [end_committed]."""
    await play.start()
    ends, call, signal = play.call(1), play.call(2), play.send(1)
    first = await play.turn()
    later = [await play.turn(), await play.turn()]
    play.servers.writes_answer.clear()
    await play.end(first, stop="done")
    for turn in later:
        await play.end(turn, state=pack({"n": 99}))
    await play.quiet()
    assert [ends.answered, call.answered, signal.done()] == [False, False, False]
    play.servers.writes_answer.set()
    assert (await answer_of(ends)).value == pack(None)
    assert (await answer_of(call)).error.code == "NotFound"
    assert await answer_of(signal) == NOT_APPLIED
    assert play.entries()["s"] == STATE
    assert await over(play) == ["done"]


async def test_the_next_holder_goes_on_with_the_end(play: Scene) -> None:
    """[end_kept]: its host dies after the commit. No worker sees the agent again, what it sent is sent, callers that
    ask again get the reply.
    """
    play.mirror.know("shop/b", "9")
    await play.start()
    assert (await ended(play, reply=pack(3), sends=sends("shop/b"))).value == pack(3)
    before = len(play.played.heard(tenure_link.Activate))
    await play.take_over(2)
    await play.until(lambda: 1 in play.courier.carried)
    assert (await answer_of(play.call(1))).recorded
    assert (await answer_of(play.call(2))).error.code == "NotFound"
    play.courier.answer(1)
    assert await over(play) == ["done"]
    assert len(play.played.heard(tenure_link.Activate)) == before


async def test_a_host_that_dies_before_the_commit_has_ended_nothing(play: Scene) -> None:
    """[end_in_commit]: the next holder runs the agent."""
    await play.start()
    job = play.call()
    turn = await play.turn()
    play.servers.away = set(play.servers.names)
    await play.end(turn, stop="done")
    await play.quiet()
    await play.holder.stop(finish_turn=False)
    play.servers.away = set()
    assert (await answer_of(job)).error.code == "NotReady"
    await play.start(2, ready_epoch=1)
    again = play.call()
    await play.end(reply=pack(5))
    assert (await answer_of(again)).value == pack(5)
    assert not play.over


async def test_an_end_that_is_found_asleep_is_gone_on_with_at_once(play: Scene) -> None:
    """The record says that it must be awake, for a host that only seals it."""
    play.mirror.know("shop/b", "9")
    await play.start()
    await ended(play, sends=sends("shop/b"), due=(tenure_link.Due("later", 500.0),))
    assert play.book().wake == turns.Wake(cluster=0.0)


async def test_plans_end_with_the_agent(play: Scene) -> None:
    """A timer that is due fires no more, at no holder."""
    play.mirror.know("shop/b", "9")
    await play.start()
    await ended(play, sends=sends("shop/b"), due=(tenure_link.Due("now", 1.0),))
    await play.quiet()
    assert play.no_turn()
    await play.take_over(2)
    await play.until(lambda: play.courier.carried)
    assert play.no_turn()


async def test_what_was_accepted_before_is_run_first(play: Scene) -> None:
    """[accepted_first]: signals that were acknowledged during a turn with steps, also by the next holder."""
    await play.start()
    job = play.call()
    turn = await play.accepted()
    assert await answer_of(play.send(1)) == APPLIED
    assert await answer_of(play.send(2, prev=1)) == APPLIED
    await play.end(turn, stop="done")
    assert (await answer_of(job)).value == pack(None)
    first = await play.turn()
    assert named(first) == "do1"
    assert await answer_of(play.send(3, prev=2)) == NOT_APPLIED
    await play.end(first)
    assert named(await play.turn()) == "do2", "and its host dies"
    await play.take_over(2)
    second = await play.turn()
    assert named(second) == "do2"
    assert not play.over
    await play.end(second, state=pack({"n": 9}))
    assert await over(play) == ["done"]
    assert play.entries()["s"] == pack({"n": 9})


async def test_what_it_asked_of_itself_is_run_and_nothing_after_it(play: Scene) -> None:
    """Up to the mark: a chain of such turns would never end."""
    play.mirror.know("shop/a", "7")
    await play.start()
    await ended(play, sends=sends("shop/a", "last"))
    own = await play.until(lambda: play.courier.carried.get(1))
    answer = play.send(1, sender="7", work=msgspec.msgpack.decode(own.body, type=tenure_link.Work))
    turn = await play.turn()
    assert named(turn) == "last"
    await play.end(turn, sends=sends("shop/a", "one more"))
    assert await answer_of(answer) == APPLIED
    assert await answer_of(play.send(2, prev=1, sender="7")) == NOT_APPLIED
    play.courier.answer(1)
    await play.until(lambda: 2 in play.courier.carried)
    play.courier.answer(2, Verdict.NOT_APPLIED)
    await play.until(lambda: play.book().boxes.letters)
    (letter,) = play.book().boxes.letters.values()
    assert (letter.verdict, letter.code) == ("not applied", "NotFound")


async def test_dead_letters_keep_it_until_they_are_dropped(play: Scene) -> None:
    """Nobody could read them once its row is gone."""
    play.mirror.know("shop/b", "9")
    await play.start()
    await ended(play, sends=sends("shop/b"))
    play.courier.answer(1, Verdict.UNKNOWN)
    await play.until(lambda: ("dead_letters", 1) in play.reports.said)
    assert not play.over
    listed = msgspec.msgpack.decode((await answer_of(play.control("dlq.list"))).value)
    assert [one["verdict"] for one in listed] == ["unknown"]
    assert (await answer_of(play.control("dlq.drop", id="*"))).value == pack({"dropped": 1})
    assert await over(play) == ["done"]


async def test_a_policy_that_ends_the_agent_is_not_asked_twice(play: Scene) -> None:
    """A signal whose failure ends the agent is a dead letter at once, and does not pause it."""
    await play.start(more=AgentSpec(on_exhausted="Pause"))
    answer = play.send(1)
    await play.end(fault=FAIL, reply=None, state=None, stop="ActionFailed: no")
    assert await answer_of(answer) == APPLIED
    await play.until(lambda: play.book().ended)
    book = play.book()
    assert (book.ended.reason, len(book.boxes.letters), book.boxes.held) == ("ActionFailed: no", 1, None)


async def test_a_call_whose_failure_ends_the_agent(play: Scene) -> None:
    """The caller hears of the failure; the end is committed."""
    await play.start()
    job = play.call()
    await play.end(fault=FAIL, reply=None, state=None, stop="ActionFailed: no")
    assert (await answer_of(job)).error.code == "ActionFailed"
    assert await over(play) == ["ActionFailed: no"]


async def test_an_agent_may_end_as_it_begins(play: Scene) -> None:
    """`on_start` asks for it: with its first state."""
    play.played.ends = "nothing to do"
    await play.start(heard=False)
    assert await over(play) == ["nothing to do"]
    assert play.book().ended.reason == "nothing to do"


async def test_the_end_of_a_volatile_agent_may_be_lost_with_its_host(play: Scene) -> None:
    """So its senders are told nothing that may turn out wrong [end_committed]: they ask until its row is gone."""
    play.mirror.know("shop/b", "9")
    await play.start(more=AgentSpec(durability="Volatile"))
    await ended(play, sends=sends("shop/b"))
    assert isinstance(await answer_of(play.send(1)), Again)
    play.courier.answer(1)
    assert await over(play) == ["done"]


async def test_an_agent_that_a_stopping_host_lets_go_has_not_left() -> None:
    """Rule R: its row goes by the report of the end alone; the next holder makes it."""
    async with playing() as play:
        play.mirror.know("shop/b", "9")
        await play.start()
        await ended(play, sends=sends("shop/b"))
        await play.holder.stop(finish_turn=True)
        assert not play.over


# --- the host -------------------------------------------------------------------------------------------------------


async def test_the_host_reports_the_end_once_and_holds_it_no_more() -> None:
    """Not again under that epoch, although its copy of the registry still says so."""
    async with playing() as play:
        mirror = Mirror("h.1")
        object.__setattr__(play.site, "mirror", mirror)
        play.reports.ended = lambda uid, epoch, reason: play.reports.said.append(("ended", uid, epoch, reason))
        here = Activations(play.site)
        spec = AgentSpec(id="shop/a", **{"class": "C"})
        row = AgentRow(uid="7", epoch=1, spec=spec, host="h", incarnation="h.1")
        here.rows_changed(mirror.apply(WatchBatch(revision=9, snapshot=True, synced=True, agents=[row])))
        running = asyncio.ensure_future(here.run())
        play.played.ends = "done"
        await play.until(lambda: ("ended", "7", 1, "done") in play.reports.said)
        here.rows_changed(mirror.apply(WatchBatch(revision=10, agents=[row])))
        await play.quiet()
        assert here.holders == {}
        assert [one for one in play.reports.said if one[0] == "ended"] == [("ended", "7", 1, "done")]
        assert len(play.played.heard(tenure_link.Activate)) == 1
        here.abort()
        running.cancel()


def test_who_has_ended_is_nobody() -> None:
    """A row that stands for its object only hears nothing, is called by nobody, and is no receiver."""
    mirror = Mirror("h.1")
    spec = AgentSpec(id="shop/a", **{"class": "C"})
    mirror.apply(WatchBatch(revision=9, snapshot=True, synced=True, agents=[AgentRow(uid="7", spec=spec)]))
    assert mirror.agent("shop/a") is not None
    assert len(mirror.everyone("shop")) == 1
    mirror.apply(WatchBatch(revision=10, agents=[AgentRow(uid="7", spec=spec, ended="done")]))
    assert mirror.agent("shop/a") is None
    assert mirror.everyone("shop") == []
