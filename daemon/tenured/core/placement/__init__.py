"""Placement: which host takes an agent, and why. Filters, then a strategy; the explanation is made with the decision.

wish        what one agent asks for, resolved against the registry
site, book  the hosts as placement sees them, kept from one question to the next
filters     may the agent go there? one small function each
strategies  which of those hosts? one row each
spread      agents of a group lie evenly over zones, nodes or hosts
group       agents with one wish, placed one after the other
say         explanations and the sentences for what waits
trial       the same on paper, with a verdict on every host
rooms       capacity, use and reservations by node

Pure: the same input gives the same output, whatever the order of the hosts' rows. What is decided here is checked again
where it is applied: nothing here is needed for safety.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from tenured.core.model import Agent
from tenured.core.placement import say
from tenured.core.placement.book import book_of
from tenured.core.placement.group import RUNNERS_UP, Group
from tenured.core.placement.result import Placement, Trial, Verdict
from tenured.core.placement.rooms import Room, Rooms, rooms
from tenured.core.placement.say import EXPLANATION_BYTES
from tenured.core.placement.strategies import STRATEGIES
from tenured.core.placement.trial import dry_run, newcomer, problem
from tenured.core.placement.wish import LOST, Wish, wish_of
from tenured.core.registry import Registry

__all__ = [
    "EXPLANATION_BYTES",
    "LOST",
    "RUNNERS_UP",
    "STRATEGIES",
    "Placement",
    "Room",
    "Rooms",
    "Trial",
    "Verdict",
    "dry_run",
    "newcomer",
    "place",
    "problem",
    "rooms",
]


def place(
    registry: Registry,
    agents: Iterable[Agent],
    *,
    avoid: AbstractSet[str] = frozenset(),
    seed: int = 0,
    loads: Mapping[str, float] | None = None,
    busy: AbstractSet[str] = frozenset(),
) -> list[Placement]:
    """Place agents, groups that ask for the same in order of their first, each agent aware of those before it.

    `avoid`: incarnations that are suspected, beside those whose row says so: they get nothing new. `loads`: measured
    share of the processors in use, 0 to 1, by incarnation; where it is given, a host without one counts as fully
    loaded. `busy`: incarnations that start as many agents as they may at once; they get nothing more now.
    """
    groups: dict[Wish, list[Agent]] = {}
    for agent in agents:
        groups.setdefault(wish_of(registry, agent), []).append(agent)
    if not groups:
        return []
    book = book_of(registry, avoid, loads, busy)
    placed: list[Placement] = []
    for wish, members in groups.items():
        pool = registry.pools.get(wish.pool)
        if pool is None:
            why = say.no_pool(registry, wish.pool)
            placed += [say.waiting(agent, why) for agent in members]
            continue
        group = Group(wish, pool, book, seed, members[0].uid)
        placed += [group.place(agent) for agent in members]
    return placed
