"""What a record holds of an agent that has ended by itself (protocol 3, ends), and what it owes before its row goes.

Key of the record: `e`, an `Ended`, written with the commit of the turn that asked for it [end_in_commit].
"""

from __future__ import annotations

import msgspec

from tenured.core.boxes import Boxes
from tenured.core.journals import Journal
from tenured.core.signals import Signal

ENDED = "e"
REASON_LIMIT = 256
"""Characters of the reason that are kept."""


class Ended(msgspec.Struct, frozen=True, array_like=True):
    """The mark. It never goes."""

    reason: str
    n: int
    """The sender's counter with that commit: what the agent has sent to itself up to this is still run."""
    at: float = 0.0
    """Wall time, for people."""


def own(ended: Ended, uid: str, signal: Signal) -> bool:
    """Whether the agent has asked it of itself before its end."""
    return signal.sender == uid and signal.n <= ended.n and not signal.void


def runs_on(ended: Ended, uid: str, boxes: Boxes, journal: Journal) -> bool:
    """Whether there are turns left to run: of what was accepted, or asked of itself, before the end [accepted_first].

    `uid`: the agent's.
    """
    asked = any(n <= ended.n and entry.receiver == uid and not entry.void for n, entry in boxes.out.items())
    return asked or journal.owed is not None or bool(journal.inbox)


def settled(boxes: Boxes) -> bool:
    """Whether nothing is left that anybody may want: nothing on its way, and no dead letter [box_first]."""
    return not (boxes.out or boxes.letters or boxes.held)
