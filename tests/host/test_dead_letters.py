"""Dead letters and what people do with them: they tell the truth, and what is sent again is a signal of its own."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from played import answer_of
from playing import FAIL, Scene, named

import tenure_link
from tenure_proto.v1.registry_pb2 import AgentSpec, Delivery
from tenured.core import boxdraft

pack = msgspec.msgpack.encode
ONCE = AgentSpec(delivery=Delivery(max_attempts=1))
PAUSE = AgentSpec(on_exhausted="Pause", delivery=Delivery(max_attempts=1))


async def failed(play: Scene, n: int = 1) -> str:
    """A signal that has failed for the last time; its id."""
    answer = play.send(n)
    play.played.done(await play.turn(), fault=FAIL)
    await answer_of(answer)
    return next(key for key, one in play.book().boxes.letters.items() if one.what == f"do{n}")


async def letters(play: Scene) -> list[tuple[str, Any]]:
    """Once its host knows that they are committed: the first server that has them is not enough."""
    await play.until(lambda: ("dead_letters", 1) in play.reports.said)
    return list(play.book().boxes.letters.items())


async def asked(play: Scene, method: str, **arguments: Any) -> Any:
    reply = await answer_of(play.control(method, **arguments))
    return reply.error if reply.HasField("error") else msgspec.msgpack.decode(reply.value)


async def test_mark_and_letter_are_one_commit(play: Scene) -> None:
    """Protocol 3, dead letters (a): acked `applied`, since the receiver answers for it now."""
    await play.start(more=ONCE)
    before = len(play.servers.frames)
    await failed(play)
    assert len(play.servers.frames) - before == 3
    assert play.book().boxes.marks["5"].last == 1
    assert ("dead_letters", 1) in play.reports.said


async def test_a_letter_sent_again_is_a_new_signal_to_the_agent_itself(play: Scene) -> None:
    """Under a number of its own, in the commit that drops the letter [box_in_commit]."""
    play.mirror.know("shop/a", "7")
    await play.start(more=ONCE)
    name = await failed(play)
    assert (await asked(play, "dlq.redrive", id=name))["redriven"]
    assert not play.book().boxes.letters
    (entry,) = play.book().boxes.out.values()
    assert (entry.to, msgspec.msgpack.decode(entry.body, type=tenure_link.Work).name) == ("shop/a", "do1")
    assert (await asked(play, "dlq.redrive", id=name)).code == "NotFound"


async def test_what_may_have_been_applied_is_sent_again_only_when_confirmed(play: Scene) -> None:
    """Protocol 3, sender: replay of `unknown` asks for confirmation."""
    await play.start(more=ONCE)
    play.send(1)
    turn = await play.accepted()
    await play.stepped(turn, 0, "pay", 1)
    play.played.done(turn, fault=FAIL)
    ((name, letter),) = await letters(play)
    assert letter.verdict == "unknown", "a step of it was finished"
    assert (await asked(play, "dlq.redrive", id=name)).code == "Conflict"
    assert (await asked(play, "dlq.redrive", id=name, confirm=True))["redriven"]


async def test_a_letter_without_content_is_not_sent_again(play: Scene) -> None:
    """Of a timer nothing is kept: an empty signal would fail for ever."""
    await play.start(more=ONCE)
    job = play.call()
    await play.end(due=(tenure_link.Due("tick", 99.0),))
    await answer_of(job)
    play.played.done(await play.turn(), fault=FAIL, state=b"\x80", due=())
    ((name, _),) = await letters(play)
    assert (await asked(play, "dlq.redrive", id=name)).code == "Conflict"
    assert (await asked(play, "dlq.drop", id=name))["dropped"] == 1


async def test_letters_survive_their_host(play: Scene) -> None:
    """They are part of the record."""
    await play.start(more=ONCE)
    name = await failed(play)
    await play.take_over(2)
    assert [one["id"] for one in await asked(play, "dlq.list")] == [name]


async def test_skip_and_redrive_end_a_pause(play: Scene) -> None:
    """The held signal becomes a dead letter, or a new signal; the order goes on."""
    play.mirror.know("shop/a", "7")
    await play.start(more=PAUSE)
    for n, method in ((1, "skip"), (2, "redrive")):
        answer = play.send(n)
        play.played.done(await play.turn(), fault=FAIL)
        await answer_of(answer)
        assert (await asked(play, method))["phase"] == "Running"
        assert play.book().boxes.held is None
    assert [one.what for one in play.book().boxes.letters.values()] == ["do1"]
    assert [one.type for one in play.book().boxes.out.values()] == ["do2"]
    play.send(3)
    assert named(await play.end()) == "do3"


async def test_a_letter_that_finds_no_room_is_tried_again(play: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither lost nor acked without it; and the host goes on."""
    monkeypatch.setattr("tenured.host.retrying.NO_ROOM_S", 0.01)
    await play.start(more=ONCE)
    real = play.holder._parts.ledger.check_room
    full = [True]

    def check(_: Any, draft: Any, more: int) -> None:
        if full[0]:
            raise boxes_error()
        real(draft, more)

    monkeypatch.setattr(type(play.holder._parts.ledger), "check_room", check)
    answer = play.send(1)
    play.played.done(await play.turn(), fault=FAIL)
    again = await play.turn()
    assert not answer.done()
    full[0] = False
    play.played.done(again, fault=FAIL)
    await answer_of(answer)
    assert len(play.book().boxes.letters) == 1


def boxes_error() -> Exception:
    return boxdraft.OutboxFull("full")
