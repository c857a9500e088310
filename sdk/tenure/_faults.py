"""Exceptions as faults: what crosses a wire when a turn ends badly."""

from __future__ import annotations

import traceback
from types import TracebackType

from tenure.errors import CallError
from tenure_link import Fault

MESSAGE_LIMIT = 2_000
"""Characters of a fault's message; its traceback may have ten times as many."""


def fault_of(error: BaseException, method: str) -> Fault:
    """An exception in words for the author of the code; the traceback begins at the author's first frame."""
    if isinstance(error, CallError):
        return Fault(error.code, error.message[:MESSAGE_LIMIT], error.details[: 10 * MESSAGE_LIMIT])
    text = str(error) or "no message"
    message = f"{type(error).__name__} in {method}: {text}"
    lines = traceback.format_exception(type(error), error, _author_frames(error.__traceback__))
    return Fault("ActionFailed", message[:MESSAGE_LIMIT], "".join(lines)[-10 * MESSAGE_LIMIT :])


def _author_frames(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of this package at its start."""
    first = trace
    while first is not None and first.tb_frame.f_globals.get("__name__", "").split(".")[0] in {"tenure", "asyncio"}:
        first = first.tb_next
    return first or trace
