"""The turn as user code sees it."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, overload

from tenure import _deadline
from tenure._effects import Directive, Emit, Error
from tenure._instruction import Instruction, checked
from tenure._lazy import Lazy
from tenure._names import full_id
from tenure._scope import Scope
from tenure._stepkey import StepKey
from tenure.errors import InvalidTransition, NotInTurn, UsageError

if TYPE_CHECKING:  # agents take a context
    from tenure import directives
    from tenure._agent import Agent
    from tenure._steps import Steps
    from tenure.directives import Missed, ParentEnd, Restart
    from tenure.schedule import Cron
    from tenure.sensors import Sensor
    from tenure.signals import Signal
    from tenure.skills import Skill
else:
    directives = Lazy("tenure.directives")

R = TypeVar("R")
CHILDREN = "@children"
PARENT = "@parent"
"""Slices of an agent's record: `{tag: {id, ...}}` and `{id, tag}`."""
_logger = logging.getLogger("tenure.agent")


class Parent(NamedTuple):
    """Whose child an agent is, and as what."""

    id: str
    tag: str


def _change(scope: Scope, change: str, *arguments: Any) -> None:
    """Raises NotInTurn, and what the change raises."""
    if not scope.open or scope.read_only:
        raise NotInTurn(f"skills are attached and detached in the turn of an action, not in {scope.method}")
    from tenure.skills import _phases  # noqa: PLC0415 - most agents have no skills

    _phases.foresee(scope, getattr(_phases, change)(*arguments))


class Addressed(Protocol):
    """What has an id: a reference to an agent."""

    @property
    def id(self) -> str: ...


def _id(agent: Addressed | str) -> str:
    found: object = agent if isinstance(agent, str) else getattr(agent, "id", None)
    if not isinstance(found, str):
        raise UsageError(f"an agent is a reference or an id such as shop/cart-1, not {agent!r}")
    return found


_MANY = ("capability:", "group:", "all:")


def targeted(to: str, namespace: str) -> str:
    """Whom a signal is for, in full: an agent (`namespace/name`), `capability:NAME`, `group:NAME`, or `all:`.

    Raises UsageError for what names nobody.
    """
    if to.startswith(_MANY):
        kind, _, name = to.partition(":")
        if (kind == "all") == bool(name):
            raise UsageError(f"{to!r} names nobody: capability:NAME, group:NAME, or all:")
        return to
    return full_id(to, namespace)


def _seconds(delay: float | timedelta) -> float:
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"a delay is a number of seconds, 0 or more, not {delay!r}")
    return seconds


def _steps(scope: Scope, what: str) -> Steps:
    """The steps of a turn. Raises NotPure, NotInTurn, NotSupported where there can be none."""
    from tenure._steps import steps_of  # noqa: PLC0415 - most turns have none

    return steps_of(scope, what)


class Context:
    """The turn that is running: what woke the agent, until when, and what goes out with its commit.

    An action gets it if its first parameter is annotated `Context`. Every effect leaves when the turn is committed, in
    the order of asking, or not at all; asking raises NotInTurn in a query and after the turn, NotSupported where the
    runtime cannot do it, and InvalidArguments for an instruction whose arguments do not fit.
    """

    __slots__ = ("_scope",)

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    @overload
    async def step(self, name: str, function: Callable[..., Awaitable[R]], /, *args: Any, **kwargs: Any) -> R: ...
    @overload
    async def step(self, name: str, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> R: ...
    async def step(self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a function once in this turn, whatever happens, and return what it returned.

        Its result is journalled; a later attempt of the turn gets it from there. If the process ends while it runs, it
        runs again, with the same `StepKey` (a parameter of that annotation, or `ctx.step_key`). Raises StepFailed if it
        raised, UsageError beside another step; docs/sdk/steps.md has the rules.
        """
        return await _steps(self._scope, f"the step {name!r}").step(name, function, args, kwargs)

    async def sleep(self, seconds: float | timedelta) -> None:
        """Suspend the turn for some seconds of the runtime's clock; nothing stays in memory meanwhile.

        Raises ValueError for a negative time.
        """
        await _steps(self._scope, "a sleep").wait("sleep", seconds=_seconds(seconds))

    async def wait_for(self, *types: str, timeout: float | timedelta | None = None) -> Signal | None:  # noqa: ASYNC109
        """Suspend the turn until a signal of one of these types ("order.*") comes to the agent. None: none in time.

        Signals that came since the turn began count. `timeout` in seconds; None: as long as the turn may take. The
        signal leads to no action beside that. Raises DefinitionError for what is no pattern.
        """
        if not types:
            raise UsageError("wait_for takes the types of the signals to wait for, such as 'order.approved'")
        from tenure._journal import signal_of  # noqa: PLC0415 - most turns have none
        from tenure.signals import Route  # noqa: PLC0415 - as above

        for pattern in types:
            Route(pattern, None)  # says what cannot be
        name = f"wait_for {' '.join(types)}"
        seconds = None if timeout is None else _seconds(timeout)
        return signal_of(await _steps(self._scope, name).wait(name, seconds=seconds, types=types))

    async def call(
        self,
        to: Addressed | str,
        instruction: Instruction[R],
        *,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109
    ) -> R:
        """Ask another agent, and suspend the turn until its reply is there.

        `timeout` in seconds; None: as long as the turn may take. Raises what the other agent's turn ended with,
        DeadlineExceeded ("unknown") when the time is over, WaitCycle, InvalidArguments.
        """
        checked(instruction, "ctx.call")
        seconds = None if timeout is None else _seconds(timeout)
        return await _steps(self._scope, f"a call of {instruction.name}").call(_id(to), instruction, seconds)

    @property
    def turn_key(self) -> str:
        """A text that names this turn, the same in every attempt once it came to a step. Empty: it can have none."""
        return self._scope.journal.key if self._scope.journal is not None else ""

    @property
    def step_key(self) -> StepKey:
        """The idempotency key of the step that is running. Raises NotInTurn outside of one."""
        from tenure._steps import running_key  # noqa: PLC0415 - most turns have none

        key = running_key.get()
        if key is None:
            raise NotInTurn(
                f"ctx.step_key is for functions that ctx.step runs, not for the rest of {self._scope.method}"
            )
        return key

    def emit(
        self,
        type: str,  # noqa: A002 - the CloudEvents word
        data: object = None,
        *,
        to: Addressed | str = "",
        subject: str = "",
        priority: int = 0,
    ) -> None:
        """Send a signal of this type, e.g. "order.paid": to whoever subscribes to it, or only to the agent `to`.

        `data` is taken as it is now: any value that msgpack or pydantic can write. `priority`: as of `send`. Raises
        ValueError for a type, data or a priority that cannot be sent.
        """
        self._scope.do(Emit(type, data, _id(to), subject, priority))

    def send(self, to: Addressed | str, what: Instruction[Any] | Signal, *, priority: int = 0) -> None:
        """Let another agent do something; nobody waits for it.

        `priority`, -100 to 100: where signals of several senders wait, the higher goes first. What this agent sends to
        that one arrives in its order all the same. Raises ValueError for one that cannot be.
        """
        self._scope.do(directives.Send(_id(to), what, priority))

    def after(self, delay: float | timedelta, what: Instruction[Any] | Signal, *, name: str = "") -> str:
        """Let this agent do something after some seconds; returns the name to cancel it by, made up if none is given.

        The same name again puts the new one in the place of the old one. Raises ValueError for a negative delay.
        """
        seconds = _seconds(delay)
        name = name or f"{self._scope.epoch}.{self._scope.turn}.{len(self._scope.directives)}"
        self._scope.do(directives.Schedule(seconds, what, name))
        return name

    def cron(self, name: str, times: Cron | str, what: Instruction[Any] | Signal, *, missed: Missed = "once") -> None:
        """Let this agent do something at each of the times, e.g. "0 9 * * MON-FRI" (UTC) or a `tenure.schedule.Cron`.

        `missed`: what becomes of runs that nobody was there for. Raises DefinitionError for times that cannot be.
        """
        from tenure.schedule import Cron  # noqa: PLC0415 - only agents with a schedule need it

        self._scope.do(directives.Cron(name, Cron(times) if isinstance(times, str) else times, what, missed))

    def cancel(self, name: str) -> None:
        """Forget what `after` or `cron` planned under this name, if there is any."""
        self._scope.do(directives.Cancel(name))

    def spawn(
        self,
        cls: type[Agent[Any]],
        id: str,  # noqa: A002
        *,
        tag: str = "",
        state: Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
        on_parent_end: ParentEnd = "stop",
        restart: Restart = "transient",
    ) -> None:
        """Create an agent as a child of this one, known here as `tag` (its id, if none is given).

        The turn is refused with Conflict if the tag or the id is in use, with StateInvalid for a state that does not
        fit, and with InvalidArguments for options that there are not.
        """
        self._scope.do(
            directives.SpawnAgent(cls, id, tag or id, dict(state or {}), dict(config or {}), on_parent_end, restart)
        )

    def adopt(
        self,
        child: Addressed | str,
        *,
        tag: str = "",
        on_parent_end: ParentEnd = "stop",
        restart: Restart = "transient",
    ) -> None:
        """Make an agent without a parent a child of this one.

        The turn is refused with NotFound or AgentUnavailable if it is not there, or has stopped, and with Conflict if
        it has a parent, or is this agent or an ancestor of it, or the tag is in use.
        """
        self._scope.do(directives.AdoptChild(_id(child), tag or _id(child), on_parent_end, restart))

    def stop_child(self, tag: str, reason: str = "stopped by its parent") -> None:
        """Stop a child; it is not started again. One that there is not: `DirectiveFailed` for the error policy."""
        self._scope.do(directives.StopChild(tag, reason))

    def emit_parent(self, type: str, data: object = None, *, subject: str = "") -> bool:  # noqa: A002
        """Send a signal to the parent of this agent. False: it has none, and nothing is sent. Else as `emit`."""
        parent = self.parent
        if parent is not None:
            self.emit(type, data, to=parent.id, subject=subject)
        return parent is not None

    def start_sensor(self, tag: str, sensor: Sensor[Any], *, replace: bool = True) -> None:
        """Start a sensor whose signals come to this agent."""
        self._scope.do(directives.StartSensor(tag, sensor, replace))

    def stop_sensor(self, tag: str) -> None:
        """Stop a sensor, if it runs."""
        self._scope.do(directives.StopSensor(tag))

    def background(self, function: Callable[[], Awaitable[object]], *, name: str = "") -> None:
        """Run a function beside the agent, once, for effects outside. It sees no state; nobody waits for it."""
        self._scope.do(directives.Spawn(function, name))

    def run(self, instruction: Instruction[Any], *, then: str = "") -> None:
        """Let this agent do something in a turn of its own after this one; `then` names who is told the result."""
        self._scope.do(directives.RunInstruction(instruction, then))

    def stop(self, reason: str = "done") -> None:
        """End this agent with the turn: its reply and effects still leave, then it is NotFound."""
        self._scope.do(directives.Stop(reason))

    def error(self, code: str, message: str) -> None:
        """Report an error to the error policy of the class; the turn goes on."""
        self._scope.do(Error(code, message))

    def do(self, directive: Directive) -> None:
        """Any effect, also one of your own."""
        self._scope.do(directive)

    def attach(self, skill: Skill[Any]) -> None:
        """Give this agent one more skill, when the turn ends; one that was detached before finds its state again.

        Raises DefinitionError if it cannot be: its alias is in use, it requires what is not there, or the class of the
        agent does not name it; UsageError in an agent whose class takes no skills.
        """
        _change(self._scope, "Attach", skill)

    def detach(self, alias: str, *, keep: bool = True) -> None:
        """Take a skill from this agent, when the turn ends. `keep`: its state, for when it is attached again.

        Raises UsageError for one that is not attached, or that another one requires.
        """
        _change(self._scope, "Detach", alias, keep)

    @property
    def skills(self) -> Mapping[str, str]:
        """Keys of the skills that are attached, by alias, as things are now."""
        return self._scope.roster.keys if self._scope.roster is not None else {}

    def transition(self, to: str) -> None:
        """Move the agent's machine to another state (`strategy=tenure.FSM(...)`). Raises InvalidTransition."""
        scope = self._scope
        if not scope.open:
            raise NotInTurn(f"the turn of {scope.method} has ended: its machine can be moved no more")
        if scope.strategy is None or scope.memory is None:
            raise InvalidTransition(f"{scope.agent_id} has no machine: name a strategy=tenure.FSM() in its class")
        scope.memory.update(scope.strategy.move(scope.memory, to))

    @property
    def directives(self) -> tuple[Directive, ...]:
        """What goes out with the commit, as things are now."""
        return self._scope.plain()

    @property
    def signal(self) -> Signal | None:
        """The signal that led to this turn, if one did."""
        return self._scope.signal

    @property
    def parent(self) -> Parent | None:
        """Whose child this agent is, and under which tag; None: nobody's."""
        parent = self._scope.slices.get(PARENT)
        return None if parent is None else Parent(parent["id"], parent["tag"])

    @property
    def children(self) -> Mapping[str, str]:
        """Ids of the children by tag, as the turn began."""
        return {tag: row["id"] for tag, row in self._scope.slices.get(CHILDREN, {}).items()}

    @property
    def recovered(self) -> bool:
        """Whether this activation began with a stored state, so that the agent was elsewhere, or asleep, before."""
        return self._scope.recovered

    @property
    def deadline(self) -> float:
        """When the caller gives up, on the event loop's clock: `asyncio.timeout_at(ctx.deadline)`. inf: never.

        Where the running action or plan has a `timeout` that ends before, the end of that.
        """
        return _deadline.on_loop_clock(_deadline.until(self._scope, self._scope.deadline_ns))

    @property
    def caller(self) -> str:
        """Who asked, as the cluster verified it, e.g. "client/alice"; empty when it is not known."""
        return self._scope.caller

    @property
    def epoch(self) -> int:
        """Epoch of this activation: the fencing token to send along with effects outside of the agent."""
        return self._scope.epoch

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that knows the agent; its lines appear in `tenure logs`."""
        scope = self._scope
        return logging.LoggerAdapter(_logger, {"agent": scope.agent_id, "epoch": scope.epoch})

    def __repr__(self) -> str:
        return f"<Context of {self._scope.method} on {self._scope.agent_id}>"
