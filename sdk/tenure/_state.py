"""The state of an agent: a pydantic model that is checked when it changes and once more when it is committed."""

from __future__ import annotations

import types
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin
from uuid import UUID

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError

from tenure import _codec
from tenure._scope import refuse_write
from tenure.errors import StateInvalid, StateUnreadable

S = TypeVar("S", bound="State")

_SCALARS = {bool, int, float, complex, str, bytes, type(None), Decimal, UUID, date, datetime, time, timedelta}


class State(pydantic.BaseModel):
    """Base of agents' states. Assignments are validated at once, changes in place (a list appended to) at the commit.

    Unknown fields are refused. Private attributes are not part of the state: they are gone at the next activation.
    """

    model_config = pydantic.ConfigDict(validate_assignment=True, extra="forbid")

    def __setattr__(self, name: str, value: Any) -> None:
        refuse_write(f"`{name}`")
        super().__setattr__(name, value)


def encode(state: State, *, checked: bool = False) -> bytes:
    """The bytes to commit. Raises StateInvalid, naming the field, when the state no longer fits its class.

    `checked`: it was valid once, and has changed by assignments only, each of which was validated.
    """
    kind = type(state)
    # Cached properties live in the same place as the fields, and are no part of the state.
    if checked and len(state.__dict__) == _native_fields(kind):
        try:
            return _codec.pack_native(state.__dict__)
        except ValueError:  # the long way says it better
            pass
    try:
        content = state.model_dump(mode="python", round_trip=True, warnings="error")
        if not only_scalars(kind):
            kind.model_validate(content, by_name=True, by_alias=False)
        return _codec.pack(_ordered(content) if _has_sets(kind) else content)
    except pydantic.ValidationError as error:
        raise StateInvalid(f"{kind.__name__}: {_codec.explain(error)}") from error
    except (PydanticSerializationError, ValueError) as error:
        raise StateInvalid(f"{kind.__name__}: {_why(state, error)}") from error


def decode(kind: type[S], data: bytes) -> S:
    """A state from committed bytes. Raises StateUnreadable (no msgpack) or StateInvalid (does not fit the class)."""
    try:
        content = _codec.unpack_map(data)
    except ValueError as error:
        raise StateUnreadable(f"the stored state of {kind.__name__} cannot be read: {error}") from error
    return of_content(kind, content)


def of_content(kind: type[S], content: dict[str, object]) -> S:
    """A state from committed fields. Raises StateInvalid."""
    try:
        return kind.model_validate(content, by_name=True, by_alias=False)
    except pydantic.ValidationError as error:
        raise StateInvalid(f"the stored state does not fit {kind.__name__}: {_codec.explain(error)}") from error


def initial(kind: type[S], content: dict[str, object]) -> S:
    """The first state from what the user gave. Raises StateInvalid, naming the field."""
    try:
        return kind.model_validate(content, by_name=True, by_alias=True)
    except pydantic.ValidationError as error:
        raise StateInvalid(f"{kind.__name__}: {_codec.explain(error)}") from error


_scalar_states: dict[type[State], bool] = {}
_native_states: dict[type[State], int] = {}


def _native_fields(kind: type[State]) -> int:
    """How many fields; -1 unless msgpack has words for all, assignment checks them, and none has a form of its own."""
    known = _native_states.get(kind)
    if known is None:
        decorators = kind.__pydantic_decorators__
        native = (
            bool(kind.model_config.get("validate_assignment"))
            and kind.model_config.get("extra") == "forbid"
            and not (decorators.field_serializers or decorators.model_serializers or decorators.computed_fields)
            and all(_codec.is_native(info.annotation) and not _excluded(info) for info in kind.model_fields.values())
        )
        known = _native_states[kind] = len(kind.model_fields) if native else -1
    return known


_set_states: dict[type[State], bool] = {}


def _has_sets(kind: type[State]) -> bool:
    """True if a field, or something within one, is declared to be a set."""
    known = _set_states.get(kind)
    if known is None:
        schema = repr(kind.__pydantic_core_schema__)
        known = _set_states[kind] = "'type': 'set'" in schema or "'type': 'frozenset'" in schema
    return known


def _ordered(value: object) -> object:
    """Sets as lists in the order of their bytes: equal states have equal bytes, in every process."""
    if isinstance(value, dict):
        return {key: _ordered(item) for key, item in cast(dict[object, object], value).items()}
    if isinstance(value, list | tuple):
        return [_ordered(item) for item in cast(list[object], value)]
    if isinstance(value, set | frozenset):
        return sorted((_ordered(item) for item in cast(set[object], value)), key=_codec.pack)
    return value


def _excluded(info: FieldInfo) -> bool:
    """Whether the field has ideas of its own about how it is written."""
    return bool(info.exclude) or any(hasattr(item, "__get_pydantic_core_schema__") for item in info.metadata)


def only_scalars(kind: type[State]) -> bool:
    """True if validated assignment sees every change: no field can be changed in place."""
    known = _scalar_states.get(kind)
    if known is None:
        known = all(_immutable(info.annotation) for info in kind.model_fields.values())
        _scalar_states[kind] = known
    return known


def _immutable(annotation: object) -> bool:
    if (isinstance(annotation, type) and annotation in _SCALARS) or get_origin(annotation) is Literal:
        return True
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return True
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _immutable(arguments[0])
    if origin in {Union, types.UnionType, tuple, frozenset}:
        return all(argument is Ellipsis or _immutable(argument) for argument in arguments)
    return False


def _why(state: State, error: Exception) -> str:
    """What does not fit. Validation says it better than pydantic's serialiser, if it sees it too."""
    try:
        type(state).model_validate(state.model_dump(mode="python", warnings=False), by_name=True, by_alias=False)
    except pydantic.ValidationError as better:
        return _codec.explain(better)
    except PydanticSerializationError:
        pass
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
