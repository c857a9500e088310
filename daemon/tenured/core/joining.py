"""How a replaced disk gets its records back (protocol 2, rejoin 4). No I/O.

The joining server asks every other one for its records in the order of their uids, in pages, each under the new view.
Of each record it takes the highest seal and the highest version that a majority *of the others* name, so that whatever
a majority of all (with the lost disk in it) had acknowledged is among them. Records that began under the new view need
not be listed: no answer of the lost disk ever counted for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tenured.core.cells import NOTHING, Version


class Head(msgspec.Struct, frozen=True, order=True):
    """A record without its entries, as one server holds it."""

    uid: str
    sealed: int = 0
    version: Version = NOTHING


class Page(msgspec.Struct, frozen=True):
    """Heads of one server after some uid, sorted by uid as text; `more`: there are others after the last."""

    heads: Sequence[Head]
    more: bool = False
    total: int = 0
    """Records that the server holds."""


class Need(msgspec.Struct, frozen=True):
    """One record to be taken over: its highest seal, its highest version, and who holds that (nobody: no state)."""

    uid: str
    sealed: int
    version: Version
    holders: tuple[str, ...]


class Step(msgspec.Struct, frozen=True):
    """What these pages decide: every record up to the uid `upto`; `done`: there are no others."""

    needs: tuple[Need, ...]
    upto: str
    done: bool


def quorum_of_others(others: int) -> int:
    """How many of the other servers must answer: with 2 others both, with 4 others 3 [rejoin]."""
    return others // 2 + 1


def merge(pages: Mapping[str, Page], others: int) -> Step | None:
    """Judge pages that were asked for after the same uid under the same view; None: too few have answered.

    A page that does not reach as far as another says nothing of the uids beyond its own end.
    """
    if len(pages) < quorum_of_others(others):
        return None
    ends = [page.heads[-1].uid for page in pages.values() if page.more and page.heads]
    upto = min(ends) if ends else max((page.heads[-1].uid for page in pages.values() if page.heads), default="")
    found: dict[str, list[tuple[str, Head]]] = {}
    for server, page in sorted(pages.items()):
        for head in page.heads:
            if head.uid <= upto:
                found.setdefault(head.uid, []).append((server, head))
    return Step(needs=tuple(_need(uid, found[uid]) for uid in sorted(found)), upto=upto, done=not ends)


def _need(uid: str, heads: Sequence[tuple[str, Head]]) -> Need:
    version = max(head.version for _, head in heads)  # epoch first [epoch_first]
    holders = tuple(server for server, head in heads if head.version == version) if version != NOTHING else ()
    return Need(uid, max(head.sealed for _, head in heads), version, holders)
