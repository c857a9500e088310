"""Delays and cron: what is planned is a slice of the agent's record, committed with the turn that asked for it.

A run is committed with the turn that it leads to: a process that ends in between runs it again, one that ends after it
does not. What a crash left due is run when the agent is there again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from tenure._clock import Clock, Handle
from tenure._local import work
from tenure._local.held import Held
from tenure._turn import Slices
from tenure.directives import Cancel, Cron, Directive, Schedule
from tenure.schedule import Cron as Times

SLICE = "@timers"
AGAIN_S = 5.0
"""Until a run that could not be committed is tried again."""
Fire = Callable[[Held, str, Mapping[str, Any]], None]
"""Agent, name and plan of what is due."""


@dataclass(frozen=True, slots=True)
class Fired(Directive):
    """The plan of this name, due then, is being run."""

    name: str
    at: float


@dataclass(frozen=True, slots=True)
class Resumed(Directive):
    """The agent is there again: runs that were missed and are to be skipped are skipped."""


def fold(slices: Slices, directive: Directive, now: float, wall: float) -> None:
    """Change the plans as a directive says. Delays count from `now`, cron from `wall`, seconds since 1970: on a cluster
    the time of delays is another one, which never jumps (protocol 1, cluster time).
    """
    plans: dict[str, Any] = dict(slices.get(SLICE, {}))
    match directive:
        case Schedule(after, what, name):
            plans[name] = {"at": now + after, **work.write(work.work_of(what))}
        case Cron(name, times, what, missed):
            every = {"every": [times.expression, times.timezone], "missed": missed}
            plans[name] = {"at": _next(times, wall), **every, **work.write(work.work_of(what))}
        case Cancel(name):
            plans.pop(name, None)
        case Fired(name, at):
            _advance(plans, name, at, wall)
        case Resumed():
            for name, plan in list(plans.items()):
                if plan.get("missed") == "skip" and plan["at"] < wall:
                    _advance(plans, name, plan["at"], wall)
        case _:
            return
    if plans:
        slices[SLICE] = plans
    else:
        slices.pop(SLICE, None)


FOLDED: tuple[type[Directive], ...] = (Schedule, Cron, Cancel, Fired, Resumed)


def _advance(plans: dict[str, Any], name: str, at: float, wall: float) -> None:
    """The plan has been run, or is skipped: forget it, or put it at its next time [cron_next]."""
    plan = plans.get(name)
    if plan is None or plan["at"] != at:
        return  # replaced meanwhile
    if "every" not in plan:
        del plans[name]
        return
    times = Times(*plan["every"])
    plans[name] = {**plan, "at": _next(times, at if plan["missed"] == "all" else max(wall, at))}


def _next(times: Times, after: float) -> float:
    return times.next_after(datetime.fromtimestamp(after, UTC)).timestamp()


class Timers:
    """The waiting for what agents planned."""

    def __init__(self, clock: Clock, fire: Fire) -> None:
        self._clock = clock
        self._fire = fire
        self._waiting: dict[str, dict[str, tuple[float, Handle]]] = {}

    def sync(self, held: Held) -> None:
        """Wait for what the agent's record plans, and for nothing else of it."""
        plans = cast(Mapping[str, Any], held.activation.slices.get(SLICE, {}))
        waiting = self._waiting.setdefault(held.id, {})
        for name, (at, handle) in list(waiting.items()):
            if name not in plans or plans[name]["at"] != at:
                handle.cancel()
                del waiting[name]
        for name, plan in plans.items():
            if name not in waiting:
                waiting[name] = (plan["at"], self._clock.call_at(plan["at"], self._due(held, name, plan)))
        if not waiting:
            del self._waiting[held.id]

    def again(self, held: Held, fired: Fired) -> None:
        """Run what is still planned for that time once more, in a while: its turn could not be committed."""
        plan = cast(Mapping[str, Any], held.activation.slices.get(SLICE, {})).get(fired.name)
        if plan is not None and plan["at"] == fired.at and held.ended is None:
            when = self._clock.now() + AGAIN_S
            handle = self._clock.call_at(when, self._due(held, fired.name, plan))
            self._waiting.setdefault(held.id, {})[fired.name] = (fired.at, handle)

    def forget(self, agent_id: str) -> None:
        """Wait for nothing of an agent any more."""
        for _, handle in self._waiting.pop(agent_id, {}).values():
            handle.cancel()

    def close(self) -> None:
        """Wait for nothing any more."""
        for agent_id in list(self._waiting):
            self.forget(agent_id)

    def _due(self, held: Held, name: str, plan: Mapping[str, Any]) -> Callable[[], None]:
        def due() -> None:
            waiting = self._waiting.get(held.id, {})
            if name in waiting and waiting[name][0] == plan["at"]:
                # It stays in the table until the turn's commit moves it: nothing waits twice for one run.
                self._fire(held, name, plan)

        return due
