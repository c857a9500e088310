"""Classes of skills: what is refused where it is written, their versions, and what others are told of them."""

from typing import Any

import pydantic
import pytest
import skill_agents
from skill_agents import Cart, CartState, Promo, Shopper

import tenure
from tenure import catalog, errors
from tenure._definition import describe
from tenure._turn import Activation
from tenure.skills import Identity
from tenure_link import Turn


def _activate(cls: type[tenure.Agent[Any]], stored: bytes | None = None) -> Activation:
    return Activation(cls, uid="u", agent_id="default/s", epoch=1, stored=stored)


async def _turn(activation: Activation, number: int, instruction: tenure.Instruction[Any]) -> Any:
    return await activation.run(Turn(number, "u", instruction.kind, instruction.name, instruction.encode(), 0, ""))


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
    known = catalog.find([skill_agents])
    assert {"Cart", "Promo"} <= {one.id.rpartition(".")[2] for one in known.list(kind="skill")}
    assert known.get("skill_agents.Cart.add").description == ""


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
