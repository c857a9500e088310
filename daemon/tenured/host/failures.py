"""The errors that a host answers, in the words of docs/errors.md. What is known of the effect is decided where they are
raised.
"""

from __future__ import annotations

import tenure_link
from tenure_api.reasons import Reason
from tenure_proto.v1.common_pb2 import OUTCOME_NOT_APPLIED, OUTCOME_UNKNOWN, Error, Route

_RETRYABLE = frozenset({"Moved", "Fenced", "NotReady", "Busy", "NoQuorum", "Unavailable"})
"""The same call id may be sent again without asking the user (docs/errors.md)."""


def not_applied(code: str, message: str, *, next_step: str = "", moved_to: Route | None = None) -> Error:
    """The call had no effect: no store write was sent for it (protocol additions 11)."""
    return Error(
        code=code,
        message=message,
        outcome=OUTCOME_NOT_APPLIED,
        retryable=code in _RETRYABLE,
        next_step=next_step,
        moved_to=moved_to,
    )


def unknown(code: str, message: str, *, next_step: str = "") -> Error:
    """A store write was sent and its fate, or that of an earlier send of the same call id, is not known here."""
    return Error(code=code, message=message, outcome=OUTCOME_UNKNOWN, retryable=code in _RETRYABLE, next_step=next_step)


def reason_of(fault: tenure_link.Fault) -> str:
    """A reason of the catalogue for what the worker said."""
    return (
        fault.code
        if fault.code in {Reason.STATE_INVALID, Reason.CLASS_NOT_FOUND, Reason.STATE_UNREADABLE}
        else Reason.ACTIVATION_FAILED
    )
