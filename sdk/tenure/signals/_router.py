"""From the type of a signal to those who want it: a trie of patterns.

A pattern is segments joined by dots. `*` stands for one segment, `**` for any number, none included. Where several
patterns match, the higher priority comes first, then the more exact pattern (a word before `*` before `**`, compared
from the left), then the one that was added first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tenure.errors import DefinitionError
from tenure.signals._signal import Signal

T = TypeVar("T")

PRIORITY_LIMIT = 100
REMEMBERED = 10_000
"""Types whose routes are remembered; then they are looked up anew."""
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+|\*|\*\*")
_RANK = {"*": 1, "**": 2}


@dataclass(frozen=True, slots=True)
class Route(Generic[T]):
    """Signals whose type matches `pattern`, and for which `match` (if any) is true, go to `target`.

    `priority`: -100 to 100, the higher the earlier. Raises DefinitionError for a pattern or a priority that cannot be.
    """

    pattern: str
    target: T
    priority: int = 0
    match: Callable[[Signal], bool] | None = None
    """Looks at the signal itself. One that raises matches nothing; the error is the router's to report."""

    def __post_init__(self) -> None:
        segments(self.pattern)
        if not -PRIORITY_LIMIT <= self.priority <= PRIORITY_LIMIT:
            raise DefinitionError(f"{self.pattern}: a priority is -100 to 100, not {self.priority}")


def segments(pattern: str) -> tuple[str, ...]:
    """The parts of a pattern. Raises DefinitionError, naming the part that cannot be."""
    parts = tuple(pattern.split("."))
    for part in parts:
        if not _SEGMENT.fullmatch(part):
            raise DefinitionError(
                f"pattern {pattern!r}: {part!r} is no segment: letters, digits, _ and -, or *, or **, joined by dots"
            )
    return parts


def matches(pattern: str, type_: str) -> bool:
    """Whether a type matches one pattern. Raises DefinitionError for a bad pattern."""
    return bool(Router([Route(pattern, True)]).candidates(type_))


@dataclass(slots=True)
class _Node(Generic[T]):
    children: dict[str, _Node[T]] = field(default_factory=dict[str, "_Node[T]"])
    routes: list[tuple[int, Route[T]]] = field(default_factory=list[tuple[int, Route[T]]])
    """With the number of their adding."""


class Router(Generic[T]):
    """A set of routes. Adding and removing keep the routes of other patterns as they are.

    `on_error` is told of a `match` that raised; without it the error goes nowhere.
    """

    def __init__(
        self,
        routes: Iterable[Route[T]] = (),
        *,
        on_error: Callable[[Route[T], Exception], None] = lambda _route, _error: None,
    ) -> None:
        self._root: _Node[T] = _Node()
        self._added = 0
        self._count = 0
        self._known: dict[str, tuple[Route[T], ...]] = {}
        self._on_error = on_error
        self.add(*routes)

    def __len__(self) -> int:
        return self._count

    def add(self, *routes: Route[T]) -> None:
        """Add routes; the same pattern may have several targets."""
        for route in routes:
            node = self._root
            for segment in segments(route.pattern):
                node = node.children.setdefault(segment, _Node())
            node.routes.append((self._added, route))
            self._added += 1
            self._count += 1
        self._known.clear()

    def remove(self, pattern: str, target: T | None = None) -> int:
        """Remove the routes of a pattern, or only those to `target`; returns how many there were."""
        path: list[tuple[_Node[T], str]] = []
        node = self._root
        for segment in segments(pattern):
            below = node.children.get(segment)
            if below is None:
                return 0
            path.append((node, segment))
            node = below
        kept = [(number, route) for number, route in node.routes if target is not None and route.target != target]
        removed = len(node.routes) - len(kept)
        node.routes = kept
        for above, segment in reversed(path):
            if above.children[segment].routes or above.children[segment].children:
                break
            del above.children[segment]
        self._count -= removed
        self._known.clear()
        return removed

    def routes(self) -> list[Route[T]]:
        """All routes, in the order of their adding."""
        found: list[tuple[int, Route[T]]] = []
        nodes = [self._root]
        while nodes:
            node = nodes.pop()
            found += node.routes
            nodes += node.children.values()
        return [route for _, route in sorted(found, key=lambda item: item[0])]

    def merge(self, other: Router[T]) -> None:
        """Add the routes of another router."""
        self.add(*other.routes())

    def candidates(self, type_: str) -> tuple[Route[T], ...]:
        """Routes whose pattern matches, in order. `match` functions are not asked."""
        known = self._known.get(type_)
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            known = self._known[type_] = self._find(type_)
        return known

    def route(self, signal: Signal) -> list[T]:
        """Targets of a signal, in order."""
        return [
            route.target
            for route in self.candidates(signal.type)
            if route.match is None or self._asked(route, route.match, signal)
        ]

    def _asked(self, route: Route[T], match: Callable[[Signal], bool], signal: Signal) -> bool:
        try:
            return match(signal)
        except Exception as error:  # noqa: BLE001 - whatever the author's function raises
            self._on_error(route, error)
            return False

    def _find(self, type_: str) -> tuple[Route[T], ...]:
        """Walk the trie, each node with each position in the type once, however many `**` there are."""
        parts = type_.split(".")
        end = len(parts)
        found: list[tuple[int, Route[T]]] = []
        seen: set[tuple[int, int]] = set()
        todo: list[tuple[_Node[T], int, bool]] = [(self._root, 0, False)]
        while todo:
            node, at, deep = todo.pop()
            if (id(node), at) in seen:
                continue
            seen.add((id(node), at))
            if at == end:
                found += node.routes
            elif deep:
                todo.append((node, at + 1, True))  # `**` takes one segment more
            if at < end:
                below_both = (node.children.get(parts[at]), node.children.get("*"))
                todo += [(below, at + 1, False) for below in below_both if below is not None]
            if (below := node.children.get("**")) is not None:
                todo.append((below, at, True))
        found.sort(key=lambda item: (-item[1].priority, *_exactness(item[1].pattern), item[0]))
        return tuple(route for _, route in found)


def _exactness(pattern: str) -> tuple[tuple[int, ...]]:
    return (tuple(_RANK.get(segment, 0) for segment in pattern.split(".")),)
