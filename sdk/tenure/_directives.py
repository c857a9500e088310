"""Effects described as data: what the pure form of an action returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Emit:
    """Send a signal."""

    type: str
    data: object = None


@dataclass(frozen=True, slots=True)
class Error:
    """The action failed; the agent is unchanged. `code` is from the catalogue in docs/errors.md."""

    code: str
    message: str


Directive = Emit | Error
"""What `cmd` returns beside the agent."""
