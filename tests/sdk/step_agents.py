"""Agents whose turns have steps, and a service outside that remembers keys."""

import asyncio
from typing import Any

import pydantic

import tenure


class Service:
    """Somebody outside: does what it is asked once for each key, and counts."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.done: dict[str, str] = {}

    def pay(self, what: str, key: str) -> str:
        self.asked.append((what, key))
        return self.done.setdefault(key, f"receipt {len(self.done) + 1} for {what}")


service = Service()
prices = iter(range(100))
attempts: list[str] = []
plan: dict[str, Any] = {}
"""What the code of `Shop.flexible` asks for: tests change it as a deploy would."""


class Quote(pydantic.BaseModel):
    price: int


class ShopState(tenure.State):
    log: list[str] = []  # noqa: RUF012 - pydantic copies defaults


async def price(what: str) -> Quote:
    await asyncio.sleep(0)
    return Quote(price=next(prices))


def charge(what: str, quote: Quote, key: tenure.StepKey) -> str:
    return service.pay(f"{what} at {quote.price}", key)


class Shop(tenure.Agent[ShopState]):
    @tenure.action
    async def buy(self, ctx: tenure.Context, what: str) -> str:
        attempts.append(what)
        self.state.log.append(f"began {what}")
        quote = await ctx.step("quote", price, what)
        receipt = await ctx.step("charge", charge, what, quote)
        self.state.log.append(receipt)
        ctx.emit("bought", {"what": what})
        return receipt

    @tenure.action
    async def order(self, ctx: tenure.Context, what: str) -> str:
        attempts.append(what)
        quote = await ctx.step("quote", price, what)
        approval = await ctx.wait_for("order.approved", timeout=3600)
        if approval is None:
            self.state.log.append(f"nobody approved {what}")
            return ""
        receipt = await ctx.step("charge", charge, what, quote)
        self.state.log.append(f"{receipt}, approved by {approval.data}")
        return receipt

    @tenure.action
    async def nap(self, ctx: tenure.Context, seconds: float = 60, naps: int = 1) -> str:
        for _ in range(naps):
            await ctx.sleep(seconds)
        self.state.log.append("slept")
        return "rested"

    @tenure.action(turn_timeout=100)
    async def hurry(self, ctx: tenure.Context) -> None:
        await ctx.step("first", lambda: 1)
        await ctx.sleep(1000)

    @tenure.action(turn_timeout=0.05)
    async def hang(self, ctx: tenure.Context) -> None:
        await ctx.step("first", lambda: 1)
        await ctx.step("stuck", asyncio.Event().wait)

    @tenure.action
    async def flexible(self, ctx: tenure.Context) -> list[object]:
        return [await ctx.step(name, function) for name, function in plan.items()]

    @tenure.action
    async def careful(self, ctx: tenure.Context) -> str:
        try:
            await ctx.step("refused", self._refuse)
        except tenure.errors.StepFailed as error:
            attempts.append(str(error))
            await ctx.sleep(1)
            return f"caught: {error}"
        return ""

    def _refuse(self) -> None:
        service.pay("refused", "no key")
        raise ValueError("no luck")

    @tenure.action
    async def swallows(self, ctx: tenure.Context) -> str:
        try:
            await ctx.sleep(5)
        except BaseException:  # noqa: BLE001
            return "went on"
        return "slept"

    @tenure.action
    async def both(self, ctx: tenure.Context) -> None:
        await asyncio.gather(ctx.step("a", asyncio.sleep, 0.01), ctx.step("b", asyncio.sleep, 0.01))

    @tenure.action(max_retries=1)
    async def again(self, ctx: tenure.Context) -> None:
        await ctx.step("a", lambda: 1)

    @tenure.action(timeout=0.2)
    async def limited(self, ctx: tenure.Context) -> int:
        attempts.append("limited")
        return await ctx.step("a", lambda: 1)

    @tenure.action
    def note(self, text: str) -> None:
        self.state.log.append(text)

    @tenure.on("note.*")
    @tenure.action
    def noted(self, signal: tenure.Signal) -> None:
        self.state.log.append(f"{signal.type} {signal.data}")

    @tenure.query
    def log(self) -> list[str]:
        return self.state.log

    @tenure.query
    async def peeps(self, ctx: tenure.Context) -> None:
        await ctx.step("a", lambda: 1)


class Asks(tenure.Agent[ShopState]):
    """Its turns wait for other agents."""

    @tenure.action
    async def ask(self, ctx: tenure.Context, to: str, text: str = "hello", timeout: float | None = None) -> str:  # noqa: ASYNC109
        answer = await ctx.call(to, Asks.answer(text=text), timeout=timeout)
        self.state.log.append(answer)
        return answer

    @tenure.action
    async def answer(self, text: str) -> str:
        if text == "fail":
            raise ValueError("no answer")
        self.state.log.append(f"was asked {text}")
        return f"{text} yourself"

    @tenure.action
    async def ask_slowly(self, ctx: tenure.Context, to: str) -> str:
        return await ctx.call(to, Asks.slow(text="slowly"))

    @tenure.action
    async def slow(self, ctx: tenure.Context, text: str) -> str:
        await ctx.sleep(60)
        self.state.log.append(f"was asked {text}")
        return f"{text} yourself"

    @tenure.action
    async def read(self, ctx: tenure.Context, to: str) -> list[str]:
        return await ctx.call(to, Asks.log())

    @tenure.action
    async def round(self, ctx: tenure.Context, to: list[str]) -> str:
        """Each asks the next one."""
        return await ctx.call(to[0], Asks.round(to=to[1:])) if to else "the end"

    @tenure.action
    async def later(self, ctx: tenure.Context, to: str) -> str:
        """Asks after a while."""
        await ctx.sleep(10)
        return await ctx.call(to, Asks.answer(text="late"))

    @tenure.query
    def log(self) -> list[str]:
        return self.state.log
