"""Skills: what an agent gets from a class, or while it runs, with a state that is committed with the agent's."""

import sys
from typing import Any

import pydantic
import pytest

import tenure
from tenure import catalog, errors
from tenure._definition import describe
from tenure._turn import Activation
from tenure.skills import Identity, Journal, Memory
from tenure.storage import MemoryStorage
from tenure_link import Turn


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


# --- versions ---


class OldNotes(tenure.State):
    text: str = ""


class Old(tenure.Skill[OldNotes], key="notes"):
    @tenure.action
    def write(self, text: str) -> None:
        self.state.text = text


class NewNotes(tenure.State):
    lines: list[str] = pydantic.Field(default_factory=list)


class New(tenure.Skill[NewNotes], key="notes", version=2):
    @tenure.migration(from_version=1)
    @staticmethod
    def split(content: dict[str, Any]) -> dict[str, Any]:
        return {"lines": content["text"].splitlines()}

    @tenure.query
    def lines(self) -> list[str]:
        return self.state.lines


async def test_the_state_of_a_skill_is_brought_to_its_version() -> None:
    class Before(tenure.Agent[tenure.State], skills=[Old()]):
        pass

    class After(tenure.Agent[tenure.State], skills=[New()]):
        pass

    before = _activate(Before)
    await _turn(before, 1, Old.write("a\nb"))
    before.commit(1)
    after = _activate(After, before.committed)
    assert (await _turn(after, 1, New.lines())).reply == b"\x92\xa1a\xa1b"
    written = await _turn(after, 2, tenure.Instruction(New.lines, {}))
    assert written.fault is None
    await after.hook(3, "on_start")
    after.commit(3)
    with pytest.raises(errors.VersionSkew, match="version 2 of Old"):
        _activate(Before, after.committed)


# --- definitions ---


def test_wrong_skills_are_refused_where_they_are_written() -> None:
    with pytest.raises(errors.DefinitionError, match="a key is lower case"):
        type("Bad", (tenure.Skill,), {}, key="No Good")
    with pytest.raises(errors.DefinitionError, match="the name is taken"):

        class Taken(tenure.Skill[CartState], key="taken"):
            @tenure.action
            def on_start(self) -> None: ...  # type: ignore[override]

    class Needy(tenure.State):
        need: int

    with pytest.raises(errors.DefinitionError, match="its state needs defaults: `need` is missing"):

        class Demanding(tenure.Skill[Needy], key="demanding"):
            pass

    with pytest.raises(errors.DefinitionError, match="one priority"):

        class Torn(tenure.Skill[CartState], key="torn"):
            @tenure.on("a.*")
            @tenure.action
            def one(self) -> None: ...

            @tenure.on("a.*")
            @tenure.action
            def two(self) -> None: ...

    with pytest.raises(errors.DefinitionError, match="needs `save` and `load`"):
        type("Bad", (tenure.Skill,), {}, key="bad", persist="externalize")
    with pytest.raises(errors.DefinitionError, match="has no key"):
        type("Bad", (tenure.Skill,), {})()
    with pytest.raises(errors.UsageError, match="`limit` should be a valid integer"):
        Cart(limit="many")  # type: ignore[arg-type]
    with pytest.raises(errors.DefinitionError, match="is a singleton"):
        Identity(alias="me")


class Loud(tenure.Skill[tenure.State], key="loud"):
    @tenure.on("order.paid")
    @tenure.action
    def shout(self) -> None: ...


class Louder(tenure.Skill[tenure.State], key="louder"):
    @tenure.on("order.paid")
    @tenure.action
    def shout(self) -> None: ...


@pytest.mark.parametrize(
    ("skills", "why"),
    [
        ([Promo(), Promo()], "two skills 'promo'"),
        ([Promo(), Loud(alias="promo")], "two skills 'promo'"),
        ([Cart()], "cart requires 'identity'"),
        ([Loud(), Louder()], "leads to the skills loud and louder with one priority"),
        ([Promo], "such as \\[Cart\\(\\)\\]"),
    ],
)
def test_wrong_sets_of_skills_are_refused_where_they_are_written(skills: list[Any], why: str) -> None:
    with pytest.raises(errors.DefinitionError, match=why):
        type("Bad", (tenure.Agent,), {}, skills=skills)


async def test_both_instances_of_one_class_hear_a_signal() -> None:
    class Two(tenure.Agent[tenure.State], skills=[Loud(), Loud(alias="other")]):
        pass

    async with tenure.local() as rt:
        await rt.signal(await rt.create(Two, "t"), tenure.Signal.new("order.paid", source="t"))


def test_what_others_are_told_of_a_class_includes_its_skills() -> None:
    told = describe(Shopper)
    assert {"both", "cart.add", "cart.items", "wishlist.add"} <= {method.name for method in told.methods}
    assert [method.query for method in told.methods if method.name == "cart.items"] == [True]
    assert set(told.state_schema["skills"]) == {"identity", "cart", "wishlist"}  # type: ignore[call-overload]
    assert told.capabilities == ("human", "shopping")
    known = catalog.find([sys.modules[__name__]])
    assert {"Cart", "Promo"} <= {one.id.rpartition(".")[2] for one in known.list(kind="skill")}
    assert known.get(f"{__name__}.Cart.add").description == ""


def test_a_skill_inherits_from_another() -> None:
    class Later(New, key="later"):
        pass

    class Shopping(tenure.Agent[tenure.State], skills=[New(), Later()]):
        pass

    one, _ = Shopping.cmd(Shopping.new(), Later.lines())
    assert one.skill(Later).state == NewNotes()
    assert (Later.lines().name, New.lines().name) == ("later.lines", "notes.lines")


def test_skills_are_values() -> None:
    assert repr(Cart(limit=3)) == "Cart(limit=3)"
    assert repr(Cart(limit=3, alias="wishlist")) == "Cart(alias='wishlist', limit=3)"
    assert Cart(limit=3) == Cart(limit=3) != Cart(limit=4)
    assert len({Cart(), Cart(), Cart(alias="x")}) == 2
    assert Shopper.__tenure_capabilities__ == ("human", "shopping")
    with pytest.raises(errors.UsageError, match="declare `limit` in the state"):
        Cart().limit = 4
    with pytest.raises(errors.NotInTurn, match="attached to no agent"):
        Cart().state  # noqa: B018
