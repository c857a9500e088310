"""Two hundred agents with one apply, until all are Ready: placed, sealed, activated, and their user code has answered.

python -m bench.create [--json] [--runs 5]
"""

import asyncio
import time

from bench.harness import Line, agent_spec, arguments, emit, local_cluster, percentile, say
from tenure_cli.ports import Cluster

AGENTS = 200
DEADLINE_S = 60.0


async def one_run(cluster: Cluster, number: int) -> tuple[float, float]:
    """Seconds from the apply to the last one Ready, as a watcher sees it, and to a reply of each. Cleans up."""
    specs = [agent_spec(f"run{number}-{index}") for index in range(AGENTS)]
    names = {spec.id for spec in specs}
    async with asyncio.timeout(DEADLINE_S):
        ready = asyncio.create_task(_all_ready(cluster, names))
        began = time.monotonic()
        await cluster.apply_agents(specs)
        took = await ready - began
        # Ready has to mean that user code serves: each of them is asked.
        replies = await asyncio.gather(*(cluster.call(name, "value", {}, DEADLINE_S) for name in sorted(names)))
        answered = time.monotonic() - began
        if any(reply.value != 0 for reply in replies):
            raise RuntimeError("an agent that is Ready does not have its first state")
        await cluster.delete_agents(sorted(names))
        await _all_gone(cluster, names)
    return took, answered


async def _all_ready(cluster: Cluster, names: set[str]) -> float:
    """The moment at which the last of them was Ready."""
    async for rows in cluster.watch():
        ready = {row.spec.id for row in rows.agents.values() if row.ready}
        if names <= ready:
            return time.monotonic()
    raise RuntimeError("the watch ended")


async def _all_gone(cluster: Cluster, names: set[str]) -> None:
    async for rows in cluster.watch():
        if not names & {row.spec.id for row in rows.agents.values()}:
            return


async def measure(runs: int, *, log: bool) -> list[Line]:
    """All runs on one cluster."""
    async with local_cluster([], log=log) as (_, cluster):
        times: list[float] = []
        answers: list[float] = []
        for number in range(runs):
            ready, answered = await one_run(cluster, number)
            times.append(ready)
            answers.append(answered)
            say(f"run {number + 1} of {runs}: Ready after {ready:.2f} s, each has answered after {answered:.2f} s")
    name = f"create {AGENTS} agents with one apply, all Ready"
    return [
        Line(f"{name}, p50", percentile(times, 0.5), "s", times),
        Line(f"{name}, worst", max(times), "s", times),
        Line(f"{name} and each has answered a query, worst", max(answers), "s", answers),
    ]


def main() -> None:
    """`python -m bench.create`."""
    given = arguments(__doc__ or "", runs=5)
    emit(asyncio.run(measure(given.runs, log=given.log)), as_json=given.json)


if __name__ == "__main__":
    main()
