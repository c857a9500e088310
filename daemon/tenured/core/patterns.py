"""Patterns of types of signals, as classes declare them: the SDK's `tenure.signals` has the same semantics (a test says
so), and the daemon may not import it.

A pattern is words joined by dots. `*` stands for one word, `**` for any number, none included.
"""

from __future__ import annotations

from collections.abc import Sequence

ANY_NUMBER = "**"
ONE = "*"


def matches(pattern: str, type_: str) -> bool:
    """Whether a type matches a pattern. A pattern that cannot be matches nothing that can be."""
    return _matches(pattern.split("."), type_.split("."))


def _matches(pattern: Sequence[str], words: Sequence[str]) -> bool:
    """Positions in the pattern that the words read so far can have reached: no backtracking, however many `**`."""
    reached = _through(pattern, {0})
    for word in words:
        after = {at for at in reached if at < len(pattern) and pattern[at] == ANY_NUMBER}
        after |= {at + 1 for at in reached if at < len(pattern) and pattern[at] in (ONE, word)}
        reached = _through(pattern, after)
        if not reached:
            return False
    return len(pattern) in reached


def _through(pattern: Sequence[str], reached: set[int]) -> set[int]:
    """Add what is reached by letting `**` stand for nothing."""
    found = set(reached)
    for at in range(len(pattern)):
        if at in found and pattern[at] == ANY_NUMBER:
            found.add(at + 1)
    return found
