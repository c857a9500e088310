"""The agents of `tools.soak.turns`: they count, send to each other, and keep of every id whether it came once.

An id is (who, n): who sends, and his own count of what he sent to this agent. Each one sends the next after he knows
how the one before ended, so that a state needs only the last n of each, and what was passed over.
"""

import pydantic

import tenure


class Tally(pydantic.BaseModel):
    """What came of one sender."""

    last: int = 0
    missing: list[int] = pydantic.Field(default_factory=list[int])
    """Passed over; one may still come."""
    doubled: list[int] = pydantic.Field(default_factory=list[int])

    def take(self, n: int) -> None:
        """Note an id."""
        if n > self.last:
            self.missing += range(self.last + 1, n)
            self.last = n
        elif n in self.missing:
            self.missing.remove(n)
        else:
            self.doubled.append(n)


class SoakState(tenure.State):
    """What is kept."""

    calls: dict[str, Tally] = pydantic.Field(default_factory=dict[str, Tally])
    signals: dict[str, Tally] = pydantic.Field(default_factory=dict[str, Tally])
    sent: dict[str, int] = pydantic.Field(default_factory=dict[str, int])
    turns: int = 0


class SoakAgent(tenure.Agent[SoakState]):
    """Counts and sends."""

    @tenure.action
    async def count(self, ctx: tenure.Context, who: str, n: int, to: str) -> None:
        """Note the call and send a signal to another agent, under the next number for it."""
        self.state.turns += 1
        tally = self.state.calls.get(who, Tally()).model_copy(deep=True)
        tally.take(n)
        self.state.calls = {**self.state.calls, who: tally}
        number = self.state.sent.get(to, 0) + 1
        self.state.sent = {**self.state.sent, to: number}
        ctx.send(to, SoakAgent.take(who=self.id, n=number))

    @tenure.action
    async def take(self, who: str, n: int) -> None:
        """Note the signal."""
        self.state.turns += 1
        tally = self.state.signals.get(who, Tally()).model_copy(deep=True)
        tally.take(n)
        self.state.signals = {**self.state.signals, who: tally}

    @tenure.query
    def seen(self) -> dict[str, object]:
        """All of it."""
        return self.state.model_dump()
