"""What a holder tells its host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenured.core.turns import Wake
from tenured.host.folding import Folded

if TYPE_CHECKING:
    from tenured.host.holder import Holder
    from tenured.host.resting import Resting


@dataclass(frozen=True, slots=True)
class Events:
    """After any but `serves` nothing of it runs any more."""

    asleep: Callable[[Holder, Folded, Wake], None] | None = None
    """It has gone to sleep; None: it never does."""
    ended: Callable[[Holder, str], None] | None = None
    """It has ended by itself, for that reason, and owes nothing any more; None: its row stays."""
    rests: Callable[[Holder, Resting], bool] | None = None
    """It rests; false: nobody keeps it. None: it never does."""
    serves: Callable[[Holder], None] | None = None
    """Ask it to `look` now and then."""


UNHEARD = Events()
