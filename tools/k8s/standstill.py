"""How long the machine stood still: a virtual machine may stop with all that runs on it, and nobody recovers then."""

import threading
import time
from collections.abc import Callable

SAMPLE_S = 0.05
LEAST_S = 0.5
"""A pause shorter than this is a busy processor's."""


class Standstills:
    """Pauses of at least `LEAST_S` in which this process did not run, as (begin, end) in wall time, seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._last = clock, clock()
        self.seen: list[tuple[float, float]] = []

    def sample(self) -> None:
        """To be called every `SAMPLE_S`."""
        now = self._clock()
        if now - self._last >= LEAST_S:
            self.seen.append((self._last, now))
        self._last = now

    def during(self, began: float, ended: float) -> float:
        """Seconds of [began, ended] in which the machine stood still."""
        return sum(max(0.0, min(ended, end) - max(began, begin)) for begin, end in self.seen)

    def watch(self) -> Callable[[], None]:
        """Sample in a thread; call what is returned to end it."""
        over = threading.Event()

        def run() -> None:
            while not over.wait(SAMPLE_S):
                self.sample()

        thread = threading.Thread(target=run, name="standstills", daemon=True)
        thread.start()

        def end() -> None:
            over.set()
            thread.join()

        return end

    def __str__(self) -> str:
        if not self.seen:
            return "the machine never stood still"
        return "the machine stood still: " + ", ".join(
            f"{end - begin:.1f} s at {time.strftime('%H:%M:%S', time.localtime(begin))}" for begin, end in self.seen
        )
