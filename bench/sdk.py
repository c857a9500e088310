"""What agents cost in one process: no cluster, no disk.

    python -m bench.sdk [--json] [--runs N]

Peers, in the same run and interleaved with ours, where they are installed (`pip install pykka xoscar ray`; they are no
dependency of the project): Pykka, threads in one process, `proxy.inc(1).get()`; xoscar, one pool process of its own,
`await ref.inc(1)` from the process beside it; Ray, a process for each actor. None validates arguments or can undo a
call; ours does both. Rates are also given by the processor time of this process, which a busy machine changes less.
"""

import asyncio
import gc
import random
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import tenure
from bench.harness import Line, arguments, emit, percentile, say
from bench.sdk_peers import RAY, XOSCAR, across_processes, pykka_or_none
from tenure.signals import Route, Router, Signal

CALLS = 3_000
AGENTS = 8
IDLE = 10_000
PATTERNS = 1_000


class CounterState(tenure.State):
    """A small state."""

    count: int = 0


class Counter(tenure.Agent[CounterState]):
    """Counts, as a plain function and as a coroutine."""

    @tenure.action
    def inc(self, by: int = 1) -> int:
        """Add."""
        self.state.count += by
        return self.state.count

    @tenure.action
    async def slow_inc(self, by: int = 1) -> int:
        """Add, in a task of its own."""
        self.state.count += by
        return self.state.count


class BagState(tenure.State):
    """A state of some size, of which a turn changes little."""

    count: int = 0
    rows: list[str] = []  # noqa: RUF012 - pydantic copies it


class Bag(tenure.Agent[BagState]):
    """Counts beside a lot of text."""

    @tenure.action
    def inc(self, by: int = 1) -> int:
        """Add."""
        self.state.count += by
        return self.state.count


Call = Callable[[], Awaitable[object]]


async def each(call: Call, count: int) -> list[float]:
    """Wall time of each of `count` calls, in us."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        await call()
        times.append((time.perf_counter() - began) * 1e6)
    return times


async def rate(calls: list[Call], count: int) -> tuple[float, float]:
    """Calls a second of several callers at once: by the wall clock, and by processor time."""

    async def caller(call: Call) -> None:
        for _ in range(count):
            await call()

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*map(caller, calls))
    total = count * len(calls)
    return total / (time.perf_counter() - wall), total / (time.process_time() - cpu)


# --- lines ------------------------------------------------------------------------------------------------------------


async def calling(runs: int) -> list[Line]:
    """Calls, and create to first reply."""
    pykka = pykka_or_none()
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for run in range(runs):
        async with tenure.local() as rt:
            counter = await rt.create(Counter, "c")
            await each(lambda: counter.inc(by=1), 200)  # noqa: B023 - awaited before the next round
            note("plain", percentile(await each(lambda: counter.inc(by=1), CALLS), 0.5))  # noqa: B023
            note("coroutine", percentile(await each(lambda: counter.slow_inc(by=1), CALLS), 0.5))  # noqa: B023
            if pykka is not None:
                note("pykka", percentile(pykka.calls(CALLS), 0.5))
            others = [await rt.create(Counter, f"o{n}") for n in range(AGENTS)]
            wall, cpu = await rate([lambda one=one: one.inc(by=1) for one in others], CALLS)  # type: ignore[misc]
            note("rate", wall)
            note("rate by processor time", cpu)
            numbers = iter(range(CALLS))

            async def create_and_call(rt: tenure.LocalRuntime = rt, numbers: Any = numbers) -> None:
                made = await rt.create(Counter, f"n{next(numbers)}")
                await made.inc(by=1)

            note("create", percentile(await each(create_and_call, 1_000), 0.5))
            if pykka is not None:
                note("pykka create", percentile([pykka.create_and_call() for _ in range(200)], 0.5))
        for peer, code, creations in (("xoscar", XOSCAR, 50), ("ray", RAY, 5)):
            if (theirs := across_processes(peer, code, creations, 500)) is not None:
                note(f"{peer} create", theirs[0])
                note(peer, theirs[1])
        say(f"run {run + 1} of {runs}")
    return [
        line("call of a plain action, p50 of each run", found, "plain", "us", "pykka", "Pykka"),
        line("call of a plain action (peer across processes)", found, "plain", "us", "xoscar", "xoscar"),
        line("call of a plain action (peer across processes and nodes)", found, "plain", "us", "ray", "Ray"),
        line("call of a coroutine action, p50 of each run", found, "coroutine", "us"),
        line("calls a second over 8 agents", found, "rate", "1/s"),
        line("calls a second over 8 agents, by processor time", found, "rate by processor time", "1/s"),
        line("create to first reply, p50 of each run", found, "create", "us", "pykka create", "Pykka"),
        line("create to first reply (peer across processes)", found, "create", "us", "xoscar create", "xoscar"),
        line("create to first reply (a process each)", found, "create", "us", "ray create", "Ray"),
    ]


def line(
    name: str,
    found: dict[str, list[float]],
    ours: str,
    unit: str,
    theirs: str = "",
    peer: str = "none: see the text above",
) -> Line:
    """The median over the runs, beside the peer's."""
    other = found.get(theirs)
    return Line(
        name,
        percentile(found[ours], 0.5),
        unit,
        found[ours],
        peer if other or not theirs else f"{peer} is not installed",
        percentile(other, 0.5) if other else None,
    )


async def sizes(runs: int) -> list[Line]:
    """A turn on a state of 100 B, 10 KB and 1 MB, of which it changes a number."""
    lines = []
    for label, rows in (("100 B", 1), ("10 KB", 100), ("1 MB", 10_000)):
        medians = []
        for _ in range(runs):
            async with tenure.local() as rt:
                bag = await rt.create(Bag, "b", state={"rows": ["x" * 98] * rows})
                medians.append(percentile(await each(lambda: bag.inc(by=1), 200 if rows < 10_000 else 20), 0.5))  # noqa: B023
        lines.append(Line(f"a turn on a state of {label}, p50 of each run", percentile(medians, 0.5), "us", medians))
    return lines


async def memory() -> Line:
    """What an idle agent with a small state keeps, by Python's own allocator."""
    async with tenure.local() as rt:
        for number in range(100):
            await (await rt.create(Counter, f"warm{number}")).inc(by=1)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(IDLE):
            await (await rt.create(Counter, f"idle{number}")).inc(by=1)
        gc.collect()
        bytes_each = (tracemalloc.get_traced_memory()[0] - before) / IDLE
        tracemalloc.stop()
    return Line("memory of an idle agent that was called once", bytes_each / 1024, "KB", [bytes_each / 1024])


def routing(runs: int) -> list[Line]:
    """Signals a second through 1,000 patterns: types that come again, and types that are all new."""
    shapes = ("shop{n}.order.paid", "shop{n}.*.paid", "shop{n}.**", "**.event{n}")
    router = Router(Route(shapes[n % 4].format(n=n), n) for n in range(PATTERNS))
    dice = random.Random(7)
    known = [Signal.new(f"shop{dice.randrange(PATTERNS)}.order.paid", source="bench") for _ in range(20_000)]
    again, new = [], []
    for run in range(runs):
        fresh = [Signal.new(f"shop{n % PATTERNS}.order{run}x{n}.paid", source="bench") for n in range(5_000)]
        for signals, into in ((known, again), (fresh, new)):
            began = time.perf_counter()
            for signal in signals:
                router.route(signal)
            into.append(len(signals) / (time.perf_counter() - began))
    return [
        Line("signals a second through 1,000 patterns, 1,000 types", percentile(again, 0.5), "1/s", again),
        Line("signals a second through 1,000 patterns, each of a new type", percentile(new, 0.5), "1/s", new),
    ]


def importing(runs: int) -> list[Line]:
    """`import tenure`, less an empty program; and the same of pydantic with one model."""

    def took(program: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        return (time.perf_counter() - began) * 1000

    pydantic = "import pydantic\nclass A(pydantic.BaseModel):\n    a: int = 1\nA()"
    ours, theirs = [], []
    for _ in range(runs * 3):
        empty = took("pass")
        ours.append(took("import tenure") - empty)
        theirs.append(took(pydantic) - empty)
    peer = "pydantic with one model"
    return [
        Line("import tenure, less python -c pass", percentile(ours, 0.5), "ms", ours, peer, percentile(theirs, 0.5))
    ]


async def main() -> None:
    """Measure and print."""
    given = arguments(__doc__ or "", runs=5)
    lines = [*await calling(given.runs), *await sizes(given.runs), await memory(), *routing(given.runs)]
    emit([*lines, *importing(given.runs)], as_json=given.json)


if __name__ == "__main__":
    asyncio.run(main())
