"""What placement answers."""

from __future__ import annotations

import msgspec


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


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What placement thinks of one host for one agent."""

    incarnation: str
    host: str
    node: str
    zone: str
    pool: str
    rank: int = 0
    """1: the winner; 0: rejected."""
    score: str = ""
    detail: str = ""
    rejected: str = ""
    """Name of the filter; empty: it fits."""
    why: str = ""
    """In the words of that filter."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen if an agent were placed now."""

    placement: Placement
    strategy: str
    node: str = ""
    """Of the winner."""
    verdicts: tuple[Verdict, ...] = ()
    """Of every host that is alive: those that fit by rank, then the others by name."""
