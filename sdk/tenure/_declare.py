"""What the class statement of an agent says, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_origin

from tenure._methods import methods_of, near
from tenure._record import migrations_of
from tenure._state import State
from tenure.errors import DefinitionError

if TYPE_CHECKING:
    from tenure._agent import Agent
    from tenure.policies import ErrorPolicy
    from tenure.skills import Skill
    from tenure.skills._roster import Declared
    from tenure.strategies import Strategy


def declared_state(cls: type[Agent[Any]], root: type[Any]) -> type[State] | None:
    """The state named in `Agent[...]`, or the base's. `root`: Agent itself."""
    bases: tuple[Any, ...] = vars(cls).get("__orig_bases__", ())
    for base in bases:
        origin = get_origin(base)
        if not (isinstance(origin, type) and issubclass(origin, root)):
            continue
        argument = get_args(base)[0]
        if isinstance(argument, TypeVar):
            return None
        if not (isinstance(argument, type) and issubclass(argument, State)):
            raise DefinitionError(f"{cls.__name__}: Agent[...] takes a subclass of tenure.State, not {argument!r}")
        return argument
    return cls.__tenure_state__


KEYWORDS = (
    "actions",
    "attachable",
    "capabilities",
    "on_error",
    "schedules",
    "sensors",
    "skills",
    "strategy",
    "subscribes",
    "version",
)
"""What a class statement may say."""


def refuse_unknown(cls: type[Any], keywords: Mapping[str, object]) -> None:
    """Raise DefinitionError for the first keyword that means nothing."""
    for name in keywords:
        raise DefinitionError(f"{cls.__name__}: {name}= means nothing in the class statement; {near(name, KEYWORDS)}")


def declare(
    cls: type[Agent[Any]],
    root: type[Any],
    capabilities: Sequence[str],
    subscribes: Sequence[str],
    strategy: Strategy | None,
    on_error: ErrorPolicy | None,
    version: int,
) -> None:
    """What the class statement says beside the state. Raises DefinitionError."""
    if isinstance(subscribes, str):
        raise DefinitionError(f"{cls.__name__}: subscribes is a list of patterns, such as ['order.*']")
    if subscribes:
        from tenure.signals import Route  # noqa: PLC0415 - agents that subscribe to nothing need no signals

        for pattern in subscribes:
            Route(pattern, cls)  # says what cannot be
    cls.__tenure_subscribes__ = tuple(dict.fromkeys([*cls.__tenure_subscribes__, *subscribes]))
    if strategy is not None:
        cls.__tenure_strategy__ = _strategy(cls, strategy)
    if on_error is not None:
        cls.__tenure_policy__ = _policy(cls, on_error)
    if version < 0:
        raise DefinitionError(f"{cls.__name__}: versions begin with 1, not {version}")
    cls.__tenure_version__ = version or cls.__tenure_version__
    for step in migrations_of(cls):
        if step >= cls.__tenure_version__:
            raise DefinitionError(
                f"{cls.__name__} is of version {cls.__tenure_version__}: a migration from version {step} leads nowhere"
            )
    cls.__tenure_capabilities__ = _capabilities(cls, capabilities)
    for name in ("checkpoint", "restore"):
        own: Any = getattr(cls, name)
        overridden = own.__func__ is not vars(root)[name].__func__
        setattr(cls, f"__tenure_{name}__", own if overridden else None)


def declare_skills(
    cls: type[Agent[Any]],
    skills: Sequence[Skill[Any]],
    attachable: Sequence[type[Skill[Any]]],
    schedules: object,
    sensors: Mapping[str, Any] | None,
) -> None:
    """What the class statement says of skills, schedules and sensors, beside those of its base."""
    base: Declared | None = cls.__tenure_skills__
    if base is None and not (skills or attachable or schedules or sensors):
        return
    from tenure.skills import Skill, _phases, _roster, _times  # noqa: PLC0415 - most agents have none

    for skill in skills:
        if not isinstance(cast(object, skill), Skill):
            raise DefinitionError(f"{cls.__name__}: skills is a list of skills such as [Cart()], not of {skill!r}")
    for kind in attachable:
        if not (isinstance(cast(object, kind), type) and issubclass(cast("type[Any]", kind), Skill)):
            raise DefinitionError(f"{cls.__name__}: attachable is a list of classes such as [Cart], not of {kind!r}")
    before = base or _roster.Declared(cls)
    declared = _roster.Declared(
        cls,
        (*before.skills, *skills),
        tuple(dict.fromkeys([*before.attachable, *attachable])),
        {**before.schedules, **_times.schedules_of(cls, methods_of(cls), schedules or ())},
        {**before.sensors, **_times.sensors_of(cls, sensors or {})},
    )
    aliases = [skill.alias for skill in declared.skills]
    if doubled := [alias for alias in aliases if aliases.count(alias) > 1]:
        raise DefinitionError(f"{cls.__name__} has two skills {doubled[0]!r}: give one of them an alias")
    cls.__tenure_skills__ = declared
    roster = _roster.first(declared)
    _roster.check(cls.__name__, roster.seats)
    _phases.router_with(cls, roster.shape)
    named = {name for skill in skills for name in type(skill).__tenure_capabilities__}
    cls.__tenure_capabilities__ = tuple(sorted({*cls.__tenure_capabilities__, *named}))


def _capabilities(cls: type[Agent[Any]], declared: Sequence[str]) -> tuple[str, ...]:
    """Those of the class and of its bases."""
    if isinstance(declared, str) or not all(declared):
        raise DefinitionError(f"{cls.__name__}: capabilities is a list of names, such as ['ocr']")
    return tuple(sorted({*declared, *cls.__tenure_capabilities__}))


def _strategy(cls: type[Any], given: object) -> Strategy:
    from tenure.strategies import Strategy  # noqa: PLC0415 - agents without one need none of it

    if not isinstance(given, Strategy):
        raise DefinitionError(f"{cls.__name__}: strategy is a value such as tenure.FSM(), not {given!r}")
    return given


def _policy(cls: type[Any], given: object) -> ErrorPolicy:
    from tenure import policies  # noqa: PLC0415 - as above

    known = policies.LogOnly | policies.StopOnError | policies.EmitOnError | policies.MaxErrors
    if isinstance(given, type) or not (isinstance(given, known) or callable(given)):
        raise DefinitionError(
            f"{cls.__name__}: on_error is a policy such as tenure.policies.StopOnError(), or a function, not {given!r}"
        )
    return cast("ErrorPolicy", given)
