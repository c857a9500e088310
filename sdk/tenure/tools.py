"""Actions and queries as tools of a language model: described in JSON Schema, called with JSON, answered with JSON.

    offered = tools.of(Counter)
    response = client.chat.completions.create(..., tools=[tool.openai() for tool in offered])
    answer = await tools.execute(counter, call.function.name, call.function.arguments)

`execute` does not raise for what a model may get wrong: it answers what was wrong and what to do, for it to read.
Actions with `visibility="internal"` are neither offered nor called, unless `allow` names them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

import pydantic
import pydantic_core

from tenure import _codec
from tenure._agent import Agent
from tenure._definition import describe
from tenure._methods import Method, methods_of, near
from tenure.errors import ActionFailed, CallError, InvalidArguments, UsageError

JSONObject = dict[str, object]


@dataclass(frozen=True, slots=True)
class Tool:
    """One method, as a model is told of it."""

    name: str
    description: str
    parameters: JSONObject
    """JSON Schema of one object. Strict: no object in it takes properties that it does not name."""
    read_only: bool
    """A query: it changes nothing."""

    @property
    def strict(self) -> bool:
        """Whether every object in the schema names all that it takes. A parameter that is a mapping cannot."""
        return _is_closed(self.parameters)

    def openai(self) -> JSONObject:
        """For the chat completions API: strict mode where the schema allows it, with optional parameters nullable."""
        function: JSONObject = {"name": self.name, "description": self.description, "parameters": self.parameters}
        if self.strict:
            function |= {"parameters": _each(self.parameters, _require), "strict": True}
        return {"type": "function", "function": function}

    def anthropic(self) -> JSONObject:
        """For the messages API."""
        return {"name": self.name, "description": self.description, "input_schema": self.parameters}

    def plain(self) -> JSONObject:
        """Name, description and parameters, for anything else."""
        return {"name": self.name, "description": self.description, "parameters": self.parameters}


def of(cls: type[Agent[Any]], *, allow: Collection[str] | None = None) -> list[Tool]:
    """The methods of a class as tools, sorted by name. `allow`: only these. Raises UsageError for a name it lacks."""
    described = {method.name: method for method in describe(cls).methods}
    for name in allow or ():
        if name not in described:
            raise UsageError(f"{cls.__name__} has no action or query {name!r}; {near(name, described)}")
    offered = _offered(methods_of(cls), allow)
    return [
        Tool(name, method.description, cast(JSONObject, _each(method.parameters, _close)), method.query)
        for name, method in sorted(described.items())
        if name in offered
    ]


def _offered(methods: Mapping[str, Method[..., Any]], allow: Collection[str] | None) -> set[str]:
    """Names of those that a model may see and call."""
    if allow is not None:
        return methods.keys() & set(allow)
    return {name for name, method in methods.items() if method.about is None or method.about.visibility == "public"}


async def execute(
    agent: Agent[Any],
    name: str,
    arguments: str | bytes | Mapping[str, object],
    *,
    allow: Collection[str] | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - in seconds, as everywhere in the SDK
) -> str:
    """Call a method as a model asked for it, and return JSON: `{"result": ...}` or `{"error": {...}}`.

    On a reference it is a call. In a turn, on `self`, it is a part of the turn, and what a tool that failed had changed
    is undone. Text is taken for what a parameter's type makes of it ("2" for an integer), and null for a parameter with
    a default is the default. `allow` as for `of`: another name is refused. Raises UsageError when `agent` is neither.
    """
    methods = methods_of(type(agent))
    allowed = _offered(methods, allow)
    if name not in allowed:
        return _error("UnknownMethod", f"there is no tool {name!r}; {near(name, allowed)}", "Use one of the tools.")
    try:
        given: object = json.loads(arguments) if isinstance(arguments, str | bytes) else dict(arguments)
    except (ValueError, RecursionError) as error:
        return _error("InvalidArguments", f"the arguments are not JSON: {error}", "Send one JSON object.")
    if not isinstance(given, dict):
        return _error("InvalidArguments", f"the arguments are a {type(given).__name__}", "Send one JSON object.")
    method = methods[name]
    try:
        typed = method.signature.decode(
            _codec.pack(_without_defaults(cast(JSONObject, given), method.signature.required))
        )
        if agent.__tenure__.context() is not None:
            result = await _inline(agent, method, typed, timeout)
        else:
            result = await agent.call_by_name(name, typed, timeout=timeout)
    except CallError as error:
        return _error(error.code, error.message, error.next_step, outcome=error.outcome)
    except ValueError as error:
        return _error("InvalidArguments", str(error), "Send values that JSON has words for.")
    return pydantic_core.to_json({"result": result}, inf_nan_mode="constants", bytes_mode="base64").decode()


async def _inline(
    agent: Agent[Any],
    method: Method[..., Any],
    arguments: Mapping[str, Any],
    timeout: float | None,  # noqa: ASYNC109
) -> object:
    """A part of the turn that is going on. Raises CallError; the draft is then as it was before."""
    from tenure import _exec  # noqa: PLC0415 - it brings asyncio

    cell = agent.__tenure__
    before = _exec.Before(cell)
    context = cell.context()
    if context is None:
        raise UsageError(f"the turn of {agent!r} has ended")
    try:
        result = await _exec.within(
            cell.scope, _exec.ends_at(cell.scope, timeout), method.name, lambda: method.run(agent, context, arguments)
        )
        return _codec.unpack(method.signature.encode_reply(result))
    except CallError:
        before.restore()
        raise
    except Exception as error:
        before.restore()
        text = str(error) or "no message"
        raise ActionFailed(f"{type(error).__name__} in {method.name}: {text}") from error


def typed(schema: Mapping[str, Any], arguments: str | bytes | Mapping[str, object]) -> JSONObject:
    """Arguments of a tool of elsewhere, which is described in JSON Schema: checked, converted, defaults filled in.

    Dates and ids become such. Keywords that are not known (`not`, `if`, ...) are passed over. Raises InvalidArguments.
    """
    from tenure._json_schema import Reader  # noqa: PLC0415 - only tools of elsewhere need it

    try:
        given: object = json.loads(arguments) if isinstance(arguments, str | bytes) else arguments
        if not isinstance(given, Mapping):
            raise InvalidArguments(f"the arguments are a {type(given).__name__}: send one JSON object")
        return Reader(schema).read(cast(Mapping[str, object], given))
    except pydantic.ValidationError as error:
        raise InvalidArguments(_codec.explain(error)) from error
    except (ValueError, RecursionError) as error:
        raise InvalidArguments(f"the arguments are not JSON: {error}") from error


def _error(code: str, message: str, next_step: str, *, outcome: str = "not_applied") -> str:
    return json.dumps(
        {"error": {"code": code, "message": message, "outcome": outcome, "next_step": next_step}}, ensure_ascii=False
    )


def _without_defaults(given: JSONObject, required: Collection[str]) -> JSONObject:
    """Strict schemas make models send null where they mean the default."""
    return {name: value for name, value in given.items() if value is not None or name in required}


_MAPS = frozenset({"properties", "$defs", "patternProperties"})
"""Keywords whose value is a map of schemas: its keys are names, not keywords."""


def _each(schema: object, change: Callable[[JSONObject], JSONObject]) -> object:
    """A copy of a schema in which every schema was changed, from the inside out."""
    if isinstance(schema, list):
        return [_each(item, change) for item in cast(list[object], schema)]
    if not isinstance(schema, dict):
        return schema
    copy: JSONObject = {}
    for keyword, value in cast(JSONObject, schema).items():
        if keyword in _MAPS and isinstance(value, dict):
            copy[keyword] = {name: _each(inner, change) for name, inner in cast(JSONObject, value).items()}
        elif keyword in {"default", "const", "enum", "examples"}:
            copy[keyword] = value  # values, not schemas
        else:
            copy[keyword] = _each(value, change)
    return change(copy)


def _close(schema: JSONObject) -> JSONObject:
    """Refuse what the object does not name."""
    if schema.get("type") == "object" and "additionalProperties" not in schema:
        schema["additionalProperties"] = False
    return schema


def _require(schema: JSONObject) -> JSONObject:
    """Require every property; those that were not required may be null instead, and no default is named."""
    schema.pop("default", None)
    properties = schema.get("properties")
    if isinstance(properties, dict):
        required = set(cast(list[str], schema.get("required", [])))
        named = cast(JSONObject, properties)
        schema["properties"] = {
            name: value if name in required else {"anyOf": [value, {"type": "null"}]} for name, value in named.items()
        }
        schema["required"] = list(named)
    return schema


def _is_closed(parameters: JSONObject) -> bool:
    open_objects: list[JSONObject] = []

    def look(schema: JSONObject) -> JSONObject:
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            open_objects.append(schema)
        return schema

    _each(parameters, look)
    return not open_objects
