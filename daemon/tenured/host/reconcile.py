"""What to start and what to stop: "what the registry says is mine" against "what I run" (DESIGN.md section 5,
level-triggered). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum

from tenure_proto.v1.registry_pb2 import AgentRow


class Why(StrEnum):
    """Why an agent is to stop here; decides what is reported once it has."""

    MOVED = "moved"
    """The registry gave it to somebody else: nothing to report, drop it at once."""
    RELEASED = "released"
    """This host drains, or nobody runs agents here: finish the turn, then give it up (rule R, a)."""
    DELETED = "deleted"
    """Its row is being deleted: finish the turn, then say so."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What to do now; each once, the next call compares anew."""

    start: list[AgentRow] = field(default_factory=list[AgentRow])
    stop: dict[str, Why] = field(default_factory=dict[str, Why])
    """uid -> why"""
    report: dict[str, Why] = field(default_factory=dict[str, Why])
    """uid -> what to report of an agent that is not running here and need not be started."""


def compare(
    mine: Mapping[str, AgentRow],
    running: Mapping[str, int],
    given_up: AbstractSet[tuple[str, int]],
    *,
    releasing: bool,
) -> Changes:
    """Compares.

    `running`: uid -> epoch of every activation here, in whatever phase, the stopping ones included. `given_up`: (uid,
    epoch) that were reported as released or stopped: the registry may not have heard it yet. `releasing`: hold nothing
    any more.
    """
    changes = Changes()
    for uid, row in mine.items():
        if uid in running or (uid, row.epoch) in given_up:
            continue
        if row.deleting:
            changes.report[uid] = Why.DELETED
        elif releasing:
            changes.report[uid] = Why.RELEASED
        else:
            changes.start.append(row)
    for uid, epoch in running.items():
        held = mine.get(uid)
        if held is None or held.epoch != epoch:
            changes.stop[uid] = Why.MOVED
        elif held.deleting:
            changes.stop[uid] = Why.DELETED
        elif releasing:
            changes.stop[uid] = Why.RELEASED
    return changes
