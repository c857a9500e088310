"""Signals that an agent sends (protocol 3, sender): outbox, settlements, receivers, voids, dead letters."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from played import answer_of
from playing import Scene, sends

import tenure_link
from tenure_proto.v1.registry_pb2 import AgentSpec, Delivery
from tenured.core.signals import Settled, Verdict
from tenured.host.stores import RecordTooLarge

pack = msgspec.msgpack.encode


async def sent(play: Scene, to: str = "shop/b", key: int = 1, **more: Any) -> None:
    job = play.call(key)
    await play.end(sends=sends(to, **more))
    assert not (await answer_of(job)).HasField("error")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks come at once."""
    monkeypatch.setattr("tenured.host.outgoing.SETTLE_S", 0.001)
    monkeypatch.setattr("tenured.host.outgoing.LOOK_S", 0.01)


async def test_nothing_leaves_before_its_commit(play: Scene) -> None:
    """Protocol 3, sender [commit_first, box_in_commit]."""
    play.mirror.know("shop/b", "8")
    await play.start()
    play.servers.writes_answer.clear()
    play.call()
    await play.end(sends=sends("shop/b"))
    await play.quiet()
    assert not play.courier.log
    play.servers.writes_answer.set()
    await play.until(lambda: play.courier.log)
    assert play.book().boxes.out[1].receiver == "8"


async def test_the_next_holder_resends_the_whole_box_in_order(play: Scene) -> None:
    """Protocol 3, sender [keep_box, numbers_in_state]."""
    play.mirror.know("shop/b", "8")
    await play.start()
    for key in (1, 2):
        await sent(play, key=key)
    await play.take_over(2)
    await play.until(lambda: len(play.courier.log) == 4)
    assert [n for n, _, _ in play.courier.log] == [1, 2, 1, 2]
    await sent(play, key=3)
    assert list(play.book().boxes.out) == [1, 2, 3]


async def test_priorities_leave_with_their_signals(play: Scene) -> None:
    """And are in the record: a next holder resends as urgently."""
    play.mirror.know("shop/b", "9")
    await play.start()
    await sent(play, priority=5)
    await play.until(lambda: play.courier.carried)
    assert play.courier.carried[1].priority == 5
    await play.take_over(2)
    await play.until(lambda: play.courier.carried)
    assert play.courier.carried[1].priority == 5


async def test_a_settlement_is_committed_once(play: Scene) -> None:
    """Protocol 3: each settlement is part of a commit; the next holder does not resend it."""
    play.mirror.know("shop/b", "8")
    await play.start()
    await sent(play)
    play.courier.answer(1)
    await play.until(lambda: not play.book().boxes.out)
    await play.take_over(2)
    assert len(play.courier.log) == 1


async def test_a_settlement_beside_a_turn_loses_neither(play: Scene) -> None:
    """One write at a time: numbers, boxes and state of the second are made of what the first has left."""
    await play.start()
    await sent(play)  # to nobody that is known yet
    play.servers.writes_answer.clear()
    play.mirror.know("shop/b", "8")
    frames = len(play.servers.frames)
    await play.until(lambda: len(play.servers.frames) > frames)  # the receiver is found: a write of its own
    job = play.call(2)
    await play.end(sends=sends("shop/b", "later"))
    await play.quiet()
    play.servers.writes_answer.set()
    await answer_of(job)
    out = play.book().boxes.out
    assert list(out) == [2, 3], "a receiver that is found late gets a new number, and no number is given twice"
    assert [(n, receiver) for n, receiver, _ in play.courier.log] == [(2, "8"), (3, "8")]


async def test_none_overtakes_one_whose_receiver_is_not_known_yet(play: Scene) -> None:
    """Order per sender, whatever way leads to the receiver."""
    await play.start()
    job, other = play.call(1), play.call(2)
    await play.end(sends=sends("shop/b", "first"))
    await play.until(lambda: play.book().boxes.out)
    play.mirror.know("shop/b", "8")
    await play.end(sends=sends("all:", "second"))
    await answer_of(job)
    await answer_of(other)
    await play.until(lambda: len(play.courier.log) == 2)
    names = [
        msgspec.msgpack.decode(play.book().boxes.out[n].body, type=tenure_link.Work).name
        for n, _, _ in play.courier.log
    ]
    assert names == ["first", "second"]


async def test_an_agent_that_nobody_has_heard_of_is_a_dead_letter(play: Scene) -> None:
    """`not applied`, which is true: it was sent nowhere. Not while this host has not read the registry."""
    await play.start()
    await sent(play, "shop/typo")
    play.mirror.synced = False
    play.lease.cluster_time = 110.0
    await sent(play, key=2, to="shop/typo")
    assert not play.book().boxes.letters
    play.mirror.synced = True
    play.lease.cluster_time = 120.0
    letters = await play.until(lambda: play.book().boxes.letters)
    assert {(one.code, one.verdict) for one in letters.values()} == {("NotFound", "not applied")}
    await play.until(lambda: not play.book().boxes.out)


async def test_what_is_given_up_is_a_void_under_its_number_until_the_truth_is_known(play: Scene) -> None:
    """Protocol 3, dead letters (b) [void]: pending, then what the void's ack says."""
    play.mirror.know("shop/b", "8")
    await play.start(more=AgentSpec(delivery=Delivery(ttl_s=10.0)))
    await sent(play)
    await sent(play, key=2)
    play.lease.cluster_time = 111.0
    await play.until(lambda: [void for _, _, void in play.courier.log].count(True) == 2)
    assert {one.verdict for one in play.book().boxes.letters.values()} == {"pending"}
    play.courier.answer(1, Verdict.APPLIED)
    play.courier.answer(2, Verdict.NOT_APPLIED)
    await play.until(lambda: not play.book().boxes.out)
    assert [one.verdict for one in play.book().boxes.letters.values()] == ["not applied"]
    await play.until(lambda: ("dead_letters", 1) in play.reports.said)


async def test_settlements_survive_a_write_that_is_refused(play: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """RecordTooLarge: nothing was sent, so nothing of it is settled; and the outbox is never stuck."""
    play.mirror.know("shop/b", "8")
    await play.start()
    await sent(play)
    record = play.holder._parts.ledger._record
    write, full = record.write, [True]

    def refuse(_: Any, now: int, puts: Any, deletes: Any = ()) -> Any:
        if full[0]:
            raise RecordTooLarge("the limit is 1")
        return write(now, puts, deletes)

    monkeypatch.setattr(type(record), "write", refuse)
    play.courier.answer(1)
    job = play.call(2)
    await play.end(sends=sends("shop/b"))
    assert (await answer_of(job)).error.code == "StateInvalid"
    full[0] = False
    await play.until(lambda: not play.book().boxes.out)
    await sent(play, key=3)
    assert [n for n, _, _ in play.courier.log] == [1, 2]


async def test_a_request_that_nobody_waits_for_any_more_is_given_up(play: Scene) -> None:
    """Bounded: the turn's own deadline ends its wait, and the ttl what it has asked for."""
    play.mirror.know("shop/b", "8")
    await play.start(more=AgentSpec(delivery=Delivery(ttl_s=10.0)))
    play.call()
    turn = await play.accepted()
    wait = tenure_link.Wait(position=0, name="call", until=105.0, key="k/0", sends=sends("shop/b"))
    play.played.done(turn, waits=wait)
    await play.until(lambda: play.courier.log)
    play.lease.cluster_now = play.lease.cluster_time = 106.0
    play.holder._parts.runner.owing.look()
    await play.end()
    play.lease.cluster_now = play.lease.cluster_time = 120.0
    await play.until(lambda: (1, "8", True) in play.courier.log)


async def test_a_reply_is_kept_until_it_is_taken(play: Scene) -> None:
    """Protocol 9, rule 11 [reply_settled]: whoever waits for it may be away for longer than a signal lives."""
    play.mirror.know("shop/s5", "5")
    await play.start(more=AgentSpec(delivery=Delivery(ttl_s=10.0)))
    play.send(1, work=tenure_link.Work(name="double", reply="k/0"))
    await play.end(reply=pack(8))
    await play.until(lambda: play.courier.log)
    await sent(play, to="shop/s5")
    play.lease.cluster_time = play.lease.cluster_now = 120.0
    await play.until(lambda: (2, "5", True) in play.courier.log)
    assert (1, "5", True) not in play.courier.log
    play.courier.answer(1, Verdict.APPLIED)
    await play.until(lambda: 1 not in play.book().boxes.out)


async def test_a_request_that_is_not_delivered_is_told_to_the_turn_that_waits(play: Scene) -> None:
    """Protocol 9, rule 5 [wake_in_commit]: with the settlement, in one commit; no dead letter beside it."""
    play.mirror.know("shop/b", "8")
    await play.start()
    play.call()
    turn = await play.accepted()
    wait = tenure_link.Wait(position=0, name="call", key="k/0", sends=sends("shop/b"))
    play.played.done(turn, waits=wait)
    await play.until(lambda: play.courier.log)
    play.courier.answer(1, Verdict.UNKNOWN)
    again = await play.turn()
    assert msgspec.msgpack.decode(again.journal[0].result)["fault"][0] == "Unknown"
    assert not play.book().boxes.letters
    await play.end(again)


async def test_a_reply_ends_the_wait_with_its_mark(play: Scene) -> None:
    """Protocol 9, rule 5 [wake_in_commit]: the reply's mark and the journal entry are one commit; a second is none."""
    play.mirror.know("shop/b", "8")
    await play.start()
    play.call()
    turn = await play.accepted()
    play.played.done(turn, waits=tenure_link.Wait(position=0, name="call", key="k/0", sends=sends("shop/b")))
    await play.until(lambda: play.courier.log)
    answer = tenure_link.Work(answer="k/0", arguments=pack({"reply": pack(4)}))
    assert await answer_of(play.send(1, sender="8", work=answer)) == Settled(Verdict.APPLIED)
    again = await play.turn()
    assert msgspec.msgpack.decode(again.journal[0].result) == {"reply": pack(4)}
    assert play.book().boxes.marks["8"].last == 1
    assert await answer_of(play.send(2, sender="8", work=answer)) == Settled(Verdict.APPLIED)
    assert len(play.book().journal.steps) == 1
    await play.end(again)
