"""The agents of test_operating.py; imported by the hosts' workers."""

from __future__ import annotations

import pydantic

import tenure


class DeskState(tenure.State):
    """What is kept."""

    done: list[int] = pydantic.Field(default_factory=list[int])
    broken: bool = True


class Desk(tenure.Agent[DeskState]):
    """Cannot take anything until somebody mends it."""

    @tenure.action
    async def take(self, number: int) -> None:
        """Fails while it is broken."""
        if self.state.broken:
            raise ValueError("the desk is broken")
        self.state.done = [*self.state.done, number]

    @tenure.action
    async def remind(self, ctx: tenure.Context, number: int, seconds: float) -> None:
        """Take it later."""
        ctx.after(seconds, Desk.take(number=number), name="later")

    @tenure.query
    def done(self) -> list[int]:
        """What it took, in order."""
        return self.state.done


class ClerkState(tenure.State):
    """What is kept."""

    sent: int = 0


class Clerk(tenure.Agent[ClerkState], subscribes=["desk.*"]):
    """Sends to desks."""

    @tenure.action
    async def post(self, ctx: tenure.Context, desk: str, numbers: list[int]) -> None:
        """One signal for each number."""
        for number in numbers:
            ctx.send(desk, Desk.take(number=number))
        self.state.sent += len(numbers)
