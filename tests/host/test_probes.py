"""Turns that wait for each other (protocol 9, rule 12; model P): the host's part."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from played import answer_of
from playing import Scene, named, sends

import tenure_link
from tenure_proto.v1.registry_pb2 import AgentSpec, Delivery
from tenured.core import journals, waits
from tenured.core.signals import Settled, Verdict
from tenured.core.waits import Hop, Probe
from tenured.host import probing

pack = msgspec.msgpack.encode
APPLIED = Settled(Verdict.APPLIED)
CALLS_B = tenure_link.Wait(position=0, name="call shop/b m", key="k/0", sends=sends("shop/b"))


def request(key: str) -> tenure_link.Work:
    return tenure_link.Work(name="add", reply=key)


def probe(*path: tuple[str, str, str], victim: str = "", left: int = 9) -> tenure_link.Work:
    """Of (uid, agent, what it waits for), to this agent."""
    hops = tuple(Hop(*hop, inbox=True) for hop in path)
    return tenure_link.Work(probe=waits.encode(Probe(hops, "shop/a", victim, left if victim else 0)))


def probes(play: Scene) -> list[Probe]:
    """What this agent sends."""
    works = [msgspec.msgpack.decode(one.body, type=tenure_link.Work) for one in play.courier.carried.values()]
    return [waits.decode(work.probe) for work in works if work.probe]


async def waiting(play: Scene, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    """A call's turn waits for the reply of shop/b."""
    monkeypatch.setattr(probing, "PROBE_S", 0.01)
    play.mirror.know("shop/b", "8")
    play.mirror.know("shop/s5", "5")
    await play.start(**more)
    play.call()
    turn = await play.accepted()
    play.played.done(turn, waits=CALLS_B)
    await play.until(lambda: play.courier.log)


async def test_who_waits_and_is_asked_something_sends_a_probe_behind_its_request(
    play: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[probe_each]: and another one when it is asked something more."""
    await waiting(play, monkeypatch)
    assert await answer_of(play.send(1, work=request("x/0"))) == APPLIED
    expected = Probe((Hop("7", "shop/a", "k/0", inbox=True),), "shop/b")
    await play.until(lambda: probes(play) == [expected])
    assert [to for _, to, _ in play.courier.log] == ["8", "8"]
    await answer_of(play.send(2))  # this one waits for nothing
    await answer_of(play.send(1, sender="6", work=request("y/0")))
    await play.until(lambda: len(probes(play)) == 2)
    await asyncio.sleep(5 * probing.PROBE_S)  # that no more come cannot be waited for otherwise
    assert len(probes(play)) == 2


async def test_the_next_holder_asks_again(play: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await waiting(play, monkeypatch)
    await answer_of(play.send(1, work=request("x/0")))
    await play.take_over(2)
    await play.until(lambda: probes(play))


async def test_one_that_waits_for_no_reply_asks_nothing(play: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "PROBE_S", 0.01)
    await play.start()
    play.call()
    turn = await play.accepted()
    play.played.done(turn, waits=tenure_link.Wait(position=0, name="wait", types=("approved",)))
    await play.until(lambda: play.book().journal.owed.waiting)
    await answer_of(play.send(1, work=request("x/0")))
    runner = play.holder._parts.runner
    runner.owing.job.callers.clear()  # the caller has gone
    assert runner.may_rest


async def test_it_does_not_sleep_before_it_has_asked(play: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await waiting(play, monkeypatch)
    monkeypatch.setattr(probing, "PROBE_S", 3600.0)
    runner = play.holder._parts.runner
    runner.owing.job.callers.clear()  # the caller has gone
    assert runner.may_rest
    await answer_of(play.send(1, work=request("x/0")))
    assert not runner.may_rest


async def test_a_request_that_waits_in_a_cycle_is_refused_and_never_run(
    play: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[refuse_in_commit]: it leaves the inbox with the write in which its sender is told so."""
    await waiting(play, monkeypatch)
    await answer_of(play.send(1, work=request("x/0")))
    await answer_of(play.send(1, sender="6"))
    cycle = (("7", "shop/a", "k/0"), ("5", "shop/s5", "x/0"))
    assert await answer_of(play.send(2, work=probe(*cycle, victim="7"))) == APPLIED
    await play.until(lambda: [one.sender for one in play.book().journal.inbox.values()] == ["6"])
    entry = max(play.book().boxes.out.items())[1]
    answer = msgspec.msgpack.decode(entry.body, type=tenure_link.Work)
    assert (entry.receiver, answer.answer) == ("5", "x/0")
    code, message, _ = msgspec.msgpack.decode(answer.arguments)["fault"]
    assert code == "WaitCycle"
    assert message.endswith("shop/s5 -> shop/a -> shop/s5")
    await answer_of(play.send(3, work=tenure_link.Work(answer="k/0", arguments=pack({"reply": pack(1)}))))
    await play.end()
    assert named(await play.end()) == "do1", "the one of s6; that of s5 is gone"


async def test_a_probe_to_an_agent_that_waits_for_nothing_is_settled_without_a_turn(play: Scene) -> None:
    await play.start()
    assert await answer_of(play.send(1, work=probe(("5", "shop/s5", "x/0")))) == APPLIED
    assert play.no_turn()
    assert not play.book().boxes.out


async def test_a_probe_that_cannot_be_delivered_leaves_no_dead_letter(
    play: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could do anything with it; while both still wait, another one follows."""
    await waiting(play, monkeypatch, more=AgentSpec(delivery=Delivery(ttl_s=10.0)))
    await answer_of(play.send(1, work=request("x/0")))
    await play.until(lambda: probes(play))
    play.lease.cluster_time = play.lease.cluster_now = 120.0
    n = play.courier.log[-1][0]
    await play.until(lambda: (n, "8", True) in play.courier.log)
    play.courier.answer(n, Verdict.NOT_APPLIED)
    await play.until(lambda: n not in play.book().boxes.out)
    assert not play.book().boxes.letters


async def test_what_is_awaited_comes_in_though_the_inbox_is_full(play: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes no place there, and only its coming ever makes room."""
    monkeypatch.setattr(journals, "MAX_INBOX", 1)
    await waiting(play, monkeypatch)
    await answer_of(play.send(1, sender="6"))
    assert (await answer_of(play.send(2, prev=1, sender="6"))).code == "Busy"
    answer = tenure_link.Work(answer="k/0", arguments=pack({"reply": pack(1)}))
    assert await answer_of(play.send(1, work=answer)) == APPLIED
    assert (await play.turn()).accepted
