"""Agents that a leader places together with their rows: one entry creates a row and assigns it.

The order of such agents is that of their entries, and they do not pass those that wait for a paced failover: then their
rows wait behind them. What is decided here is checked where the entry is applied, as an assignment is.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import msgspec

from tenured.core.commands import ApplyAgents, Place
from tenured.core.model import Agent
from tenured.core.placement import newcomer, place, problem
from tenured.core.profile import NS
from tenured.core.registry import Registry

LIMIT = 1000
"""Newcomers in entries that are not applied yet; beyond it rows wait for the planner, which places many at once."""
UNSEEN_NS = 5 * NS
"""After so long an entry that nobody saw applied counts as lost."""


class Newcomers:
    """Of one leadership. Remembers those under way: the next ones are placed as if they were there already."""

    def __init__(self) -> None:
        self._under_way: dict[str, tuple[Agent, int]] = {}
        """id -> (agent without a row, when its entry was made)"""
        self._number = 0

    def clear(self) -> None:
        """Another leadership begins."""
        self._under_way.clear()

    def placed(
        self,
        registry: Registry,
        command: ApplyAgents,
        now: int,
        *,
        avoid: AbstractSet[str],
        loads: Mapping[str, float],
        seed: int,
    ) -> ApplyAgents:
        """Return the command with a place for each row that it will create, as far as there is one."""
        self._settle(registry, now)
        new: dict[str, Agent] = {}
        for spec in command.agents:
            if registry.agent(spec.id) is None and spec.id not in self._under_way and not problem(spec):
                self._number += 1  # a uid of its own, for the ties: the row's is known where it is applied
                new[spec.id] = msgspec.structs.replace(newcomer(spec), uid=f"{registry.revision}.{self._number}")
        if not new or len(self._under_way) + len(new) > LIMIT:
            return command
        before = [agent for agent, _ in self._under_way.values()]
        placed = place(registry, [*before, *new.values()], avoid=avoid, seed=seed, loads=loads)
        found = {one.uid: Place(incarnation=one.incarnation, explanation=one.explanation) for one in placed}
        places = {agent_id: found[agent.uid] for agent_id, agent in new.items() if found[agent.uid].incarnation}
        self._under_way |= {agent_id: (new[agent_id], now) for agent_id in places}
        nowhere = Place()
        return (
            msgspec.structs.replace(command, places=tuple(places.get(spec.id, nowhere) for spec in command.agents))
            if places
            else command
        )

    def _settle(self, registry: Registry, now: int) -> None:
        """Forget those whose rows are there, or whose entry was lost."""
        self._under_way = {
            agent_id: (agent, since)
            for agent_id, (agent, since) in self._under_way.items()
            if registry.agent(agent_id) is None and now - since < UNSEEN_NS
        }
