"""The agents of the cluster tests; imported by the hosts' workers."""

import os
from pathlib import Path
from typing import Annotated

import pydantic

import tenure


class CounterState(tenure.State):
    """What is kept."""

    count: int = 0


class Counter(tenure.Agent[CounterState], capabilities=["counting"]):
    """Counts, and misbehaves on demand."""

    @tenure.action
    async def increment(self, by: int = 1) -> int:
        """Add to the counter."""
        self.state.count += by
        return self.state.count

    @tenure.action
    async def stumble(self) -> int:
        """Change the state, then raise."""
        self.state.count += 1000
        raise ValueError("no such luck")

    @tenure.action
    async def crash(self) -> int:
        """End the process, as a bad C extension would."""
        os._exit(11)

    @tenure.action
    async def note(self, ctx: tenure.Context, text: str) -> None:
        """Log something."""
        ctx.log.info("noted %s", text)

    @tenure.query
    def value(self) -> int:
        """The count."""
        return self.state.count


class Mounted(Counter):
    """Knows how often it began."""

    def on_start(self, ctx: tenure.Context) -> None:
        self.state.count += 1000 if ctx.recovered else 100


class Mined(Counter):
    """Ends the process that it comes into while a file is there."""

    def on_start(self, ctx: tenure.Context) -> None:
        if Path(str(self.config["mine"])).exists():
            os._exit(12)

    @tenure.query
    def process(self) -> int:
        """The worker that it is in."""
        return os.getpid()


class PickyState(tenure.State):
    """Does not take every value."""

    level: Annotated[int, pydantic.Field(ge=1, le=9)] = 5


class Picky(tenure.Agent[PickyState]):
    """Exists to be given a wrong state."""

    @tenure.query
    def level(self) -> int:
        """The level."""
        return self.state.level
