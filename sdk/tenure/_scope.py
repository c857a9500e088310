"""The scope behind a turn: what it may do and what it has done."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from tenure import _codec
from tenure._effects import Directive, Emit
from tenure._instruction import checked
from tenure._lazy import Lazy
from tenure.errors import NotInTurn, NotSupported, UsageError

if TYPE_CHECKING:  # signals, skills, steps and strategies are not needed by most agents
    from asyncio import Timeout

    from tenure import directives
    from tenure._journal import Journal
    from tenure._steps import Steps
    from tenure.signals import Signal
    from tenure.skills._phases import Attach, Detach
    from tenure.skills._roster import Roster
    from tenure.strategies import Strategy
else:
    directives = Lazy("tenure.directives")

_NOTHING: Mapping[str, Any] = MappingProxyType({})
PRIORITY_LIMIT = 100
_TYPE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True)
class Emission(Directive):
    """`Emit` with its data taken as it was then: what the engine keeps."""

    type: str
    data: bytes
    to: str = ""
    subject: str = ""
    priority: int = 0

    def plain(self) -> Emit:
        """What the user asked for."""
        return Emit(self.type, _codec.unpack(self.data), self.to, self.subject, self.priority)


def emission_of(emit: Emit) -> Emission:
    """Raises ValueError for a type, data or a priority that cannot be sent."""
    if not _TYPE.fullmatch(emit.type):
        raise ValueError(f"a signal type is words of letters, digits, _ and - joined by dots, not {emit.type!r}")
    check_priority(emit.priority)
    return Emission(emit.type, _codec.pack(emit.data), emit.to, emit.subject, emit.priority)


def check_priority(priority: object) -> None:
    """Raises ValueError for one that cannot be."""
    if type(priority) is not int or not -PRIORITY_LIMIT <= priority <= PRIORITY_LIMIT:
        raise ValueError(f"a priority is -{PRIORITY_LIMIT} to {PRIORITY_LIMIT}, not {priority!r}")


EMITS: frozenset[type[Directive]] = frozenset({Emit})
"""What a worker of the cluster does as yet."""


class Scope(msgspec.Struct, eq=False):
    """One turn: what it may do and what it has done. Belongs to the engine; user code holds a `Context`."""

    agent_id: str
    method: str
    uid: str = ""
    caller: str = ""
    epoch: int = 0
    turn: int = 0
    deadline_ns: int = 0
    """CLOCK_BOOTTIME; 0: none."""
    read_only: bool = False
    open: bool = True
    directives: list[Directive] = []  # msgspec gives each scope its own
    extra: tuple[Directive, ...] = ()
    """Of the runtime's own, to be committed with the turn: such as that a timer has fired."""
    supports: frozenset[type[Directive]] | None = None
    """What the runtime has executors for; None: anything, since nothing is executed."""
    signal: Signal | None = None
    """What woke the agent, if a signal did."""
    recovered: bool = False
    strategy: Strategy | None = None
    memory: dict[str, Any] | None = None
    """Of the strategy, in this turn."""
    roster: Roster | None = None
    """The skills of the agent; None: its class takes none, and nobody looks."""
    skills: dict[str, Any] | None = None
    """Their states in this turn, by alias, as far as somebody asked."""
    changes: list[Attach | Detach] | None = None
    """Skills to be attached and detached when the turn ends."""
    slices: Mapping[str, Any] = _NOTHING
    """What is kept beside the state, as the turn began."""
    journal: Journal | None = None
    """Of the turn's steps; None: it can have none."""
    steps: Steps | None = None
    """What this attempt has asked for; None: nothing yet."""
    lasts: float = 0.0
    """Seconds that the turn may take once it is accepted; 0: as long as is usual."""
    limit: Timeout | None = None
    """The deadline around the body."""
    repeated: bool = False
    """Whether a body of the turn may be run several times in one attempt."""

    def do(self, directive: Directive) -> None:
        """Keep an effect for the commit. Raises NotInTurn, NotSupported, InvalidArguments, ValueError."""
        what = type(directive).__name__
        if not self.open:
            raise NotInTurn(f"the turn of {self.method} has ended: it can have no effects any more ({what})")
        if self.read_only:
            raise NotInTurn(f"a query only reads: make {self.method} an action to have effects ({what})")
        if isinstance(directive, Emit):
            kind: type[Directive] = Emit
            directive = emission_of(directive)
        else:
            kind = type(directive)
            _check(directive)
        if self.supports is not None and kind not in self.supports:
            raise NotSupported(f"this runtime has no executor for {kind.__name__}, which {self.method} asks for")
        self.directives.append(directive)

    def plain(self) -> tuple[Directive, ...]:
        """The effects as the user asked for them."""
        return tuple(one.plain() if isinstance(one, Emission) else one for one in self.directives)


def _check(directive: Directive) -> None:
    """What is run later is wrong now. Raises InvalidArguments, UsageError, ValueError."""
    if isinstance(directive, directives.RunInstruction):
        checked(directive.instruction, "run").encode()
    elif isinstance(directive, (directives.Send, directives.Schedule, directives.Cron)):
        from tenure.signals import Signal  # noqa: PLC0415 - most agents need none of it

        if isinstance(directive, directives.Send):
            check_priority(directive.priority)
        if not isinstance(directive.what, Signal):
            checked(directive.what, type(directive).__name__).encode()
    elif isinstance(directive, directives.StartSensor) and isinstance(directive.sensor, type):
        raise UsageError(f"a sensor is made with its configuration: {directive.sensor.__name__}(...)")


current_scope: ContextVar[Scope | None] = ContextVar("tenure_scope", default=None)
"""The turn that the running code belongs to, also in tasks and threads that it started. `Scope.open`: it still runs."""


def running_scope() -> Scope | None:
    """The open turn that the running code belongs to, or None."""
    scope = current_scope.get()
    return scope if scope is not None and scope.open else None


def refuse_write(what: str) -> None:
    """Raise if the running code is a query: it may change nothing."""
    scope = current_scope.get()
    if scope is not None and scope.read_only:
        raise UsageError(f"a query only reads: make {scope.method} an action to change {what}")
