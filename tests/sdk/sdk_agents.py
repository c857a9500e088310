"""Agents for the tests of the SDK."""

import asyncio
import threading
from datetime import datetime
from enum import Enum

import pydantic

import tenure


class CounterState(tenure.State):
    count: int = 0
    log: list[pydantic.PositiveInt] = pydantic.Field(default_factory=list)


class Counter(tenure.Agent[CounterState]):
    """Counts things."""

    @tenure.action
    async def increment(self, ctx: tenure.Context, by: int = 1) -> int:
        """Add to the counter."""
        self.state.count += by
        ctx.emit("counter.changed", {"count": self.state.count})
        return self.state.count

    @tenure.action
    async def twice(self, by: int) -> int:
        await self.increment(by=by)
        return await self.increment(by=by)

    @tenure.action
    async def fail(self, ctx: tenure.Context, after: int) -> None:
        """Change everything, then raise."""
        self.state.count += after
        self.state.log.append(after)
        ctx.emit("counter.changed", None)
        raise ValueError("no luck")

    @tenure.action
    def note(self, number: int) -> list[int]:
        self.state.log.append(number)
        return self.state.log

    @tenure.action
    def replace(self, count: int) -> None:
        self.state = CounterState(count=count)

    @tenure.action
    def assign_text(self) -> None:
        self.state.count = "many"  # type: ignore[assignment]

    @tenure.action
    def lie(self) -> int:
        return "a text"  # type: ignore[return-value]

    @tenure.action
    def leave(self) -> None:
        raise SystemExit(3)

    @tenure.action
    def cancel(self) -> None:
        raise asyncio.CancelledError

    @tenure.action
    async def wait(self, ctx: tenure.Context) -> None:
        self.state.count = -1
        await asyncio.Event().wait()

    @tenure.action(blocking=True)
    def thread(self) -> str:
        self.state.count += 1
        return threading.current_thread().name

    @tenure.action
    def about(self, ctx: tenure.Context) -> dict[str, object]:
        return {"id": self.id, "caller": ctx.caller, "epoch": ctx.epoch, "config": dict(self.config)}

    @tenure.query
    def value(self) -> int:
        return self.state.count

    @tenure.query
    def sneak(self) -> None:
        self.state.count = 99

    @tenure.query
    def sneak_deeper(self) -> None:
        self.state.log.append(99)


@tenure.action
def archive(agent: Counter, ctx: tenure.Context, why: str) -> str:
    ctx.emit("counter.archived")
    return f"{agent.state.count}: {why}"


class Doubler(Counter, actions=[archive]):
    @tenure.action
    async def increment(self, by: int = 1) -> int:
        return await super().increment(by=2 * by)


class Colour(Enum):
    RED = "red"


class Point(pydantic.BaseModel):
    x: int = 0
    at: datetime | None = None


class Shop(tenure.Agent[CounterState]):
    @tenure.action
    def place(self, point: Point, colour: Colour = Colour.RED) -> Point:
        return Point(x=point.x + 1, at=point.at)


leaked: list[object] = []
other: list[Counter] = []


class Careless(tenure.Agent[CounterState]):
    """Does what it should not."""

    @tenure.action
    def leak(self) -> None:
        leaked.append(self)

    @tenure.action
    async def ask(self) -> int:
        return await other[0].increment()

    @tenure.action
    def keep(self) -> None:
        self.cache = 1

    @tenure.action
    async def hold(self, ctx: tenure.Context) -> None:
        leaked.append(ctx)
