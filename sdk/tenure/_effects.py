"""The effects that every agent knows; the others are in `tenure.directives`, which is loaded when one is first used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Directive:
    """Base of all effects. One of your own is a frozen dataclass that derives from it.

    A runtime does what it has an executor for: `tenure.local(executors={Page: page})`. For any other the turn fails
    with `NotSupported` before anything of it is kept.
    """


@dataclass(frozen=True, slots=True)
class Emit(Directive):
    """Send a signal: to whoever subscribes to its type, or only to the agent `to`."""

    type: str
    data: object = None
    to: str = ""
    subject: str = ""
    priority: int = 0
    """-100 to 100: where signals of several senders wait, the higher goes first."""


@dataclass(frozen=True, slots=True)
class Error(Directive):
    """Something failed: the error policy of the agent's class decides. `code` is from docs/errors.md."""

    code: str
    message: str
