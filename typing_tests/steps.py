"""Steps and waits, as type checkers of users see them. Never run."""

from typing import assert_type

import tenure


class Books(tenure.State):
    sold: int = 0


async def price(title: str) -> int:
    return len(title)


def charge(amount: int, key: tenure.StepKey) -> str:
    return f"{amount} {key}"


class Shop(tenure.Agent[Books]):
    @tenure.action(turn_timeout=3600)
    async def sell(self, ctx: tenure.Context, title: str) -> str:
        amount = await ctx.step("price", price, title)
        assert_type(amount, int)
        receipt = await ctx.step("charge", charge, amount)
        assert_type(receipt, str)
        signal = await ctx.wait_for("book.sent", timeout=60)
        assert_type(signal, tenure.Signal | None)
        await ctx.sleep(1)
        assert_type(ctx.turn_key, str)
        assert_type(await ctx.call("other", Shop.sell(title=title)), str)
        assert_type(await ctx.call(tenure_reference(), Shop.sold(), timeout=5), int)
        return receipt

    @tenure.query
    def sold(self) -> int:
        return self.state.sold


def tenure_reference() -> Shop:
    raise NotImplementedError
