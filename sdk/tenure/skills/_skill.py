"""What a skill is: a class with a key, a state of its own, actions, routes, and hooks around the turns of its agent."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    Self,
    TypeVar,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
)

import pydantic

from tenure import _codec
from tenure._context import Context
from tenure._instruction import Instruction
from tenure._methods import Method, methods_of
from tenure._record import migrations_of
from tenure._state import S, State
from tenure.errors import DefinitionError, NotInTurn, NotSupported, UsageError
from tenure.skills._methods import SkillMethod
from tenure.skills._times import Schedules, SensorMakers, schedules_of, sensors_of

if TYPE_CHECKING:
    from tenure._agent import Agent, Cell, Runtime
    from tenure._effects import Emit
    from tenure.signals import Signal

Persist = Literal["keep", "drop", "externalize"]
"""What becomes of a skill's state at a commit: it is kept with the agent's; it is not, and begins anew with each
activation; the skill keeps it elsewhere (`save`, `load`), and a pointer to it is kept."""
HOOKS = ("prepare_signal", "prepare_action", "transform_result", "prepare_emit", "on_attach", "on_detach", "on_start")
_KEY = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = frozenset({"agent", "alias", "key", "load", "save", "state", *HOOKS})
K = TypeVar("K", bound="Skill[Any]")


class SkillConfig(pydantic.BaseModel):
    """Base of what the annotations of a skill's class make: its configuration."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


@dataclass_transform(kw_only_default=True, field_specifiers=(pydantic.Field,))
class _Configured:
    """Says to type checkers that annotations in a class are the parameters of its making."""


class Skill(_Configured, Generic[S]):
    """Base of skills: `class Cart(tenure.Skill[CartState], key="cart")`, made as `Cart(limit=3)`.

    Annotations in the class are its configuration, checked when a skill is made. Its actions are known to the agent as
    `cart.add`, or `wishlist.add` for one made with `alias="wishlist"`. In a turn, `self.state` is the skill's own state
    and `self.agent` the agent.

    In the class statement: `key`; `requires`, keys of skills that must be attached too; `capabilities`; `singleton`,
    for at most one in an agent; `version`, of its state; `persist`; `signals`, patterns of what `prepare_signal` sees
    (all, by default); `schedules` and `sensors`. Raises DefinitionError for what cannot be.
    """

    alias: str = ""
    """What the agent knows it by; the key, if none is given."""

    key: ClassVar[str] = ""
    __tenure_state__: ClassVar[type[State]] = State
    __tenure_config__: ClassVar[type[SkillConfig]] = SkillConfig
    __tenure_requires__: ClassVar[tuple[str, ...]] = ()
    __tenure_capabilities__: ClassVar[tuple[str, ...]] = ()
    __tenure_singleton__: ClassVar[bool] = False
    __tenure_version__: ClassVar[int] = 1
    __tenure_persist__: ClassVar[Persist] = "keep"
    __tenure_signals__: ClassVar[tuple[str, ...]] = ()
    __tenure_schedules__: ClassVar[Schedules] = {}
    __tenure_sensors__: ClassVar[SensorMakers] = {}
    __tenure_hooks__: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(  # noqa: PLR0913 - the class statement
        cls,
        *,
        key: str = "",
        requires: Sequence[str] = (),
        capabilities: Sequence[str] = (),
        singleton: bool = False,
        version: int = 0,
        persist: Persist | None = None,
        signals: Sequence[str] = (),
        schedules: object = (),
        sensors: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> None:
        super().__init_subclass__(**keywords)
        cls.key = key
        if key and not _KEY.fullmatch(key):
            raise DefinitionError(f"{cls.__name__}: a key is lower case letters, digits and _, not {key!r}")
        cls.__tenure_state__ = _state_of(cls)
        cls.__tenure_requires__ = _words(cls, "requires", requires) or cls.__tenure_requires__
        cls.__tenure_capabilities__ = _words(cls, "capabilities", capabilities) or cls.__tenure_capabilities__
        cls.__tenure_singleton__ = singleton or cls.__tenure_singleton__
        cls.__tenure_version__ = version or cls.__tenure_version__
        cls.__tenure_persist__ = persist or cls.__tenure_persist__
        _check_class(cls)
        cls.__tenure_config__ = _config_of(cls)
        cls.__tenure_hooks__ = frozenset(name for name in HOOKS if _overrides(cls, name))
        _name_methods(cls)
        cls.__tenure_signals__ = _patterns(cls, signals) or cls.__tenure_signals__
        cls.__tenure_schedules__ = {**cls.__tenure_schedules__, **schedules_of(cls, methods_of(cls), schedules)}
        cls.__tenure_sensors__ = {**cls.__tenure_sensors__, **sensors_of(cls, sensors or {})}

    def __init__(self, *, alias: str = "", **config: Any) -> None:
        """Raises UsageError, naming the field, for a configuration that does not fit; DefinitionError without a key."""
        cls = type(self)
        if not cls.key:
            raise DefinitionError(f"{cls.__name__} has no key: class {cls.__name__}(tenure.Skill[...], key='...')")
        if alias and (not _KEY.fullmatch(alias) or cls.__tenure_singleton__):
            what = "is a singleton" if cls.__tenure_singleton__ else "takes lower case letters, digits and _"
            raise DefinitionError(f"{cls.__name__}: no alias {alias!r}: it {what}")
        try:
            checked = cls.__tenure_config__(**config)
        except pydantic.ValidationError as error:
            raise UsageError(f"{cls.__name__}: {_codec.explain(error)}") from error
        self.__dict__.update(checked.__dict__)
        self.__dict__["alias"] = alias or cls.key
        self.__dict__["__config__"] = checked

    # --- in a turn ---

    @property
    def state(self) -> S:
        """The skill's own state, in a turn or of a value. Raises NotInTurn."""
        from tenure.skills._roster import state_of  # noqa: PLC0415 - rosters are made of skills

        return cast(S, state_of(self))

    @state.setter
    def state(self, state: S) -> None:
        scope = self.__tenure__.scope
        if scope is None or not scope.open or scope.read_only or scope.skills is None:
            raise NotInTurn(f"the state of {self!r} can be replaced in the turn of an action only")
        kind = type(self).__tenure_state__
        if not isinstance(state, kind):
            raise TypeError(f"the state of {type(self).__name__} is a {kind.__name__}, not {type(state).__name__}")
        scope.skills[self.alias] = state

    @property
    def agent(self) -> Agent[Any]:
        """The agent, as its own actions see it."""
        from tenure._agent import make  # noqa: PLC0415 - agents have skills

        owner: type[Agent[Any]] = self.__dict__.get("__owner__") or self._no_agent()
        return make(owner, self.__tenure__)

    @property
    def __tenure__(self) -> Cell[Any]:
        """What the agent holds; for the engine."""
        cell: Cell[Any] = self.__dict__.get("__cell__") or self._no_agent()
        return cell

    def __tenure_around__(self, cell: Cell[Any], owner: type[Agent[Any]] | None = None) -> Self:
        """The same skill, of an agent; for the engine."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made.__dict__["__cell__"] = cell
        if owner is not None:
            made.__dict__["__owner__"] = owner
        return made

    def runtime_for(self, what: str) -> Runtime:
        """Where a call leads; not for user code. Raises CallInsideTurn, NotInTurn."""
        return self.agent.runtime_for(what)

    # --- hooks: `def` or `async def`; one that raises fails the turn ---

    def prepare_signal(self, ctx: Context, signal: Signal) -> Signal | Awaitable[Signal | None] | None:  # noqa: ARG002
        """Called with a signal that came for the agent; may return another in its place, or raise to refuse it."""
        return None

    def prepare_action(
        self,
        ctx: Context,  # noqa: ARG002 - the interface
        instruction: Instruction[Any],  # noqa: ARG002
    ) -> Instruction[Any] | Awaitable[Instruction[Any] | None] | None:
        """Called before each action and query of the agent, of all skills; may return another one, or raise."""
        return None

    def transform_result(
        self,
        ctx: Context,  # noqa: ARG002 - the interface
        instruction: Instruction[Any],  # noqa: ARG002
        result: Any,
    ) -> Any:
        """Called with what an action or query returned; returns what the caller gets."""
        return result

    def prepare_emit(self, ctx: Context, emit: Emit) -> Emit | Awaitable[Emit | None] | None:  # noqa: ARG002
        """Called with each signal that is to go out with the turn; may return another in its place, or raise."""
        return None

    def on_attach(self, ctx: Context) -> Awaitable[None] | None:  # noqa: ARG002
        """Called in the turn that attaches the skill; of skills of the class, in the agent's first."""
        return None

    def on_detach(self, ctx: Context) -> Awaitable[None] | None:  # noqa: ARG002
        """Called in the turn that detaches the skill."""
        return None

    def on_start(self, ctx: Context) -> Awaitable[None] | None:  # noqa: ARG002
        """Called in the first turn of each activation of the agent, and after `on_attach`."""
        return None

    def save(self, ctx: Context) -> Any:  # noqa: ARG002 - the interface
        """With `persist="externalize"`: keep `self.state` elsewhere, as something new, and return a pointer to it."""
        raise NotSupported(f"{type(self).__name__} has no `save`")

    def load(self, pointer: Any) -> S | Awaitable[S]:  # noqa: ARG002
        """With `persist="externalize"`: the state that `save` returned the pointer of."""
        raise NotSupported(f"{type(self).__name__} has no `load`")

    # --- as a value ---

    def __setattr__(self, name: str, value: object) -> None:
        if name != "state":
            raise UsageError(f"self.{name} would be lost: declare `{name}` in the state of {type(self).__name__}")
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in type(self).__tenure_config__.model_fields:
            raise NotInTurn(f"the configuration of {type(self).__name__} is not known here, but in the agent's turns")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Skill):
            return NotImplemented
        return (type(self), vars(self).get("alias"), config_of(self)) == (
            type(cast(object, other)),
            vars(other).get("alias"),
            config_of(cast(Any, other)),
        )

    def __hash__(self) -> int:
        return hash((type(self), self.alias))

    def __repr__(self) -> str:
        config = {} if self.alias == self.key else {"alias": self.alias}
        config |= config_of(self)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in config.items())})"

    def _no_agent(self) -> Any:
        raise NotInTurn(f"{self!r} is attached to no agent: `agent.skill({type(self).__name__})` is")


def config_of(skill: Skill[Any]) -> dict[str, Any]:
    """The values of a skill's configuration; empty where they are not known."""
    config: SkillConfig | None = skill.__dict__.get("__config__")
    return {} if config is None else config.model_dump(mode="python")


def unseated(kind: type[K], alias: str) -> K:
    """A skill of an agent that is elsewhere: its configuration is not known."""
    made = object.__new__(kind)
    made.__dict__["alias"] = alias or kind.key
    return made


def _state_of(cls: type[Skill[Any]]) -> type[State]:
    """The state named in `Skill[...]`, or the base's."""
    bases: tuple[Any, ...] = vars(cls).get("__orig_bases__", ())
    for base in bases:
        origin = get_origin(base)
        if not (isinstance(origin, type) and issubclass(origin, Skill)):
            continue
        argument = get_args(base)[0]
        if isinstance(argument, TypeVar):
            break
        if not (isinstance(argument, type) and issubclass(argument, State)):
            raise DefinitionError(f"{cls.__name__}: Skill[...] takes a subclass of tenure.State, not {argument!r}")
        try:
            argument()
        except pydantic.ValidationError as error:
            raise DefinitionError(f"{cls.__name__}: its state needs defaults: {_codec.explain(error)}") from error
        return argument
    return cls.__tenure_state__


def _config_of(cls: type[Skill[Any]]) -> type[SkillConfig]:
    """A model of the annotations of the class, on top of that of its base. Defaults leave the class for it."""
    own = {name: hint for name, hint in inspect.get_annotations(cls).items() if not _is_class_variable(hint)}
    for name in own:
        if name in _TAKEN or name.startswith("_"):
            raise DefinitionError(f"{cls.__name__}.{name}: the name is taken")
    values = {name: vars(cls)[name] for name in own if name in vars(cls)}
    for name in values:
        delattr(cls, name)
    base = cls.__tenure_config__
    metaclass: Any = type(base)
    made: type[SkillConfig] = metaclass(
        f"{cls.__name__}Config", (base,), {"__annotations__": own, "__module__": cls.__module__, **values}
    )
    return made


def _overrides(cls: type[Any], name: str) -> bool:
    return getattr(cls, name) is not getattr(cast(Any, Skill), name)


def _is_class_variable(hint: object) -> bool:
    if isinstance(hint, str):
        return hint.split("[")[0].rpartition(".")[2] == "ClassVar"
    return hint is ClassVar or get_origin(hint) is ClassVar


def _check_class(cls: type[Skill[Any]]) -> None:
    if cls.__tenure_version__ < 1:
        raise DefinitionError(f"{cls.__name__}: versions begin with 1, not {cls.__tenure_version__}")
    for step in migrations_of(cls):
        if step >= cls.__tenure_version__:
            raise DefinitionError(
                f"{cls.__name__} is of version {cls.__tenure_version__}: a migration from version {step} leads nowhere"
            )
    if cls.__tenure_persist__ not in get_args(Persist):
        raise DefinitionError(
            f"{cls.__name__}: persist is {', '.join(get_args(Persist))}, not {cls.__tenure_persist__!r}"
        )
    if cls.__tenure_persist__ == "externalize" and not (_overrides(cls, "save") and _overrides(cls, "load")):
        raise DefinitionError(f"{cls.__name__}: persist='externalize' needs `save` and `load`")
    for name in ("__init__", "__new__", "agent", "state", "alias"):
        if name in vars(cls):
            raise DefinitionError(
                f"{cls.__name__}.{name}: the name is taken; configuration are annotations, what it keeps is its State"
            )


def _name_methods(cls: type[Skill[Any]]) -> None:
    """Each action of the class is one of this key, also those that it has from its bases."""
    taken: dict[tuple[str, int], str] = {}
    known = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
    for name, method in known.items():
        if not isinstance(method, Method):
            continue
        if name in _TAKEN or name.startswith("__") or name in cls.__tenure_config__.model_fields:
            raise DefinitionError(f"{cls.__name__}.{name}: the name is taken, an action needs another")
        own = SkillMethod[..., Any].made_of(cast("Method[..., Any]", method), cls, name)
        setattr(cls, name, own)
        for wanted in own.wanted:
            other = taken.setdefault((wanted.pattern, wanted.priority), name)
            if wanted.match is None and other != name:
                raise DefinitionError(
                    f"{cls.__name__}: {wanted.pattern!r} leads to {other} and to {name} with one priority; give one "
                    "of them another, or a `match`"
                )


def _words(cls: type[Any], what: str, words: Sequence[str]) -> tuple[str, ...]:
    if isinstance(words, str) or not all(words):
        raise DefinitionError(f"{cls.__name__}: {what} is a list of names")
    return tuple(words)


def _patterns(cls: type[Skill[Any]], patterns: Sequence[str]) -> tuple[str, ...]:
    checked = _words(cls, "signals", patterns)
    if checked:
        from tenure.signals import Route  # noqa: PLC0415 - skills that filter nothing need no signals

        for pattern in checked:
            Route(pattern, cls)  # says what cannot be
    return checked
