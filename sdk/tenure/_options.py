"""What `@action(...)` and `@query(...)` take beside the function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict, cast

import pydantic

from tenure import _codec
from tenure._context import Context
from tenure.errors import ActionFailed, DefinitionError

Risk = Literal["low", "medium", "high"]
Visibility = Literal["public", "internal"]
Check = Callable[[dict[str, Any]], Mapping[str, Any] | None]
RetryOn = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]


class QueryOptions(TypedDict, total=False):
    """Keywords of `@query`. All times in seconds."""

    blocking: bool
    timeout: float | None
    max_retries: int
    backoff: float
    backoff_max: float
    retry_on: RetryOn
    output: Any
    before_validate: Check
    after_validate: Check
    after_run: Callable[[Any, Context, Any], Any]
    description: str
    category: str
    tags: Sequence[str]
    risk: Risk
    visibility: Visibility


class ActionOptions(QueryOptions, total=False):
    """Keywords of `@action`. All times in seconds."""

    compensate: Callable[[Any, Context, Exception], object]
    compensate_timeout: float
    turn_timeout: float


@dataclass(frozen=True, slots=True)
class About:
    """What a catalogue says of an action or a query, beside its name and parameters."""

    description: str = ""
    """Empty: the docstring of the function."""
    category: str = ""
    tags: tuple[str, ...] = ()
    risk: Risk = "low"
    visibility: Visibility = "public"

    def __post_init__(self) -> None:
        if self.risk not in {"low", "medium", "high"}:
            raise DefinitionError(f"risk is low, medium or high, not {self.risk!r}")
        if self.visibility not in {"public", "internal"}:
            raise DefinitionError(f"visibility is public or internal, not {self.visibility!r}")
        if isinstance(self.tags, str) or not all(self.tags):
            raise DefinitionError("tags is a list of words, such as ['billing']")
        object.__setattr__(self, "tags", tuple(sorted(set(self.tags))))


@dataclass(frozen=True)
class Options:
    """How a body is run. Defaults are those of a body without options, but for waits between attempts."""

    timeout: float | None = None
    """Of one attempt; None: what is left of the call's time."""
    max_retries: int = 0
    """0, since the turn that fails is undone as a whole, and its caller may well repeat it."""
    backoff: float = 0.25
    """Before the second attempt; it doubles with each."""
    backoff_max: float = 30.0
    retry_on: RetryOn = Exception
    output: Any = None
    after_run: Callable[[Any, Context, Any], Any] | None = None
    compensate: Callable[[Any, Context, Exception], object] | None = None
    compensate_timeout: float = 5.0
    """At most half of the time that the call had left at the first attempt."""

    def __post_init__(self) -> None:
        for name in ("timeout", "compensate_timeout"):
            if (seconds := getattr(self, name)) is not None and seconds <= 0:
                raise DefinitionError(f"{name} is a number of seconds above 0, not {seconds!r}")
        if self.max_retries < 0:
            raise DefinitionError(f"max_retries is 0 or more, not {self.max_retries!r}")
        if not 0 <= self.backoff <= self.backoff_max:
            raise DefinitionError(f"backoff is between 0 and backoff_max, not {self.backoff!r} of {self.backoff_max!r}")
        if not callable(self.retry_on) and type(self.retry_on) is not tuple:
            raise DefinitionError("retry_on is an exception class, a tuple of them, or a function of an exception")

    def retries(self, error: Exception) -> bool:
        """Whether another attempt may help after this error."""
        if getattr(error, "retry", None) is False or isinstance(error, pydantic.ValidationError):
            return False
        wanted = self.retry_on
        if isinstance(wanted, type | tuple):
            return isinstance(error, wanted)
        return wanted(error)

    def refine(self, value: object, label: str) -> object:
        """The reply as `output` has it: checked, defaults filled in, unknown fields kept. Raises ActionFailed."""
        if self.output is None:
            return value
        try:
            if isinstance(value, Mapping) and self._model is not None:
                return self._model.model_validate(value).model_dump(by_alias=True, round_trip=True)
            return cast(object, self._adapter.validate_python(value))
        except pydantic.ValidationError as error:
            failed = ActionFailed(f"{label} returned what does not fit its output: {_codec.explain(error)}")
            failed.retry = False
            raise failed from error

    @functools.cached_property
    def _adapter(self) -> pydantic.TypeAdapter[Any]:
        return pydantic.TypeAdapter(self.output)

    @functools.cached_property
    def _model(self) -> type[pydantic.BaseModel] | None:
        """The model of `output`, if it is one, with unknown fields kept unless it has an opinion on them."""
        model: Any = self.output
        if not (isinstance(model, type) and issubclass(model, pydantic.BaseModel)):
            return None
        if "extra" in model.model_config:
            return model
        content = {"model_config": pydantic.ConfigDict(extra="allow"), "__module__": model.__module__}
        return cast(type[pydantic.BaseModel], cast(Any, type(model))(model.__name__, (model,), content))


@dataclass(frozen=True, slots=True)
class Checks:
    """Functions of all arguments at once, before and after each is checked against its annotation."""

    before: Check | None = None
    after: Check | None = None


_ABOUT = frozenset(field.name for field in fields(About))
_OPTIONS = frozenset(field.name for field in fields(Options))


def split(given: Mapping[str, Any], label: str) -> tuple[Options | None, Checks | None, About | None]:
    """Keywords sorted by whom they concern; None where there are none. Raises DefinitionError."""
    rest = {name: value for name, value in given.items() if name not in _ABOUT | _OPTIONS}
    checks = Checks(rest.pop("before_validate", None), rest.pop("after_validate", None))
    if rest:
        raise DefinitionError(f"{label}: `{next(iter(rest))}` is no option of an action")
    options = {name: value for name, value in given.items() if name in _OPTIONS}
    about = {name: value for name, value in given.items() if name in _ABOUT}
    try:
        return (
            Options(**options) if options else None,
            checks if checks != Checks() else None,
            About(**about) if about else None,
        )
    except DefinitionError as error:
        raise DefinitionError(f"{label}: {error}") from error
