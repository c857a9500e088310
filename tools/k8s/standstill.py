"""When the machine stood still: a virtual machine may stop with all that runs on it, and a failed test must know."""

import threading
import time
from collections.abc import Callable

SAMPLE_S = 0.05
LEAST_S = 0.5
"""A pause shorter than this is a busy processor's."""


class Standstills:
    """Pauses of at least `LEAST_S` in which this process did not run. `clock`: seconds, never set back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, clock()
        self._seen: list[str] = []
        self.longest_s = 0.0

    def sample(self) -> None:
        """To be called every `SAMPLE_S`."""
        now = self._clock()
        if now - self._last >= LEAST_S:
            self.longest_s = max(self.longest_s, now - self._last)
            self._seen.append(f"{now - self._last:.1f} s until {time.strftime('%H:%M:%S')}")
        self._last = now

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
        if not self._seen:
            return "the machine never stood still"
        return f"the machine stood still: {', '.join(self._seen)}"
