"""W3C trace context as an extension (CloudEvents' distributed tracing extension)."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Self

import pydantic

from tenure.signals._extension import Extension

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_bits = random.SystemRandom().getrandbits


class Trace(Extension):
    """Where a signal stands in a trace: `traceparent` and `tracestate` of W3C Trace Context."""

    traceparent: str
    tracestate: str | None = None

    @pydantic.field_validator("traceparent")
    @classmethod
    def _well_formed(cls, value: str) -> str:
        """Refuse what the recommendation (section 3.2) calls invalid: version ff, zeros, a longer version 00."""
        match = _PARENT.fullmatch(value)
        if not match or match[1] == "ff" or not int(match[2], 16) or not int(match[3], 16):
            raise ValueError("a traceparent is 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")
        if match[1] == "00" and match[5]:
            raise ValueError("a traceparent of version 00 has four parts")
        return value

    @classmethod
    def root(cls, *, sampled: bool = True, bits: Callable[[int], int] = _bits) -> Self:
        """A new trace. `bits(n)` gives n random bits."""
        return cls(traceparent=f"00-{_nonzero(bits, 128):032x}-{_nonzero(bits, 64):016x}-{sampled:02x}")

    def child(self, bits: Callable[[int], int] = _bits) -> Self:
        """The next span of the same trace."""
        parent = f"00-{self.trace_id}-{_nonzero(bits, 64):016x}-{self.sampled:02x}"
        return type(self)(traceparent=parent, tracestate=self.tracestate)

    @property
    def trace_id(self) -> str:
        """32 hex digits, the same along the whole chain."""
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        """16 hex digits."""
        return self.traceparent[36:52]

    @property
    def sampled(self) -> bool:
        """Whether somebody records this trace."""
        return bool(int(self.traceparent[53:55], 16) & 1)


def _nonzero(bits: Callable[[int], int], count: int) -> int:
    while not (number := bits(count)):
        pass
    return number
