"""Events: frozen values with names and attributes that stay. docs/sdk/observe.md is the list."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

Outcome = Literal["ok", "error", "cancelled", "deadline"]
NOTHING: Mapping[str, object] = MappingProxyType({})
"""The attributes of what has none."""

LABELS = frozenset(
    {
        "error.type",
        "tenure.agent.class",
        "tenure.directive",
        "tenure.method",
        "tenure.outcome",
        "tenure.queue",
        "tenure.signal.type",
    }
)
"""Attributes that may label a metric: few values each, fixed by the code and not by who calls it."""


class Who(msgspec.Struct, frozen=True):
    """The agent that an event is about. Make it once an activation: it is handed to every call of the hub."""

    agent_id: str = ""
    """`namespace/name`."""
    agent_class: str = ""
    epoch: int = 0


NOBODY = Who()


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened. `name` is what `Hub.subscribe` matches."""

    name: str
    at: float
    """Seconds since the epoch."""
    agent_id: str = ""
    agent_class: str = ""
    epoch: int = 0
    method: str = ""
    turn: int = 0
    trace_id: str = ""
    """32 hex digits; empty: in no trace."""
    span_id: str = ""
    parent_id: str = ""
    """The span around this one; empty: a root."""
    attributes: Mapping[str, object] = NOTHING
    """What else is known, secrets hidden, bounded."""

    def public(self) -> dict[str, object]:
        """All of it under the names of docs/sdk/observe.md, for logs and exporters. No traceback, no secret."""
        shown: dict[str, object] = {"event.name": self.name, **self.attributes}
        for field in self.__struct_fields__:
            name = _PUBLIC.get(field)
            value = getattr(self, field)
            if name is not None and not (value in _ABSENT and field not in _MEANT):
                shown[name] = value
        return shown

    def labels(self) -> dict[str, str]:
        """What may label a metric: see LABELS."""
        found = {name: str(value) for name, value in self.attributes.items() if name in LABELS}
        for field, name in _LABELS:
            value = getattr(self, field, "")
            if value:
                found[name] = value
        return found


class Started(Event, frozen=True, kw_only=True):
    """`*.start`: a span began."""

    parameters: Mapping[str, object] = NOTHING
    """Of the method, secrets hidden, bounded."""


class Stopped(Event, frozen=True, kw_only=True):
    """`*.stop`: a span ended well."""

    duration_ns: int
    outcome: Outcome = "ok"


class Failed(Event, frozen=True, kw_only=True):
    """`*.exception`: a span ended in an error."""

    duration_ns: int
    outcome: Outcome
    error_type: str
    """Name of the exception's class, or the code of a fault."""
    message: str
    """Its first line, secrets hidden, bounded; there is no traceback."""


class Slow(Event, frozen=True, kw_only=True):
    """`*.slow`: a span took longer than its threshold. Comes after its end."""

    duration_ns: int
    threshold_ns: int


class SignalRouted(Event, frozen=True, kw_only=True):
    """`tenure.signal.routed`: a signal was matched with actions."""

    signal_type: str
    signal_id: str
    targets: int
    """How many; 0: nobody wants it."""


class QueueOverflow(Event, frozen=True, kw_only=True):
    """`tenure.queue.overflow`: something was refused since a queue was full."""

    queue: str
    """Which: "mailbox", "sensor"."""
    limit: int


class CronFired(Event, frozen=True, kw_only=True):
    """`tenure.cron.fired`: a schedule came due."""

    job: str
    late_s: float
    """Seconds after the time at which it was due."""
    missed: int = 0
    """Earlier times that passed unseen."""


_ABSENT: tuple[object, ...] = ("", 0, NOTHING)
_MEANT = {"targets", "limit", "late_s", "duration_ns", "threshold_ns"}
"""Fields whose zero says something."""
_PUBLIC = {
    "agent_id": "tenure.agent.id",
    "agent_class": "tenure.agent.class",
    "epoch": "tenure.agent.epoch",
    "method": "tenure.method",
    "turn": "tenure.turn",
    "trace_id": "trace_id",
    "span_id": "span_id",
    "parent_id": "parent_id",
    "parameters": "tenure.parameters",
    "duration_ns": "tenure.duration_ns",
    "threshold_ns": "tenure.threshold_ns",
    "outcome": "tenure.outcome",
    "error_type": "error.type",
    "message": "error.message",
    "signal_type": "tenure.signal.type",
    "signal_id": "tenure.signal.id",
    "targets": "tenure.signal.targets",
    "queue": "tenure.queue",
    "limit": "tenure.queue.limit",
    "job": "tenure.cron.job",
    "late_s": "tenure.cron.late_s",
    "missed": "tenure.cron.missed",
}
_LABELS = tuple((field, name) for field, name in _PUBLIC.items() if name in LABELS)
