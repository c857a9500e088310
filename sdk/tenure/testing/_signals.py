"""What tests see of signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tenure.errors import WaitTimeout
from tenure.signals import Signal, matches

if TYPE_CHECKING:
    from tenure.testing._runtime import VirtualRuntime

Where = Callable[[Signal], bool]


def _any(_signal: Signal) -> bool:
    return True


class SignalSpy:
    """Sees every signal of a runtime, those to one agent too: the fixture `signals`, and `VirtualRuntime.spy()`."""

    def __init__(self, runtime: VirtualRuntime) -> None:
        self._runtime = runtime
        self.all: list[Signal] = []
        """In the order of their commits."""
        runtime.spies.append(self)

    def take(self, signal: Signal) -> None:
        """Of the runtime: one more."""
        self.all.append(signal)

    @property
    def types(self) -> list[str]:
        """Of all, in order."""
        return [signal.type for signal in self.all]

    def seen(self, pattern: str = "**", where: Where = _any) -> list[Signal]:
        """Those that match, so far. Raises DefinitionError for a pattern that cannot be."""
        return [signal for signal in self.all if matches(pattern, signal.type) and where(signal)]

    async def wait_for(self, pattern: str = "**", where: Where = _any, *, within: float = 60.0) -> Signal:
        """The first that matches, seen or to come; time goes on for it, at most so many seconds of the runtime's.

        Raises AssertionError, which says what came instead and how everything stands.
        """
        try:
            what = f"a signal {pattern}"
            await self._runtime.until(lambda: bool(self.seen(pattern, where)), within=within, what=what)
        except WaitTimeout as error:
            raise AssertionError(f"{error}\n  signals seen: {', '.join(self.types[-10:]) or 'none'}") from None
        return self.seen(pattern, where)[0]

    def assert_none(self, pattern: str = "**", where: Where = _any) -> None:
        """Raises AssertionError with those that match; and if turns still run: `await runtime.idle()` first."""
        found = self.seen(pattern, where)
        if found:
            raise AssertionError(f"no {pattern} was to come, and {len(found)} did: {found[0]}")
        if running := self._runtime.diagnosis()["running"]:
            raise AssertionError(f"nobody can tell yet: {running} still run; await runtime.idle() first")

    def clear(self) -> None:
        """Forget what was seen."""
        self.all.clear()
