"""What a class statement says of schedules and sensors, of an agent as of a skill."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import pydantic

from tenure._methods import Method, near
from tenure.errors import DefinitionError, UsageError

if TYPE_CHECKING:
    from tenure.schedule import Cron
    from tenure.sensors import Sensor

_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Planned:
    """An action that is run again and again."""

    times: Cron
    action: str


Schedules: TypeAlias = "Mapping[str, Planned]"
SensorMakers: TypeAlias = "Mapping[str, Sensor[Any] | Callable[[Any], Sensor[Any]]]"
"""By tag: a sensor, or what makes one for a skill (or an agent)."""


def schedules_of(cls: type[Any], methods: Mapping[str, Method[..., Any]], declared: object) -> dict[str, Planned]:
    """`[("0 9 * * *", "digest")]` or `{"morning": ("0 9 * * *", "digest", "Europe/Berlin")}`. Raises DefinitionError.

    In a list the name is that of the action. Times are a text, in UTC or in the time zone that follows, or a `Cron`.
    """
    found: dict[str, Planned] = {}
    for name, row in _rows(cls, declared):
        planned = _planned(cls, row)
        name = name or planned.action  # noqa: PLW2901
        if not _NAME.fullmatch(name) or name in found:
            raise DefinitionError(f"{cls.__name__}: {name!r} is not, or is twice, the name of a schedule")
        method = methods.get(planned.action)
        if method is None or method.kind != "action":
            raise DefinitionError(
                f"{cls.__name__}: the schedule {name} runs {planned.action!r}, which is no action of it; "
                f"{near(planned.action, methods)}"
            )
        if method.signature.required:
            raise DefinitionError(
                f"{cls.__name__}: the schedule {name} runs {planned.action}, which needs "
                f"`{method.signature.required[0]}`"
            )
        found[name] = planned
    return found


def _rows(cls: type[Any], declared: object) -> Iterator[tuple[str, Sequence[Any]]]:
    rows: list[tuple[str, object]] = []
    if isinstance(declared, Mapping):
        rows = list(cast(Mapping[str, object], declared).items())
    elif isinstance(declared, list | tuple):
        rows = [("", row) for row in cast(Sequence[object], declared)]
    else:
        raise DefinitionError(f"{cls.__name__}: schedules are a map or a list of (times, action)")
    for name, row in rows:
        if not isinstance(row, tuple) or len(cast("Sequence[Any]", row)) not in {2, 3}:
            raise DefinitionError(
                f"{cls.__name__}: a schedule is (times, action) or (times, action, zone), not {row!r}"
            )
        yield name, cast(Sequence[Any], row)


def _planned(cls: type[Any], row: Sequence[Any]) -> Planned:
    from tenure.schedule import Cron  # noqa: PLC0415 - only classes with schedules need it

    times, action = row[0], row[1]
    if isinstance(times, str):
        times = Cron(times, *row[2:])
    if not isinstance(times, Cron) or not isinstance(action, str):
        raise DefinitionError(f"{cls.__name__}: a schedule is (times, action) or (times, action, zone), not {row!r}")
    return Planned(times, action)


def sensors_of(cls: type[Any], declared: Mapping[str, Any]) -> dict[str, Any]:
    """Sensors by tag. Raises DefinitionError."""
    if not declared:
        return {}
    from tenure.sensors import Sensor  # noqa: PLC0415 - it brings asyncio

    for tag, sensor in declared.items():
        if not _NAME.fullmatch(tag) or not (isinstance(sensor, Sensor) or callable(sensor)):
            raise DefinitionError(f"{cls.__name__}: sensors are a map of tags to sensors, or to what makes them")
    return dict(declared)


def sensor_for(maker: Any, owner: Any) -> Sensor[Any]:
    """A sensor for one agent: they share none. Raises UsageError if nothing such comes of `maker`."""
    from tenure.sensors import Sensor  # noqa: PLC0415 - as above

    if isinstance(maker, Sensor):
        made: Sensor[Any] = copy.copy(cast(Any, maker))
        if isinstance(made.state, pydantic.BaseModel):
            made.state = made.state.model_copy(deep=True)
        return made
    other: object = maker(owner)
    if not isinstance(other, Sensor):
        raise UsageError(f"{owner!r}: a sensor was expected, not {other!r}")
    return cast(Any, other)  # type: ignore[no-any-return]
