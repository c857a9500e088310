"""The agents that the benches call. Imported by the hosts' workers."""

import asyncio
import gc
import os
import time
from collections import Counter as Tally

import pydantic

import tenure

_seen: Tally[str] = Tally()
"""Signals that agents of this process took without a change of their state."""


class CounterState(tenure.State):
    """What is kept."""

    count: int = 0


class BenchCounter(tenure.Agent[CounterState]):
    """Counts, so that lost and doubled calls show."""

    @tenure.action
    async def increment(self, by: int = 1) -> int:
        """Add; the reply is the count."""
        self.state.count += by
        return self.state.count

    @tenure.action
    async def increment_at(self, wall: float) -> int:
        """The same, but not before that time; who is asked again later does not wait again."""
        await asyncio.sleep(wall - time.time())
        return await self.increment()

    @tenure.query
    def value(self) -> int:
        """The count."""
        return self.state.count

    @tenure.query
    def process(self) -> int:
        """The worker that this agent is in."""
        return os.getpid()

    @tenure.query
    def collect(self) -> int:
        """Collect the worker's garbage; how much there was."""
        return gc.collect()


class BenchReceiver(tenure.Agent[CounterState]):
    """Takes signals."""

    @tenure.action
    async def nothing(self) -> None:
        """Change nothing; only this process knows that it ran."""
        _seen[self.id] += 1

    @tenure.action
    async def count(self) -> None:
        """Count it in the state."""
        self.state.count += 1

    @tenure.query
    def taken(self) -> int:
        """Runs of both."""
        return self.state.count + _seen[self.id]


class BenchSender(tenure.Agent[CounterState]):
    """Sends signals."""

    @tenure.action
    async def post(self, ctx: tenure.Context, to: list[str], each: int, counted: bool) -> int:
        """So many to each of the receivers; the reply is how many that were."""
        for receiver in to:
            for _ in range(each):
                ctx.send(receiver, BenchReceiver.count() if counted else BenchReceiver.nothing())
        self.state.count += each * len(to)
        return each * len(to)


class AlarmState(tenure.State):
    """What is kept."""

    late_ms: list[float] = pydantic.Field(default_factory=list[float])


class BenchAlarm(tenure.Agent[AlarmState]):
    """Notes how late its timers are."""

    @tenure.action
    async def plan(self, ctx: tenure.Context, seconds: float) -> None:
        """Ring once, after so many seconds."""
        ctx.after(seconds, BenchAlarm.ring(due=time.time() + seconds))

    @tenure.action
    async def ring(self, due: float) -> None:
        """Wall clock, as the plan was made by."""
        self.state.late_ms = [*self.state.late_ms, (time.time() - due) * 1000]

    @tenure.query
    def lateness(self) -> list[float]:
        """Of all timers, in milliseconds."""
        return self.state.late_ms
