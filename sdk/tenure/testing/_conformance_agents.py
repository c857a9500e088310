"""The agents of the conformance suite. A cluster imports them: `modules: [tenure.testing._conformance_agents]`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import pydantic

import tenure
from tenure.directives import Directive, RunInstruction, Schedule, Send, Spawn, Stop


class Entry(pydantic.BaseModel):
    """A line of a ledger."""

    text: str
    amount: Decimal = Decimal(0)
    at: datetime = datetime(2024, 1, 1, tzinfo=UTC)


class LedgerState(tenure.State):
    """What is kept."""

    total: int = 0
    level: Annotated[int, pydantic.Field(ge=0, le=9)] = 0
    lines: Annotated[list[str], pydantic.Field(max_length=50)] = pydantic.Field(default_factory=list)


class ConformingLedger(tenure.Agent[LedgerState]):
    """Does what a runtime must be able to carry."""

    @tenure.action
    def add(self, by: int = 1) -> int:
        """Add, plainly."""
        self.state.total += by
        return self.state.total

    @tenure.action
    async def write(self, ctx: tenure.Context, text: str, pauses: int = 0) -> int:
        """Two changes and two signals, with pauses between them."""
        self.state.lines.append(f"{text} begins")
        ctx.emit("ledger.begun", {"text": text})
        for _ in range(pauses):
            await asyncio.sleep(0)
        self.state.lines.append(f"{text} ends")
        ctx.emit("ledger.ended", {"text": text})
        return len(self.state.lines)

    @tenure.action
    async def write_and_fail(self, text: str) -> int:
        """Everything that `write` does, and then an exception."""
        await self.write(text=text)
        await self.add(by=1000)
        raise ValueError(f"no luck with {text}")

    @tenure.action
    async def hang(self) -> None:
        """Change the state, and never end."""
        self.state.total = 77
        self.state.lines.append("hangs")
        await asyncio.Event().wait()

    @tenure.action
    def overflow(self) -> None:
        """A number that has no place in a record."""
        self.state.total = 2**70

    @tenure.action
    def misfit(self) -> None:
        """A value that the class of the state refuses."""
        self.state.total = 5
        self.state.level = 10

    @tenure.action
    def too_long(self) -> None:
        """A list that grew in place beyond its limit."""
        self.state.lines.extend(["x"] * 51)

    @tenure.action
    def entry(self, entry: Entry, tags: tuple[str, ...] = ()) -> dict[str, Entry]:
        """Rich values in, rich values out."""
        return dict.fromkeys(tags, entry) or {"": entry}

    @tenure.action
    def ask_for(self, ctx: tenure.Context, directive: str, seconds: float = 60.0) -> None:
        """A change, and an effect that not every runtime has."""
        self.state.total += 1
        ctx.do(directive_of(directive, self.id, seconds))

    @tenure.action
    async def pay(self, ctx: tenure.Context, text: str = "") -> list[str]:
        """Two steps; their keys."""
        first = await ctx.step("open", self._open, text)
        second = await ctx.step("pay", self._pay, first)
        self.state.total += 2
        return [first.text.removeprefix(text), second]

    async def _open(self, text: str, key: tenure.StepKey) -> Entry:
        return Entry(text=text + key, amount=Decimal("0.10"))

    def _pay(self, entry: Entry, key: tenure.StepKey) -> str:
        if entry.text == key.rpartition("/")[0] + "/0" or entry.amount != Decimal("0.10"):
            raise ValueError("nothing to pay for")
        return key

    @tenure.action
    async def nap(self, ctx: tenure.Context, seconds: float = 60.0) -> int:
        """A minute."""
        await ctx.sleep(seconds)
        self.state.total += 1
        return self.state.total

    @tenure.action
    async def wait_after(self, ctx: tenure.Context, other: str, seconds: float = 120.0) -> str:
        """Let another agent add one, then wait for an approval, two minutes at most."""
        await ctx.call(other, ConformingLedger.add())
        approval = await ctx.wait_for("ledger.approved", timeout=seconds)
        return approval.subject if approval is not None else ""

    @tenure.action
    def approve(self, ctx: tenure.Context, to: str, text: str) -> None:
        """A signal for one agent."""
        ctx.emit("ledger.approved", to=to, subject=text)

    @tenure.action
    async def let_add(self, ctx: tenure.Context, other: str, by: int) -> int:
        """Add what another agent has then."""
        self.state.total += await ctx.call(other, ConformingLedger.add(by=by))
        return self.state.total

    @tenure.action
    async def let_fail(self, ctx: tenure.Context, other: str) -> int:
        """What the other agent raises is raised here."""
        return await ctx.call(other, ConformingLedger.write_and_fail(text="it"))

    @tenure.query
    def total(self) -> int:
        """The total."""
        return self.state.total

    @tenure.query
    def lines(self) -> list[str]:
        """The lines."""
        return self.state.lines

    @tenure.query
    def sneak(self) -> int:
        """A query that tries to change something by assignment."""
        self.state.total = 9
        return self.state.total

    @tenure.query
    def sneak_in_place(self) -> int:
        """A query that changes something where nobody sees it."""
        self.state.lines.append("sneaked in")
        return len(self.state.lines)

    @tenure.query
    def shout(self, ctx: tenure.Context) -> None:
        """A query that tries to have an effect."""
        ctx.emit("ledger.shouted")


class ConformingOther(tenure.Agent[LedgerState]):
    """Another class with the same state."""

    @tenure.query
    def total(self) -> int:
        """The total."""
        return self.state.total


async def _nothing() -> None: ...


def directive_of(feature: str, agent_id: str, seconds: float) -> Directive:
    """The directive that a feature is about."""
    add = ConformingLedger.add(by=10)
    directives: dict[str, Directive] = {
        "send": Send(agent_id, add),
        "timers": Schedule(seconds, add, "later"),
        "run": RunInstruction(add),
        "stop": Stop("asked to"),
        "background": Spawn(_nothing),
    }
    return directives[feature]
