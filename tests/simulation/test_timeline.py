"""Virtual time goes on, whatever its processes wait for."""

import asyncio
import random

import pytest

from tenured.simulation.timeline import NS, Clock, ProcessLoop, Timeline


@pytest.mark.parametrize("rate", [0.91, 1.0, 1.0905])
def test_waits_shorter_than_the_clock_can_tell_end(rate: float) -> None:
    """A deadline may lie less than a nanosecond ahead when two look at it. They kept time from going on, for ever."""
    rng = random.Random(1)
    for _ in range(300):
        timeline = Timeline()
        loop = ProcessLoop(timeline, Clock(rate, rng.randrange(10**12)), "p", lambda *_: None)
        timeline.now = rng.randrange(10 * NS)
        deadline = loop.time() + 2e-13

        async def waits(loop: ProcessLoop = loop, deadline: float = deadline) -> None:
            while (left := deadline - loop.time()) > 0:
                await asyncio.wait({loop.create_future()}, timeout=left)

        with loop.running():
            tasks = [loop.create_task(waits()) for _ in range(2)]
        loop.call_soon(lambda: None)
        while timeline.next_at is not None and timeline.events < 100:
            timeline.step()
        assert all(task.done() for task in tasks)
