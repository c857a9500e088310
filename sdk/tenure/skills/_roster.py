"""Which skills an agent has, each with its state: a value that is committed with the agent's record.

In the record each skill stands as `@skills/<alias>`: `key`, `version`, `state` or `pointer`, `config` if it was
attached to the running agent, and `off` if it was detached.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from tenure import _codec, _record, _state
from tenure._methods import methods_of, near
from tenure._record import SCHEDULES, SKILLS
from tenure._state import State
from tenure.errors import DefinitionError, NotInTurn, StateInvalid, UnknownMethod, UsageError
from tenure.skills._methods import SkillMethod
from tenure.skills._skill import Skill, config_of, unseated
from tenure.skills._times import Schedules, SensorMakers

if TYPE_CHECKING:
    from tenure._agent import Agent, Cell
    from tenure._instruction import Kind
    from tenure._scope import Scope

K = TypeVar("K", bound=Skill[Any])
Content = Mapping[str, Any]
Shape = tuple[tuple[type[Skill[Any]], str], ...]
"""Classes of skills and their aliases."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What the class statement of an agent says of skills, schedules and sensors."""

    cls: type[Agent[Any]]
    skills: tuple[Skill[Any], ...] = ()
    attachable: tuple[type[Skill[Any]], ...] = ()
    """Each with the classes that derive from it."""
    schedules: Schedules = field(default_factory=dict[str, Any])
    sensors: SensorMakers = field(default_factory=dict[str, Any])

    @property
    def owner(self) -> str:
        """Name of the class."""
        return self.cls.__name__

    def known(self, key: str) -> type[Skill[Any]] | None:
        """The class of this key, among those that may be attached. Raises DefinitionError if there are two."""
        found = {kind for kind in self._all() if kind.key == key}
        if len(found) > 1:
            names = " and ".join(sorted(f"{kind.__module__}.{kind.__qualname__}" for kind in found))
            raise DefinitionError(f"{self.owner}: two skills that it may be given have the key {key!r}: {names}")
        return found.pop() if found else None

    def _all(self) -> list[type[Skill[Any]]]:
        waiting: list[type[Skill[Any]]] = [*(type(skill) for skill in self.skills), *self.attachable]
        found: list[type[Skill[Any]]] = []
        while waiting:
            kind = waiting.pop()
            if kind not in found:
                found.append(kind)
                waiting += kind.__subclasses__()
        return found


@dataclass(frozen=True, slots=True)
class Seat:
    """One skill that is attached."""

    skill: Skill[Any]
    of_class: bool
    """It is as the class statement says; else its configuration is in the record."""
    state: bytes | None
    """msgpack; None: it is elsewhere, and was not loaded yet."""
    pointer: bytes | None = None
    """msgpack of what `save` returned last."""
    mounted: bool = False
    """`on_attach` was called."""

    def entry(self) -> dict[str, Any]:
        """What of it goes into the record."""
        kind = type(self.skill)
        content: dict[str, Any] = {"key": kind.key, "version": kind.__tenure_version__}
        if not self.of_class:
            content["config"] = config_of(self.skill)
        elsewhere = self.state is None or kind.__tenure_persist__ == "externalize"
        if self.pointer is not None and elsewhere:
            content["pointer"] = msgspec.Raw(self.pointer)
        elif self.state is not None and kind.__tenure_persist__ != "drop":
            content["state"] = msgspec.Raw(self.state)
        return content


@dataclass(frozen=True, slots=True)
class Roster:
    """The skills of one agent, in order."""

    declared: Declared
    seats: Mapping[str, Seat]
    kept: Mapping[str, Content] = field(default_factory=dict[str, Any])
    """Entries of skills that were detached: what they left, or that they are not to come back by themselves."""
    planned: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Any])
    """Schedules as they stand: name to expression, time zone and action."""
    started: bool = False
    """`on_start` was called in this activation."""

    @property
    def shape(self) -> Shape:
        """What its methods and routes depend on."""
        return tuple((type(seat.skill), alias) for alias, seat in self.seats.items())

    @property
    def keys(self) -> Mapping[str, str]:
        """Aliases and keys."""
        return {alias: seat.skill.key for alias, seat in self.seats.items()}

    def entries(self) -> dict[str, Any]:
        """What of it goes into the record; nothing, for skills of the class before the agent's first turn."""
        rows = {f"{SKILLS}{alias}": seat.entry() for alias, seat in self.seats.items() if seat.mounted}
        rows |= {f"{SKILLS}{alias}": dict(content) for alias, content in self.kept.items()}
        return {**rows, SCHEDULES: dict(self.planned)} if self.planned else rows

    def find(self, name: str, kind: Kind) -> SkillMethod[..., Any]:
        """The method `alias.name`. Raises UnknownMethod, listing near ones."""
        alias, _, short = name.rpartition(".")
        owner = self.declared.owner
        if alias not in self.seats:
            known = ", ".join(sorted(self.seats)) or "none"
            raise UnknownMethod(f"{owner} has no skill {alias!r} attached, to do {name}; it has {known}")
        methods = methods_of(type(self.seats[alias].skill))
        method = methods.get(short)
        if method is None:
            raise UnknownMethod(
                f"{owner} has no action or query {name!r}; {near(name, [f'{alias}.{one}' for one in methods])}"
            )
        if kind not in {"by_name", method.kind}:
            raise UnknownMethod(f"{owner}: {name} is a {method.kind}, and was called as a {kind}")
        return cast("SkillMethod[..., Any]", method).of(alias)

    def is_query(self, name: str) -> bool:
        """Whether that is a query of a skill."""
        alias, _, short = name.rpartition(".")
        seat = self.seats.get(alias)
        method = methods_of(type(seat.skill)).get(short) if seat is not None else None
        return method is not None and method.kind == "query"

    def alias_of(self, kind: type[Skill[Any]], alias: str) -> str:
        """The alias of the only skill of this class, if none is given. Raises UsageError."""
        found = [name for name, seat in self.seats.items() if isinstance(seat.skill, kind) and alias in {"", name}]
        if alias == "" and kind.key in found:
            return kind.key
        if len(found) == 1:
            return found[0]
        what = f"{len(found)} skills {kind.__name__}: say which" if found else f"no skill {alias or kind.__name__}"
        raise UsageError(f"{self.declared.owner} has {what}; attached: {', '.join(self.seats) or 'none'}")

    # --- changes ---

    def attach(self, skill: Skill[Any]) -> Roster:
        """With one more, and with the state that one of this alias left. Raises DefinitionError, StateInvalid."""
        alias, kind, declared = skill.alias, type(skill), self.declared
        if alias in self.seats:
            raise DefinitionError(f"{declared.owner} has a skill {alias!r} already: give one of them an alias")
        if declared.known(kind.key) is not kind:
            raise DefinitionError(
                f"{declared.owner} cannot be given {kind.__name__}: after a restart nobody would know its class; "
                f"class {declared.owner}(..., attachable=[{kind.__name__}])"
            )
        entry: Content = self.kept.get(alias) or {}
        if entry and entry["key"] != kind.key and not {"state", "pointer"} & set(entry):
            entry = {}  # it says only that the class's own is not to come back
        if entry and entry["key"] != kind.key:
            raise DefinitionError(
                f"{declared.owner} keeps what a skill {entry['key']!r} left as {alias!r}: give the new one an alias, "
                f"or ctx.detach({alias!r}, keep=False)"
            )
        seats = {**self.seats, alias: _seat(skill, entry, of_class=False)}
        of_class = {one.alias: seats[one.alias] for one in declared.skills if one.alias in seats}
        kept = {name: content for name, content in self.kept.items() if name != alias}
        made = replace(self, seats={**of_class, **seats}, kept=kept)  # in the order that it will have when thawed
        check(declared.owner, made.seats)
        return made

    def detach(self, alias: str, *, keep: bool) -> Roster:
        """With one less. Raises UsageError for one that is not there, or that others need."""
        if alias not in self.seats:
            if keep or alias not in self.kept:
                raise UsageError(f"{self.declared.owner} has no skill {alias!r} attached to detach")
            return replace(self, kept=self._left(alias, None))
        seats = {name: seat for name, seat in self.seats.items() if name != alias}
        try:
            check(self.declared.owner, seats)
        except DefinitionError as error:
            raise UsageError(f"{alias!r} cannot be detached: {error}") from error
        left = None
        if keep:
            entry = self.seats[alias].entry()
            left = (
                cast(dict[str, Any], _codec.unpack(_codec.pack(entry))) if {"state", "pointer"} & set(entry) else None
            )
        return replace(self, seats=seats, kept=self._left(alias, left))

    def _left(self, alias: str, entry: dict[str, Any] | None) -> dict[str, Content]:
        kept = {name: content for name, content in self.kept.items() if name != alias}
        if entry is not None:
            entry.pop("config", None)
            kept[alias] = {**entry, "off": True}
        elif named := [skill for skill in self.declared.skills if skill.alias == alias]:
            kept[alias] = {"key": named[0].key, "off": True}
        return kept

    def change(self, alias: str, **changes: Any) -> Roster:
        """With another seat in its place."""
        return replace(self, seats={**self.seats, alias: replace(self.seats[alias], **changes)})


def first(declared: Declared) -> Roster:
    """Of a new agent."""
    return Roster(declared, {skill.alias: _seat(skill, {}, of_class=True) for skill in declared.skills})


def thaw(declared: Declared, slices: dict[str, Any]) -> Roster:
    """Of a stored record; takes what is its own out of `slices`.

    Raises StateInvalid for a skill that the class does not know any more, or a state that fits no more, VersionSkew for
    one that a later version of a skill wrote.
    """
    planned = slices.pop(SCHEDULES, {})
    rows: dict[str, Any] = {
        name.removeprefix(SKILLS): slices.pop(name) for name in list(slices) if name.startswith(SKILLS)
    }
    seats: dict[str, Seat] = {}
    kept = {alias: entry for alias, entry in rows.items() if entry.get("off")}
    for skill in declared.skills:
        entry = rows.get(skill.alias)
        if entry is None:
            seats[skill.alias] = _seat(skill, {}, of_class=True)
        elif not entry.get("off"):
            seats[skill.alias] = _thawed(declared, skill.alias, entry, skill)
    for alias, entry in rows.items():
        if alias not in seats and alias not in kept:
            seats[alias] = _thawed(declared, alias, entry, None)
    roster = Roster(declared, seats, kept, planned)
    try:
        check(declared.owner, seats)
    except DefinitionError as error:
        raise StateInvalid(f"the stored skills do not fit together: {error}") from error
    return roster


def _thawed(declared: Declared, alias: str, entry: Content, named: Skill[Any] | None) -> Seat:
    key, config = entry.get("key", ""), entry.get("config")
    if config is None:
        if named is None or named.key != key:
            raise _unknown(declared, alias, key, f"skills=[{key}...]")
        return _seat(named, entry, of_class=True)
    try:
        kind = declared.known(key)
        if kind is None:
            raise _unknown(declared, alias, key, f"attachable=[{key}...]")
        skill = kind(alias="" if alias == key else alias, **config)
    except UsageError as error:
        raise StateInvalid(f"the skill {alias!r} of a stored {declared.owner} does not fit: {error}") from error
    return _seat(skill, entry, of_class=False)


def _unknown(declared: Declared, alias: str, key: str, place: str) -> StateInvalid:
    return StateInvalid(
        f"the stored agent has the skill {alias!r} (key {key!r}), which {declared.owner} does not know any more",
        next_step=f"Put it back into the class, {place}, and detach it from its agents before it goes.",
    )


def _seat(skill: Skill[Any], entry: Content, *, of_class: bool) -> Seat:
    """A skill with what is stored of it. Raises StateInvalid, VersionSkew."""
    kind = type(skill)
    mounted = bool(entry) and not entry.get("off")
    if kind.__tenure_persist__ != "drop" and "pointer" in entry:  # also of a class that externalized before
        return Seat(skill, of_class, None, _codec.pack(entry["pointer"]), mounted)
    state_class = kind.__tenure_state__
    if kind.__tenure_persist__ == "drop" or "state" not in entry:
        return Seat(skill, of_class, _state.encode(state_class()), mounted=mounted)
    content = _record.migrated(kind, copy.deepcopy(dict(entry["state"])), entry.get("version", 1))
    return Seat(skill, of_class, encoded(skill, _state.of_content(state_class, content)), mounted=mounted)


def encoded(skill: Skill[Any], state: State) -> bytes:
    """The bytes of a skill's state. Raises StateInvalid, which names the skill."""
    try:
        return _state.encode(state)
    except StateInvalid as error:
        raise StateInvalid(f"the skill {skill.alias}: {error.message}") from error


def check(owner: str, seats: Mapping[str, Seat]) -> None:
    """Whether skills can be together in one agent. Raises DefinitionError."""
    keys = [seat.skill.key for seat in seats.values()]
    for seat in seats.values():
        kind = type(seat.skill)
        for key in kind.__tenure_requires__:
            if key not in keys:
                raise DefinitionError(f"{owner}: the skill {kind.key} requires {key!r}, which is not attached")
        if kind.__tenure_singleton__ and keys.count(kind.key) > 1:
            raise DefinitionError(f"{owner}: the skill {kind.key} is a singleton, and is attached twice")


# --- skills in a turn ---


def seated(agent: Agent[Any] | Skill[Any], alias: str) -> Skill[Any]:
    """The skill of a draft, or of a value, known by this alias. Raises UsageError."""
    if isinstance(agent, Skill):
        return agent if agent.alias == alias else seated(agent.agent, alias)
    cell = agent.__tenure__
    roster = _roster_of(cell, type(agent))
    if roster is None or alias not in roster.seats:
        raise UsageError(f"{type(agent).__name__} has no skill {alias!r} attached")
    return roster.seats[alias].skill.__tenure_around__(cell, type(agent))


def skill_of(agent: Agent[Any], kind: type[K], alias: str) -> K:
    """The skill of an agent; of a reference, what calls its actions. Raises UsageError."""
    cell = agent.__tenure__
    if cell.runtime is not None:
        return unseated(kind, alias).__tenure_around__(cell, type(agent))
    roster = _roster_of(cell, type(agent))
    if roster is None:
        raise UsageError(f"{type(agent).__name__} has no skills")
    return cast(K, seated(agent, roster.alias_of(kind, alias)))


def state_of(skill: Skill[Any]) -> State:
    """The live state of a skill. Raises NotInTurn."""
    cell = skill.__tenure__
    scope = cell.scope
    if scope is not None and not scope.open:
        raise NotInTurn(f"the turn of {skill!r} has ended: its state may be another turn's by now")
    if scope is not None:
        return live(scope, skill.alias)
    roster = _roster_of(cell, type(skill.agent))
    if roster is None or skill.alias not in roster.seats:
        raise NotInTurn(f"{skill!r} has no state in this process: write a @tenure.query on it and await it")
    return _state.decode(type(skill).__tenure_state__, roster.seats[skill.alias].state or _codec.EMPTY_MAP)


def live(scope: Scope, alias: str) -> State:
    """The state of a skill in a turn."""
    states, roster = scope.skills, scope.roster
    if states is None or roster is None or alias not in roster.seats:
        raise NotInTurn(f"the skill {alias!r} is not attached any more")
    if alias not in states:
        seat = roster.seats[alias]
        if seat.state is None:
            raise NotInTurn(f"the state of the skill {alias!r} is not loaded yet")
        states[alias] = _state.decode(type(seat.skill).__tenure_state__, seat.state)
    state: State = states[alias]
    return state


def _roster_of(cell: Cell[Any], cls: type[Agent[Any]]) -> Roster | None:
    if cell.scope is not None:
        return cell.scope.roster
    if cell.runtime is not None:
        return None
    return cell.skills or _record.first_roster(cls)
