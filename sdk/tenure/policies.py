"""What an agent does when one of its turns fails. Policies are functions from values to values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tenure._effects import Directive, Emit, Error
from tenure.directives import Stop
from tenure.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class LogOnly:
    """Write it to the log; the agent goes on. What agents do unless told otherwise."""

    def decide(self, error: Error, count: int) -> Sequence[Directive]:  # noqa: ARG002 - the interface
        """Nothing more."""
        return ()


@dataclass(frozen=True, slots=True)
class StopOnError:
    """The agent stops at its first error."""

    def decide(self, error: Error, count: int) -> Sequence[Directive]:  # noqa: ARG002 - the interface
        """Stop, as failed."""
        return (Stop(f"{error.code}: {error.message}", failed=True),)


@dataclass(frozen=True, slots=True)
class EmitOnError:
    """Send a signal with the code, the message, and how many errors there were; the agent goes on."""

    type: str = "tenure.agent.error"
    to: str = ""

    def decide(self, error: Error, count: int) -> Sequence[Directive]:
        """The signal."""
        return (Emit(self.type, {"code": error.code, "message": error.message, "count": count}, self.to),)


@dataclass(frozen=True, slots=True)
class MaxErrors:
    """The agent stops at its nth error since it was activated."""

    limit: int

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise DefinitionError(f"MaxErrors({self.limit}): the limit is at least 1")

    def decide(self, error: Error, count: int) -> Sequence[Directive]:
        """Stop, as failed, at the limit."""
        return (Stop(f"{count} errors, the last: {error.message}", failed=True),) if count >= self.limit else ()


ErrorPolicy = LogOnly | StopOnError | EmitOnError | MaxErrors | Callable[[Error, int], Sequence[Directive]]
"""One of the four, or a function of the error and of the number of errors since the activation."""


def decide(policy: ErrorPolicy | None, error: Error, count: int) -> Sequence[Directive]:
    """What follows from an error. `count`: with this one, since the activation. No policy: it is only logged."""
    if policy is None:
        return ()
    if isinstance(policy, LogOnly | StopOnError | EmitOnError | MaxErrors):
        return policy.decide(error, count)
    return policy(error, count)
