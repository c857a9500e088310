"""Agents: a class with a state, and the three things that an instance can be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar, cast

import msgspec

from tenure import _codec, _state
from tenure._context import Context
from tenure._declare import declare, declare_skills, declared_state, refuse_unknown
from tenure._effects import Directive
from tenure._instruction import Instruction, Kind, Target, checked
from tenure._methods import Method, find
from tenure._scope import Scope, running_scope
from tenure._state import S, State
from tenure.errors import (
    CallInsideTurn,
    DefinitionError,
    InvalidArguments,
    NotInTurn,
    UsageError,
)

if TYPE_CHECKING:
    from tenure.policies import ErrorPolicy
    from tenure.signals import Router
    from tenure.skills import Skill
    from tenure.skills._roster import Declared, Roster
    from tenure.strategies import Strategy

K = TypeVar("K", bound="Skill[Any]")
R = TypeVar("R")
AnyAgent = TypeVar("AnyAgent", bound="Agent[Any]")


class Role(Enum):
    """What an instance of an agent class is."""

    VALUE = "value"
    """Made by `new()`: a state in hand, no runtime."""
    DRAFT = "draft"
    """`self` in a turn."""
    REFERENCE = "reference"
    """An address at a runtime; the state is elsewhere."""


class Runtime(Protocol):
    """Where references lead: `tenure.local()`, or a cluster."""

    async def invoke(self, agent_id: str, kind: Kind, method: str, arguments: bytes, timeout: float | None) -> bytes:  # noqa: ASYNC109
        """Run one method; its reply, msgpack. `timeout` in seconds, None: the runtime's own. Raises CallError."""
        ...

    async def call(
        self,
        agent_id: str,
        target: Target[Any],
        arguments: Mapping[str, object],
        timeout: float | None,  # noqa: ASYNC109
    ) -> object:
        """Run one method with values; its reply, typed. Else as `invoke`."""
        ...


class Cell(msgspec.Struct, Generic[S], eq=False):
    """What an agent instance holds. Reached as `__tenure__` by the engine and by methods; not for user code."""

    role: Role
    id: str
    state: S | None = None
    memory: Mapping[str, object] | None = None
    """Of a value, what its strategy remembers; None: nothing yet."""
    skills: Roster | None = None
    """Of a value, its skills; None: those of the class."""
    scope: Scope | None = None
    runtime: Runtime | None = None
    config: Mapping[str, object] = {}  # msgspec gives each cell its own

    def context(self) -> Context | None:
        """The turn that this draft is in; None: it is no draft, or its turn has ended."""
        scope = self.scope
        return Context(scope) if scope is not None and scope.open else None


class Agent(Generic[S]):
    """A long-lived, addressable object with a state of its own: `class Counter(tenure.Agent[CounterState])`.

    An instance is one of three things: a value (`Counter.new()`), a draft (`self` inside a turn), or a reference
    (`rt.create`, `rt.agent`). `actions=[...]` in the class statement adds actions that are module functions;
    `capabilities=["ocr"]` says what its agents offer, so that they can be found by it. `skills=[...]`,
    `attachable=[...]`, `schedules={...}` and `sensors={...}`: see docs/sdk/skills.md.
    """

    __slots__ = ("__tenure__",)
    __tenure__: Cell[S]
    __tenure_state__: ClassVar[type[State] | None] = None
    __tenure_methods__: ClassVar[dict[str, Method[..., Any]]]
    __tenure_capabilities__: ClassVar[tuple[str, ...]] = ()
    __tenure_subscribes__: ClassVar[tuple[str, ...]] = ()
    __tenure_version__: ClassVar[int] = 1
    __tenure_strategy__: ClassVar[Strategy | None] = None
    __tenure_policy__: ClassVar[ErrorPolicy | None] = None
    __tenure_direct__: ClassVar[bool] = True
    """No hook, no strategy, no skills: an action is its function and nothing else."""
    __tenure_skills__: ClassVar[Declared | None] = None
    """Skills, schedules and sensors; None: it has none and takes none."""
    __tenure_router__: ClassVar[Router[Method[..., Any]]]
    __tenure_checkpoint__: ClassVar[Callable[[Any], Mapping[str, object]] | None] = None
    __tenure_restore__: ClassVar[Callable[[Mapping[str, Any]], Any] | None] = None

    def __init_subclass__(  # noqa: PLR0913 - the class statement
        cls,
        *,
        actions: Sequence[Method[..., Any]] = (),
        capabilities: Sequence[str] = (),
        subscribes: Sequence[str] = (),
        strategy: Strategy | None = None,
        on_error: ErrorPolicy | None = None,
        version: int = 0,
        skills: Sequence[Skill[Any]] = (),
        attachable: Sequence[type[Skill[Any]]] = (),
        schedules: object = (),
        sensors: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> None:
        refuse_unknown(cls, keywords)
        super().__init_subclass__()
        declare(cls, Agent, capabilities, subscribes, strategy, on_error, version)
        for name in ("__init__", "__new__", *_RESERVED):
            if name in vars(cls):
                raise DefinitionError(
                    f"{cls.__name__}.{name}: the name is taken; what an agent keeps belongs in its State"
                )
        for method in actions:
            if hasattr(cls, method.name):
                raise DefinitionError(f"{cls.__name__} has {method.name!r} already: it cannot be attached once more")
            setattr(cls, method.name, method)
        cls.__tenure_state__ = declared_state(cls, Agent)
        overridden = any(getattr(cls, name) is not getattr(Agent, name) for name in ("before_action", "after_action"))
        declare_skills(cls, skills, attachable, schedules, sensors)
        cls.__tenure_direct__ = cls.__tenure_strategy__ is None and not overridden and cls.__tenure_skills__ is None

    def before_action(
        self,
        ctx: Context,  # noqa: ARG002 - the interface
        instruction: Instruction[Any],  # noqa: ARG002
    ) -> Instruction[Any] | Awaitable[Instruction[Any] | None] | None:
        """Called in the turn before each action; may change the state, return another instruction, or raise."""
        return None

    def after_action(
        self,
        ctx: Context,  # noqa: ARG002 - the interface
        instruction: Instruction[Any],  # noqa: ARG002
        directives: Sequence[Directive],  # noqa: ARG002
    ) -> Sequence[Directive] | Awaitable[Sequence[Directive] | None] | None:
        """Called in the turn after each action that went well; may return other effects in place of the turn's."""
        return None

    def on_start(self, ctx: Context) -> Awaitable[None] | None:  # noqa: ARG002
        """Called in a turn of its own before any other, at each activation; see `ctx.recovered`."""
        return None

    def on_stop(self, ctx: Context, reason: str) -> Awaitable[None] | None:  # noqa: ARG002
        """Called in a turn of its own when the agent is to end."""
        return None

    def __init__(self, *_: object, **__: object) -> None:
        name = type(self).__name__
        raise UsageError(f"{name}() makes nothing: a value is {name}.new(), an agent `await rt.create({name}, ...)`")

    @classmethod
    def new(cls, state: S | Mapping[str, object] | None = None, *, id: str = "") -> Self:  # noqa: A002
        """An agent as a value, for `cmd`, with this state or the defaults. Raises StateInvalid, DefinitionError."""
        kind = state_class(cls)
        held = state if isinstance(state, kind) else _state.initial(kind, dict(cast(Mapping[str, object], state or {})))
        return make(cls, Cell(Role.VALUE, id, state=held))

    @property
    def id(self) -> str:
        """`namespace/name`."""
        return self.__tenure__.id

    @property
    def config(self) -> Mapping[str, object]:
        """`spec.config` of the agent, as its activation found it. Empty for references."""
        return self.__tenure__.config

    @property
    def state(self) -> S:
        """The state: of a value, or inside a turn. Raises NotInTurn, with the way out, otherwise."""
        cell = self.__tenure__
        if cell.role is Role.DRAFT and (cell.scope is None or not cell.scope.open):
            raise NotInTurn(f"the turn of {self!r} has ended: its state may be another turn's by now")
        if cell.state is None:
            name = type(self).__name__
            raise NotInTurn(f"{self!r} has no state in this process: write a @tenure.query on {name} and await it")
        return cell.state

    @state.setter
    def state(self, state: S) -> None:
        cell = self.__tenure__
        if cell.role is not Role.DRAFT or cell.scope is None or not cell.scope.open or cell.scope.read_only:
            raise NotInTurn(f"the state of {self!r} can be replaced in the turn of an action only")
        kind = state_class(type(self))
        if not isinstance(state, kind):
            raise TypeError(f"the state of {type(self).__name__} is a {kind.__name__}, not {type(state).__name__}")
        cell.state = state

    def skill(self, kind: type[K], alias: str = "") -> K:
        """A skill of this agent: in a turn with its state; of a reference, to call its actions.

        `alias`: which one, where there are several of this class. Raises UsageError for one that is not attached.
        """
        from tenure.skills import skill_of  # noqa: PLC0415 - most agents have no skills

        return skill_of(self, kind, alias)

    async def call(self, instruction: Instruction[R], /, *, timeout: float | None = None) -> R:  # noqa: ASYNC109
        """Run an instruction on the agent behind this reference and return its reply; on a draft, in its own turn.

        `timeout` in seconds; None: the runtime's own (30). Raises CallError, CallInsideTurn, NotInTurn.
        """
        checked(instruction, "call")
        context = self.__tenure__.context()
        if context is not None:
            method = find(type(self), instruction.name, instruction.kind)
            return cast(R, await method.run(self, context, instruction.arguments))
        runtime = self.runtime_for(instruction.name)
        return cast(R, await runtime.call(self.id, instruction.target, instruction.arguments, timeout))

    async def send(self, instruction: Instruction[Any], /, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """As `call`, without the reply: returns when the effect is committed. Raises what `call` raises."""
        checked(instruction, "send")
        runtime = self.runtime_for(instruction.name)
        await runtime.invoke(self.id, instruction.kind, instruction.name, instruction.encode(), timeout)

    async def call_by_name(
        self,
        name: str,
        arguments: Mapping[str, object] | None = None,
        /,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> object:
        """Run an action or a query by its name, for tools that know no class. Raises what `call` raises."""
        runtime = self.runtime_for(name)
        return _codec.unpack(await runtime.invoke(self.id, "by_name", name, pack_arguments(name, arguments), timeout))

    @classmethod
    def cmd(cls, agent: Self, instruction: Instruction[Any], /) -> tuple[Self, tuple[Directive, ...]]:
        """The pure form of an action: the agent as it would be, and the effects, as data. Nothing is executed.

        An action that raises gives the agent unchanged and an `Error`. Raises NotPure when it waits for something,
        NotInTurn for anything but a value, UnknownMethod, InvalidArguments.
        """
        from tenure import _pure  # noqa: PLC0415 - runtimes need none of it

        return _pure.cmd(cls, agent, instruction)

    @classmethod
    def checkpoint(cls, state: S) -> Mapping[str, object]:
        """What is kept of a state: its fields, unless a class says otherwise. `restore` reads it back."""
        return state.model_dump(mode="python", round_trip=True)

    @classmethod
    def restore(cls, content: dict[str, Any]) -> S:
        """The state of what `checkpoint` kept. Raise any exception to refuse: the agent stays down and keeps it."""
        return _state.of_content(state_class(cls), content)

    def runtime_for(self, what: str) -> Runtime:
        """Where a call of `what` leads; not for user code. Raises CallInsideTurn, NotInTurn."""
        cell = self.__tenure__
        if (scope := running_scope()) is not None:
            raise CallInsideTurn(
                f"{scope.agent_id} calls {what} of {self!r} inside of its turn of {scope.method}: await "
                f"ctx.call(...) suspends the turn until the reply is there; ctx.send and ctx.emit wait for nothing"
            )
        if cell.runtime is None:
            name = type(self).__name__
            way = f"use {name}.cmd(agent, {name}.{what}(...))" if cell.role is Role.VALUE else "its turn has ended"
            raise NotInTurn(f"{self!r} is in no turn and at no runtime: {way}")
        return cell.runtime

    def __setattr__(self, name: str, value: object) -> None:
        if name != "state":
            raise UsageError(f"self.{name} would be lost: declare `{name}` in the state of {type(self).__name__}")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        cell = self.__tenure__
        return f"<{type(self).__name__} {cell.id or 'without id'}, a {cell.role.value}>"


_RESERVED = ("call", "call_by_name", "cmd", "config", "id", "new", "runtime_for", "send", "skill", "state")


def make(cls: type[AnyAgent], cell: Cell[Any]) -> AnyAgent:
    """An instance around a cell. The only constructor: `Agent()` itself is refused."""
    agent = object.__new__(cls)
    object.__setattr__(agent, "__tenure__", cell)
    return agent


def around(agent: AnyAgent, cell: Cell[Any]) -> AnyAgent:
    """The same draft, of an agent or of a skill of it, around another cell."""
    draft: Any = agent
    return make(type(agent), cell) if isinstance(draft, Agent) else draft.__tenure_around__(cell)


def state_class(cls: type[Agent[S]]) -> type[S]:
    """The class of the state. Raises DefinitionError for a class that names none."""
    kind = cls.__tenure_state__
    if kind is None:
        raise DefinitionError(f"{cls.__name__} names no state: class {cls.__name__}(tenure.Agent[MyState])")
    return cast(type[S], kind)


def pack_arguments(label: str, arguments: Mapping[str, object] | None) -> bytes:
    """Arguments of a call by name. Raises InvalidArguments for a value that has no form on the wire."""
    try:
        return _codec.pack(dict(arguments or {}))
    except ValueError as error:
        raise InvalidArguments(f"{label}: {error}") from error
