"""The agents of test_signals.py, test_steps.py and test_volatile.py; imported by the hosts' workers."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing

import pydantic

import tenure
from tenure import errors
from tenure.signals import Correlation, Trace


class EarState(tenure.State):
    """What is kept."""

    heard: list[str] = pydantic.Field(default_factory=list[str])
    carried: dict[str, str] = pydantic.Field(default_factory=dict[str, str])
    deaf: bool = False


class Ear(tenure.Agent[EarState], capabilities=["hearing"]):
    """Keeps what it hears, in order."""

    @tenure.on("news.*")
    @tenure.action
    def hear(self, signal: tenure.Signal) -> None:
        """What came, and what belongs to it."""
        self._note(str(signal.data))
        self.state.carried = {name: str(value) for name, value in signal.extensions.items()} | {"id": signal.id}

    @tenure.action
    def take(self, what: str) -> None:
        """The same, asked for by name."""
        self._note(what)

    @tenure.action
    def crash(self) -> None:
        """End the process, as a bad C extension would."""
        os._exit(11)

    @tenure.query
    def heard(self) -> list[str]:
        """All of it, in order."""
        return self.state.heard

    @tenure.query
    def carried(self) -> dict[str, str]:
        """Of the last signal."""
        return self.state.carried

    def _note(self, what: str) -> None:
        if self.state.deaf:
            raise ValueError(f"{what} was not heard")
        self.state.heard = [*self.state.heard, what]


class NewsEar(Ear, subscribes=["news.*"]):
    """Hears all news."""


class DeepEar(Ear, subscribes=["deep.**"]):
    """Hears what is below."""

    @tenure.on("deep.**")
    @tenure.action
    def deep(self, signal: tenure.Signal) -> None:
        """By its type."""
        self._note(signal.type)


class MouthState(tenure.State):
    """What is kept."""

    said: int = 0


class Mouth(tenure.Agent[MouthState]):
    """Tells."""

    @tenure.action
    def tell(self, ctx: tenure.Context, to: list[str], first: int, count: int) -> None:
        """Numbered sentences to each, by signal and by action in turns."""
        name = self.id.rpartition("/")[2]
        for number in range(first, first + count):
            for one in to:
                what = f"{name}:{number}"
                if number % 2:
                    ctx.emit("news.told", what, to=one)
                else:
                    ctx.send(one, Ear.take(what=what))
        self.state.said += count

    @tenure.action
    def shout(self, ctx: tenure.Context, type: str, what: str = "", to: str = "") -> None:  # noqa: A002 - as `emit`
        """One signal, to whoever is meant."""
        ctx.emit(type, what, to=to)

    @tenure.action
    def ask(self, ctx: tenure.Context, to: str, what: str) -> None:
        """One action, by name."""
        ctx.send(to, Ear.take(what=what))

    @tenure.action
    def harm(self, ctx: tenure.Context, to: str) -> None:
        """Something that ends the worker."""
        ctx.send(to, Ear.crash())

    @tenure.action
    def begin(self, ctx: tenure.Context, via: str, to: str, trace: str, flow: str) -> None:
        """A signal that is part of a trace and of a flow."""
        signal = tenure.Signal.new("news.begun", to, source=self.id)
        ctx.send(via, signal.extended(Trace(traceparent=trace)).extended(Correlation(correlationid=flow)))

    @tenure.on("news.begun")
    @tenure.action
    def hand_on(self, ctx: tenure.Context, signal: tenure.Signal) -> None:
        """Causes another signal, and an action that causes one."""
        ctx.emit("news.handed", signal.id, to=str(signal.data))

    @tenure.query
    def said(self) -> int:
        """How many."""
        return self.state.said


class Mayfly(tenure.Agent[MouthState]):
    """Speaks once."""

    @tenure.action
    def speak(self, ctx: tenure.Context, to: str, what: str) -> str:
        """The last that it does."""
        ctx.send(to, Ear.take(what=what))
        ctx.stop("it has spoken")
        return what

    @tenure.query
    def said(self) -> int:
        """Nothing, as yet."""
        return self.state.said


def _open(file: str) -> closing[sqlite3.Connection]:
    connection = sqlite3.connect(file, isolation_level=None, timeout=30)
    connection.execute("CREATE TABLE IF NOT EXISTS charge (key TEXT PRIMARY KEY, amount INTEGER)")
    connection.execute("CREATE TABLE IF NOT EXISTS look (number INTEGER)")
    return closing(connection)


def pay(file: str, amount: int, key: tenure.StepKey) -> str:
    """A company of cards that remembers keys: a file."""
    with _open(file) as connection:
        connection.execute("INSERT OR IGNORE INTO charge VALUES (?, ?)", (key, amount))
    return f"receipt for {amount}"


def note(file: str, number: int) -> None:
    """It has come this far."""
    with _open(file) as connection:
        connection.execute("INSERT INTO look VALUES (?)", (number,))


def charges(file: str) -> list[int]:
    """What was charged."""
    with _open(file) as connection:
        return [amount for (amount,) in connection.execute("SELECT amount FROM charge")]


def looks(file: str) -> int:
    """How many different looks there were."""
    with _open(file) as connection:
        return int(connection.execute("SELECT count(DISTINCT number) FROM look").fetchone()[0])


class ShopState(tenure.State):
    """What is kept."""

    receipts: list[str] = pydantic.Field(default_factory=list[str])


class Shop(tenure.Agent[ShopState]):
    """Waits for a human, charges a card, asks other shops."""

    @tenure.action(turn_timeout=600)
    async def buy(self, ctx: tenure.Context, amount: int, looks: int = 0) -> str:
        """As long as somebody approves it; looks around before that and afterwards."""
        card = str(self.config["card"])
        euros = await ctx.step("convert", lambda: amount * 2)
        for number in range(looks):
            await ctx.step("look", note, card, number)
            await ctx.sleep(0.1)
        answer = await ctx.wait_for("buy.approved", timeout=300)
        if answer is None:
            return ""
        receipt = await ctx.step("charge", pay, card, euros)
        for number in range(looks, 2 * looks):
            await ctx.step("look", note, card, number)
            await ctx.sleep(0.1)
        self.state.receipts = [*self.state.receipts, receipt]
        return receipt

    @tenure.action
    def approve(self, ctx: tenure.Context, to: str) -> None:
        """A human's word."""
        ctx.emit("buy.approved", to=to)

    @tenure.action
    async def cook(self, ctx: tenure.Context, seconds: float) -> int:
        """One long step; the process that it ran in."""
        await ctx.step("simmer", asyncio.sleep, seconds)
        return os.getpid()

    @tenure.query
    def kitchen(self) -> int:
        """The process that it is in."""
        return os.getpid()

    @tenure.action
    async def wait_in_vain(self, ctx: tenure.Context, seconds: float) -> str:
        """For what nobody says."""
        answer = await ctx.wait_for("never.said", timeout=seconds)
        self.state.receipts = [*self.state.receipts, "late"]
        return "nobody" if answer is None else answer.type

    @tenure.action
    async def buy_at(self, ctx: tenure.Context, other: str, amount: int) -> int:
        """What another one makes of it, on whatever host it is."""
        doubled = await ctx.call(other, Shop.double(amount=amount))
        self.state.receipts = [*self.state.receipts, f"{doubled} from {other}"]
        return doubled

    @tenure.action
    async def swap(self, ctx: tenure.Context, other: str) -> str:
        """Ask another one that may be about to ask this one, as soon as a human says so."""
        await ctx.wait_for("buy.approved")
        try:
            return str(await ctx.call(other, Shop.double(amount=1)))
        except errors.WaitCycle as error:
            return str(error)

    @tenure.action
    async def double(self, ctx: tenure.Context, amount: int) -> int:
        """A turn of its own, which lasts for a moment."""
        await ctx.sleep(0.5)
        self.state.receipts = [*self.state.receipts, "doubled"]
        return amount * 2

    @tenure.query
    def receipts(self) -> list[str]:
        """What was bought."""
        return self.state.receipts
