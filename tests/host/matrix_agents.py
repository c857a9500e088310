"""Agents for the kill matrix: they count, and do what they should not."""

import asyncio
import os
import time

import tenure


class State(tenure.State):
    """What is kept."""

    count: int = 0


class Victim(tenure.Agent[State]):
    """Counts, tells its process, and misbehaves on request."""

    @tenure.action
    async def increment(self, ctx: tenure.Context, by: int = 1) -> int:
        """Count."""
        self.state.count += by
        ctx.emit("counter.changed", {"count": self.state.count})
        return self.state.count

    @tenure.action
    async def slowly(self, seconds: float) -> int:
        """Count, but take some time."""
        await asyncio.sleep(seconds)
        self.state.count += 1
        return self.state.count

    @tenure.action
    async def refuse(self) -> int:
        """Fail after a change."""
        self.state.count += 1000
        raise ValueError("not today")

    @tenure.action
    async def crash(self) -> int:
        """End the process in mid-turn."""
        self.state.count += 1000
        os._exit(3)

    @tenure.action
    async def block(self, seconds: float) -> int:
        """Hold the worker's event loop: no ping is answered meanwhile."""
        time.sleep(seconds)  # noqa: ASYNC251 - that is the offence
        return self.state.count

    @tenure.query
    def value(self) -> int:
        """The count."""
        return self.state.count

    @tenure.query
    def process(self) -> int:
        """PID of the worker."""
        return os.getpid()
