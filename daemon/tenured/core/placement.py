"""Placement: which host takes an agent, and why. Filters, then the strategy `LoadBalanced`."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

import msgspec

from tenured.core.model import Agent
from tenured.core.registry import Registry


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where one agent goes, or (`incarnation` empty) why nowhere."""

    uid: str
    epoch: int
    """The agent's epoch that the decision is for."""
    incarnation: str = ""
    host: str = ""
    explanation: str = ""
    """<= 256 B: the winner, the next two with scores, rejections per filter."""
    reason: str = ""
    message: str = ""
    next_action: str = ""


def place(
    registry: Registry, agents: Iterable[Agent], *, avoid: AbstractSet[str] = frozenset(), seed: int = 0
) -> list[Placement]:
    """Place agents in the given order, each aware of those before it. `avoid`: incarnations that are suspected."""
    raise NotImplementedError
