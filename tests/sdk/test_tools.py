"""Methods as tools of a language model."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import date
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


class ModelState(tenure.State):
    done: list[str] = []  # noqa: RUF012 - pydantic copies it


class Assistant(tenure.Agent[ModelState]):
    """Asks a model, which calls the assistant's own tools within the turn."""

    @tenure.action
    async def think(self, asked: list[tuple[str, str]], seconds: float | None = None) -> list[str]:
        """Stands for the loop around a model."""
        return [await tools.execute(self, name, arguments, timeout=seconds) for name, arguments in asked]

    @tenure.action
    async def note(self, ctx: tenure.Context, text: str, fail: bool = False) -> int:
        self.state.done.append(text)
        ctx.emit("noted", text)
        if fail:
            raise RuntimeError("no luck")
        return len(self.state.done)

    @tenure.action
    async def dream(self) -> None:
        self.state.done.append("dream")
        await asyncio.Event().wait()

    @tenure.action
    def lie(self) -> int:
        self.state.done.append("lie")
        return "text"  # type: ignore[return-value]

    @tenure.action(visibility="internal")
    def erase(self) -> None:
        self.state.done.clear()

    @tenure.query
    def notes(self) -> list[str]:
        return self.state.done


async def test_tools_are_called_within_a_turn() -> None:
    """One turn, one commit; what a failed tool did is undone, and told to the model."""
    async with tenure.local() as rt:
        agent = await rt.create(Assistant, "a")
        asked = [
            ("note", '{"text": "one"}'),
            ("note", '{"text": "two", "fail": true}'),
            ("lie", "{}"),
            ("note", '{"text": "three"}'),
            ("notes", "{}"),
        ]
        answers = [json.loads(answer) for answer in await agent.think(asked=asked)]
        assert [answer.get("result") for answer in answers] == [1, None, None, 2, ["one", "three"]]
        assert answers[1]["error"]["message"] == "RuntimeError in note: no luck"
        assert answers[2]["error"]["code"] == "ActionFailed"
        assert rt.state(agent).done == ["one", "three"]
        assert [signal.data for signal in rt.signals] == ["one", "three"]
        (late,) = await agent.think(asked=[("dream", "{}")], seconds=0.02)
        assert json.loads(late)["error"]["code"] == "DeadlineExceeded"
        assert rt.state(agent).done == ["one", "three"]


async def test_internal_actions_are_no_tools() -> None:
    """Neither offered nor called; by name they are."""
    assert [one.name for one in tools.of(Assistant)] == ["dream", "lie", "note", "notes", "think"]
    assert [one.name for one in tools.of(Assistant, allow=["erase"])] == ["erase"]
    async with tenure.local() as rt:
        agent = await rt.create(Assistant, "a")
        assert "UnknownMethod" in await tools.execute(agent, "erase", "{}")
        assert json.loads(await tools.execute(agent, "erase", "{}", allow=["erase"])) == {"result": None}


ELSEWHERE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 1},
        "share": {"type": "number", "exclusiveMaximum": 1},
        "day": {"type": "string", "format": "date"},
        "unit": {"enum": ["kg", "lb"]},
        "ratio": {"enum": [0.5, 1.5]},
        "kind": {"const": "parcel"},
        "tags": {"type": "array", "items": {"type": "string", "minLength": 2}, "maxItems": 2},
        "note": {"type": ["string", "null"]},
        "size": {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]},
        "to": {"$ref": "#/$defs/place"},
        "from-name": {"type": "string", "default": "me"},
        "open": {"type": "object", "additionalProperties": {"type": "integer"}},
        "code": {"type": "string", "pattern": "^[a-z]+$"},
        "odd": {"type": "string", "pattern": "(?<=x)y", "not": {"const": "z"}},
        "any": {"if": {"type": "string"}},
    },
    "required": ["count"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "near": {"$ref": "#/$defs/place"}},
            "required": ["street"],
        }
    },
}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"count": "2"}, {"count": 2}),
        ({"count": 2, "share": "0.5", "day": "2026-01-02"}, {"count": 2, "share": 0.5, "day": date(2026, 1, 2)}),
        ({"count": 2, "unit": "kg", "kind": "parcel", "ratio": 0.5}, None),
        ({"count": 2, "tags": ["ab"], "note": None, "size": [1, 2], "code": "abc"}, None),
        ({"count": 2, "to": {"street": "s", "more": 1, "near": {"anything": 1}}}, None),
        ({"count": 2, "open": {"a": "1"}}, {"count": 2, "open": {"a": 1}}),
        ({"count": 2, "odd": "z", "any": [1, {"x": None}]}, None),
        ('{"count": 2}', {"count": 2}),
    ],
)
def test_json_schema_of_elsewhere_is_read(given: Any, read: dict[str, Any] | None) -> None:
    """Typed values come out; what is not known is passed over."""
    assert tools.typed(ELSEWHERE, given) == {"from-name": "me", **(given if read is None else read)}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "`count` is missing"),
        ({"count": 0}, "`count` should be greater than or equal to 1, got 0"),
        ({"count": 1, "other": 1}, "`other` is not known"),
        ({"count": 1, "unit": "oz"}, "`unit`"),
        ({"count": 1, "ratio": 2}, "`ratio` Input should be one of 0.5, 1.5|`ratio` should be one of 0.5, 1.5"),
        ({"count": 1, "tags": ["a"]}, "`tags.0` String should have at least 2 characters"),
        ({"count": 1, "tags": ["aa", "bb", "cc"]}, "`tags`"),
        ({"count": 1, "to": {}}, "`to.street` is missing"),
        ({"count": 1, "code": "A"}, "`code`"),
        ({"count": 1, "share": 1}, "`share`"),
        ("[]", "are a list: send one JSON object"),
        ("{", "not JSON"),
    ],
)
def test_what_does_not_fit_a_schema_of_elsewhere_is_named(given: Any, text: str) -> None:
    with pytest.raises(errors.InvalidArguments, match=text):
        tools.typed(ELSEWHERE, given)


def test_our_own_schemas_are_read_too() -> None:
    """What `of` says is understood by `typed`."""
    read = tools.typed(tool("send_to").parameters, {"address": {"street": "s", "number": "7"}})
    assert read == {"address": {"street": "s", "number": 7}, "type": "parcel", "default": False}
    with pytest.raises(errors.InvalidArguments, match=r"`address\.other` is not known"):
        tools.typed(tool("send_to").parameters, {"address": {"street": "s", "other": 1}})
    assert tools.typed({"type": "object"}, {"anything": 1}) == {"anything": 1}
    assert tools.typed({}, {"anything": 1}) == {"anything": 1}
    with pytest.raises(errors.InvalidArguments):
        tools.typed({"type": "object", "additionalProperties": False}, {"anything": 1})
