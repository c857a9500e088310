"""A turn under way, from its beginning until it is committed or did not happen; and one write of several."""

from __future__ import annotations

from dataclasses import dataclass, field

import tenure_link
from tenured.core import turns
from tenured.host.jobs import Job


@dataclass(eq=False, slots=True)
class Flight:
    """A job whose turn has begun."""

    job: Job
    number: int
    """Of the turn, on the worker link; 0: it needs no worker."""
    began_ns: int = 0
    done: tenure_link.TurnDone | None = None
    silent: bool = False
    """The job is answered already: only what its class makes of the failure is to be committed."""
    letter: tenure_link.Fault | None = None
    """It has failed for the last time, and ends with that."""
    pauses: bool = False
    """Its agent is paused by its end: nothing may run behind it [pause_refuse]."""
    cut: bool = False
    aside: bool = False
    """It waits for no draft."""
    progress: tenure_link.Progress | None = None
    """A step that it has come to, and that is not durable yet."""

    @property
    def accepts(self) -> bool:
        """It has come to its first step, and that is not durable yet (protocol 9, rule 1)."""
        return self.progress is not None and self.progress.entry is None and self.done is None

    @property
    def closes(self) -> bool:
        """Nothing may run behind it: its end pauses its agent, or ends it [pause_refuse, end_in_commit]."""
        return self.pauses or (self.done is not None and self.done.stop is not None)


_NOTHING = turns.Turn(turns.Book(), {})
"""Of a write that is not made yet; shared, and changed by nobody."""


@dataclass(eq=False, slots=True)
class Write:
    """What goes to the store at once."""

    draft: turns.Draft
    ready: list[Flight] = field(default_factory=list[Flight])
    """Turns whose ends it carries."""
    stepping: Flight | None = None
    """The turn whose acceptance, or step, it carries."""
    settled: bool = False
    due: tuple[tenure_link.Due, ...] | None = None
    """What is planned from then on; None: as before."""
    turn: turns.Turn = _NOTHING
    began_ns: int = 0
