"""What the supervisor does next, as values: no system call, no clock. Times are nanoseconds of a monotonic clock."""

from __future__ import annotations

from collections.abc import Mapping

SECOND = 1_000_000_000

QUICK_DEATH = SECOND
"""A process that lived shorter than this may be broken for good: its restarts are spaced out."""
FIRST_DELAY = SECOND // 10
LONGEST_DELAY = 5 * SECOND
SPARE_AFTER = 2 * SECOND
"""A spare is started so long after its daemon: both want the processor at their start."""
GO_VARIABLE = "TENURE_GO_FD"
"""Environment of a spare: the descriptor on which it waits for a byte. `tenured.host.main` reads it."""


SECRETS = frozenset({"TENURE_STORE", "TENURE_KEYS"})
"""Variables of the daemon that user code must not see: a password, and where keys lie."""


def for_workers(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the processes that run user code."""
    return {name: value for name, value in environment.items() if name not in SECRETS}


class Restarts:
    """When a child may start again: at once, unless it died within a second of its start several times in a row."""

    def __init__(self) -> None:
        self._quick_deaths = 0

    def delay_after(self, lived_ns: int) -> int:
        """Nanoseconds to wait after a life of `lived_ns`: 0, 0, 0.1 s, 0.2 s, ... 5 s for one quick death after the
        other.
        """
        if lived_ns >= QUICK_DEATH:
            self._quick_deaths = 0
            return 0
        self._quick_deaths += 1
        if self._quick_deaths == 1:
            return 0
        return min(FIRST_DELAY << min(self._quick_deaths - 2, 16), LONGEST_DELAY)


def exit_code(wait_status: int) -> int:
    """The exit code to pass on: a child's own, or 128 + signal as a shell says it."""
    signal_number = wait_status & 0x7F
    return 128 + signal_number if signal_number else (wait_status >> 8) & 0xFF


def describe(wait_status: int) -> str:
    """How a child ended, for the log."""
    signal_number = wait_status & 0x7F
    return f"signal {signal_number}" if signal_number else f"exit status {(wait_status >> 8) & 0xFF}"


class UsageError(ValueError):
    """The command line makes no sense; the message says what was expected."""


def parse(arguments: list[str], environment: dict[str, str]) -> tuple[list[str], list[str]]:
    """(modules for a worker of our own, or none; arguments of the daemon). Raises UsageError."""
    modules = environment.get("TENURE_WORKER_MODULES", "")
    rest = list(arguments)
    while rest and rest[0] != "--":
        flag = rest.pop(0)
        name, equals, value = flag.partition("=")
        if name != "--worker-modules":
            raise UsageError(
                f"unknown argument {flag!r}; expected: tenured supervise [--worker-modules a,b] -- host ..."
            )
        if not equals:
            if not rest or rest[0] == "--":
                raise UsageError("--worker-modules needs a comma-separated list of modules")
            value = rest.pop(0)
        modules = value
    daemon = rest[1:]
    if not daemon:
        raise UsageError("nothing to supervise; expected: tenured supervise [--worker-modules a,b] -- host ...")
    return [module for module in modules.split(",") if module], daemon


def run_directory(daemon: list[str], environment: dict[str, str]) -> str:
    """The daemon's `--run`, where the worker socket lies."""
    for index, argument in enumerate(daemon):
        if argument == "--run" and index + 1 < len(daemon):
            return daemon[index + 1]
        if argument.startswith("--run="):
            return argument.removeprefix("--run=")
    return environment.get("TENURE_RUN", "/run/tenure")
