"""Instructions in every shape."""

from typing import Any

import pytest

import tenure
from tenure import errors, plan


class OrderState(tenure.State):
    log: list[str] = []  # noqa: RUF012 - pydantic copies it


class Order(tenure.Agent[OrderState]):
    """What is asked for and done."""

    @tenure.query
    def price(self, article: str) -> int:
        return {"tea": 3, "pot": 20}[article]

    @tenure.query
    def log(self) -> list[str]:
        return self.state.log

    @tenure.action
    def fail(self) -> None:
        raise ValueError("no luck")


def test_an_instruction_is_written_in_four_ways() -> None:
    """An action, an action with parameters, an instruction, a list of these."""
    price = Order.price(article="tea")
    assert tenure.instruction(Order.log) == Order.log()
    assert tenure.instruction((Order.price, {"article": "tea"})) == price
    assert tenure.instruction(price) is price
    assert list(tenure.instruction([Order.log, (Order.price, {"article": "tea"}), price])) == [
        Order.log(),
        price,
        price,
    ]


@pytest.mark.parametrize(
    ("what", "error", "text"),
    [
        ("price", errors.UsageError, r"an instruction is an action, \(action, parameters\) or .*, not 'price'"),
        (Order.price, errors.InvalidArguments, "`article` is missing"),
        ((Order.price, {"name": "tea"}), errors.InvalidArguments, "`name` is not known"),
        ((Order.price,), errors.UsageError, "an instruction is"),
        ([], plan.PlanInvalid, "at least one"),
        ([Order.log, 3], errors.UsageError, "not 3"),
    ],
)
def test_what_is_no_instruction_is_refused(what: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        tenure.instruction(what)


def test_only_what_is_allowed_is_accepted() -> None:
    """The message lists what is."""
    allowed = [Order.log, Order.price]
    assert tenure.instruction(Order.log, allowed=allowed) == Order.log()
    for what in (Order.fail, Order.fail(), [Order.log, Order.fail]):
        with pytest.raises(errors.UnknownMethod, match=r"Order\.fail is not .*; allowed: Order\.log, Order\.price"):
            tenure.instruction(what, allowed=allowed)
