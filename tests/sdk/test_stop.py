"""Agents that end themselves: in one process, in a worker, and in a simulated cluster whose hosts die."""

from __future__ import annotations

import asyncio

import msgspec
import pydantic
import pytest

import tenure
from tenure import errors
from tenure.policies import MaxErrors
from tenure.testing import Simulation, simulate
from tenure.worker.resident import Resident
from tenure_link import Activate, Turn, TurnDone

pack = msgspec.msgpack.encode


class LampState(tenure.State):
    lit: int = 0
    last_words: str = ""


class Lamp(tenure.Agent[LampState]):
    """Burns out."""

    async def on_stop(self, ctx: tenure.Context, reason: str) -> None:
        self.state.last_words = reason
        ctx.emit("lamp.out", {"reason": reason}, to="shop/log")

    @tenure.action
    def light(self, ctx: tenure.Context, times: int = 1) -> int:
        self.state.lit += times
        if self.state.lit >= 3:
            ctx.after(60.0, Lamp.light(), name="again")
            ctx.send("shop/log", Log.note(text=f"lit {self.state.lit}"))
            ctx.stop("burnt out")
        return self.state.lit

    @tenure.query
    def lit(self) -> int:
        return self.state.lit


class Bulb(Lamp, on_error=MaxErrors(2)):
    """Ends at its second error, and its last words fail."""

    async def on_stop(self, ctx: tenure.Context, reason: str) -> None:
        raise RuntimeError("no words")

    @tenure.action
    def drop(self) -> None:
        raise ValueError("broken")


class Moth(tenure.Agent[LampState]):
    """Ends as it begins."""

    async def on_start(self, ctx: tenure.Context) -> None:
        self.state.lit = 1
        ctx.stop("too bright")


class LogState(tenure.State):
    lines: list[str] = pydantic.Field(default_factory=list)


class Log(tenure.Agent[LogState]):
    """Keeps what it hears."""

    @tenure.on("lamp.out")
    @tenure.action
    def out(self, signal: tenure.Signal) -> None:
        self.state.lines = [*self.state.lines, "out"]

    @tenure.action
    def note(self, text: str) -> None:
        self.state.lines = [*self.state.lines, text]

    @tenure.query
    def lines(self) -> list[str]:
        return self.state.lines


# --- in a worker ----------------------------------------------------------------------------------------------------


def resident(cls: type[tenure.Agent[LampState]], state: object = None) -> Resident:
    order = Activate("7", 1, "shop/lamp", cls.__name__, state=None if state is None else pack(state))
    return Resident(cls, order, lambda _: None)


async def run(made: Resident, method: str, number: int = 1, **arguments: object) -> TurnDone:
    return await made.run(Turn(number, "7", "action", method, pack(arguments), deadline_ns=2**62))


def state_of(done: TurnDone) -> dict[str, object]:
    return msgspec.msgpack.decode(done.state)  # type: ignore[no-any-return]


async def test_a_worker_ends_it_with_its_last_words_in_the_same_turn() -> None:
    """State, effects and reply of the turn, then those of `on_stop`: one commit has all of it."""
    made = resident(Lamp)
    assert (await run(made, "light")).stop is None
    done = await run(made, "light", 2, times=2)
    assert (done.stop, done.reply) == ("burnt out", pack(3))
    assert (state_of(done)["lit"], state_of(done)["last_words"]) == (3, "burnt out")
    assert [(one.to, one.type) for one in done.sends] == [("shop/log", ""), ("shop/log", "lamp.out")]
    assert len({one.id for one in done.sends}) == 2


async def test_a_dropped_turn_has_not_ended_it() -> None:
    """Neither its state nor its last words stay."""
    made = resident(Lamp)
    await run(made, "light", times=5)
    made.drop(1)
    done = await run(made, "light", 2)
    assert (done.stop, done.reply) == (None, pack(1))
    assert not state_of(done)["last_words"]


async def test_a_policy_ends_it_and_last_words_that_fail_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The caller still hears of the failure."""
    made = resident(Bulb)
    assert (await run(made, "drop")).stop is None
    done = await run(made, "drop", 2)
    assert done.fault is not None
    assert done.fault.code == "ActionFailed"
    assert done.stop is not None
    assert "broken" in done.stop
    assert "no words" in caplog.text


async def test_it_may_end_as_it_begins() -> None:
    """The daemon commits the end with the first state."""
    done = await resident(Moth).begin()
    assert (done.stop, state_of(done)["lit"]) == ("too bright", 1)


# --- in one process -------------------------------------------------------------------------------------------------


async def test_in_one_process() -> None:
    """The reply still comes, what it sent arrives, and then it is not there."""
    async with tenure.local() as rt:
        log = await rt.create(Log, "shop/log")
        lamp = await rt.create(Lamp, "shop/lamp")
        assert await lamp.light(times=3) == 3
        await rt.idle()
        with pytest.raises(errors.NotFound):
            await lamp.lit()
        assert sorted(await log.lines()) == ["lit 3", "out"]


# --- on a cluster whose hosts die -----------------------------------------------------------------------------------


@pytest.mark.parametrize("after_ms", [0.5, 5, 10, 60])
def test_on_a_cluster_whose_host_dies(after_ms: float) -> None:
    """At several moments of the end, in two worlds each."""

    async def story(cluster: Simulation) -> None:
        await burns_out(cluster, after_ms / 1000)

    simulate(story, seeds=range(2), timeout=200)


async def burns_out(cluster: Simulation, after_s: float) -> None:
    """Its host dies with the last turn: the end happens once, with all that it sends, or not yet."""
    log = await cluster.create(Log, "shop/log")
    lamp = await cluster.create(Lamp, "shop/lamp")
    assert await lamp.light(times=2) == 2
    last = asyncio.create_task(lamp.light())
    holder = cluster.holder(lamp)
    await cluster.advance(after_s)
    cluster.faults.kill_host(holder)
    (reply,) = await asyncio.gather(last, return_exceptions=True)
    if isinstance(reply, errors.NotFound):
        assert reply.outcome == "unknown", "its row went before the reply could be asked for again"
    else:
        assert reply == 3
    await cluster.advance(90)
    with pytest.raises(errors.NotFound):
        await lamp.lit()
    assert sorted(await log.lines()) == ["lit 3", "out"]
    again = await cluster.create(Lamp, "shop/lamp")
    assert await again.light() == 1, "another agent of that name begins anew"
