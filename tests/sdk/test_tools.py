"""Methods as tools of a language model."""

import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import pytest

import tenure
from tenure import errors, tools


class Address(tenure.State):
    street: str
    number: int = 1


class OrderState(tenure.State):
    lines: dict[str, int] = {}  # noqa: RUF012 - pydantic copies it
    address: Address | None = None


class Order(tenure.Agent[OrderState]):
    """An order."""

    @tenure.action
    def add(self, article: str, count: int = 1) -> dict[str, int]:
        """Add an article."""
        if count < 1:
            raise ValueError("count must be positive")
        self.state.lines[article] = self.state.lines.get(article, 0) + count
        return self.state.lines

    @tenure.action
    def send_to(self, address: Address, type: str = "parcel", default: bool = False) -> str:  # noqa: A002 - on purpose
        """Where to send it."""
        self.state.address = address
        return f"{type} to {address.street} {address.number}"

    @tenure.action
    def replace(self, lines: dict[str, int]) -> None:
        """All lines at once."""
        self.state.lines = lines

    @tenure.query
    def total(self) -> float:
        """How many articles."""
        return float(sum(self.state.lines.values()))


@pytest.fixture
async def order() -> AsyncIterator[Order]:
    async with tenure.local() as rt:
        yield await rt.create(Order, "order-1")


async def run(order: Order, name: str, arguments: Any, **options: Any) -> dict[str, Any]:
    return json.loads(await tools.execute(order, name, arguments, **options))


def tool(name: str) -> tools.Tool:
    return next(one for one in tools.of(Order) if one.name == name)


def test_every_method_is_described() -> None:
    """Name, description, a schema; queries say that they only read."""
    offered = tools.of(Order)
    assert [(one.name, one.description, one.read_only) for one in offered] == [
        ("add", "Add an article.", False),
        ("replace", "All lines at once.", False),
        ("send_to", "Where to send it.", False),
        ("total", "How many articles.", True),
    ]
    for one in offered:
        jsonschema.Draft202012Validator.check_schema(one.parameters)
    assert tool("add").plain()["parameters"] == {
        "type": "object",
        "properties": {
            "article": {"title": "Article", "type": "string"},
            "count": {"title": "Count", "type": "integer", "default": 1},
        },
        "required": ["article"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("name", "arguments", "fits"),
    [
        ("add", {"article": "a"}, True),
        ("add", {"article": "a", "other": 1}, False),
        ("send_to", {"address": {"street": "s"}, "type": "t", "default": True}, True),
        ("send_to", {"address": {"street": "s", "other": 1}}, False),
        ("replace", {"lines": {"any": 1}}, True),
        ("replace", {"lines": {"any": "text"}}, False),
    ],
)
def test_schemas_are_strict_all_the_way_down(name: str, arguments: dict, fits: bool) -> None:
    """No object takes what it does not name, but a parameter that is a mapping."""
    assert jsonschema.Draft202012Validator(tool(name).parameters).is_valid(arguments) is fits


def test_openai_wants_every_property_in_strict_mode() -> None:
    """Its strict mode: all properties required, optional ones nullable, nothing open. A mapping has no strict form."""
    function: Any = tool("send_to").openai()["function"]
    assert function["strict"] is True
    assert function["parameters"]["required"] == ["address", "type", "default"], (
        "also a parameter that is called default"
    )
    valid = jsonschema.Draft202012Validator(function["parameters"]).is_valid
    assert valid({"address": {"street": "s", "number": None}, "type": None, "default": None})
    assert not valid({"address": {"street": "s", "number": None}})
    assert "strict" not in tool("replace").openai()["function"]  # type: ignore[operator]
    assert tool("add").anthropic()["input_schema"] == tool("add").parameters


async def test_a_call_is_json_in_and_json_out(order: Order) -> None:
    assert await run(order, "add", '{"article": "a", "count": 2}') == {"result": {"a": 2}}
    assert await run(order, "add", {"article": "a", "count": "3"}) == {"result": {"a": 5}}, "text is made a number"
    assert await run(order, "add", {"article": "a", "count": None}) == {"result": {"a": 6}}, "null is the default"
    assert await run(order, "total", "{}") == {"result": 6.0}
    sent = await run(order, "send_to", {"address": {"street": "s", "number": "7"}})
    assert sent == {"result": "parcel to s 7"}


@pytest.mark.parametrize(
    ("name", "arguments", "code", "words"),
    [
        ("ad", "{}", "UnknownMethod", "did you mean add?"),
        ("add", "{", "InvalidArguments", "not JSON"),
        ("add", "[" * 100_000, "InvalidArguments", "not JSON"),
        ("add", "[]", "InvalidArguments", "list"),
        ("add", "{}", "InvalidArguments", "`article` is missing"),
        ("add", '{"article": "a", "count": "many"}', "InvalidArguments", "`count`"),
        ("add", '{"article": "a", "other": 1}', "InvalidArguments", "`other` is not known"),
        ("add", '{"article": "a", "count": 0}', "ActionFailed", "count must be positive"),
    ],
)
async def test_what_a_model_gets_wrong_it_is_told(
    order: Order, name: str, arguments: str, code: str, words: str
) -> None:
    """An error to read, not an exception; nothing was changed."""
    error = (await run(order, name, arguments))["error"]
    assert (error["code"], words in error["message"], error["outcome"]) == (code, True, "not_applied"), error
    assert await run(order, "total", {}) == {"result": 0.0}


async def test_only_what_is_allowed_is_offered_and_done(order: Order) -> None:
    assert [one.name for one in tools.of(Order, allow=["total"])] == ["total"]
    refused = await run(order, "add", {"article": "a"}, allow=["total"])
    assert refused["error"]["code"] == "UnknownMethod"
    with pytest.raises(errors.UsageError, match="did you mean total"):
        tools.of(Order, allow=["totals"])


async def test_no_agent_is_an_error_to_read() -> None:
    async with tenure.local() as rt:
        missing = rt.agent(Order, "none")
        assert (await run(missing, "total", {}))["error"]["code"] == "NotFound"
