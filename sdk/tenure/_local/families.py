"""Parents and children: who belongs to whom is a slice of each one's record, committed with the turn that asked for it.

A parent keeps its children by tag (`@children`), a child its parent (`@parent`). This binds agents, it supervises no
processes: an agent that ends takes its children with it, or lets them go, as each was made; one that fails is begun
again by its parent's runtime, as it was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, get_args

from tenure import _state
from tenure._agent import Agent, state_class
from tenure._context import CHILDREN, PARENT, Parent
from tenure._turn import Slices
from tenure.directives import AdoptChild, Directive, ParentEnd, Restart, SpawnAgent
from tenure.errors import AgentUnavailable, Conflict, InvalidArguments, NotFound, UsageError

STARTED = "tenure.child.started"
ENDED = "tenure.child.ended"
ORPHANED = "tenure.orphaned"
RESTARTS = 3
"""Of one child, within `WINDOW_S`; at the next failure its parent is told."""
WINDOW_S = 60.0
Standing = Literal["here", "starting", "asleep", "ended", "unknown"]
Row = Mapping[str, Any]
"""Of one child: `id`, `class`, `on_parent_end`, `restart`."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a runtime knows of an agent."""

    standing: Standing
    parent: Parent | None = None
    cls: str = ""
    """Name of its class, if it is here."""
    reason: str = ""
    """Why it ended."""


class View(Protocol):
    """What the rules need to know of other agents."""

    def full_id(self, agent_id: str) -> str:
        """`namespace/name`. Raises UsageError."""
        ...

    def known(self, agent_id: str) -> Known:
        """What there is to know of an agent."""
        ...


@dataclass(frozen=True, slots=True)
class Bound(Directive):
    """To a child: it has this parent."""

    parent: str
    tag: str


@dataclass(frozen=True, slots=True)
class Unbound(Directive):
    """To a child: this parent is not its parent any more."""

    parent: str


@dataclass(frozen=True, slots=True)
class Gone(Directive):
    """To a parent: this child is not its child any more."""

    tag: str
    id: str


@dataclass(frozen=True, slots=True)
class Childless(Directive):
    """To an agent that ends: it has neither parent nor children."""


def parent_of(slices: Mapping[str, Any]) -> Parent | None:
    """The parent that a record names."""
    bond = slices.get(PARENT)
    return None if bond is None else Parent(bond["id"], bond["tag"])


def children_of(slices: Mapping[str, Any]) -> Mapping[str, Row]:
    """The children that a record names, by tag."""
    return cast(Mapping[str, Row], slices.get(CHILDREN, {}))


def last_slices(slices: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[Directive, ...]]:
    """What a record says as its agent ends, and what is to be committed of that."""
    bound = CHILDREN in slices or PARENT in slices
    return dict(slices), (Childless(),) if bound else ()


def fold(slices: Slices, directive: Directive, me: str, view: View) -> None:
    """Change who belongs to whom as a directive says. Raises CallError: the turn is refused."""
    children = dict(children_of(slices))
    match directive:
        case SpawnAgent():
            children[directive.tag] = _spawned(children, directive, view)
        case AdoptChild():
            children[directive.tag] = _adopted(children, directive, me, view)
        case Gone(tag, child) if children.get(tag, {}).get("id") == child:
            del children[tag]
        case Bound(parent, tag):
            before = parent_of(slices)
            if before is not None and before.id != parent:
                raise Conflict(f"{me} is a child of {before.id} already", agent=me)
            slices[PARENT] = {"id": parent, "tag": tag}
            return
        case Unbound(parent):
            before = parent_of(slices)
            if before is not None and before.id == parent:
                del slices[PARENT]
            return
        case Childless():
            slices.pop(PARENT, None)
            children = {}
        case _:
            return
    if children:
        slices[CHILDREN] = children
    else:
        slices.pop(CHILDREN, None)


def _spawned(children: Mapping[str, Row], wanted: SpawnAgent, view: View) -> Row:
    """The row of a new child. Raises InvalidArguments, StateInvalid, Conflict."""
    _check_options(wanted.tag, wanted.on_parent_end, wanted.restart)
    if not (isinstance(wanted.cls, type) and issubclass(wanted.cls, Agent)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArguments(f"a child is an agent: {wanted.cls!r} is no subclass of tenure.Agent")
    _state.initial(state_class(wanted.cls), dict(wanted.state))
    full = _full(wanted.id, view)
    there = view.known(full)
    before = children.get(wanted.tag)
    # What is left of an earlier process may be begun again under its name.
    if before is not None and not (before["id"] == full and there.standing == "unknown"):
        raise Conflict(f"the tag {wanted.tag!r} is in use: it is {before['id']}", agent=full)
    if there.standing in {"here", "starting", "asleep"}:
        raise Conflict(f"{full} exists already: adopt it, or give the child another id", agent=full)
    _refuse_twice(children, wanted.tag, full)
    return _row(full, wanted.cls.__name__, wanted.on_parent_end, wanted.restart)


def _adopted(children: Mapping[str, Row], wanted: AdoptChild, me: str, view: View) -> Row:
    """The row of an adopted child. Raises InvalidArguments, Conflict, NotFound, AgentUnavailable."""
    _check_options(wanted.tag, wanted.on_parent_end, wanted.restart)
    full = _full(wanted.id, view)
    if wanted.tag in children:
        raise Conflict(f"the tag {wanted.tag!r} is in use: it is {children[wanted.tag]['id']}", agent=full)
    there = view.known(full)
    if there.standing == "unknown":
        raise NotFound(f"there is no agent {full} to adopt", agent=full)
    if there.standing == "ended":
        raise AgentUnavailable(f"{full} cannot be adopted: it has stopped: {there.reason}", agent=full)
    if there.parent is not None:
        raise Conflict(f"{full} cannot be adopted: it is a child of {there.parent.id}", agent=full)
    _refuse_twice(children, wanted.tag, full)
    _refuse_circle(me, full, view)
    return _row(full, there.cls, wanted.on_parent_end, wanted.restart)


def _refuse_twice(children: Mapping[str, Row], tag: str, full: str) -> None:
    for other, row in children.items():
        if row["id"] == full and other != tag:
            raise Conflict(f"{full} is a child already, as {other!r}", agent=full)


def _refuse_circle(me: str, child: str, view: View) -> None:
    ancestor: str | None = me
    while ancestor is not None:
        if ancestor == child:
            raise Conflict(f"{child} cannot be adopted: it is {me} itself, or an ancestor of it", agent=child)
        parent = view.known(ancestor).parent
        ancestor = None if parent is None else parent.id


def _full(agent_id: str, view: View) -> str:
    try:
        return view.full_id(agent_id)
    except UsageError as error:
        raise InvalidArguments(str(error)) from error


def _check_options(tag: str, on_parent_end: str, restart: str) -> None:
    for name, value, allowed in (
        ("on_parent_end", on_parent_end, get_args(ParentEnd)),
        ("restart", restart, get_args(Restart)),
    ):
        if value not in allowed:
            raise InvalidArguments(f"{name} is one of {', '.join(allowed)}, not {value!r}")
    if not tag:
        raise InvalidArguments("a child needs a tag")


def _row(agent_id: str, cls: str, on_parent_end: ParentEnd, restart: Restart) -> Row:
    return {"id": agent_id, "class": cls, "on_parent_end": on_parent_end, "restart": restart}


def recent(times: Sequence[float], now: float) -> list[float]:
    """The restarts that still count."""
    return [at for at in times if now - at < WINDOW_S]


def begins_again(restart: Restart, times: Sequence[float], *, failed: bool) -> bool:
    """Whether a child that ended is begun again. `times`: of its restarts within the window."""
    wanted = restart == "permanent" or (restart == "transient" and failed)
    return wanted and len(times) < RESTARTS
