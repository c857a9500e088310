"""How long first states wait for a turn to be written with (`host.beginning`)."""

from __future__ import annotations

FIRST_WRITE_S = 0.1
"""How long a first state waits for a turn. Until it is written the agent serves, and is not Ready."""
EACH_S = 0.002
"""And how much longer for each other one that waits on this host: the calls of a burst come later than its agents, and
a write of its own for each would hold them up.
"""
LONGEST_S = 1.0


class Newborns:
    """Of one host: how many first states wait."""

    def __init__(self) -> None:
        self.count = 0

    @property
    def patience_s(self) -> float:
        """How long each of them waits."""
        return FIRST_WRITE_S + min(LONGEST_S, self.count * EACH_S)
