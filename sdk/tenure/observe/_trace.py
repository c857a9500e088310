"""Where something stands in a trace, and how that travels with a signal (W3C Trace Context)."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import msgspec

from tenure.signals import Signal, SignalInvalid, Trace

Bits = Callable[[int], int]
_random = random.Random()  # noqa: S311 - ids are no secrets, and a system call each would be half of a span's cost
os.register_at_fork(after_in_child=_random.seed)  # else all workers of a fork server would give the same ids
random_bits: Bits = _random.getrandbits


class Position(msgspec.Struct, frozen=True):
    """A span's place in a trace."""

    trace_id: str
    """32 hex digits, the same along the whole chain."""
    span_id: str
    """16 hex digits."""
    sampled: bool = True
    state: str = ""
    """`tracestate`: what vendors have added; handed on as it came."""

    @classmethod
    def of(cls, signal: Signal) -> Position | None:
        """Where a signal stands; None for one without a trace, or with one that is not well formed."""
        if "traceparent" not in signal.extensions:
            return None
        try:
            trace = signal.extension(Trace)
        except SignalInvalid:  # the recommendation: begin a new trace
            return None
        return None if trace is None else cls(trace.trace_id, trace.span_id, trace.sampled, trace.tracestate or "")

    def child(self, bits: Bits) -> Position:
        """The next span of the same trace."""
        return Position(self.trace_id, f"{_nonzero(bits, 64):016x}", self.sampled, self.state)

    def on(self, signal: Signal) -> Signal:
        """The signal with this place in it."""
        parent = f"00-{self.trace_id}-{self.span_id}-{self.sampled:02x}"
        extensions = {**signal.extensions, "traceparent": parent}
        extensions.pop("tracestate", None)
        if self.state:
            extensions["tracestate"] = self.state
        return msgspec.structs.replace(signal, extensions=extensions)


def root(bits: Bits) -> Position:
    """The first span of a new trace."""
    while True:
        digits = f"{bits(192):048x}"
        if int(digits[:32], 16) and int(digits[32:], 16):
            return Position(digits[:32], digits[32:])


def forwarded(cause: Signal, signal: Signal) -> Signal:
    """`signal` with the trace of `cause` as it came, unless it has one: for whoever records nothing himself."""
    parent = cause.extensions.get("traceparent")
    if parent is None or "traceparent" in signal.extensions:
        return signal
    added = {name: cause.extensions[name] for name in ("traceparent", "tracestate") if name in cause.extensions}
    return msgspec.structs.replace(signal, extensions={**signal.extensions, **added})


def _nonzero(bits: Bits, count: int) -> int:
    while not (number := bits(count)):
        pass
    return number
