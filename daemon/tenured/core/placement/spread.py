"""Spread: the agents of a group lie evenly over zones, nodes or hosts.

Hosts that lie in the same places for every rule of a wish form a cell. A rule lets those cells win whose place would
hold at most `max_skew` more agents of the group than the emptiest place that has room. So some place always passes one
rule. Where no place passes all of them, the later rule is passed over, and the explanation says so: an agent that runs
is worth more than an even count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tenured.core.agentspec import Spread
from tenured.core.placement.site import Site
from tenured.core.placement.wish import Wish, group_of

Cell = tuple[str, ...]
"""The place of its hosts for each rule."""


def place_of(rule: Spread, site: Site) -> str:
    """The zone, node or host name."""
    match rule.by:
        case "Zone":
            return site.zone
        case "Host":
            return site.host.name
        case _:
            return site.host.node


class Spreading:
    """The rules of one wish, with how many agents of each group every place holds."""

    def __init__(self, wish: Wish, sites: Mapping[str, Site]) -> None:
        self.rules: Sequence[Spread] = wish.spread
        self._counts: list[dict[str, int]] = []
        for rule in self.rules:
            group, counts = group_of(wish, rule), dict[str, int]()
            for site in sites.values():
                held = site.alike(group)
                if held:
                    place = place_of(rule, site)
                    counts[place] = counts.get(place, 0) + held
            self._counts.append(counts)

    def cell(self, site: Site) -> Cell:
        """The places of a host."""
        return tuple(place_of(rule, site) for rule in self.rules)

    def placed(self, cell: Cell) -> None:
        """Count one more agent of the wish."""
        for place, counts in zip(cell, self._counts, strict=True):
            counts[place] = counts.get(place, 0) + 1

    def allowed(self, cells: Iterable[Cell]) -> tuple[list[Cell], str]:
        """The cells that may win, of those that have room, and a note about rules that nobody can keep."""
        everywhere = list(cells)
        allowed, note = everywhere, ""
        for index, rule in enumerate(self.rules):
            counts = self._counts[index]
            most = min((counts.get(cell[index], 0) for cell in everywhere), default=0) + rule.max_skew
            within = [cell for cell in allowed if counts.get(cell[index], 0) < most]
            if within:
                allowed = within
            elif allowed:
                note = f"spread by {rule.by} not kept"
        return allowed, note

    def why_not(self, cell: Cell, cells: Iterable[Cell]) -> str:
        """Which rule keeps a cell from winning, in words."""
        everywhere = list(cells)
        for index, rule in enumerate(self.rules):
            counts = self._counts[index]
            least = min((counts.get(other[index], 0) for other in everywhere), default=0)
            here = counts.get(cell[index], 0)
            if here + 1 - least > rule.max_skew:
                return f"{rule.by.lower()} {cell[index] or 'unknown'} holds {here}, the emptiest {least}"
        return ""
