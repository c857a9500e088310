"""What goes wrong in a local runtime under test: crashes in the middle of turns, delays, a failing storage."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tenure._methods import Method
from tenure.errors import UsageError
from tenure.storage import StorageError
from tenure.testing._fakes import FakeStorage

if TYPE_CHECKING:
    from tenure.testing._runtime import VirtualRuntime

When = Literal["before_commit", "after_commit"]
"""A crash after the body and before the commit: the turn did not happen. Or after the commit and before the reply."""


@dataclass(slots=True, eq=False)
class _Planned:
    """Something that is to happen to turns of one action."""

    what: str
    kind: str
    after: int
    times: int
    seconds: float = 0.0
    happened: int = 0

    def now(self, labels: Collection[str]) -> bool:
        """Whether it is this turn's. Counts."""
        if self.what not in labels or self.happened >= self.times:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.happened += 1
        return True


class LocalFaults:
    """Faults for the agents of one runtime: the fixture `faults`, and `VirtualRuntime.faults`.

    `what` names turns: an action (`Counter.increment`, or "Counter.increment", or the type of the signal that led to
    it). `after` of them go well first, then `times` do not.
    """

    def __init__(self, runtime: VirtualRuntime) -> None:
        self._runtime = runtime
        self._planned: list[_Planned] = []

    def crash_turn(
        self, what: Method[..., Any] | str, *, times: int = 1, after: int = 0, when: When = "before_commit"
    ) -> None:
        """End the agent's process in a turn; it begins again from what is stored, as `ctx.recovered` tells it.

        "before_commit": the caller gets WorkerCrashed, and nothing of the turn is kept. "after_commit": state and
        effects are kept, and the caller gets Unavailable, whose outcome is "unknown". (A client of a cluster repeats
        both by itself, and gets the reply.)
        """
        if when not in {"before_commit", "after_commit"}:
            raise UsageError(f"when is 'before_commit' or 'after_commit', not {when!r}")
        self._planned.append(_Planned(_label(what), f"crash {when}", after, times))

    def delay(self, what: Method[..., Any] | str, seconds: float, *, times: int = 1, after: int = 0) -> None:
        """Let turns take so long, in the runtime's time: `advance` brings them to their end.

        A call whose timeout is over first ends with DeadlineExceeded, and nothing of its turn is kept.
        """
        self._planned.append(_Planned(_label(what), "delay", after, times, seconds))

    def fail_storage(self, *, after: int = 0, times: int | None = 1, error: StorageError | None = None) -> None:
        """Let the storage refuse writes. Raises UsageError for a storage that is no FakeStorage."""
        storage = self._runtime.storage
        if not isinstance(storage, FakeStorage):
            raise UsageError(f"only a FakeStorage can be told to fail: FakeStorage({type(storage).__name__}(...))")
        storage.full(after=after, times=times, error=error)

    async def restart(self) -> None:
        """End the runtime's process and begin another one on the same storage; references keep working."""
        await self._runtime.restart()

    def unmet(self) -> list[str]:
        """What was planned and has not happened: a name that is spelt wrong, mostly."""
        storage = self._runtime.storage
        rest = storage.unmet() if isinstance(storage, FakeStorage) else []
        return [f"{one.kind} of {one.what}" for one in self._planned if not one.happened] + rest

    def delay_of(self, labels: Collection[str]) -> float:
        """Of the engine: how long a turn is to take."""
        return sum(one.seconds for one in self._planned if one.kind == "delay" and one.now(labels))

    def crashes(self, labels: Collection[str], when: When) -> bool:
        """Of the engine: whether a turn's process ends here."""
        return any(one.now(labels) for one in self._planned if one.kind == f"crash {when}")


def _label(what: Method[..., Any] | str) -> str:
    return what if isinstance(what, str) else what.label
