"""Which rows changed after a revision: every row once, in the order of their last change; and which are gone.

So whoever is behind, by however much, is brought up with each row as it is now. A log of all changes would have to be
cut, and the loss of a host with 100,000 agents changes rows faster than a watcher reads a snapshot of them: one that
has to begin anew whenever it falls behind begins anew until all is over.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from tenured.core.model import RowKey

GONE_LIMIT = 20_000
"""Rows that are gone and remembered; the first one to go is forgotten first."""


class Delta(msgspec.Struct, frozen=True):
    """Rows that changed between two revisions, each named once, in the order of their last change."""

    changed: tuple[RowKey, ...] = ()
    gone: tuple[RowKey, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return bool(self.changed or self.gone)


class Changes:
    """Bounded by the number of rows (some 150 bytes each) and `GONE_LIMIT`."""

    def __init__(self) -> None:
        # Ordered by their own links: a plain dict leaves holes where what changes moves to the end, and to look back
        # from there would step over all of them.
        self._rows: OrderedDict[RowKey, int] = OrderedDict()
        self._gone: OrderedDict[RowKey, int] = OrderedDict()
        self._base = 0
        """What was gone by then is not known any more."""

    def begin(self, revision: int) -> None:
        """What happened up to this revision is not known."""
        self._base = revision

    def put(self, key: RowKey, revision: int) -> None:
        """A row is new or changed."""
        self._gone.pop(key, None)
        self._rows[key] = revision
        self._rows.move_to_end(key)

    def drop(self, key: RowKey, revision: int) -> None:
        """A row is gone."""
        self._rows.pop(key, None)
        self._gone[key] = revision
        if len(self._gone) > GONE_LIMIT:
            _, self._base = self._gone.popitem(last=False)

    def reaches(self, revision: int) -> bool:
        """Tell whether all that happened after that revision is known."""
        return revision >= self._base

    def since(self, revision: int) -> Delta:
        """Return what changed after a revision that is reached."""
        return Delta(_after(self._rows, revision), _after(self._gone, revision))


def _after(order: OrderedDict[RowKey, int], revision: int) -> tuple[RowKey, ...]:
    found: list[RowKey] = []
    for key, at in reversed(order.items()):
        if at <= revision:
            break
        found.append(key)
    found.reverse()
    return tuple(found)
