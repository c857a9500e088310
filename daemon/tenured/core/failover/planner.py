"""What the leader proposes next: expiries first, then assignments, critical agents first, then why others wait.

Level-triggered: everything is computed from the registry and the leases as they are, so a plan that was lost costs time
only. Safety does not rest here: every assignment is a compare-and-set under rule R, checked where it is applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeVar

from tenured.core.commands import Assign, Assignment, Command, ExpireHost, ForgetHosts, SetWaiting, WaitingItem
from tenured.core.lease import LeaderLeases
from tenured.core.model import Agent
from tenured.core.placement import Placement, place
from tenured.core.profile import NS
from tenured.core.registry import Registry

T = TypeVar("T")

BATCH = 1000
"""Items of one entry at most."""
UNSETTLED_NS = 5 * NS
"""After so long a command whose fate nobody told counts as settled."""
HOST_ROWS_KEPT_NS = 600 * NS
"""Cluster time for which the row of an ended incarnation is shown."""


class Planner:
    """Of one leadership. One batch of assignments is under way at a time, so that capacity is never counted twice."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        """Of the tie-break; any number."""
        self._open: dict[int, tuple[Command, int]] = {}
        self._seen: tuple[int, AbstractSet[str], bool] | None = None

    def reset(self) -> None:
        """Forget what was under way; at each election."""
        self._open.clear()
        self._seen = None

    def plan(self, registry: Registry, leases: LeaderLeases, now: int, wall: float) -> list[Command]:
        """Return what to propose now, in order. Cheap when nothing changed: call it at each tick and after each entry.

        Every returned command is to be settled (`settled`) when its outcome is known, whatever it is. `now` is the
        leader's boot clock in ns, `wall` its wall clock in seconds.
        """
        if not leases.leading:
            return []
        for command, proposed in list(self._open.values()):
            if now - proposed >= UNSETTLED_NS:
                self.settled(command)
        new = self._expiries(registry, leases, now, wall)
        if not self._under_way(Assign, SetWaiting):
            new += self._placements(registry, leases, now, wall)
        for command in new:
            self._open[id(command)] = (command, now)
        return new

    def settled(self, command: Command) -> None:
        """Note that the fate of a proposed command is known (applied, not applied, or unknown)."""
        self._open.pop(id(command), None)
        if isinstance(command, Assign | SetWaiting):
            self._seen = None  # what was not applied is computed again

    # --- inside -----------------------------------------------------------------------------------------------

    def _under_way(self, *kinds: type[Command]) -> bool:
        return any(isinstance(command, kinds) for command, _ in self._open.values())

    def _expiries(self, registry: Registry, leases: LeaderLeases, now: int, wall: float) -> list[Command]:
        proposed = {command.incarnation for command, _ in self._open.values() if isinstance(command, ExpireHost)}
        new: list[Command] = [
            ExpireHost(
                incarnation=silence.incarnation,
                last_heard_wall=wall - (now - silence.last_heard_ns) / NS,
                wall=wall,
            )
            for silence in leases.expirable(now, registry)
            if silence.incarnation not in proposed
        ]
        oldest = registry.cluster_ns - HOST_ROWS_KEPT_NS
        ended = tuple(host.incarnation for host in registry.hosts.values() if not host.alive and host.ended_ns < oldest)
        if ended and not self._under_way(ForgetHosts):
            new.append(ForgetHosts(incarnations=ended, wall=wall))
        return new

    def _placements(self, registry: Registry, leases: LeaderLeases, now: int, wall: float) -> list[Command]:
        if not registry.unheld:
            return []
        avoid = leases.suspects(now, registry)
        # A new leader has heard of nobody yet: what it cannot place then is no news for users.
        since = leases.since_ns
        informed = since is not None and now - since > leases.detector.first_limit_ns
        seen = (registry.placement_version, avoid, informed)
        if seen == self._seen:
            return []
        self._seen = seen
        placed = place(registry, _in_order(registry), avoid=avoid, seed=self.seed)
        items = [_assignment(registry, found) for found in placed if found.incarnation]
        commands: list[Command] = [Assign(items=tuple(part), wall=wall) for part in _parts(items)]
        if informed:
            waiting = [_waiting(found) for found in placed if not found.incarnation and _is_news(registry, found)]
            commands += [SetWaiting(items=tuple(part), wall=wall) for part in _parts(waiting)]
        return commands


def _in_order(registry: Registry) -> list[Agent]:
    """Critical agents first, then the older ones."""
    agents = [registry.agents[uid] for uid in registry.unheld]
    return sorted(agents, key=lambda agent: (not agent.spec.critical, int(agent.uid)))


def _assignment(registry: Registry, found: Placement) -> Assignment:
    return Assignment(
        uid=found.uid,
        epoch=found.epoch,
        incarnation=found.incarnation,
        reason=registry.agents[found.uid].unheld_reason,
        explanation=found.explanation,
    )


def _waiting(found: Placement) -> WaitingItem:
    return WaitingItem(
        uid=found.uid,
        epoch=found.epoch,
        reason=found.reason,
        message=found.message,
        next_action=found.next_action,
    )


def _is_news(registry: Registry, found: Placement) -> bool:
    waiting = registry.agents[found.uid].waiting
    return waiting is None or (waiting.reason, waiting.message) != (found.reason, found.message)


def _parts(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[at : at + BATCH] for at in range(0, len(items), BATCH))
