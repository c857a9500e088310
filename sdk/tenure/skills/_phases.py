"""What skills do around a turn: before it, around its actions, and before its commit. A hook that raises fails it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_origin

from tenure import _codec, _routes
from tenure._body import settled
from tenure._context import Context
from tenure._effects import Emit
from tenure._instruction import Instruction
from tenure._methods import Method, find, methods_of
from tenure._scope import Emission, Scope, emission_of
from tenure.directives import Cancel, Cron, StartSensor, StopSensor
from tenure.errors import DefinitionError, StateInvalid, UsageError
from tenure.signals import Route, Router, Signal
from tenure.signals._router import PRIORITY_LIMIT
from tenure.skills._methods import SkillMethod
from tenure.skills._roster import Roster, Shape, encoded, live, seated
from tenure.skills._skill import Skill
from tenure.skills._times import sensor_for

if TYPE_CHECKING:
    from tenure._agent import Agent

T = TypeVar("T")
Call = tuple[Method[..., Any], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Attach:
    """Asked for in a turn."""

    skill: Skill[Any]

    def apply(self, roster: Roster) -> Roster:
        """Raises DefinitionError, StateInvalid."""
        made = roster.attach(self.skill)
        router_with(made.declared.cls, made.shape)
        return made


@dataclass(frozen=True, slots=True)
class Detach:
    """Asked for in a turn."""

    alias: str
    keep: bool

    def apply(self, roster: Roster) -> Roster:
        """Raises UsageError."""
        return roster.detach(self.alias, keep=self.keep)


def foresee(scope: Scope, change: Attach | Detach) -> None:
    """Note a change for the end of the turn. Raises what it would raise then."""
    if scope.roster is None or scope.changes is None:
        raise UsageError(f"the class of {scope.agent_id} takes no skills: class ...(..., attachable=[...])")
    roster = scope.roster
    for one in [*scope.changes, change]:
        roster = one.apply(roster)
    scope.changes.append(change)


# --- before ---


async def begin(draft: Agent[Any], scope: Scope) -> None:
    """Load what is elsewhere; in the first turn of an activation, attach what is new and start all."""
    assert scope.roster is not None  # noqa: S101 - for the type checkers
    for alias in scope.roster.seats:
        await _load(draft, scope, alias)
    if scope.read_only or scope.roster.started:
        return
    declared = scope.roster.declared
    for tag, maker in declared.sensors.items():
        scope.do(StartSensor(tag, sensor_for(maker, draft)))
    for alias, seat in scope.roster.seats.items():
        await _mount(draft, scope, alias, new=not seat.mounted)
    scope.roster = replace(scope.roster, started=True)


async def _load(draft: Agent[Any], scope: Scope, alias: str) -> None:
    roster = cast(Roster, scope.roster)
    seat = roster.seats[alias]
    if seat.state is not None:
        return
    skill = seated(draft, alias)
    state: Any = await settled(skill.load(_codec.unpack(cast(bytes, seat.pointer))))
    kind = type(skill).__tenure_state__
    if not isinstance(state, kind):
        raise StateInvalid(f"the skill {alias}: load returned {type(state).__name__}, not {kind.__name__}")
    scope.roster = roster.change(alias, state=encoded(skill, state))


async def _mount(draft: Agent[Any], scope: Scope, alias: str, *, new: bool) -> None:
    await _load(draft, scope, alias)
    skill = seated(draft, alias)
    if new:
        await settled(skill.on_attach(Context(scope)))
        scope.roster = cast(Roster, scope.roster).change(alias, mounted=True)
    await settled(skill.on_start(Context(scope)))
    for tag, maker in type(skill).__tenure_sensors__.items():
        scope.do(StartSensor(f"{alias}.{tag}", sensor_for(maker, skill)))


async def incoming(draft: Agent[Any], scope: Scope, signal: Signal) -> list[Call]:
    """The actions that a signal leads to, after the skills have seen it. Raises UnknownSignal, InvalidArguments."""
    roster = cast(Roster, scope.roster)
    for alias in _with(roster, "prepare_signal"):
        skill = seated(draft, alias)
        patterns = type(skill).__tenure_signals__
        if patterns and not _filter(patterns).route(signal):
            continue
        changed = await settled(skill.prepare_signal(Context(scope), signal))
        signal = signal if changed is None else _checked(changed, Signal, f"{alias}.prepare_signal")
    scope.signal = signal
    router = router_with(type(draft), cast(Roster, scope.roster).shape)
    methods = _routes.targets(type(draft), signal, router)
    return [(method, _routes.arguments(method, signal)) for method in methods]


async def prepared(
    draft: Agent[Any], scope: Scope, method: Method[..., Any], arguments: Mapping[str, Any]
) -> tuple[Method[..., Any], Mapping[str, Any]]:
    """The action that is to be run. Raises UnknownMethod, InvalidArguments, UsageError."""
    for alias in _with(cast(Roster, scope.roster), "prepare_action"):
        instruction = Instruction(method, arguments)
        changed = await settled(seated(draft, alias).prepare_action(Context(scope), instruction))
        if changed is not None:
            changed = _checked(changed, Instruction[Any], f"{alias}.prepare_action")
            if scope.read_only and changed.kind != "query":
                raise UsageError(f"the skill {alias} put the action {changed.name} in the place of a query")
            method = find(type(draft), changed.name, changed.kind)
            arguments = method.signature.values(changed.arguments)
    return method, arguments


async def transformed(
    draft: Agent[Any], scope: Scope, method: Method[..., Any], arguments: Mapping[str, Any], result: object
) -> object:
    """What the caller gets."""
    for alias in _with(cast(Roster, scope.roster), "transform_result"):
        skill = seated(draft, alias)
        result = await settled(skill.transform_result(Context(scope), Instruction(method, arguments), result))
    return result


# --- after ---


async def finish(draft: Agent[Any], scope: Scope) -> None:
    """Attach and detach what the turn asked for, then make its signals and states ready for the commit."""
    assert scope.changes is not None  # noqa: S101 - for the type checkers
    while scope.changes:  # hooks may ask for more
        change = scope.changes.pop(0)
        if isinstance(change, Attach):
            scope.roster = change.apply(cast(Roster, scope.roster))
            await _mount(draft, scope, change.skill.alias, new=True)
        else:
            await _detach(draft, scope, change)
    await _outgoing(draft, scope)
    for alias in list(scope.skills or ()):
        await _keep(draft, scope, alias)
    _plan(draft, scope)


async def _detach(draft: Agent[Any], scope: Scope, change: Detach) -> None:
    alias = change.alias
    if alias in cast(Roster, scope.roster).seats:
        skill = seated(draft, alias)
        await settled(skill.on_detach(Context(scope)))
        if change.keep:
            await _keep(draft, scope, alias)
        for tag in type(skill).__tenure_sensors__:
            scope.do(StopSensor(f"{alias}.{tag}"))
    scope.roster = change.apply(cast(Roster, scope.roster))
    cast("dict[str, Any]", scope.skills).pop(alias, None)


async def _outgoing(draft: Agent[Any], scope: Scope) -> None:
    """What hooks emit here is not seen by hooks again."""
    aliases = _with(cast(Roster, scope.roster), "prepare_emit")
    for n, directive in enumerate(list(scope.directives) if aliases else ()):
        if not isinstance(directive, Emission):
            continue
        emit = directive.plain()
        for alias in aliases:
            changed = await settled(seated(draft, alias).prepare_emit(Context(scope), emit))
            emit = emit if changed is None else _checked(changed, Emit, f"{alias}.prepare_emit")
        scope.directives[n] = emission_of(emit)


async def _keep(draft: Agent[Any], scope: Scope, alias: str) -> None:
    """The state of a skill into the roster, if it has changed. Raises StateInvalid."""
    roster = cast(Roster, scope.roster)
    if alias not in roster.seats or alias not in (scope.skills or ()):
        return
    seat, skill = roster.seats[alias], seated(draft, alias)
    data = encoded(skill, live(scope, alias))
    if data == seat.state:
        return
    pointer = seat.pointer
    if type(skill).__tenure_persist__ == "externalize":
        saved = await settled(skill.save(Context(scope)))
        try:
            pointer = _codec.pack(saved)
        except ValueError as error:
            raise StateInvalid(f"the skill {alias}: what save returned cannot be kept: {error}") from error
    scope.roster = cast(Roster, scope.roster).change(alias, state=data, pointer=pointer)


def _plan(draft: Agent[Any], scope: Scope) -> None:
    """Let the runtime plan what is new or different, and forget what is gone."""
    roster = cast(Roster, scope.roster)
    wanted: dict[str, tuple[list[str], Cron]] = {}
    methods = methods_of(type(draft))
    for name, one in roster.declared.schedules.items():
        wanted[name] = (
            [one.times.expression, one.times.timezone, one.action],
            Cron(name, one.times, methods[one.action]()),
        )
    for alias, seat in roster.seats.items():
        for short, one in type(seat.skill).__tenure_schedules__.items():
            action = roster.find(f"{alias}.{one.action}", "action")
            name = f"{alias}.{short}"
            wanted[name] = ([one.times.expression, one.times.timezone, action.name], Cron(name, one.times, action()))
    for name in roster.planned:
        if name not in wanted:
            scope.do(Cancel(name))
    for name, (row, cron) in wanted.items():
        if list(roster.planned.get(name, ())) != row:
            scope.do(cron)
    planned = {name: row for name, (row, _) in wanted.items()}
    if planned != roster.planned:
        scope.roster = replace(roster, planned=planned)


def _checked(value: object, kind: type[T], hook: str) -> T:
    """What a hook returned. Anything else, such as False, may have meant a refusal: raises UsageError."""
    if not isinstance(value, get_origin(kind) or kind):
        raise UsageError(f"{hook} returned {value!r}; it returns None, or another {kind.__name__}, or raises")
    return cast(T, value)


def _with(roster: Roster, hook: str) -> list[str]:
    """Aliases of the skills that have a hook, in order."""
    return [alias for alias, seat in roster.seats.items() if hook in type(seat.skill).__tenure_hooks__]


@lru_cache(maxsize=1000)
def _filter(patterns: tuple[str, ...]) -> Router[bool]:
    return Router([Route(pattern, True) for pattern in patterns])


def router_with(cls: type[Agent[Any]], shape: Shape) -> Router[Method[..., Any]]:
    """Routes of a class and of its skills. A pattern that begins with a skill's key begins with its alias instead.

    Raises DefinitionError when two different skills have one pattern with one priority.
    """
    return _router_with(cast(Any, cls), shape)


@lru_cache(maxsize=1000)
def _router_with(cls: Any, shape: Shape) -> Router[Method[..., Any]]:
    routes = list(_routes.routes_of(cls))
    taken: dict[tuple[str, int], type[Skill[Any]]] = {}
    for kind, alias in shape:
        for method in methods_of(kind).values():
            for wanted in method.wanted:
                priority = max(wanted.priority + _routes.SKILL_PRIORITY, -PRIORITY_LIMIT)
                pattern = _rooted(wanted.pattern, kind.key, alias)
                other = taken.setdefault((pattern, priority), kind)
                if other is not kind and wanted.match is None:
                    raise DefinitionError(
                        f"{cls.__name__}: {pattern!r} leads to the skills {other.key} and {kind.key} with one "
                        "priority; give one of them another, or a `match`"
                    )
                own = cast("SkillMethod[..., Any]", method).of(alias)
                routes.append(Route(pattern, own, priority, wanted.match))
    return Router(routes)


def _rooted(pattern: str, key: str, alias: str) -> str:
    head, dot, rest = pattern.partition(".")
    return f"{alias}{dot}{rest}" if head == key else pattern
