"""The five operations on a state, as values: for actions and skills that compute what to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import pydantic

from tenure import _state
from tenure._state import S, State
from tenure.errors import StateInvalid


@dataclass(frozen=True, slots=True)
class SetState:
    """Merge values into the state: maps and models field by field, anything else (lists too) is replaced."""

    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ReplaceState:
    """A state of these values and the defaults."""

    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class DeleteKeys:
    """Give fields their defaults again, and drop unknown ones. Nothing happens to those that are not there."""

    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class SetPath:
    """Set what lies at a path, such as ("address", "city"). Maps on the way are made; what lies beside it stays."""

    path: Sequence[str]
    value: object


@dataclass(frozen=True, slots=True)
class DeletePath:
    """Remove what lies at a path. Nothing happens if there is nothing."""

    path: Sequence[str]


StateOp = SetState | ReplaceState | DeleteKeys | SetPath | DeletePath


def apply(op: StateOp, state: S) -> S:
    """The state after an operation; the given one is not changed. Raises StateInvalid, naming the field."""
    content = _content(state)
    match op:
        case SetState(values):
            content = {**content, **{key: _merged(content.get(key), value) for key, value in values.items()}}
        case ReplaceState(values):
            content = dict(values)
        case DeleteKeys(keys):
            content = {key: value for key, value in content.items() if key not in keys}
        case SetPath(path, value):
            content = cast(dict[str, object], _placed(content, _steps(path), value))
        case DeletePath(path):
            content = cast(dict[str, object], _removed(content, _steps(path)))
    return _state.initial(type(state), content)


def _content(model: pydantic.BaseModel) -> dict[str, object]:
    """Fields by name, and the unknown ones that a lax state keeps. Values are not copied."""
    names = type(model).model_fields
    return {name: getattr(model, name) for name in names} | dict(model.model_extra or {})


def _merged(current: object, value: object) -> object:
    """A map goes into a map or a model; a model, a list or a scalar takes the place of what was there."""
    if not isinstance(value, Mapping):
        return value
    values = cast(Mapping[str, object], value)
    if isinstance(current, pydantic.BaseModel):
        current = _content(current)
    if not isinstance(current, Mapping):
        return dict(values)
    known = cast(Mapping[str, object], current)
    return {**known, **{key: _merged(known.get(key), item) for key, item in values.items()}}


def _steps(path: Sequence[str]) -> tuple[str, ...]:
    if isinstance(path, str) or not path:
        raise StateInvalid(f"a path is a list of names such as ['address', 'city'], not {path!r}")
    return tuple(path)


def _placed(current: object, steps: tuple[str, ...], value: object) -> object:
    if not steps:
        return value
    if isinstance(current, pydantic.BaseModel):
        current = _content(current)
    known = dict(cast(Mapping[str, object], current)) if isinstance(current, Mapping) else {}
    known[steps[0]] = _placed(known.get(steps[0]), steps[1:], value)
    return known


def _removed(current: object, steps: tuple[str, ...]) -> object:
    if isinstance(current, pydantic.BaseModel):
        current = _content(current)
    if not isinstance(current, Mapping) or steps[0] not in current:
        return current  # pyright: ignore[reportUnknownVariableType] - of the state, whatever it is
    known = dict(cast(Mapping[str, object], current))
    if len(steps) == 1:
        del known[steps[0]]
    else:
        known[steps[0]] = _removed(known[steps[0]], steps[1:])
    return known


__all__ = ["DeleteKeys", "DeletePath", "ReplaceState", "SetPath", "SetState", "State", "StateOp", "apply"]
