"""What an agent is to do, as values that outlive the process that asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from tenure._instruction import Instruction
from tenure._local.carrying import NOTHING, carried_by, onto

if TYPE_CHECKING:
    from tenure.signals import Signal


@dataclass(frozen=True, slots=True)
class Asked:
    """An action by its name, with its arguments as they cross a wire."""

    name: str
    arguments: bytes
    carried: Mapping[str, object] = field(default_factory=lambda: NOTHING)
    """Of the signal that led to it."""


def work_of(what: Instruction[Any] | Signal) -> Asked | Signal:
    """Arguments are taken as they are now. Raises InvalidArguments."""
    return Asked(what.name, what.encode()) if isinstance(what, Instruction) else what


def carried_of(work: Asked | Signal) -> Mapping[str, object]:
    """What signals that it leads to are to have."""
    return work.carried if isinstance(work, Asked) else carried_by(work)


def carrying(work: Asked | Signal, carried: Mapping[str, object]) -> Asked | Signal:
    """The same, as a part of what led to it."""
    if not carried:
        return work
    return Asked(work.name, work.arguments, carried) if isinstance(work, Asked) else onto(work, carried)


def label_of(work: Asked | Signal) -> str:
    """For messages."""
    return work.name if isinstance(work, Asked) else work.type


def write(work: Asked | Signal) -> dict[str, object]:
    """A map that msgpack can write."""
    if isinstance(work, Asked):
        return {"name": work.name, "arguments": work.arguments}
    from tenure.signals import to_msgpack  # noqa: PLC0415 - agents without signals need none of it

    return {"signal": to_msgpack(work)}


def read(content: Mapping[str, Any]) -> Asked | Signal:
    """What `write` wrote. Raises ValueError."""
    if "signal" not in content:
        return Asked(cast(str, content["name"]), cast(bytes, content["arguments"]))
    from tenure.signals import from_msgpack  # noqa: PLC0415 - as above

    return from_msgpack(content["signal"])
