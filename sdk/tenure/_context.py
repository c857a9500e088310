"""The turn as user code sees it, and the scope behind it."""

from __future__ import annotations

import logging
import math
import re
import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from tenure import _codec, _deadline
from tenure.errors import NotInTurn, UsageError

_TYPE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_logger = logging.getLogger("tenure.agent")


@dataclass(slots=True, eq=False)
class Scope:
    """One turn: what it may do and what it has done. Belongs to the engine; user code holds a `Context`."""

    agent_id: str
    method: str
    uid: str = ""
    caller: str = ""
    epoch: int = 0
    deadline_ns: int = 0
    """CLOCK_BOOTTIME; 0: none."""
    read_only: bool = False
    open: bool = True
    emitted: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])


current_scope: ContextVar[Scope | None] = ContextVar("tenure_scope", default=None)
"""The turn that the running code belongs to, also in tasks and threads that it started. `Scope.open`: it still runs."""


def running_scope() -> Scope | None:
    """The open turn that the running code belongs to, or None."""
    scope = current_scope.get()
    return scope if scope is not None and scope.open else None


class Context:
    """The turn that is running: what woke the agent, until when, and what goes out with its commit.

    An action gets it if its first parameter is annotated `Context`.
    """

    __slots__ = ("_scope",)

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def emit(self, type: str, data: object = None) -> None:  # noqa: A002 - the CloudEvents word
        """Send a signal of this type, e.g. "order.paid", with the state's commit, or not at all.

        `data` is taken as it is now: any value that msgpack or pydantic can write. Raises ValueError for a type or data
        that cannot be sent, and NotInTurn in a query and after the turn.
        """
        scope = self._scope
        if not scope.open:
            raise NotInTurn(f"the turn of {scope.method} has ended: nothing can be emitted from it any more")
        if scope.read_only:
            raise NotInTurn(f"a query only reads: make {scope.method} an action to emit {type!r}")
        if not _TYPE.fullmatch(type):
            raise ValueError(f"a signal type is words of letters, digits, _ and - joined by dots, not {type!r}")
        scope.emitted.append((type, _codec.pack(data)))

    @property
    def deadline(self) -> float:
        """When the caller gives up, on the event loop's clock: `asyncio.timeout_at(ctx.deadline)`. inf: never.

        Where the running action or plan has a `timeout` that ends before, the end of that.
        """
        return on_loop_clock(_deadline.until(self._scope, self._scope.deadline_ns))

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


def on_loop_clock(deadline_ns: int) -> float:
    """A CLOCK_BOOTTIME deadline on the event loop's clock, in seconds; inf for 0, which means none."""
    if not deadline_ns:
        return math.inf
    import asyncio  # noqa: PLC0415 - a tenth of the time of `import tenure`, and only needed by what runs agents

    left = (deadline_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e9
    return asyncio.get_running_loop().time() + left


def refuse_write(what: str) -> None:
    """Raise if the running code is a query: it may change nothing."""
    scope = current_scope.get()
    if scope is not None and scope.read_only:
        raise UsageError(f"a query only reads: make {scope.method} an action to change {what}")
