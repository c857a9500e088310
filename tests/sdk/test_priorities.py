"""Urgent signals go before others in a backlog: in one process, and as a worker tells its host."""

from __future__ import annotations

import asyncio

import msgspec
import pydantic
import pytest

import tenure
from tenure import directives
from tenure._local.turnstile import Turnstile
from tenure._scope import Scope
from tenure.directives import Directive, Emit, Send
from tenure.worker.resident import Resident
from tenure_link import Activate, Turn


class DeskState(tenure.State):
    served: list[str] = pydantic.Field(default_factory=list)


class Desk(tenure.Agent[DeskState]):
    """Serves one after the other."""

    @tenure.on("guest.*")
    @tenure.action
    def heard(self, signal: tenure.Signal) -> None:
        self.state.served = [*self.state.served, str(signal.data)]

    @tenure.action
    async def serve(self, who: str) -> None:
        if who == "first":
            await gate.opened.wait()
        self.state.served = [*self.state.served, who]


class OpenDesk(Desk, subscribes=["guest.*"]):
    """Hears everybody."""


class Guest(tenure.Agent[DeskState]):
    """Asks to be served."""

    @tenure.action
    def ask(self, ctx: tenure.Context, what: list[str], priority: int) -> None:
        for one in what:
            ctx.send("desk", Desk.serve(who=one), priority=priority)

    @tenure.action
    def shout(self, ctx: tenure.Context, what: str, priority: int, to: str = "") -> None:
        ctx.emit("guest.shouts", what, to=to, priority=priority)


class Gate:
    """The desk serves its first guest until it is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()


gate = Gate()


@pytest.mark.parametrize("to", ["desk", ""], ids=["to the agent", "to who subscribes"])
async def test_urgent_signals_overtake_those_of_others_in_a_backlog(to: str) -> None:
    """As on a cluster (tests/host/test_signals_in.py): between senders; what one sender sends keeps its order."""
    gate.opened = asyncio.Event()
    async with tenure.local() as rt:
        desk = await rt.create(Desk if to else OpenDesk, "desk")
        a, b, c, d = [await rt.create(Guest, f"guest-{name}") for name in "abcd"]
        serving = asyncio.create_task(desk.serve(who="first"))
        while rt.status(desk).standing != "processing":  # noqa: ASYNC110 - the runtime has no event for it
            await asyncio.sleep(0)
        await a.ask(what=["a1", "a2"], priority=0)
        await b.ask(what=["b1"], priority=5)
        await b.shout(what="b2", priority=7, to=to)
        await a.ask(what=["a3"], priority=9)
        await c.shout(what="c1", priority=-1, to=to)
        await d.ask(what=["d1"], priority=0)
        while rt.status(desk).queue_length < 7:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        gate.opened.set()
        await serving
        await rt.idle()
        assert rt.state(desk).served == ["first", "b1", "b2", "a1", "a2", "a3", "d1", "c1"]


async def test_a_worker_tells_its_host() -> None:
    """Of what is sent by name, and of signals."""
    made = Resident(Guest, Activate("7", 1, "shop/guest", "Guest"), lambda _: None)
    pack = msgspec.msgpack.encode
    asked = await made.run(Turn(1, "7", "action", "ask", pack({"what": ["x"], "priority": 3}), deadline_ns=2**62))
    shouted = await made.run(Turn(2, "7", "action", "shout", pack({"what": "x", "priority": -4}), deadline_ns=2**62))
    assert [one.priority for one in (*asked.sends, *shouted.sends)] == [3, -4]
    assert all(one.id for one in asked.sends)


@pytest.mark.parametrize("priority", [101, -101, 1.0, True, "high"])
def test_a_priority_that_cannot_be_is_refused(priority: object) -> None:
    """Where it is asked for."""
    wrong: tuple[Directive, ...] = (
        Send("a", Desk.serve(who="x"), priority),  # type: ignore[arg-type]
        Emit("a.b", None, "a", "", priority),  # type: ignore[arg-type]
    )
    scope = Scope("a", "m")
    for directive in wrong:
        with pytest.raises(ValueError, match="a priority is -100 to 100"):
            scope.do(directive)
    assert scope.directives == []
    scope.do(directives.Send("a", Desk.serve(who="x"), -100))


# --- the turnstile --------------------------------------------------------------------------------------------------


async def passing(stile: Turnstile, log: list[str], name: str, priority: int = 0, sender: str = "") -> None:
    await stile.acquire(priority, sender)
    log.append(name)
    await asyncio.sleep(0)
    stile.release()


async def test_one_who_gives_up_holds_up_nobody() -> None:
    """While it waits, and in the moment in which it is let in."""
    stile, log = Turnstile(), list[str]()
    await stile.acquire()
    names = ("waits", "is let in", "last")
    waiting, let_in, last = [asyncio.create_task(passing(stile, log, name)) for name in names]
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    stile.release()
    let_in.cancel()  # its turn has come, and it has not heard
    await asyncio.gather(let_in, last, return_exceptions=True)
    assert (log, stile.locked) == (["last"], False)


async def test_who_comes_meanwhile_does_not_slip_in() -> None:
    """Between the leaving of one and the entering of the next."""
    stile, log = Turnstile(), list[str]()
    await stile.acquire()
    first = asyncio.create_task(passing(stile, log, "first"))
    await asyncio.sleep(0)
    stile.release()
    assert stile.locked
    await asyncio.gather(first, passing(stile, log, "second", priority=9))
    assert log == ["first", "second"]
