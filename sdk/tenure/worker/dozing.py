"""What a worker keeps of an agent that dozes: nothing was asked of it for a moment, and nothing of it is under way.

A state in Python's objects takes many times its bytes, and what runs turns on it takes more. All of it is made again
from the committed bytes, as after a turn that failed, when the next turn comes. Nobody sees that but the clock, which
shows some tens of microseconds: the agent has not left this worker, so its hooks do not run, and the daemon hears
nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tenure._agent import Agent

DOZE_BYTES = 4096
"""Of a committed record; a larger one takes too long to read again."""


class Dozing(msgspec.Struct, frozen=True, gc=False):
    """What is kept of one."""

    cls: type[Agent[Any]]
    uid: str
    id: str
    epoch: int
    recovered: bool
    errors: int
    """For the error policy of its class."""
    now: float
    wall: float
    record: bytes
    """As committed."""
    config: bytes
    told: bool = True
    """Whether the daemon knows of all plans."""
