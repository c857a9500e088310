"""What users' type checkers see of skills. Checked as surface.py is."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

import tenure
from tenure.skills import Journal, Memory


class CartState(tenure.State):
    count: int = 0


class Cart(tenure.Skill[CartState], key="cart", requires=["identity"], persist="keep", signals=["order.**"]):
    limit: int = 10

    @tenure.on("cart.*")
    @tenure.action
    def add(self, ctx: tenure.Context, item: str) -> int:
        assert_type(self.limit, int)
        assert_type(self.state, CartState)
        self.state.count += len(item) + ctx.epoch
        return self.state.count

    @tenure.query
    def count(self) -> int:
        return self.state.count


class Shopper(tenure.Agent[CartState], skills=[Cart(limit=3), Cart(alias="wishlist")], attachable=[Memory]):
    @tenure.action
    async def both(self, ctx: tenure.Context) -> int:
        ctx.attach(Journal(limit=3))
        ctx.detach("cart", keep=False)
        assert_type(self.skill(Cart), Cart)
        return await self.skill(Cart, "wishlist").add(item="tea")


async def use(shopper: Shopper) -> None:
    assert_type(await shopper.call(Cart.add(item="tea")), int)
    assert_type(await shopper.call(Cart.add(item="tea").of("wishlist")), int)
    assert_type(await shopper.skill(Cart).count(), int)
    await shopper.call(Cart.add(item=3))  # type: ignore[arg-type]
    await shopper.skill(Cart).add(thing="tea")  # type: ignore[call-arg]


Cart(limit="3")  # type: ignore[arg-type]
Cart(limits=3)  # type: ignore[call-arg]
