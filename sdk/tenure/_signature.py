"""What a function's parameters and its return value look like, to people, to JSON Schema and on the wire."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

import pydantic
from pydantic_core import PydanticSerializationError

from tenure import _codec
from tenure._context import Context
from tenure.errors import ActionFailed, DefinitionError, InvalidArguments

if TYPE_CHECKING:
    from tenure._options import Check, Checks

_IMMUTABLE = (bool, int, float, str, bytes, type(None), Enum)
_NAMED = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


class Signature:
    """Parameters and return type of an action, without the agent and the context.

    Annotations are resolved here and not at the decorator, since a module may name what it defines further down.
    """

    def __init__(self, function: Callable[..., Any], label: str) -> None:
        self.label = label
        hints = _hints(function, label)
        parameters = list(inspect.signature(function).parameters.values())
        if not parameters:
            raise DefinitionError(f"{label} takes no parameter: the first one of an action is the agent")
        rest = parameters[1:]
        self.takes_context = bool(rest) and hints.get(rest[0].name) is Context
        rest = rest[1:] if self.takes_context else rest
        for parameter in rest:
            _check(parameter, hints, label)
        self.positional = [p.name for p in rest if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        self.names = [p.name for p in rest]
        self.required = [p.name for p in rest if p.default is inspect.Parameter.empty]
        self._known, self._required = frozenset(self.names), frozenset(self.required)
        typed = [p.replace(annotation=hints.get(p.name, inspect.Parameter.empty)) for p in rest]
        self.text = ", ".join(str(p) for p in typed) or "no parameters"
        try:
            self._parameters = _model(rest, hints, label)
            self._validator = self._parameters.validator  # half the time of the adapter's own method
            self._native_parameters = all(_codec.is_native(hints.get(name)) for name in self.names)
            self._native_reply = _codec.native_types(hints.get("return", Any))
            self._reply: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(hints.get("return", Any))
        except (pydantic.errors.PydanticUserError, TypeError) as error:
            raise DefinitionError(f"{label}: {str(error).splitlines()[0]}") from error

    def bind(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Arguments by name. Raises InvalidArguments for a missing, unknown or doubled one."""
        if not args and self._required <= kwargs.keys() <= self._known:
            return dict(kwargs)
        if len(args) > len(self.positional):
            raise self._wrong(f"{len(args)} positional arguments were given, {len(self.positional)} fit")
        bound = dict(zip(self.positional, args, strict=False))
        for name, value in kwargs.items():
            if name in bound:
                raise self._wrong(f"`{name}` was given twice")
            bound[name] = value
        if unknown := [name for name in bound if name not in self.names]:
            raise self._wrong(f"`{unknown[0]}` is not known")
        if missing := [name for name in self.required if name not in bound]:
            raise self._wrong(f"`{missing[0]}` is missing")
        return bound

    def encode(self, arguments: Mapping[str, object]) -> bytes:
        """Checked arguments for the wire. Raises InvalidArguments, naming the parameter."""
        if not arguments:
            return _codec.EMPTY_MAP if not self.required else self._refuse(arguments)
        value = self._validate(arguments)
        try:
            content = cast(dict[str, object], self._parameters.dump_python(value, mode="python"))
            return _codec.pack({name: content[name] for name in arguments})
        except (ValueError, PydanticSerializationError) as error:
            raise self._wrong(str(error)) from error

    def decode(self, data: bytes) -> dict[str, Any]:
        """Typed arguments from the wire, defaults filled in. Raises InvalidArguments, naming the parameter."""
        try:
            arguments = _codec.unpack_map(data)
        except ValueError as error:
            raise self._wrong(str(error)) from error
        return self.typed(arguments)

    def typed(self, arguments: Mapping[str, object]) -> dict[str, Any]:
        """Arguments as annotated, defaults filled in. Raises InvalidArguments, naming the parameter."""
        return vars(self._validate(arguments))

    def values(self, arguments: Mapping[str, object]) -> dict[str, Any]:
        """Typed arguments for a body in this process, which shares nothing with the caller. Raises InvalidArguments."""
        if self._native_parameters:
            typed = self.typed(arguments)
            if all(map(_codec.crosses, typed.values())):
                return typed
        return self.decode(self.encode(arguments))

    def reply_value(self, value: object) -> object:
        """The reply for a caller in this process, which shares nothing with the agent. Raises ActionFailed."""
        if type(value) in self._native_reply and _codec.crosses(value):
            return value
        return self.decode_reply(self.encode_reply(value))

    def encode_reply(self, value: object) -> bytes:
        """Raises ActionFailed when the value is not what the function is annotated to return."""
        try:
            return _codec.pack(self._reply.dump_python(value, mode="python", warnings="error"))
        except (PydanticSerializationError, ValueError) as error:
            got = type(value).__name__
            raise ActionFailed(
                f"{self.label} returned {got}, which does not fit its annotation: {self._misfit(value, error)}"
            ) from error

    def _misfit(self, value: object, error: Exception) -> str:
        """What does not fit. Validation says it better than pydantic's serialiser, if it sees it too."""
        try:
            self._reply.validate_python(value, strict=True)
        except pydantic.ValidationError as better:
            return _codec.explain(better)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return lines[-1] if lines else type(error).__name__

    def decode_reply(self, data: bytes) -> object:
        """Raises ValueError (pydantic.ValidationError) for a reply that does not fit the annotation."""
        return cast(object, self._reply.validate_python(_codec.unpack(data)))

    def schema(self) -> dict[str, object]:
        """JSON Schema of the parameters, as one object."""
        schema = self._parameters.json_schema()
        schema.pop("title", None)
        return cast(dict[str, object], schema)

    def _validate(self, arguments: Mapping[str, object]) -> object:
        try:
            return cast(object, self._validator.validate_python(dict(arguments)))
        except pydantic.ValidationError as error:
            raise self._wrong(_codec.explain(error)) from error

    def _refuse(self, arguments: Mapping[str, object]) -> bytes:
        self._validate(arguments)
        raise AssertionError(f"{self.label}: required parameters were not missed")

    def _wrong(self, what: str) -> InvalidArguments:
        return InvalidArguments(f"{self.label}: {what}; it takes {self.text}")


class CheckedSignature(Signature):
    """A signature with functions over all arguments, before and after they are checked one by one."""

    def __init__(self, function: Callable[..., Any], label: str, checks: Checks) -> None:
        super().__init__(function, label)
        self._checks = checks

    def encode(self, arguments: Mapping[str, object]) -> bytes:
        """Both functions run here, at the caller's, too: what they refuse is not sent."""
        self.typed(arguments)
        return super().encode(self._apply(self._checks.before, arguments))

    def typed(self, arguments: Mapping[str, object]) -> dict[str, Any]:
        return self._apply(self._checks.after, super().typed(self._apply(self._checks.before, arguments)))

    def _apply(self, check: Check | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
        given = dict(arguments)
        if check is None:
            return given
        try:
            changed = check(given)
        except (ValueError, TypeError, LookupError) as error:
            raise self._wrong(str(error)) from error
        return dict(given if changed is None else changed)


def _hints(function: Callable[..., Any], label: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise DefinitionError(f"{label}: an annotation cannot be resolved: {error}") from error


def _check(parameter: inspect.Parameter, hints: Mapping[str, Any], label: str) -> None:
    name = parameter.name
    if parameter.kind not in _NAMED:
        raise DefinitionError(f"{label}: `{parameter}` has no name of its own: calls pass arguments by name")
    if name.startswith("_"):
        raise DefinitionError(f"{label}: the parameter `{name}` begins with an underscore")
    if hints.get(name) is Context:
        raise DefinitionError(f"{label}: `{name}: Context` must be the first parameter after the agent")


def _model(parameters: list[inspect.Parameter], hints: Mapping[str, Any], label: str) -> pydantic.TypeAdapter[Any]:
    fields: list[tuple[str, Any, Any]] = []
    for parameter in parameters:
        default = parameter.default
        if default is inspect.Parameter.empty:
            field: Any = dataclasses.field()
        elif isinstance(default, _IMMUTABLE):
            field = dataclasses.field(default=default)
        else:
            field = dataclasses.field(default_factory=functools.partial(copy.deepcopy, default))
        fields.append((parameter.name, hints.get(parameter.name, Any), field))
    plain = dataclasses.make_dataclass(label.replace(".", "_"), fields, kw_only=True)
    from pydantic.dataclasses import dataclass  # noqa: PLC0415 - a tenth of the time of `import tenure`

    return pydantic.TypeAdapter(dataclass(plain, config=pydantic.ConfigDict(extra="forbid")))
