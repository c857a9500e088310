"""From `tenure call`'s options to arguments: `--by 2` becomes `{"by": 2}`. Pure."""

import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, cast

from tenure_cli.errors import UsageError
from tenure_proto.v1 import registry_pb2


def parse_value(text: str) -> Any:
    """JSON where it is JSON, otherwise the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def parse_object(text: str) -> dict[str, Any]:
    """`--args '{...}'`. Raises UsageError."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"--args is not JSON: {error}.", """Write for example --args '{"by": 2}'.""") from error
    if not isinstance(value, dict):
        raise UsageError("--args is not a JSON object.", """Write for example --args '{"by": 2}'.""")
    return cast("dict[str, Any]", value)


def split_options(words: Sequence[str]) -> dict[str, str | None]:
    """`--by 2 --note=x --loud` to names and texts; None where no value stands. Raises UsageError."""
    found: dict[str, str | None] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise UsageError(f"{word!r} is no argument of a method.", "Write --NAME VALUE, or --args '{...}'.")
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name in found:
            raise UsageError(f"--{name} is given twice.")
        if equals:
            found[name] = value
        elif rest and not rest[0].startswith("--"):
            found[name] = rest.pop(0)
        else:
            found[name] = None
    return found


def build(words: Sequence[str], given: str | None, method: registry_pb2.MethodInfo | None) -> dict[str, Any]:
    """All arguments. With the method's schema, names are checked and text stays text where it asks for text.

    Raises UsageError.
    """
    arguments = parse_object(given) if given else {}
    schema = schema_of(method)
    properties: dict[str, Any] = schema.get("properties", {})
    for name, text in split_options(words).items():
        if name in arguments:
            raise UsageError(f"{name} is given twice, by --{name} and in --args.")
        if method is not None and name not in properties and not schema.get("additionalProperties"):
            raise _unknown(name, method.name, list(properties))
        arguments[name] = True if text is None else _value(text, properties.get(name, {}))
    return arguments


def schema_of(method: registry_pb2.MethodInfo | None) -> dict[str, Any]:
    """JSON Schema of a method's parameters; empty where it is not known."""
    if method is None or not method.parameters_schema:
        return {}
    return cast("dict[str, Any]", json.loads(method.parameters_schema))


def _value(text: str, schema: dict[str, Any]) -> Any:
    return text if schema.get("type") == "string" else parse_value(text)


def _unknown(name: str, method: str, names: Sequence[str]) -> UsageError:
    close = get_close_matches(name, names, n=1)
    if close:
        return UsageError(f"{method} has no parameter {name!r}.", f"Did you mean --{close[0]}?")
    listed = ", ".join(f"--{known}" for known in names) or "none"
    return UsageError(f"{method} has no parameter {name!r}.", f"Its parameters: {listed}.")


def check_method(name: str, info: registry_pb2.ClassInfo | None) -> registry_pb2.MethodInfo | None:
    """The method called `name`, or None when the class is not known here. Raises UsageError with the near name."""
    if info is None or not info.methods:
        return None
    for method in info.methods:
        if method.name == name:
            return method
    names = [method.name for method in info.methods]
    close = get_close_matches(name, names, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"It has: {', '.join(names)}."
    raise UsageError(f"{info.name} has no action or query {name!r}.", hint)
