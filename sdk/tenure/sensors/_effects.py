"""What a sensor asks of its shell, and how it ends: values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from tenure.signals import Extension, Signal, SignalData


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the agent: a signal of this type; its id, source and time are given by the shell."""

    type: str
    data: object = None
    subject: str = ""
    dataschema: str = ""
    extensions: Mapping[str, object] = field(default_factory=dict[str, object])

    @classmethod
    def of(cls, data: SignalData, *extensions: Extension, subject: str = "") -> Self:
        """A report of typed data. Raises SignalInvalid when an extension is missing or forbidden."""
        made = data.signal(*extensions, source="sensor", subject=subject)
        return cls(made.type, made.data, made.subject, made.dataschema, made.extensions)


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand on a signal as it is."""

    signal: Signal


@dataclass(frozen=True, slots=True)
class After:
    """Call `on_event(event)` after so many seconds. One with the name of an earlier one takes its place."""

    seconds: float
    event: object
    name: str = ""
    """For `Cancel`; empty: it cannot be cancelled."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Forget what `After` with this name waits for, if it still does."""

    name: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The sensor's work is done. Effects behind it are ignored."""

    reason: str = "finished"


SensorEffect = Report | Deliver | After | Cancel | Finish
"""What `begin` and `on_event` return."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a sensor ended."""

    kind: Literal["stopped", "finished", "failed"]
    """Its runtime stopped it; it said `Finish`; it failed too often."""
    reason: str

    @property
    def expected(self) -> bool:
        """Whether somebody asked for it."""
        return self.kind == "stopped"
