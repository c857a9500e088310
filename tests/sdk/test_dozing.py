"""Agents that doze in a worker: of which only the committed bytes are kept, until something is asked."""

from __future__ import annotations

import asyncio
import gc

import msgspec
import pydantic
import pytest

import tenure
from tenure.worker import lines
from tenure.worker.begun import Notes
from tenure.worker.dozing import DOZE_BYTES, Dozing
from tenure.worker.line import Line
from tenure.worker.lines import Lines
from tenure.worker.resident import Resident
from tenure_link import Activate, Turn, TurnDone

pack = msgspec.msgpack.encode


class BookState(tenure.State):
    pages: int = 0
    words: list[str] = pydantic.Field(default_factory=list)


class Book(tenure.Agent[BookState]):
    """Is read and written."""

    @tenure.action
    def write(self, ctx: tenure.Context, word: str) -> bool:
        self.state.words.append(word)
        ctx.after(60.0, Book.write(word="late"), name="late")
        return ctx.recovered

    @tenure.action
    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @tenure.action
    def fail(self) -> None:
        raise ValueError("broken")

    @tenure.query
    def words(self) -> list[str]:
        return self.state.words


class SecretState(tenure.State):
    pages: int = 0
    _read: int = pydantic.PrivateAttr(default=0)


class Secret(tenure.Agent[SecretState]):
    """Remembers what no commit has."""

    @tenure.action
    def read(self) -> int:
        self.state._read += 1
        return self.state._read


class Scene:
    """A worker's agents, without its connection."""

    def __init__(self, cls: type[tenure.Agent[tenure.State]]) -> None:
        self.sent: list[TurnDone] = []
        self.beginning: set[str] = set()
        self.notes = Notes([0] * 100)
        self.number = 0
        self.lines = Lines(
            lambda one: self.line(Resident.woken(one, lambda _: None)), lambda uid: uid not in self.beginning
        )
        order = Activate("7", 3, "shop/book", cls.__name__, config=pack({"shelf": 2}), now=5.0, wall=6.0)
        self.lines.put("7", self.line(Resident(cls, order, lambda _: None)))

    def line(self, resident: Resident) -> Line:
        return Line(resident, self.sent.append, self.notes)

    def begin(self, method: str, kind: str = "action", **arguments: object) -> Turn:
        self.number += 1
        turn = Turn(self.number, "7", kind, method, pack(arguments), deadline_ns=2**62)  # type: ignore[arg-type]
        self.awake.take(turn)
        return turn

    async def run(self, method: str, kind: str = "action", **arguments: object) -> TurnDone:
        turn = self.begin(method, kind, **arguments)
        while not self.sent or self.sent[-1].turn != turn.turn:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        if kind == "action" and self.sent[-1].fault is None:
            self.awake.resident.commit(turn.turn)
        return self.sent[-1]

    @property
    def awake(self) -> Line:
        line = self.lines.awake("7")
        assert line is not None
        return line

    @property
    def dozes(self) -> bool:
        return isinstance(self.lines.get("7"), Dozing)

    async def until_it_dozes(self) -> None:
        async with asyncio.timeout(5):
            while not self.dozes:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "DOZE_S", 0.01)


async def test_it_goes_on_as_it_was() -> None:
    """State, plans, configuration, epoch, and what its error policy counts; nobody is told its plans again."""
    scene = Scene(Book)
    assert msgspec.msgpack.decode((await scene.run("write", word="a")).reply or b"") is False
    assert (await scene.run("fail")).fault is not None
    due = scene.awake.resident.due
    await scene.until_it_dozes()
    line = scene.lines.get("7")
    assert line is not None
    assert line.epoch == 3
    done = await scene.run("write", word="b")
    assert msgspec.msgpack.decode(done.reply or b"") is False, "it has not been recovered"
    assert msgspec.msgpack.decode(done.state or b"")["words"] == ["a", "b"]
    resident = scene.awake.resident
    assert (resident.due[0].name, len(due)) == ("late", 1)
    assert (resident.activation.config, resident._errors) == ({"shelf": 2}, 1)
    await scene.until_it_dozes()
    assert (await scene.run("words", "query")).reply == pack(["a", "b"])


async def test_it_does_not_doze_while_something_is_under_way() -> None:
    """A turn that runs or is not committed; an activation that begins."""
    scene = Scene(Book)
    turn = scene.begin("wait", seconds=0.1)
    await asyncio.sleep(0.05)
    assert not scene.dozes
    while not scene.sent:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    assert not scene.dozes, "its commit is still to come"
    scene.beginning.add("7")
    scene.awake.resident.commit(turn.turn)
    await asyncio.sleep(0.05)
    assert not scene.dozes
    scene.beginning.clear()
    await scene.until_it_dozes()


@pytest.mark.parametrize("why", ["private attributes", "too large"])
async def test_what_is_not_all_in_a_few_bytes_stays(why: str) -> None:
    """And is not looked at again, until it has been used."""
    scene = Scene(Secret if why == "private attributes" else Book)
    if why == "too large":
        await scene.run("write", word="x" * DOZE_BYTES)
    else:
        await scene.run("read")
    await asyncio.sleep(0.1)
    assert not scene.dozes
    assert not scene.lines._looking
    if why == "private attributes":
        assert (await scene.run("read")).reply == pack(2)


async def test_one_that_cannot_be_read_again_dozes_on() -> None:
    """Who asks is told why."""
    scene = Scene(Book)
    await scene.until_it_dozes()
    kept = scene.lines.get("7")
    assert isinstance(kept, Dozing)
    scene.lines._all["7"] = msgspec.structs.replace(kept, record=pack({"pages": "none"}))
    with pytest.raises(tenure.errors.StateInvalid):
        scene.lines.awake("7")
    assert scene.dozes


async def test_all_plans_are_told_again_after_a_dropped_turn() -> None:
    """By the turn that wakes it, as of one that is awake."""
    scene = Scene(Book)
    assert (await scene.run("write", word="a")).due
    assert (await scene.run("wait", seconds=0.0)).due is None
    await scene.until_it_dozes()
    scene.lines.forget_told("7")
    assert scene.dozes
    assert [one.name for one in (await scene.run("wait", seconds=0.0)).due or ()] == ["late"]
    assert (await scene.run("wait", seconds=0.0)).due is None


async def test_nothing_of_it_waits_for_the_collector_of_cycles() -> None:
    """What is left of it when it dozes, or leaves, is freed at once."""
    others = residents()  # of tests before this one
    scene = Scene(Book)
    await scene.run("write", word="a")
    gc.collect()
    gc.disable()
    try:
        await scene.until_it_dozes()
        scene.awake.close()
        scene.lines.take("7")
        assert all(any(one is other for other in others) for one in residents())
    finally:
        gc.enable()


def residents() -> list[Resident]:
    return [one for one in gc.get_objects() if isinstance(one, Resident)]
