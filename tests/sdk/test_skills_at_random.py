"""Skills under random calls, attachments, failures and restarts, against a model of what must be there."""

import random
from dataclasses import dataclass, field

import pydantic
import pytest

import tenure
from tenure import errors
from tenure.storage import MemoryStorage


class BoxState(tenure.State):
    items: list[int] = pydantic.Field(default_factory=list)


class Box(tenure.Skill[BoxState], key="box"):
    """Holds numbers, each with the base of its configuration added."""

    base: int = 0

    @tenure.action
    def add(self, n: int, fail: bool) -> None:
        self.state.items.append(n + self.base)
        if fail:
            raise ValueError("no")

    @tenure.query
    def items(self) -> list[int]:
        return self.state.items


class Shelf(tenure.Agent[tenure.State], skills=[Box(), Box(alias="two", base=100)]):
    """Has two boxes at first."""

    @tenure.action
    def attach(self, ctx: tenure.Context, alias: str, base: int, fail: bool) -> None:
        ctx.attach(Box(alias="" if alias == "box" else alias, base=base))
        if fail:
            raise ValueError("no")

    @tenure.action
    def detach(self, ctx: tenure.Context, alias: str, keep: bool, fail: bool) -> None:
        ctx.detach(alias, keep=keep)
        if fail:
            raise ValueError("no")

    @tenure.query
    def attached(self, ctx: tenure.Context) -> set[str]:
        return set(ctx.skills)


@dataclass
class Model:
    """What must be there: bases and items by alias; and what those left that were detached."""

    boxes: dict[str, tuple[int, list[int]]] = field(default_factory=lambda: {"box": (0, []), "two": (100, [])})
    left: dict[str, list[int]] = field(default_factory=dict[str, list[int]])

    def add(self, alias: str, n: int) -> None:
        base, items = self.boxes[alias]
        items.append(n + base)

    def attach(self, alias: str, base: int) -> None:
        assert alias not in self.boxes
        self.boxes[alias] = (base, self.left.pop(alias, []))

    def detach(self, alias: str, *, keep: bool) -> None:
        _, items = self.boxes.pop(alias)
        if keep:
            self.left[alias] = items


def _step(dice: random.Random, model: Model) -> tuple[tenure.Instruction[None], bool]:
    """Something to do, and whether it is to succeed; what succeeds is in the model already."""
    alias, fail, n = dice.choice(["box", "two", "three", "four"]), dice.random() < 0.3, dice.randrange(100)
    there, keep = alias in model.boxes, dice.random() < 0.7
    match dice.choice(["add", "add", "attach", "detach"]):
        case "add":
            if well := there and not fail:
                model.add(alias, n)
            return Box.add(n=n, fail=fail).of(alias), well
        case "attach":
            if well := not there and not fail:
                model.attach(alias, n)
            return Shelf.attach(alias=alias, base=n, fail=fail), well
        case _:
            if well := there and not fail:
                model.detach(alias, keep=keep)
            return Shelf.detach(alias=alias, keep=keep if there else True, fail=fail), well


@pytest.mark.parametrize("seed", range(12))
async def test_what_was_committed_is_there_and_nothing_else(seed: int) -> None:
    dice, model, storage, value = random.Random(seed), Model(), MemoryStorage(), Shelf.new()
    for _ in range(8):
        async with tenure.local(storage=storage) as rt:
            shelf = await rt.create(Shelf, "s")
            for _ in range(8):
                instruction, well = _step(dice, model)
                if well:
                    await shelf.call(instruction)
                    value, _ = Shelf.cmd(value, instruction)
                else:
                    with pytest.raises(errors.CallError):
                        await shelf.call(instruction)
                assert await shelf.attached() == set(model.boxes)
                for alias, (_, items) in model.boxes.items():
                    assert await shelf.skill(Box, alias).items() == items
                    assert value.skill(Box, alias).state.items == items, "the pure form agrees"
