"""What the story of a simulation asked, and what it was told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

from tenure._agent import Agent
from tenure._methods import Method
from tenure.errors import CallError

CallOutcome = Literal["applied", "not_applied", "unknown", "open"]
"""What its caller knows of a call: it was acknowledged; it has no effect; nobody can tell; it has not ended yet."""


@dataclass(slots=True, eq=False)
class Call:
    """One call of the story."""

    id: str
    agent: str
    """namespace/name"""
    method: str
    arguments: Mapping[str, object]
    """As they were given: without defaults."""
    began: float
    """Seconds of the simulation."""
    ended: float = 0.0
    outcome: CallOutcome = "open"
    query: bool = False
    """It had no effect to speak of."""
    reply: object = None
    error: CallError | None = None


@dataclass(slots=True)
class History(Sequence[Call]):
    """All calls of a story, in the order in which they began."""

    calls: list[Call] = field(default_factory=list[Call])

    def of(self, agent: Agent[Any] | str, method: Method[..., Any] | str | None = None) -> list[Call]:
        """Actions that an agent was asked for; `method`: of this name only."""
        name = method.name if isinstance(method, Method) else method
        wanted = agent if isinstance(agent, str) else agent.id
        return [call for call in self.calls if call.agent == wanted and not call.query and name in {None, call.method}]

    def bounds(
        self,
        agent: Agent[Any] | str,
        method: Method[..., Any] | str | None = None,
        amount: Callable[[Call], float] = lambda _: 1,
    ) -> tuple[float, float]:
        """The least and the most that the calls can have added up to, each with its `amount`, default 1.

        What was acknowledged counts once, what was not applied never; what is unknown or still open may count or not.
        """
        least = most = 0.0
        for call in self.of(agent, method):
            size = amount(call)
            if call.outcome == "applied":
                least, most = least + size, most + size
            elif call.outcome != "not_applied":
                least, most = least + min(0, size), most + max(0, size)
        return least, most

    def assert_counted(
        self,
        agent: Agent[Any] | str,
        value: float,
        method: Method[..., Any] | str | None = None,
        amount: Callable[[Call], float] = lambda _: 1,
    ) -> None:
        """Raise AssertionError unless `value` holds every acknowledged effect, once, and none that was not applied."""
        least, most = self.bounds(agent, method, amount)
        if not least <= value <= most:
            told: dict[str, int] = {}
            for call in self.of(agent, method):
                told[call.outcome] = told.get(call.outcome, 0) + 1
            expected = f"{least:g}" if least == most else f"{least:g} to {most:g}"
            raise AssertionError(f"the agent shows {value:g}, its callers were told of {expected} ({told})")

    @overload
    def __getitem__(self, index: int) -> Call: ...
    @overload
    def __getitem__(self, index: slice) -> list[Call]: ...
    def __getitem__(self, index: int | slice) -> Call | list[Call]:
        return self.calls[index]

    def __len__(self) -> int:
        return len(self.calls)

    def __iter__(self) -> Iterator[Call]:
        return iter(self.calls)
