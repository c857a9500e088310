"""A turn under way: from its beginning until it is committed, or did not happen."""

from __future__ import annotations

from dataclasses import dataclass

import tenure_link
from tenured.host.jobs import Job


@dataclass(eq=False)
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
    cut: bool = False
    progress: tenure_link.Progress | None = None
    """A step that it has come to, and that is not durable yet."""
