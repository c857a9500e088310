"""What users' type checkers see of `tenure.testing.simulate`. Checked as surface.py is."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

import tenure
from tenure.testing import Background, Call, Faults, History, Run, Simulation, simulate


class CounterState(tenure.State):
    count: int = 0


class Counter(tenure.Agent[CounterState]):
    @tenure.action
    def increment(self, by: int = 1) -> int:
        self.state.count += by
        return self.state.count


async def story(cluster: Simulation) -> None:
    counter = await cluster.create(Counter, "counter-1")
    assert_type(counter, Counter)
    assert_type(await counter.increment(by=2), int)
    assert_type(cluster.faults, Faults)
    cluster.faults.kill_host(cluster.holder(counter), back_after=1.0)
    cluster.faults.explode("h0")  # type: ignore[attr-defined]
    assert_type(cluster.history, History)
    assert_type(cluster.history[0], Call)
    cluster.history.assert_counted(counter, 2, Counter.increment, lambda call: len(call.method))


runs = simulate(story, seeds=range(50), servers=3, hosts=3, faults="calm", agents=[Counter])
assert_type(runs, list[Run])
simulate(story, faults=Background(names=("power_host",), gap=0.5))
simulate(story, faults="wild")  # type: ignore[arg-type]
simulate(lambda: None)  # type: ignore[arg-type,misc]
