"""Ids that sort by the time of their making: UUID version 7 (RFC 9562, section 5.7)."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

_SEQUENCES = 1 << 12
_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62
_bits = random.SystemRandom().getrandbits


class Ids:
    """Makes ids, each greater than the one before, also within a millisecond and when the clock goes back.

    The 12 bits after the time are a counter that starts at 0 in each millisecond (RFC 9562, section 6.2, method 1);
    the 4,097th id of a millisecond borrows the next one. `clock_ms`: Unix time in whole milliseconds. `bits(n)`: n
    random bits. Safe to use from several threads.
    """

    def __init__(
        self,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        bits: Callable[[int], int] = _bits,
    ) -> None:
        self._clock_ms = clock_ms
        self._bits = bits
        self._last = -1
        self._sequence = 0
        self._lock = threading.Lock()

    def next(self) -> str:
        """A new id, as text."""
        with self._lock:
            now = self._clock_ms()
            if now > self._last:
                self._last, self._sequence = now, 0
            else:
                self._sequence += 1
                if self._sequence == _SEQUENCES:
                    self._last, self._sequence = self._last + 1, 0
            number = (self._last << 80) | _VERSION | (self._sequence << 64) | _VARIANT | self._bits(62)
        digits = f"{number:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


_ids = Ids()


def new_id() -> str:
    """A new id of this process's own sequence."""
    return _ids.next()


def time_of(identifier: str) -> float:
    """Unix time in seconds at which an id was made. Raises ValueError for what is no UUID of version 7."""
    return (_number(identifier) >> 80) / 1000


def sequence_of(identifier: str) -> int:
    """The place of an id among those of its millisecond. Raises ValueError for what is no UUID of version 7."""
    return (_number(identifier) >> 64) & (_SEQUENCES - 1)


def _number(identifier: str) -> int:
    digits = identifier.replace("-", "")
    if len(identifier) != 36 or len(digits) != 32 or digits[12] != "7":
        raise ValueError(f"{identifier!r} is no UUID of version 7")
    return int(digits, 16)
