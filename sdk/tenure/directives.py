"""Effects described as data: what the pure form of an action returns, and what a runtime does after a turn's commit.

All of a turn's directives leave with its commit, in the order of their asking, or none does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tenure._effects import Directive, Emit, Error

if TYPE_CHECKING:  # what agents and signals are needs directives
    from tenure._agent import Agent
    from tenure._instruction import Instruction
    from tenure.schedule import Cron as Times
    from tenure.sensors import Sensor
    from tenure.signals import Signal

ParentEnd = Literal["stop", "continue", "orphan"]
"""What becomes of a child when its parent ends: it stops too, goes on, or goes on and is told (`tenure.orphaned`)."""
Restart = Literal["transient", "permanent", "temporary"]
"""When a child that stopped is started again: after a failure, always, never."""
Missed = Literal["once", "skip", "all"]
"""What becomes of the runs that nobody was there for: one for all of them, none, each."""


@dataclass(frozen=True, slots=True)
class Send(Directive):
    """Let another agent do something; nobody waits for it."""

    to: str
    what: Instruction[Any] | Signal
    priority: int = 0
    """-100 to 100: where signals of several senders wait, the higher goes first."""


@dataclass(frozen=True, slots=True)
class Schedule(Directive):
    """Let the agent do something after some seconds. The same name again: the new one counts."""

    after: float
    what: Instruction[Any] | Signal
    name: str


@dataclass(frozen=True, slots=True)
class Cron(Directive):
    """Let the agent do something again and again. The same name again: the new one counts."""

    name: str
    times: Times
    what: Instruction[Any] | Signal
    missed: Missed = "once"


@dataclass(frozen=True, slots=True)
class Cancel(Directive):
    """Forget a `Schedule` or a `Cron`. Nothing happens if there is none of that name."""

    name: str


@dataclass(frozen=True, slots=True)
class SpawnAgent(Directive):
    """Create an agent as a child, known to its parent by `tag`."""

    cls: type[Agent[Any]]
    id: str
    tag: str
    state: Mapping[str, object] = field(default_factory=dict[str, object])
    config: Mapping[str, object] = field(default_factory=dict[str, object])
    on_parent_end: ParentEnd = "stop"
    restart: Restart = "transient"


@dataclass(frozen=True, slots=True)
class AdoptChild(Directive):
    """Make an agent that runs, and has no parent, a child."""

    id: str
    tag: str
    on_parent_end: ParentEnd = "stop"
    restart: Restart = "transient"


@dataclass(frozen=True, slots=True)
class StopChild(Directive):
    """Stop a child."""

    tag: str
    reason: str = "stopped by its parent"


@dataclass(frozen=True, slots=True)
class StartSensor(Directive):
    """Start a sensor whose signals come to this agent."""

    tag: str
    sensor: Sensor[Any]
    replace: bool = True
    """Whether one of the same tag is stopped first; else it is a failure."""


@dataclass(frozen=True, slots=True)
class StopSensor(Directive):
    """Stop a sensor. Nothing happens if there is none of that tag."""

    tag: str


@dataclass(frozen=True, slots=True)
class Spawn(Directive):
    """Run a function beside the agent, for effects outside. It sees no state; nobody waits for it."""

    function: Callable[[], Awaitable[object]]
    name: str = ""


@dataclass(frozen=True, slots=True)
class RunInstruction(Directive):
    """Let the agent do something in a turn of its own, right after this one.

    `then`: an action of the agent that is told how it ended, with `reply=` and `error=` (a text; empty: it went well).
    """

    instruction: Instruction[Any]
    then: str = ""


@dataclass(frozen=True, slots=True)
class Stop(Directive):
    """End the agent. Its state stays where its storage is; on a cluster it goes with the agent."""

    reason: str = "done"
    failed: bool = False
    """Whether a parent may start it again."""


__all__ = [
    "AdoptChild",
    "Cancel",
    "Cron",
    "Directive",
    "Emit",
    "Error",
    "Missed",
    "ParentEnd",
    "Restart",
    "RunInstruction",
    "Schedule",
    "Send",
    "Spawn",
    "SpawnAgent",
    "StartSensor",
    "Stop",
    "StopChild",
    "StopSensor",
]
