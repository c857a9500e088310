"""Who waits to be placed, in which order, and which of them cannot be placed as things are."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from tenured.core.model import Agent
from tenured.core.placement import LOST
from tenured.core.profile import NS
from tenured.core.registry import Registry

AGED_NS = 10 * NS
"""After so long in the queue an agent comes before all that came later, critical or not: nothing waits for ever."""

HELD_BACK_NS = NS // 2
"""An agent that waits for its turn is told so after this long: most never notice."""
TOLD_AGAIN_NS = 5 * NS
"""And how many are before it is told anew so often."""

Standing = tuple[int, AbstractSet[str], bool]
"""What decides who can be placed at all: the registry's version, hosts to avoid, whether the leader knows its hosts."""


class Queue:
    """Of one leadership. The order is made anew when the registry changes, not at each plan."""

    def __init__(self) -> None:
        self.stuck: set[str] = set()
        """uids that cannot be placed as things stand."""
        self._lost: list[str] = []
        self._order: list[str] = []
        """The last one is the first to be placed."""
        self._since: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._standing: Standing | None = None
        self._aged_at = 0

    def clear(self) -> None:
        """Nobody waits, or another leadership begins."""
        self.stuck.clear()
        self._order.clear()
        self._since.clear()
        self._told.clear()
        self._standing = None
        self._lost.clear()

    def refresh(self, registry: Registry, standing: Standing, nodes: AbstractSet[tuple[str, str]], now: int) -> bool:
        """Bring the order up to date; return whether it was made anew. `nodes`: (pool, node) where some host takes
        agents.
        """
        if standing == self._standing and now - self._aged_at < AGED_NS:
            return False
        if standing != self._standing:
            self.stuck.clear()
        self._standing, self._aged_at = standing, now
        agents = [registry.agents[uid] for uid in registry.unheld]
        self._since = {agent.uid: self._since.get(agent.uid, now) for agent in agents}
        self._told = {uid: at for uid, at in self._told.items() if uid in self._since}
        free = [agent for agent in agents if not tied(agent) or (agent.spec.pool, agent.last_node) in nodes]
        self._lost = [agent.uid for agent in free if was_lost(agent)]
        self._order = [agent.uid for agent in sorted(free, key=lambda agent: self._rank(agent, now), reverse=True)]
        return True

    def lost(self, registry: Registry) -> bool:
        """Tell whether some that may be placed had a holder that was lost: then the whole queue is paced."""
        while self._lost and (self._lost[-1] in self.stuck or self._lost[-1] not in registry.unheld):
            self._lost.pop()
        return bool(self._lost)

    def first(self, registry: Registry, most: int, *, asleep: bool) -> tuple[list[Agent], bool]:
        """Return the first `most` that may be placed, of those that are to be started or of those that are to be left
        asleep; and whether there are more.
        """
        found: list[Agent] = []
        for agent in self.waiting(registry):
            if (agent.hibernation is not None) is asleep:
                if len(found) >= most:
                    return found, True
                found.append(agent)
        return found, False

    def waiting(self, registry: Registry) -> Iterable[Agent]:
        """Yield those that may be placed, in order."""
        while self._order and self._order[-1] not in registry.unheld:
            self._order.pop()  # it has a holder; who loses his makes the order anew
        for uid in reversed(self._order):
            if uid in registry.unheld and uid not in self.stuck:
                yield registry.agents[uid]

    def to_tell(self, agent: Agent, now: int) -> bool:
        """Tell whether one that waits for its turn is to be told (again) how many are before it; it counts as told."""
        if agent.unavailable or self.waited_ns(agent.uid, now) < HELD_BACK_NS:
            return False
        told = self._told.get(agent.uid)
        if told is not None and now - told < TOLD_AGAIN_NS:
            return False
        self._told[agent.uid] = now
        return True

    def waited_ns(self, uid: str, now: int) -> int:
        """Return how long this leader has seen the agent wait."""
        return now - self._since.get(uid, now)

    def _rank(self, agent: Agent, now: int) -> tuple[int, int, int]:
        """Rank the aged first, by age; then the critical ones; then the older ones."""
        since = self._since[agent.uid]
        if now - since >= AGED_NS:
            return (0, since, int(agent.uid))
        return (1 if agent.spec.critical else 2, 0, int(agent.uid))


def was_lost(agent: Agent) -> bool:
    """Tell whether its holder was lost, and it has not been Ready since."""
    return agent.unheld_reason in LOST or agent.failover_id > 0


def tied(agent: Agent) -> bool:
    """Tell whether it waits for the node that was lost, because it is not critical."""
    return not agent.spec.critical and agent.unheld_reason in LOST
