"""Skills: what an agent gets from a class, or while it runs, with a state that is committed with the agent's."""

from typing import Any

import pytest
from skill_agents import Cart, Promo, Shopper, ShopperState

import tenure
from tenure import errors
from tenure._turn import Activation
from tenure.skills import Identity, Memory
from tenure.storage import MemoryStorage
from tenure_link import Turn

# --- calls ---


async def test_actions_are_known_by_the_alias_of_their_skill() -> None:
    async with tenure.local() as rt:
        shopper = await rt.create(Shopper, "s")
        assert await shopper.call(Cart.add(item="tea")) == 1
        assert await shopper.call(Cart.add(item="pot").of("wishlist")) == 1
        assert await shopper.call_by_name("cart.add", {"item": "cup"}) == 2
        assert await shopper.skill(Cart).items() == ["tea", "cup"]
        assert await shopper.skill(Cart, "wishlist").items() == ["pot"]
        assert rt.state(shopper).touched == 3
        assert [one.type for one in rt.signals] == ["cart.added"] * 3
        with pytest.raises(errors.UnknownMethod, match=r"did you mean cart.add"):
            await shopper.call_by_name("cart.ad")
        with pytest.raises(errors.UnknownMethod, match="no skill 'basket'"):
            await shopper.call(Cart.add(item="tea").of("basket"))
        with pytest.raises(errors.InvalidArguments, match="`item`"):
            await shopper.call_by_name("cart.add", {"item": 4})


async def test_a_turn_changes_agent_and_skill_as_one() -> None:
    async with tenure.local() as rt:
        shopper = await rt.create(Shopper, "s")
        await shopper.skill(Cart, "wishlist").add(item="pot")
        with pytest.raises(errors.ActionFailed, match="wishlist is full"):
            await shopper.skill(Cart, "wishlist").add(item="cup")
        await shopper.skill(Cart).twice(item="tea")
        with pytest.raises(errors.ActionFailed, match="cart is full"):
            await shopper.skill(Cart).twice(item="tea")
        assert await shopper.skill(Cart, "wishlist").items() == ["pot"]
        assert await shopper.skill(Cart).items() == ["tea", "tea"]
        assert rt.state(shopper).touched == 3


async def test_an_agent_uses_its_skills_in_its_own_turn() -> None:
    async with tenure.local() as rt:
        shopper = await rt.create(Shopper, "s")
        assert await shopper.both() == 1
        with pytest.raises(errors.ActionFailed, match="no"):
            await shopper.dispatch(fail=True)
        assert await shopper.dispatch() == 1
        assert await shopper.skill(Cart, "wishlist").items() == ["tea"]


async def test_routes_of_each_instance_begin_with_its_alias() -> None:
    async with tenure.local() as rt:
        shopper = await rt.create(Shopper, "s")
        await rt.signal(shopper, tenure.Signal.new("cart.wanted", source="t", data={"item": "tea"}))
        await rt.signal(shopper, tenure.Signal.new("wishlist.wanted", source="t", data={"item": "pot"}))
        assert await shopper.skill(Cart).items() == ["tea"]
        assert await shopper.skill(Cart, "wishlist").items() == ["pot"]
        with pytest.raises(errors.UnknownSignal, match=r"cart\.wanted, wishlist\.wanted"):
            await rt.signal(shopper, tenure.Signal.new("basket.wanted", source="t"))


def test_the_pure_form() -> None:
    one, effects = Shopper.cmd(Shopper.new(), Cart.add(item="tea"))
    assert one.skill(Cart).state.items == ["tea"]
    assert one.state.touched == 1
    assert [type(effect).__name__ for effect in effects] == ["Emit"]
    two, _ = Shopper.cmd(one, Shopper.attach_promo(percent=50))
    same, effects = Shopper.cmd(two, Cart.add(item="tea").of("wishlist"))
    full, effects = Shopper.cmd(same, Cart.add(item="pot").of("wishlist"))
    assert full.skill(Cart, "wishlist").state.items == ["tea"]
    assert [type(effect).__name__ for effect in effects] == ["Error"]
    gone, _ = Shopper.cmd(full, Shopper.detach("cart"))
    assert one.skill(Cart).state.items == ["tea"]
    with pytest.raises(errors.UnknownMethod, match="no skill 'cart'"):
        Shopper.cmd(gone, Cart.add(item="tea"))
    back, _ = Shopper.cmd(gone, Shopper.attach_cart(limit=2))
    assert back.skill(Cart).state.items == ["tea"]


# --- attached and detached while the agent runs ---


async def test_a_skill_comes_goes_and_finds_its_state_again() -> None:
    storage = MemoryStorage()
    async with tenure.local(storage=storage) as rt:
        shopper = await rt.create(Shopper, "s")
        with pytest.raises(errors.UnknownMethod, match="no skill 'memory'"):
            await shopper.call(Memory.put("world", "sky", "blue"))
        await shopper.attach_memory()
        assert await shopper.call(Memory.put("world", "sky", "blue")) == 1
        await shopper.detach("memory")
        assert await shopper.attached() == {"identity": "identity", "cart": "cart", "wishlist": "cart"}
    async with tenure.local(storage=storage) as rt:  # what was left survives a restart too
        shopper = await rt.create(Shopper, "s")
        await shopper.attach_memory()
        assert await shopper.call(Memory.get("world", "sky")) == "blue"
        await shopper.detach("memory", keep=False)
        await shopper.attach_memory()
        assert await shopper.call(Memory.get("world", "sky")) is None


async def test_what_an_agent_has_survives_a_restart() -> None:
    storage = MemoryStorage()
    async with tenure.local(storage=storage) as rt:
        shopper = await rt.create(Shopper, "s")
        await shopper.attach_promo(percent=50)
        await shopper.skill(Cart).add(item="tea")
        await shopper.detach("wishlist")
    async with tenure.local(storage=storage) as rt:
        shopper = await rt.create(Shopper, "s")
        assert await shopper.attached() == {"identity": "identity", "cart": "cart", "promo": "promo"}
        assert await shopper.call(Promo.off(30)) == 15
        assert await shopper.skill(Cart).items() == ["tea"]
        await shopper.detach("cart")
        await shopper.attach_cart(limit=1)
    async with tenure.local(storage=storage) as rt:  # the configuration it was attached with counts, not the class's
        shopper = await rt.create(Shopper, "s")
        with pytest.raises(errors.ActionFailed, match="cart is full"):
            await shopper.skill(Cart).add(item="pot")


async def test_the_order_of_skills_is_the_same_after_a_restart() -> None:
    storage = MemoryStorage()
    async with tenure.local(storage=storage) as rt:
        shopper = await rt.create(Shopper, "s")
        await shopper.attach_promo()
        await shopper.detach("cart", keep=False)
        await shopper.attach_cart(limit=1)
        before = list(await shopper.attached())
        assert before == ["identity", "cart", "wishlist", "promo"]
    async with tenure.local(storage=storage) as rt:
        assert list(await (await rt.create(Shopper, "s")).attached()) == before


async def test_another_skill_in_the_place_of_one_that_is_gone() -> None:
    storage = MemoryStorage()
    async with tenure.local(storage=storage) as rt:
        shopper = await rt.create(Shopper, "s")
        await shopper.skill(Cart, "wishlist").add(item="pot")
        await shopper.detach("wishlist")
        with pytest.raises(errors.ActionFailed, match="keeps what a skill 'cart' left"):
            await shopper.attach_promo(alias="wishlist")
        await shopper.detach("wishlist", keep=False)
        await shopper.attach_promo(percent=20, alias="wishlist")
    async with tenure.local(storage=storage) as rt:
        shopper = await rt.create(Shopper, "s")
        assert await shopper.call(Promo.off(10).of("wishlist")) == 2


async def test_only_actions_attach() -> None:
    class Asking(Shopper):
        @tenure.query
        def sneak(self, ctx: tenure.Context) -> None:
            ctx.attach(Promo())

    async with tenure.local() as rt:
        with pytest.raises(errors.ActionFailed, match="in the turn of an action"):
            await (await rt.create(Asking, "a")).sneak()


async def test_a_turn_that_fails_attaches_nothing() -> None:
    class Torn(Shopper):
        @tenure.action
        def half(self, ctx: tenure.Context) -> None:
            ctx.attach(Promo())
            ctx.detach("wishlist")
            raise ValueError("no")

    async with tenure.local() as rt:
        torn = await rt.create(Torn, "t")
        with pytest.raises(errors.ActionFailed):
            await torn.half()
        assert set(await torn.attached()) == {"identity", "cart", "wishlist"}


@pytest.mark.parametrize(
    ("instruction", "why"),
    [
        (Shopper.attach_cart(limit=1), "has a skill 'cart' already: give one of them an alias"),
        (Shopper.attach_stranger(), r"nobody would know its class; class Shopper\(..., attachable=\[Journal\]\)"),
        (Shopper.attach_promo(percent=101), "`percent` should be less than or equal to 100"),
        (Shopper.attach_promo(alias="No good"), "no alias 'No good'"),
        (Shopper.detach("identity"), "cannot be detached: Shopper: the skill cart requires 'identity'"),
        (Shopper.detach("basket"), "no skill 'basket' attached"),
    ],
)
async def test_what_cannot_be_attached_or_detached_refuses_the_turn(
    instruction: tenure.Instruction[Any], why: str
) -> None:
    async with tenure.local() as rt:
        shopper = await rt.create(Shopper, "s")
        with pytest.raises(errors.ActionFailed, match=why):
            await shopper.call(instruction)
        assert set(await shopper.attached()) == {"identity", "cart", "wishlist"}


async def test_an_agent_whose_class_takes_no_skills() -> None:
    class Plain(tenure.Agent[ShopperState]):
        @tenure.action
        def attach(self, ctx: tenure.Context) -> None:
            ctx.attach(Promo())

    async with tenure.local() as rt:
        with pytest.raises(errors.ActionFailed, match="takes no skills"):
            await (await rt.create(Plain, "p")).attach()


# --- in the worker of a cluster: the same bytes ---


def _activate(cls: type[tenure.Agent[Any]], stored: bytes | None = None) -> Activation:
    return Activation(cls, uid="u", agent_id="default/s", epoch=1, stored=stored)


async def _turn(activation: Activation, number: int, instruction: tenure.Instruction[Any]) -> Any:
    return await activation.run(Turn(number, "u", instruction.kind, instruction.name, instruction.encode(), 0, ""))


async def test_skills_are_in_the_committed_bytes_of_a_worker() -> None:
    activation = _activate(Shopper)
    assert activation.first is not None
    done = await _turn(activation, 1, Shopper.attach_promo(percent=50))
    activation.commit(1)
    added = await _turn(activation, 2, Cart.add(item="tea"))
    assert [one.type for one in added.signals] == ["cart.added"]
    activation.commit(2)
    await _turn(activation, 3, Cart.add(item="pot"))
    activation.drop(3)
    assert activation.is_query("cart.items")
    assert (await _turn(activation, 4, Cart.items())).reply == b"\x91\xa3tea"
    again = await _turn(activation, 5, Cart.add(item="cup"))
    assert (again.reply, again.fault) == (b"\x02", None), "what was dropped is not in the next turn"
    activation.drop(5)
    other = _activate(Shopper, added.state)
    assert other.skills == activation.skills
    assert other.committed == added.state != done.state
    assert (await _turn(other, 1, Cart.items())).reply == b"\x91\xa3tea"
    assert (await _turn(other, 2, Promo.off(30))).reply == b"\x0f"


async def test_a_class_that_does_not_know_a_skill_any_more_says_so() -> None:
    activation = _activate(Shopper)
    await _turn(activation, 1, Shopper.attach_promo())
    activation.commit(1)

    class Forgetful(tenure.Agent[ShopperState], skills=[Identity(), Cart(), Cart(alias="wishlist")]):
        pass

    class Plain(tenure.Agent[ShopperState]):
        pass

    for cls in (Forgetful, Plain):
        with pytest.raises(errors.StateInvalid, match=r"has the skill 'promo' .* does not know any more|'identity'"):
            _activate(cls, activation.committed)
