"""What to start and what to stop: "what the registry says is mine" against "what I run" (DESIGN.md section 5,
level-triggered). Pure.

Most agents of a host have not changed since they were compared last, and comparing one that has not finds nothing. So
an `Agenda` names those to compare: what the watch brought, what began or ended here; all of them after a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

from tenured.host.rows import Row


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

    start: list[Row] = field(default_factory=list[Row])
    stop: dict[str, Why] = field(default_factory=dict[str, Why])
    """uid -> why"""
    report: dict[str, Why] = field(default_factory=dict[str, Why])
    """uid -> what to report of an agent that is not running here and need not be started."""


def compare(
    uids: Iterable[str],
    mine: Mapping[str, Row],
    running: Callable[[str], int | None],
    given_up: Mapping[str, int],
    *,
    releasing: bool,
) -> Changes:
    """Compares these agents.

    `running(uid)`: the epoch of its activation here, in whatever phase, a stopping one included; None: there is none.
    `given_up`: uid -> epoch that was reported as released or stopped: the registry may not have heard it yet.
    `releasing`: hold nothing any more.
    """
    changes = Changes()
    for uid in uids:
        row, epoch = mine.get(uid), running(uid)
        if epoch is not None:
            _compare_running(changes, uid, epoch, row, releasing=releasing)
        elif row is not None and given_up.get(uid) != row.epoch:
            if row.deleting:
                changes.report[uid] = Why.DELETED
            elif releasing:
                changes.report[uid] = Why.RELEASED
            else:
                changes.start.append(row)
    return changes


def _compare_running(changes: Changes, uid: str, epoch: int, row: Row | None, *, releasing: bool) -> None:
    if row is None or row.epoch != epoch:
        changes.stop[uid] = Why.MOVED
    elif row.deleting:
        changes.stop[uid] = Why.DELETED
    elif releasing:
        changes.stop[uid] = Why.RELEASED


class Agenda:
    """Agents that are to be compared, each once, in the order in which they were added."""

    def __init__(self) -> None:
        self._uids: dict[str, None] = {}

    def __bool__(self) -> bool:
        return bool(self._uids)

    def add(self, uids: Iterable[str]) -> None:
        """Compare these, too."""
        self._uids.update(dict.fromkeys(uids))

    def take(self, most: int) -> list[str]:
        """The first ones; they are on it no more."""
        if len(self._uids) <= most:
            taken, self._uids = list(self._uids), {}
            return taken
        taken = list(islice(self._uids, most))
        for uid in taken:
            del self._uids[uid]
        return taken
