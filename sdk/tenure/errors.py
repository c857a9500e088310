"""Everything that Tenure raises, in one tree.

    TenureError
    ├── UsageError                    the calling code is wrong; nothing was sent
    │   ├── DefinitionError           an agent class, an action or a state cannot be what it says (raised at import)
    │   ├── NotInTurn                 `.state` or a method of an agent outside of a turn
    │   ├── CallInsideTurn            a request to an agent from within a turn
    │   ├── NotPure                   an action given to `cmd` really suspended
    │   └── ConfigurationError        no cluster to connect to, or not with these settings
    ├── WaitTimeout                   what was waited for did not come in time; says how the agent stood
    └── CallError                     a call ended without a result; `outcome` says what is known of its effect
        ├── InvalidArguments          a parameter is missing, unknown or of the wrong type
        ├── UnknownMethod             the agent's class has no such action or query
        ├── UnknownSignal             the agent's class has no route for this type of signal
        ├── NotSupported              the runtime has no executor for a directive of the turn
        ├── InvalidTransition         the agent's machine does not lead from its state to that one
        ├── ActionFailed              the action raised; nothing of it was kept
        ├── StepFailed                the function of a step raised; every attempt of the turn is told the same
        ├── StepsChanged              the code asked for other steps than the journal of its turn holds
        ├── WaitCycle                 turns would wait for each other for ever
        ├── StateInvalid              the state does not fit its class
        ├── StateUnreadable           the stored state cannot be read; the agent stays down and keeps it
        ├── NotFound                  no such agent
        ├── AgentUnavailable          it exists, and by a decision or its own fault nobody serves it now
        ├── Conflict                  the row exists with another class, or belongs to another door (kubectl, API)
        ├── ClassNotFound             no host has the class
        ├── PoolNotFound              the pool is not declared
        ├── ImportFailed              the pool's modules cannot be imported
        ├── VersionSkew               the two ends speak no common version
        ├── PermissionDenied          this identity may not do that
        ├── Unauthenticated           the identity cannot be verified
        ├── DeadlineExceeded          the deadline passed first
        ├── ReplyNotKept              applied before; the recorded reply is no longer kept
        ├── Expired                   the call id is older than the marks are kept
        ├── WorkerCrashed             the worker process ended in the turn
        ├── Internal                  a defect of Tenure's own; the message names it
        └── Transient                 may be repeated with the same call id; clients do so until the deadline
            ├── Moved                 another host holds the agent
            ├── Fenced                the host's lease lapsed
            ├── NodeUnavailable       its host is silent, or was lost and nobody has taken over yet
            ├── NotReady              the agent is starting, failing over or backing off
            ├── Busy                  a queue is full
            ├── NoQuorum              a majority of the servers does not answer
            └── Unavailable           nobody answered

The name of a `CallError` is its code on the wire (`Error.code`, `Fault.code`). docs/errors.md is the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

Outcome = Literal["not_applied", "unknown"]
"""What is known of the effect of a call that failed: it had none, or nobody can tell."""

__all__ = [
    "ActionFailed",
    "AgentUnavailable",
    "Busy",
    "CallError",
    "CallInsideTurn",
    "ClassNotFound",
    "ConfigurationError",
    "Conflict",
    "DeadlineExceeded",
    "DefinitionError",
    "Expired",
    "Fenced",
    "ImportFailed",
    "Internal",
    "InvalidArguments",
    "InvalidTransition",
    "Moved",
    "NoQuorum",
    "NodeUnavailable",
    "NotFound",
    "NotInTurn",
    "NotPure",
    "NotReady",
    "NotSupported",
    "Outcome",
    "PermissionDenied",
    "PoolNotFound",
    "ReplyNotKept",
    "StateInvalid",
    "StateUnreadable",
    "StepFailed",
    "StepsChanged",
    "TenureError",
    "Transient",
    "Unauthenticated",
    "Unavailable",
    "UnknownMethod",
    "UnknownSignal",
    "UsageError",
    "VersionSkew",
    "WaitCycle",
    "WaitTimeout",
    "WorkerCrashed",
    "catalogue",
    "from_code",
]


class TenureError(Exception):
    """Base of everything that Tenure raises."""


class UsageError(TenureError):
    """The calling code is wrong. Nothing was sent, nothing was changed."""

    retry: bool = False


class DefinitionError(UsageError):
    """An agent class, an action or a state cannot be what it says."""


class NotInTurn(UsageError):
    """`.state`, or a method, of an agent that is not in a turn."""


class CallInsideTurn(UsageError):
    """A request to an agent from within a turn."""


class NotPure(UsageError):
    """An action given to `cmd` waited for something."""


class ConfigurationError(UsageError):
    """No cluster to connect to, or not with these settings."""


class WaitTimeout(TenureError, TimeoutError):
    """What was waited for did not come in time. `diagnosis` says how the agent stood, by name."""

    def __init__(self, message: str, diagnosis: Mapping[str, object]) -> None:
        super().__init__(message)
        self.diagnosis = diagnosis


class CallError(TenureError):
    """A call ended without a result.

    `outcome` is "not_applied" (no effect) or "unknown" (nobody can tell). `code` is the name on the wire, which for a
    code that this version does not know differs from the class name. `next_step` is what to do, one sentence or empty.
    `details` is for a log, e.g. the traceback of user code; it may be empty. `retry` False: it would fail again, and
    actions with `max_retries` do not try (any exception may have this attribute).
    """

    code: str = "CallError"
    retry: bool = True
    default_outcome: ClassVar[Outcome] = "not_applied"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.code = cls.__name__

    def __init__(
        self,
        message: str,
        *,
        outcome: Outcome | None = None,
        agent: str = "",
        next_step: str = "",
        details: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.outcome: Outcome = outcome or self.default_outcome
        self.agent = agent
        self.next_step = next_step
        self.details = details

    def __str__(self) -> str:
        unknown = " (whether it took effect is unknown)" if self.outcome == "unknown" else ""
        step = f" {self.next_step}" if self.next_step else ""
        return f"{self.message}{unknown}{step}"


class InvalidArguments(CallError):
    """A parameter is missing, unknown, or of the wrong type."""

    retry = False


class UnknownMethod(CallError):
    """The agent's class has no such action or query."""

    retry = False


class UnknownSignal(CallError):
    """The agent's class has no route for this type of signal."""

    retry = False


class NotSupported(CallError):
    """The runtime has no executor for a directive of the turn."""

    retry = False


class InvalidTransition(CallError):
    """The agent's machine does not lead from its state to that one."""

    retry = False


class ActionFailed(CallError):
    """The action raised. Nothing of it was kept."""


class StepFailed(CallError):
    """The function of a step raised. It is journalled: every attempt of the turn is told the same."""

    retry = False


class StepsChanged(CallError):
    """The code asked for other steps than the journal of its turn holds; the message has both lists."""

    retry = False


class WaitCycle(CallError):
    """Turns would wait for each other for ever; the message has the chain of agents."""

    retry = False


class StateInvalid(CallError):
    """The state does not fit its class."""

    retry = False


class StateUnreadable(CallError):
    """The stored state cannot be read. The agent stays down; the state is kept as it is."""

    retry = False


class NotFound(CallError):
    """No such agent."""


class Conflict(CallError):
    """The agent exists with another class, or is managed through another door."""


class ClassNotFound(CallError):
    """No host of the pool has the class."""


class PoolNotFound(CallError):
    """The cluster declares no such pool."""


class ImportFailed(CallError):
    """The pool's modules cannot be imported."""


class VersionSkew(CallError):
    """The two ends speak no common version."""


class PermissionDenied(CallError):
    """This identity may not do that."""

    retry = False


class Unauthenticated(CallError):
    """The identity cannot be verified."""

    retry = False


class DeadlineExceeded(CallError):
    """The deadline passed first. `outcome` says whether the call may still have taken effect."""


class AgentUnavailable(CallError):
    """The agent exists, and by a decision or its own fault nobody serves it now."""


class ReplyNotKept(CallError):
    """The call took effect earlier; its recorded reply is no longer kept."""

    default_outcome: ClassVar[Outcome] = "unknown"


class Expired(CallError):
    """The call id is older than marks are kept: whether it was applied cannot be told any more."""

    default_outcome: ClassVar[Outcome] = "unknown"


class WorkerCrashed(CallError):
    """The worker process ended during the turn. Nothing of the turn was kept."""


class Internal(CallError):
    """A defect of Tenure's own: whoever was asked failed to answer. Please report it."""


class Transient(CallError):
    """The same call id may be sent again, here or elsewhere. The client does so until the deadline."""


class Moved(Transient):
    """Another host holds the agent."""


class Fenced(Transient):
    """The host's lease lapsed; it does nothing until it is renewed."""


class NodeUnavailable(Transient):
    """The agent's host is silent, or was lost and nobody has taken over yet."""


class NotReady(Transient):
    """The agent is starting, failing over, or backing off."""


class Busy(Transient):
    """A queue is full."""


class NoQuorum(Transient):
    """A majority of the servers does not answer."""


class Unavailable(Transient):
    """Nobody answered."""


def _leaves(cls: type[CallError]) -> list[type[CallError]]:
    below = cls.__subclasses__()
    return [leaf for child in below for leaf in _leaves(child)] if below else [cls]


_CATALOGUE = {cls.__name__: cls for cls in _leaves(CallError)}


def catalogue() -> dict[str, type[CallError]]:
    """Every code of this version, with its exception."""
    return dict(_CATALOGUE)


def from_code(
    code: str,
    message: str,
    *,
    outcome: Outcome | None = None,
    agent: str = "",
    next_step: str = "",
    details: str = "",
) -> CallError:
    """The exception of a code from the wire; a plain `CallError` with that code where this version knows none."""
    cls = _CATALOGUE.get(code, CallError)
    error = cls(message, outcome=outcome, agent=agent, next_step=next_step, details=details)
    error.code = code
    return error
