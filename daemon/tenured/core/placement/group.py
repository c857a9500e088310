"""Places agents with one wish, one after the other.

The hosts that pass the filters lie in heaps, one a cell of the spread (`spread`), so that ten thousand agents cost as
many heap operations and not as many scans of all hosts. Only the host that was taken changes, so only its cell is
looked at again. Ties are broken by a seeded hash of the agent's uid: not always the first host, and yet the same
result for the same input.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence

from tenured.core.model import Agent, Pool
from tenured.core.placement import say
from tenured.core.placement.book import Book
from tenured.core.placement.draw import draw, pause, ticket
from tenured.core.placement.filters import ROOM, SPREAD, first, reluctant
from tenured.core.placement.result import Placement
from tenured.core.placement.site import Site
from tenured.core.placement.spread import Cell, Spreading
from tenured.core.placement.strategies import STRATEGIES, Key
from tenured.core.placement.wish import Wish

RUNNERS_UP = 2
Entry = tuple[bool, Key, int, str]
"""A second choice, key of the strategy, tie-break, incarnation: the least wins."""
Refusal = tuple[str, str]
"""Name of the filter, and the phrase."""


class Group:
    """The candidates for one wish. The book is shared: what is placed here counts for the wishes after this one."""

    def __init__(self, wish: Wish, pool: Pool, book: Book, seed: int, uid: str) -> None:
        """`uid`: of the first agent, for the ties."""
        standing = book.standing(wish)
        self.wish = wish
        self.pool = pool
        self.strategy = STRATEGIES[wish.strategy if wish.strategy in STRATEGIES else "LoadBalanced"]
        self.refused: dict[str, Refusal] = dict(standing.refused)
        """incarnation -> why not."""
        self.counts: Counter[str] = Counter(standing.counts)
        """phrase -> hosts of the pool."""
        self.sites = book.sites
        self._members = standing.members
        self._seed = seed
        self._clocks: dict[str, float] = {}
        self._spreading = Spreading(wish, book.sites) if wish.spread else None
        self._cell_of: dict[str, Cell] = {}
        self._heaps: dict[Cell, list[Entry]] = {}
        self._nowhere: tuple[str, str, str] | None = None
        self._fill(standing.passing, ticket(seed, uid))

    def _fill(self, passing: Sequence[Site], drawn: int) -> None:
        spreading = self._spreading
        if spreading is None:
            if passing:
                self._heaps[()] = [self._entry(site, drawn) for site in passing]
        else:
            for site in passing:
                cell = self._cell_of[site.host.incarnation] = spreading.cell(site)
                self._heaps.setdefault(cell, []).append(self._entry(site, drawn))
        for cell in list(self._heaps):
            heapq.heapify(self._heaps[cell])
            self._clean(cell)

    def place(self, agent: Agent) -> Placement:
        """Take the best candidate that has room."""
        heaps, note = self._allowed()
        if not heaps:
            if self._nowhere is None:
                self._nowhere = say.nowhere(self.wish, self.pool, self._members, self.counts)
            return say.waiting(agent, self._nowhere)
        heap = min(heaps) if len(heaps) > 1 else heaps[0]  # heaps compare by their least entry first
        incarnation = heap[0][3]
        site = self.sites[incarnation]
        explanation = say.explain(
            self.strategy,
            [(self.sites[inc].host.name, key) for _, key, _, inc in _least(heap, heaps)],
            self.counts,
            note,
        )
        site.take(self.wish)
        heapq.heapreplace(heap, self._entry(site, ticket(self._seed, agent.uid)))
        cell = self._cell_of.get(incarnation, ())
        if self._spreading is not None:
            self._spreading.placed(cell)
        self._clean(cell)
        return Placement(
            uid=agent.uid, epoch=agent.epoch, incarnation=incarnation, host=site.host.name, explanation=explanation
        )

    def ranking(self) -> list[tuple[str, Key]]:
        """(incarnation, key) of all that may win now, the best first. The others are in `refused`, spread included."""
        heaps, _ = self._allowed()
        if self._spreading is not None:
            winners = {id(heap) for heap in heaps}
            for cell, heap in self._heaps.items():
                if id(heap) not in winners:
                    phrase = self._spreading.why_not(cell, self._heaps)
                    self.refused |= {inc: (SPREAD, phrase) for _, _, _, inc in heap}
        entries = sorted(entry for heap in heaps for entry in heap)
        found: list[tuple[str, Key]] = []
        for _, key, _, incarnation in entries:
            refusal = first(ROOM, self.wish, self.sites[incarnation])
            if refusal[0]:
                self.refused[incarnation] = refusal
            else:
                found.append((incarnation, key))
        return found

    # --- inside -----------------------------------------------------------------------------------------------

    def _entry(self, site: Site, drawn: int) -> Entry:
        incarnation, wish = site.host.incarnation, self.wish
        key = self.strategy.key(wish, site)
        tie = draw(drawn, site.salt)
        if self.strategy.chance:
            clock = self._clocks.get(incarnation, 0.0) + pause(tie)
            self._clocks[incarnation] = clock
            key = (clock,)
        return (bool(site.soft) and reluctant(wish, site), key, tie, incarnation)

    def _allowed(self) -> tuple[list[list[Entry]], str]:
        if self._spreading is None:
            return list(self._heaps.values()), ""
        cells, note = self._spreading.allowed(self._heaps)
        return [self._heaps[cell] for cell in cells], note

    def _clean(self, cell: Cell) -> None:
        """Drop what has no room from the top of a cell, and the cell when nothing is left."""
        heap = self._heaps[cell]
        while heap:
            incarnation = heap[0][3]
            refusal = first(ROOM, self.wish, self.sites[incarnation])
            if not refusal[0]:
                return
            heapq.heappop(heap)
            self._refuse(incarnation, refusal)
        del self._heaps[cell]

    def _refuse(self, incarnation: str, refusal: Refusal) -> None:
        self.refused[incarnation] = refusal
        self.counts[refusal[1]] += 1


def _least(winner: list[Entry], heaps: list[list[Entry]]) -> list[Entry]:
    """The winner and the next two."""
    # The three least of a heap are among its first seven.
    some = winner[:7] if len(heaps) == 1 else [entry for heap in heaps for entry in heap[:7]]
    return heapq.nsmallest(1 + RUNNERS_UP, some) if len(some) > 1 else some
