"""Sensors: what turns events of the outside world, and of time, into signals for one agent."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, cast, get_args, get_origin

import pydantic

from tenure import _codec
from tenure.errors import DefinitionError, UsageError
from tenure.sensors._effects import Ending, SensorEffect
from tenure.signals import Route, Router

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class SensorConfig(pydantic.BaseModel):
    """Base of configurations: frozen, and unknown fields are refused. Any other pydantic model will do as well."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


C = TypeVar("C", bound=pydantic.BaseModel)


class Sensor(Generic[C]):
    """Base of sensors: `class Door(Sensor[DoorConfig])`, made as `Door(pin=4)` or `Door(DoorConfig(pin=4))`.

    `begin`, `on_event` and `end` are pure: they look at `config`, `state`, `now` and the event, may change `state`, and
    return effects; the shell around carries them out. I/O belongs in `events`. One that raises has changed nothing.

    In the class statement: `name` (the class's by default), `category`, `tags`, and `signals`: the types, or patterns
    of types, that it reports; it can then report no others. Raises DefinitionError, as do bad methods.
    """

    name: ClassVar[str] = ""
    category: ClassVar[str] = ""
    tags: ClassVar[tuple[str, ...]] = ()
    signals: ClassVar[tuple[str, ...]] = ()
    __config__: ClassVar[type[pydantic.BaseModel] | None] = None
    __declared__: ClassVar[Router[bool]] = Router()

    state: Any = None
    """A pydantic model or None. `state: MyState = MyState()` in the class is the first state of each instance."""
    now: float = 0.0
    """When the event that is handled came, in seconds since the epoch. Set by the shell."""

    def __init_subclass__(
        cls, *, name: str = "", category: str = "", tags: Sequence[str] = (), signals: Sequence[str] = (), **more: Any
    ) -> None:
        super().__init_subclass__(**more)
        cls.name, cls.category = name or cls.__name__, category or cls.category
        cls.tags, cls.signals = _words(cls, "tags", tags) or cls.tags, _words(cls, "signals", signals) or cls.signals
        if not _NAME.fullmatch(cls.name):
            raise DefinitionError(f"{cls.__name__}: a sensor's name is letters, digits and _, not {cls.name!r}")
        cls.__declared__ = Router([Route(pattern, True) for pattern in cls.signals])
        if not (cls.state is None or isinstance(cls.state, pydantic.BaseModel)):
            raise DefinitionError(f"{cls.__name__}.state is a pydantic model or None, not {cls.state!r}")
        _check_methods(cls)
        cls.__config__ = _config_of(cls)
        if cls.__config__ is not None and not _overrides(cls, "on_event"):
            raise DefinitionError(f"{cls.__name__} has no on_event: what shall come of its events?")

    def __init__(self, config: C | None = None, /, **values: Any) -> None:
        """Raises UsageError, naming the field, when the values do not fit."""
        kind = type(self).__config__
        if kind is None:
            raise DefinitionError(
                f"{type(self).__name__} names no config: class {type(self).__name__}(Sensor[MyConfig])"
            )
        if config is not None and (values or not isinstance(config, kind)):
            raise UsageError(f"{self.name} takes a {kind.__name__}, or its values by name")
        try:
            self.config: C = config if config is not None else cast(C, kind(**values))
        except pydantic.ValidationError as error:
            raise UsageError(f"{self.name}: {_codec.explain(error)}") from error
        if isinstance(self.state, pydantic.BaseModel):
            self.state = self.state.model_copy(deep=True)
        self.pauses: Callable[[float], Awaitable[None]] = asyncio.sleep
        """How `pause` waits. Set by the shell, whose clock may stand still."""

    def begin(self) -> Iterable[SensorEffect]:
        """What to do first."""
        return ()

    def on_event(self, event: Any) -> Iterable[SensorEffect]:
        """What to do about something from `events`, an `After`, or `inject` (webhooks, tests)."""
        raise NotImplementedError

    def end(self, ending: Ending) -> None:
        """The sensor has ended: the last call."""

    async def events(self) -> AsyncIterator[Any]:
        """The source, where there is one: an async generator that waits for the world. Run by the shell.

        One that raises is started again, later and later, up to a limit; one that returns is done, and the sensor goes
        on with what it is injected. Between polls: `await self.pause(seconds)`.
        """
        return
        yield

    async def pause(self, seconds: float) -> None:
        """Wait, by the clock of the runtime, within `events`."""
        await self.pauses(seconds)

    @property
    def has_source(self) -> bool:
        """Whether there is an `events` to be run."""
        return "events" in vars(self) or _overrides(type(self), "events")


@dataclass(frozen=True, slots=True)
class SensorInfo:
    """A sensor as catalogues show it."""

    name: str
    description: str
    category: str
    tags: tuple[str, ...]
    signals: tuple[str, ...]
    config_schema: dict[str, Any]


def describe(cls: type[Sensor[Any]]) -> SensorInfo:
    """What a catalogue says of a class of sensors. Raises DefinitionError for one without a config."""
    if cls.__config__ is None:
        raise DefinitionError(f"{cls.__name__} names no config")
    description = "" if cls.__doc__ == Sensor.__doc__ else inspect.cleandoc(cls.__doc__ or "")
    return SensorInfo(cls.name, description, cls.category, cls.tags, cls.signals, cls.__config__.model_json_schema())


def _overrides(cls: type[Any], name: str) -> bool:
    """Whether a class has a method of its own in place of that of Sensor."""
    return getattr(cls, name) is not getattr(cast(Any, Sensor), name)


def _words(cls: type[Any], what: str, words: Sequence[str]) -> tuple[str, ...]:
    if isinstance(words, str) or not all(words):
        raise DefinitionError(f"{cls.__name__}: {what} is a list of words")
    return tuple(words)


def _check_methods(cls: type[Sensor[Any]]) -> None:
    for name, count in (("begin", 1), ("on_event", 2), ("end", 2), ("events", 1)):
        method = vars(cls).get(name)
        if method is None:
            continue
        if not inspect.isfunction(method):
            raise DefinitionError(f"{cls.__name__}.{name} is no method")
        if name == "events" and not inspect.isasyncgenfunction(method):
            raise DefinitionError(f"{cls.__name__}.events is an async generator: `async def` with `yield`")
        if name != "events" and (inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)):
            raise DefinitionError(f"{cls.__name__}.{name} is pure and cannot be async; I/O belongs in `events`")
        try:
            inspect.signature(method).bind(*[None] * count)
        except TypeError as error:
            raise DefinitionError(f"{cls.__name__}.{name} takes {('self', 'self and one more')[count - 1]}") from error


def _config_of(cls: type[Sensor[Any]]) -> type[pydantic.BaseModel] | None:
    """The config named in `Sensor[...]`, or the base's."""
    bases: tuple[Any, ...] = vars(cls).get("__orig_bases__", ())
    for base in bases:
        origin = get_origin(base)
        if not (isinstance(origin, type) and issubclass(origin, Sensor)):
            continue
        argument = get_args(base)[0]
        if isinstance(argument, TypeVar):
            return None
        if not (isinstance(argument, type) and issubclass(argument, pydantic.BaseModel)):
            raise DefinitionError(f"{cls.__name__}: Sensor[...] takes a pydantic model, not {argument!r}")
        return argument
    if cls.__config__ is None:
        raise DefinitionError(f"{cls.__name__} names no config: class {cls.__name__}(Sensor[MyConfig])")
    return cls.__config__
