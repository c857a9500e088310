"""Skills and an agent for the tests of skills."""

import pydantic

import tenure
from tenure.skills import Identity, Journal, Memory


class CartState(tenure.State):
    items: list[str] = pydantic.Field(default_factory=list)


class Cart(tenure.Skill[CartState], key="cart", requires=["identity"], capabilities=["shopping"]):
    """Things to buy."""

    limit: int = 10

    @tenure.action
    def add(self, ctx: tenure.Context, item: str) -> int:
        self.state.items.append(item)
        self.agent.state.touched += 1
        ctx.emit("cart.added", {"item": item})
        if len(self.state.items) > self.limit:
            raise ValueError(f"{self.alias} is full")
        return len(self.state.items)

    @tenure.action
    async def twice(self, item: str) -> int:
        await self.add(item=item)
        return await self.add(item=item)

    @tenure.query
    def items(self) -> list[str]:
        return self.state.items

    @tenure.on("cart.wanted")
    @tenure.action
    async def wanted(self, item: str) -> int:
        return await self.add(item=item)


class Promo(tenure.Skill[tenure.State], key="promo"):
    """Has no state."""

    percent: int = pydantic.Field(default=5, ge=0, le=100)

    @tenure.query
    def off(self, price: int) -> int:
        return price * self.percent // 100


class ShopperState(tenure.State):
    touched: int = 0


class Shopper(
    tenure.Agent[ShopperState],
    skills=[Identity(), Cart(limit=3), Cart(limit=1, alias="wishlist")],
    attachable=[Memory, Promo],
    capabilities=["human"],
):
    """Buys."""

    @tenure.action
    def attach_promo(self, ctx: tenure.Context, percent: int = 10, alias: str = "") -> None:
        ctx.attach(Promo(percent=percent, alias=alias))

    @tenure.action
    def attach_memory(self, ctx: tenure.Context) -> None:
        ctx.attach(Memory())

    @tenure.action
    def attach_cart(self, ctx: tenure.Context, limit: int) -> None:
        ctx.attach(Cart(limit=limit))

    @tenure.action
    def attach_stranger(self, ctx: tenure.Context) -> None:
        ctx.attach(Journal())

    @tenure.action
    def detach(self, ctx: tenure.Context, alias: str, keep: bool = True) -> None:
        ctx.detach(alias, keep=keep)

    @tenure.action
    async def both(self) -> int:
        """Its own skills, within its own turn."""
        count = await self.skill(Cart).add(item="tea")
        return count + len(self.skill(Cart, "wishlist").state.items)

    @tenure.action
    async def dispatch(self, fail: bool = False) -> int:
        count = await self.call(Cart.add(item="tea").of("wishlist"))
        if fail:
            raise ValueError("no")
        return count

    @tenure.query
    def attached(self, ctx: tenure.Context) -> dict[str, str]:
        return dict(ctx.skills)


class Log(tenure.State):
    lines: list[str] = pydantic.Field(default_factory=list)


class Desk(tenure.Agent[Log]):
    """Base of the agents here."""

    @tenure.on("order.*")
    @tenure.on("note")
    @tenure.action
    def order(self, text: str) -> str:
        self.state.lines.append(text)
        return text

    @tenure.action
    def tell(self, ctx: tenure.Context, text: str) -> str:
        ctx.emit("desk.told", {"text": text})
        return text

    @tenure.action
    def other(self) -> str:
        return "other"

    @tenure.query
    def lines(self) -> list[str]:
        return self.state.lines


class Count(tenure.State):
    n: int = 0
