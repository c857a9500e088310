"""A span while it lasts, and what may be wrapped around it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Literal, Protocol

from tenure.observe._events import NOBODY, NOTHING, Outcome, Who
from tenure.observe._trace import Position
from tenure.signals import Signal

Kind = Literal["internal", "server", "consumer", "producer"]


class Span:
    """Something that takes time, from `Hub.begin` to `Hub.end`. Reads only, but for `adopt` and `set`."""

    __slots__ = (
        "at",
        "attributes",
        "error_type",
        "kind",
        "message",
        "method",
        "name",
        "of_hub",
        "outcome",
        "parameters",
        "parent",
        "parent_is_given",
        "position",
        "started_ns",
        "turn",
        "who",
    )

    def __init__(self, name: str, who: Who, method: str, turn: int, at: float, started_ns: int) -> None:
        self.name = name
        self.who = who
        self.method = method
        self.turn = turn
        self.at = at
        """Seconds since the epoch."""
        self.started_ns = started_ns
        self.kind: Kind = "internal"
        self.parent: Position | None = None
        self.parent_is_given = False
        """The parent was named by whoever began the span; it is not just the code around."""
        self.position: Position | None = None
        """Set before anything but a tracer's scope sees the span."""
        self.attributes: Mapping[str, object] = NOTHING
        """As they were given: not yet fit to be shown."""
        self.parameters: Mapping[str, object] = NOTHING
        self.outcome: Outcome = "ok"
        self.error_type = ""
        self.message = ""
        self.of_hub: object = None
        """What its hub needs at the end; None: it has ended."""

    def adopt(self, position: Position) -> None:
        """Of a tracer, as its scope begins: the ids that it gave to this span."""
        self.position = position

    def set(self, name: str, value: object) -> None:
        """Add an attribute, for the events of the end."""
        self.attributes = {**self.attributes, name: value}


class Tracer(Protocol):
    """Something that goes around each span, such as a tracing library.

    `scope(span)` is a context manager: entered as the span begins, left as it ends, when `outcome`, `error_type` and
    `message` say how. Errors of the code inside are not passed through it. What the tracer itself does wrong (raises,
    never yields, yields twice) is counted, and never reaches the code inside.
    """

    def scope(self, span: Span) -> AbstractContextManager[object]:
        """Go around one span."""
        ...


spanning: ContextVar[Span | None] = ContextVar("tenure_span", default=None)
"""The span that the running code is in, whichever hub began it. It may have ended: see `current_span`."""


def current_span() -> Span | None:
    """The current span. None if it has ended: tasks and timers keep the context that they were made in."""
    span = spanning.get()
    return None if span is None or span.of_hub is None else span


def who_of(span: Span | None) -> Who:
    """The agent of a span."""
    return NOBODY if span is None else span.who


def place_of(cause: Signal | Position | Span | None) -> Position | None:
    """Where a cause stands in its trace."""
    if isinstance(cause, Signal):
        return Position.of(cause)
    return cause.position if isinstance(cause, Span) else cause
