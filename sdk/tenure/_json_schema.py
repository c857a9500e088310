"""JSON Schema as a type: what a tool of elsewhere takes, checked and converted by pydantic.

What pydantic has a word for is enforced: types, properties, required, additionalProperties, items, enum, const, anyOf,
oneOf, limits and lengths, patterns, dates and ids, $ref. Anything else is let through as it is: no value is refused for
a keyword that is not understood here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from enum import Enum
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeGuard, Union, cast
from uuid import UUID

import pydantic
import pydantic_core

Schema = Mapping[str, Any]

_FORMATS: Mapping[str, Any] = MappingProxyType({"date-time": datetime, "date": date, "time": time, "uuid": UUID})
_LIMITS: Mapping[str, str] = MappingProxyType(
    {
        "minimum": "ge",
        "maximum": "le",
        "exclusiveMinimum": "gt",
        "exclusiveMaximum": "lt",
        "multipleOf": "multiple_of",
        "minLength": "min_length",
        "maxLength": "max_length",
        "minItems": "min_length",
        "maxItems": "max_length",
        "pattern": "pattern",
    }
)
_KEYWORDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
        "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
        "string": frozenset({"minLength", "maxLength", "pattern"}),
        "array": frozenset({"minItems", "maxItems"}),
    }
)


class Reader:
    """A JSON Schema of an object, made into something that reads values."""

    def __init__(self, schema: Schema) -> None:
        self._definitions: Mapping[str, Any] = {**schema.get("definitions", {}), **schema.get("$defs", {})}
        self._entered: list[str] = []
        self._adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(self._object(schema))

    def read(self, values: Mapping[str, object]) -> dict[str, Any]:
        """The values as the schema has them, defaults filled in. Raises pydantic.ValidationError."""
        return cast(dict[str, Any], self._adapter.validate_python(dict(values)))

    def _type(self, schema: Any) -> Any:
        """The type for a schema; Any for one that says nothing that is known here."""
        if not isinstance(schema, Mapping):
            return Any
        known = cast(Schema, schema)
        if "$ref" in known:
            return self._reference(known["$ref"])
        if (values := _list([known["const"]] if "const" in known else known.get("enum"))) is not None:
            return _literal(values)
        kind, members = known.get("type"), _list(known.get("anyOf", known.get("oneOf")))
        if (kinds := _list(kind)) is not None:
            members = [{**known, "type": one} for one in kinds]
        if members is not None and "properties" not in known:
            return _union([self._type(one) for one in members])
        return self._of_kind(kind, known)

    def _of_kind(self, kind: Any, schema: Schema) -> Any:
        match kind:
            case "object":
                return self._object(schema)
            case "array":
                found: Any = list[self._type(schema.get("items"))]  # type: ignore[misc]
            case "string":
                found = _FORMATS.get(schema.get("format", ""), str)
            case "integer" | "number" | "boolean" | "null":
                found = {"integer": int, "number": float, "boolean": bool, "null": None}[kind]
            case _:
                return Any
        return _limited(found, kind, schema)

    def _object(self, schema: Schema) -> Any:
        properties = schema.get("properties")
        extra = schema.get("additionalProperties", True)
        if not isinstance(properties, Mapping):
            return dict[str, self._type(extra)] if extra is not False else _NOTHING  # type: ignore[misc]
        required = set(schema.get("required", ()))
        fields: dict[str, Any] = {}
        for number, (name, inner) in enumerate(cast(Mapping[str, Any], properties).items()):
            default = _default(inner, required=name in required)
            # Names of JSON may be no names of Python.
            fields[f"field_{number}"] = (self._type(inner), pydantic.Field(default, alias=name))
        model = pydantic.create_model(
            "Object", __config__=pydantic.ConfigDict(extra="forbid" if extra is False else "allow"), **fields
        )
        return Annotated[model, pydantic.AfterValidator(_plain)]

    def _reference(self, where: Any) -> Any:
        """What a reference into the definitions stands for; Any where it leads elsewhere, or back into itself."""
        name = str(where).rpartition("/")[2]
        if name not in self._definitions or name in self._entered:
            return Any
        self._entered.append(name)
        try:
            return self._type(self._definitions[name])
        finally:
            self._entered.pop()


class _Absent(Enum):
    """Stands for what was not sent; a member, since pydantic copies other defaults."""

    ABSENT = 0


_NOTHING = Annotated[dict[str, Any], pydantic.Field(max_length=0)]


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _list(value: Any) -> Sequence[Any] | None:
    return value if _is_list(value) else None


def _default(schema: Any, *, required: bool) -> Any:
    if required:
        return ...
    return cast(Schema, schema).get("default", _Absent.ABSENT) if isinstance(schema, Mapping) else _Absent.ABSENT


def _plain(model: pydantic.BaseModel) -> dict[str, Any]:
    """A model as the map that the caller sent, typed; what was neither sent nor has a default is not in it."""
    fields = type(model).model_fields
    named = {field.alias or name: getattr(model, name) for name, field in fields.items()}
    return {name: value for name, value in (named | (model.model_extra or {})).items() if value is not _Absent.ABSENT}


def _literal(values: Sequence[Any]) -> Any:
    """One of these. What Python has no literal of (a float, a list) is compared."""
    if values and all(isinstance(value, str | int | bool | None) for value in values):
        return Literal[tuple(values)]

    def check(value: Any) -> Any:
        if value not in values:
            raise ValueError(f"Input should be one of {', '.join(map(repr, values))}")
        return value

    return Annotated[Any, pydantic.AfterValidator(check)]


def _union(members: Sequence[Any]) -> Any:
    return Union[tuple(members)] if members else Any  # noqa: UP007 - members are known at run time only


def _limited(found: Any, kind: str, schema: Schema) -> Any:
    limits = {_LIMITS[name]: schema[name] for name in _KEYWORDS.get(kind, ()) if name in schema}
    if found in _FORMATS.values() or ("pattern" in limits and not _is_pattern(limits["pattern"])):
        limits = {name: limit for name, limit in limits.items() if found is str and name != "pattern"}
    return Annotated[found, pydantic.Field(**limits)] if limits else found


def _is_pattern(pattern: str) -> bool:
    """Whether pydantic takes the pattern: JSON Schema's dialect is another, and what is none here is let through."""
    try:
        pydantic.TypeAdapter(Annotated[str, pydantic.Field(pattern=pattern)])
    except pydantic_core.SchemaError:
        return False
    return True
