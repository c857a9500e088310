"""The hosts of a registry as placement sees them, kept from one question to the next.

A cache and no state: rows are never changed but replaced, so a site whose three rows are still the same objects is
still right, and so is which of them pass the filters that look at rows alone. What one question adds (what it places,
loads, who is silent) is undone or set anew with the next one. For one thread, like the registry itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from tenured.core.placement.filters import STANDING, first
from tenured.core.placement.site import NOTHING_ADDED, NOTHING_USED, Site, site_of
from tenured.core.placement.wish import Wish
from tenured.core.registry import Registry

UNKNOWN_LOAD = 1.0
"""Of a host that reported none while others did: the worst."""
STANDINGS_KEPT = 512
"""Kinds of wishes for which it is remembered which hosts pass; all are forgotten at the limit."""


@dataclass(slots=True)
class Standing:
    """Which hosts of a pool pass the filters that look at rows alone."""

    members: list[Site]
    passing: list[Site]
    refused: dict[str, tuple[str, str]]
    counts: Counter[str]


class Book:
    """Of one registry."""

    def __init__(self) -> None:
        self.sites: dict[str, Site] = {}
        """By incarnation; all that are alive."""
        self._avoid: AbstractSet[str] = frozenset()
        self._busy: AbstractSet[str] = frozenset()
        self._standings: dict[object, Standing] = {}

    def standing(self, wish: Wish) -> Standing:
        """Remembered as long as the rows are the same. Not to be changed."""
        key = (wish.pool, wish.class_name, wish.node, wish.selector, wish.requires, wish.tolerations)
        found = self._standings.get(key)
        if found is None:
            if len(self._standings) >= STANDINGS_KEPT:
                self._standings.clear()
            found = self._standings[key] = self._judge(wish)
        return found

    def _judge(self, wish: Wish) -> Standing:
        members = [site for site in self.sites.values() if site.host.pool == wish.pool]
        found = Standing(members, [], {}, Counter())
        for site in members:
            refusal = first(STANDING, wish, site)
            if refusal[0]:
                found.refused[site.host.incarnation] = refusal
                found.counts[refusal[1]] += 1
            else:
                found.passing.append(site)
        return found

    def refresh(
        self,
        registry: Registry,
        avoid: AbstractSet[str],
        loads: Mapping[str, float] | None,
        busy: AbstractSet[str],
    ) -> None:
        """Follow the rows, and begin a question."""
        sites, pools, nodes = self.sites, registry.pools, registry.nodes
        changed, alive = avoid != self._avoid or busy != self._busy, 0
        for incarnation, host in registry.hosts.items():
            if host.ended:
                continue
            alive += 1
            site = sites.get(incarnation)
            if (
                site is None
                or site.host is not host
                or site.pool is not pools.get(host.pool)
                or site.node is not nodes.get(host.node)
            ):
                sites[incarnation] = site_of(registry, host)
                changed = True
        if len(sites) != alive:
            for incarnation in [name for name in sites if not registry.alive(name)]:
                del sites[incarnation]
            changed = True
        if changed:
            self._avoid, self._busy = frozenset(avoid), frozenset(busy)
            self._standings.clear()
            for site in sites.values():
                site.silent = site.host.suspect or site.host.incarnation in avoid
                site.busy = site.host.incarnation in busy
        self._begin(registry, loads)

    def _begin(self, registry: Registry, loads: Mapping[str, float] | None) -> None:
        usage = registry.usage
        for incarnation, site in self.sites.items():
            site.usage = usage.get(incarnation, NOTHING_USED)
            site.load = min(1.0, max(0.0, loads.get(incarnation, UNKNOWN_LOAD))) if loads else 0.0
            if site.taken:
                site.taken, site.added = False, NOTHING_ADDED


_BOOKS: WeakKeyDictionary[Registry, Book] = WeakKeyDictionary()


def book_of(
    registry: Registry,
    avoid: AbstractSet[str] = frozenset(),
    loads: Mapping[str, float] | None = None,
    busy: AbstractSet[str] = frozenset(),
) -> Book:
    """The book as the registry is now, for one question; the next question ends it. See `place`."""
    book = _BOOKS.get(registry)
    if book is None:
        book = _BOOKS[registry] = Book()
    book.refresh(registry, avoid, loads, busy)
    return book
