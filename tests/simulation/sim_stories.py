"""Stories of the counter in `examples/counter`, for tests and for `tools.sim`."""

import asyncio
import contextlib

import agents
import tenure
from tenure import errors
from tenure.testing import Call, Simulation


def by(call: Call) -> float:
    """What an increment adds."""
    return float(str(call.arguments.get("by", 1)))


async def losing_hosts(cluster: Simulation) -> None:
    """The counter of the examples, while its holder loses power twice."""
    counter = await cluster.create(agents.Counter, "counter-1", state={"count": 5})
    assert await counter.increment(by=2) == 7
    cluster.faults.kill_host(cluster.holder(counter), back_after=1.0)
    assert await counter.increment(by=3) == 10
    await cluster.settled()
    cluster.faults.kill_host(cluster.holder(counter))
    await cluster.settled()
    assert await counter.value() == 10


async def busy(cluster: Simulation) -> None:
    """Two callers, who do not wait long."""
    counter = await _created(cluster)

    async def caller() -> None:
        for _ in range(8):
            with contextlib.suppress(tenure.CallError):
                await counter.call(agents.Counter.increment(by=2), timeout=0.3)
            await asyncio.sleep(0.2)

    await asyncio.gather(caller(), caller())
    cluster.faults.heal()
    await cluster.settled()
    cluster.history.assert_counted(counter, await counter.value(), agents.Counter.increment, by)


async def _created(cluster: Simulation) -> agents.Counter:
    """A rough world may be without a quorum for as long as one attempt lasts."""
    while True:
        with contextlib.suppress(errors.Transient, errors.DeadlineExceeded):
            return await cluster.create(agents.Counter, "counter-1")


async def uses_everything(cluster: Simulation) -> None:
    """Each fault by its name."""
    counter = await cluster.create(agents.Counter, "counter-1")
    faults = cluster.faults
    disturbances = (
        lambda: faults.kill_daemon(cluster.holder(counter)),
        lambda: faults.drain(cluster.holder(counter)),
        lambda: faults.freeze(cluster.holder(counter), 2.0),
        lambda: faults.freeze(cluster.leader(), 1.0),
        lambda: faults.kill_server(cluster.leader()),
        lambda: faults.kill_server(cluster.servers[0], power=True, back_after=None),
        lambda: faults.start_server(cluster.servers[0]),
        lambda: faults.slow_disk(cluster.servers[1], lasts=1.0),
        lambda: faults.full_disk(cluster.servers[2]),
        lambda: faults.step_clock(cluster.holder(counter), -3600.0),
        lambda: faults.slow_link("h0", "s0", lasts=1.0),
        lambda: faults.partition(["h0"], ["story", "s1"], lasts=2.0),
        lambda: faults.kill_host("h1"),
        lambda: faults.start_host("h1"),
        faults.heal,
    )
    for expected, disturb in enumerate(disturbances, start=1):
        await cluster.settled()
        disturb()
        assert await counter.increment() == expected
