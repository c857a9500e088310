"""Actions that many agents want, ready to attach: `class Order(tenure.Agent[OrderState], actions=[actions.noop])`.

Those that mark a status write the fields `status`, `result` and `error` of the state, as far as they say: a class whose
state has no such field cannot use them (`StateInvalid` names it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenure import ops
from tenure._agent import Agent
from tenure._context import Context
from tenure._methods import Method, action
from tenure.errors import UsageError
from tenure.schedule import Cron
from tenure.signals import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "TIMEOUT",
    "broadcast",
    "cancel",
    "cancel_cron",
    "forward",
    "mark_completed",
    "mark_failed",
    "mark_idle",
    "mark_working",
    "noop",
    "notify",
    "notify_parent",
    "reply",
    "schedule_cron",
    "schedule_signal",
    "schedule_timeout",
    "set_status",
    "spawner",
    "stop_child",
    "stop_self",
]

TIMEOUT = "tenure.timeout"
"""Type of the signal of `schedule_timeout`; its data is {"name": ...}."""


# --- control ----------------------------------------------------------------------------------------------------------


@action
def noop(agent: Agent[Any]) -> None:
    """Do nothing: for routes that only acknowledge."""


@action
def cancel(agent: Agent[Any], reason: str = "") -> None:
    """Mark the work as failed because it was cancelled."""
    _mark(agent, {"status": "failed", "error": f"cancelled: {reason}" if reason else "cancelled"})


@action
def forward(agent: Agent[Any], ctx: Context, to: str, signal: Signal) -> None:  # noqa: ARG001 - the first is the agent
    """Hand a signal on to another agent, as it is."""
    ctx.send(to, signal)


@action
def broadcast(agent: Agent[Any], ctx: Context, type: str, data: Any = None) -> None:  # noqa: A002, ARG001
    """Send a signal to whoever subscribes to its type."""
    ctx.emit(type, data)


@action
def reply(agent: Agent[Any], ctx: Context, type: str, data: Any = None) -> None:  # noqa: A002
    """Send a signal to the agent whose signal led to this turn. Raises UsageError if none did."""
    if ctx.signal is None:
        raise UsageError(f"{agent.id} answers a signal, and none led to this turn")
    ctx.emit(type, data, to=ctx.signal.source)


# --- agents -----------------------------------------------------------------------------------------------------------


@action
def notify_parent(agent: Agent[Any], ctx: Context, type: str, data: Any = None) -> None:  # noqa: A002, ARG001
    """Send a signal to the parent. Raises UsageError if there is none."""
    ctx.emit_parent(type, data)


@action
def notify(agent: Agent[Any], ctx: Context, to: str, type: str, data: Any = None) -> None:  # noqa: A002, ARG001
    """Send a signal to one agent."""
    ctx.emit(type, data, to=to)


def spawner(cls: type[Agent[Any]], *, name: str = "") -> Method[..., None]:
    """An action that creates a child of this class: `actions=[actions.spawner(Worker)]` gives `spawn_worker(id, tag)`.

    A class does not cross a wire, so it is said here and not in the call. `name`: of the action, in place of that one.
    """

    def spawn(agent: Agent[Any], ctx: Context, id: str, tag: str = "", state: dict[str, Any] | None = None) -> None:  # noqa: A002, ARG001
        ctx.spawn(cls, id, tag=tag, state=state)

    spawn.__name__ = name or f"spawn_{cls.__name__.lower()}"
    spawn.__doc__ = f"Create a {cls.__name__} as a child, known by its tag or else by its id."
    made: Method[..., None] = action(spawn)
    return made


@action
def stop_self(agent: Agent[Any], ctx: Context, reason: str = "done") -> None:  # noqa: ARG001
    """End this agent after the turn."""
    ctx.stop(reason)


@action
def stop_child(agent: Agent[Any], ctx: Context, tag: str, reason: str = "stopped by its parent") -> None:  # noqa: ARG001
    """Stop a child."""
    ctx.stop_child(tag, reason)


# --- later ------------------------------------------------------------------------------------------------------------


@action
def schedule_signal(
    agent: Agent[Any],
    ctx: Context,
    seconds: float,
    type: str,  # noqa: A002
    data: Any = None,
    name: str = "",
) -> str:
    """Send this agent a signal after some seconds; returns the name to cancel it by."""
    return ctx.after(seconds, Signal.new(type, data, source=agent.id), name=name)


@action
def schedule_timeout(agent: Agent[Any], ctx: Context, seconds: float, name: str = "timeout") -> str:
    """Send this agent `tenure.timeout` after some seconds, unless it is cancelled or scheduled anew under its name."""
    return ctx.after(seconds, Signal.new(TIMEOUT, {"name": name}, source=agent.id), name=name)


@action
def schedule_cron(
    agent: Agent[Any],
    ctx: Context,
    name: str,
    times: str,
    type: str,  # noqa: A002
    data: Any = None,
    timezone: str = "UTC",
) -> None:
    """Send this agent a signal at each of these times."""
    ctx.cron(name, Cron(times, timezone), Signal.new(type, data, source=agent.id))


@action
def cancel_cron(agent: Agent[Any], ctx: Context, name: str) -> None:  # noqa: ARG001
    """Forget what is planned under this name, if there is anything."""
    ctx.cancel(name)


# --- status -----------------------------------------------------------------------------------------------------------


@action
def set_status(agent: Agent[Any], status: str) -> None:
    """Write the status."""
    _mark(agent, {"status": status})


@action
def mark_working(agent: Agent[Any]) -> None:
    """The status is "working"."""
    _mark(agent, {"status": "working"})


@action
def mark_completed(agent: Agent[Any], result: Any = None) -> None:
    """The status is "completed", with a result."""
    _mark(agent, {"status": "completed", "result": result})


@action
def mark_failed(agent: Agent[Any], error: str) -> None:
    """The status is "failed", with an error."""
    _mark(agent, {"status": "failed", "error": error})


@action
def mark_idle(agent: Agent[Any]) -> None:
    """The status is "idle"."""
    _mark(agent, {"status": "idle"})


def _mark(agent: Agent[Any], values: Mapping[str, object]) -> None:
    agent.state = ops.apply(ops.SetState(values), agent.state)
