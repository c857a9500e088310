"""What the processes of a worker container are told at their start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Config:
    """Read once, in `__main__`."""

    socket: str
    """Path of the daemon's unix socket."""
    modules: tuple[str, ...]
    """Modules of the pool, as `import` spells them."""
    exit_deadline_s: float = 10.0
    """After SIGTERM, seconds to go on without a daemon that could say Stop."""
    loop: Literal["uvloop", "asyncio"] = "uvloop"
    """Event loop of the workers: asyncio's own for libraries that patch it."""
