"""What the leader proposes next: expiries first, then assignments, critical agents first."""

from __future__ import annotations

from tenured.core.commands import Command
from tenured.core.lease import LeaderLeases
from tenured.core.registry import Registry


class Planner:
    """Of one leadership. One batch of assignments is under way at a time, so that capacity is never counted twice."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def reset(self) -> None:
        """Forget what was under way; at each election."""

    def plan(self, registry: Registry, leases: LeaderLeases, now: int, wall: float) -> list[Command]:
        """Return what to propose now, in order. Cheap when nothing changed: call it at each tick and after each entry.

        Every returned command must be settled (`settled`) when its outcome is known, whatever it is.
        """
        raise NotImplementedError

    def settled(self, command: Command) -> None:
        """Note that the fate of a proposed command is known (applied, not applied, or unknown)."""
        raise NotImplementedError
