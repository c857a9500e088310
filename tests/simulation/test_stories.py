"""`tenure.testing.simulate`: users' own agents in the simulated cluster."""

import asyncio
import logging
import os
import random
import subprocess
import sys
import time
from functools import partial

import pytest
from sim_mutants import AlwaysHeld
from sim_stories import busy, losing_hosts, uses_everything

import agents
import tenure
from tenure import errors
from tenure.testing import Background, Simulation, simulate
from tenured.simulation import Rules, story
from tenured.simulation.host import HostRules


def test_the_counter_of_the_examples_survives() -> None:
    """In twenty worlds; each costs a fraction of a second."""
    runs = simulate(losing_hosts, seeds=range(20))
    assert [run.seed for run in runs] == list(range(20))
    assert len({run.trace for run in runs}) == 20


@pytest.mark.parametrize("faults", ["calm", "rough"])
def test_what_was_acknowledged_is_there_once_whatever_goes_wrong_by_chance(faults: str) -> None:
    """And some calls have no known end, or the worlds would be too kind."""
    runs = simulate(busy, seeds=range(20), faults=faults)  # type: ignore[arg-type]
    assert {call.outcome for run in runs for call in run.history} >= {"applied", "unknown"}


class Mounted(agents.Counter):
    """Adds at each of its beginnings."""

    def on_start(self, ctx: tenure.Context) -> None:
        self.state.count += 1000 if ctx.recovered else 100


async def _mounts(cluster: Simulation) -> None:
    counter = await cluster.create(Mounted, "counter-1")
    assert await counter.increment(by=2) == 102
    cluster.faults.kill_host(cluster.holder(counter))
    assert await counter.increment(by=3) == 1105


def test_the_hook_of_an_activation_runs_and_what_it_does_is_kept() -> None:
    """FAIL-07."""
    simulate(_mounts, seeds=range(5))


async def _drains(cluster: Simulation) -> None:
    counter = await cluster.create(agents.Counter, "counter-1")
    await cluster.settled()
    for server in cluster.servers:
        cluster.faults.slow_disk(server, sync=0.2)
    cluster.faults.drain(cluster.holder(counter))
    assert await counter.increment() == 1
    await cluster.advance(3.0)


def test_a_host_that_drains_ends_as_drained() -> None:
    """Not as one that was declared dead (status 69, "starting anew"), also when a heartbeat is acknowledged before its
    goodbye is answered: that the incarnation is gone is what it asked for.
    """
    runs = simulate(_drains, seeds=range(10))
    ends = [line.partition("ends: ")[2] for run in runs for line in run.transcript if "ends: " in line]
    assert ends == ["drained"] * 10


# --- agents that are wrong --------------------------------------------------------------------------------------------

_SEEN: dict[str, int] = {}


class Remembering(tenure.Agent[agents.CounterState]):
    """Keeps its count in a global of its module."""

    @tenure.action
    def increment(self) -> int:
        """Add one, in the wrong place."""
        _SEEN[self.id] = _SEEN.get(self.id, 0) + 1
        self.state.count = _SEEN[self.id]
        return self.state.count


async def remembers(cluster: Simulation) -> None:
    """Looks right as long as nobody dies."""
    agent = await cluster.create(Remembering, "a")
    assert await agent.increment() == 1
    assert await agent.increment() == 2
    cluster.faults.kill_worker(cluster.holder(agent))
    assert await agent.increment() == 3


def test_a_state_outside_of_the_state_is_found() -> None:
    """Each simulated process has its own globals, and they end with it; those of the test are not touched."""
    with pytest.raises(AssertionError, match="assert 1 == 3") as failure:
        simulate(remembers, seeds=[4])
    assert _SEEN == {}
    said = "\n".join(failure.value.__notes__)
    assert "seed 4;" in said
    assert "its worker is killed" in said
    assert "again: TENURE_SIM_SEED=4 pytest 'tests/simulation/test_stories.py::test_a_state_outside" in said


def test_modules_can_be_shared_on_demand() -> None:
    """Then the wrong agent gets away with it."""
    try:
        simulate(remembers, seeds=[4], isolate=False)
    finally:
        _SEEN.clear()


async def replays(cluster: Simulation) -> None:
    """Asserts nothing of its own about the count."""
    for cls in (agents.Counter, Remembering):
        agent = await cluster.create(cls, cls.__name__.lower())
        for _ in range(3):
            await agent.call_by_name("increment")
            cluster.faults.kill_worker(cluster.holder(agent))
        await cluster.settled()
        await cluster.assert_replays(agent)


def test_a_state_outside_of_the_state_is_found_by_replay() -> None:
    """The right agent passes, the wrong one does not, and neither needs an assertion of its own."""
    with pytest.raises(AssertionError, match=r"of default/remembering, was answered 1; .* it is 2"):
        simulate(replays, seeds=[4])


# --- the checker ------------------------------------------------------------------------------------------------------


def test_a_broken_promise_is_found_in_users_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that goes on without its lease: nothing that the story itself looks at."""

    async def freezes(cluster: Simulation) -> None:
        counter = await cluster.create(agents.Counter, "counter-1")
        await counter.increment()
        cluster.faults.partition([cluster.holder(counter)], lasts=3.0)
        await cluster.advance(5.0)

    simulate(freezes, seeds=range(3))
    rules = Rules(host=HostRules(lease=AlwaysHeld))
    monkeypatch.setattr(story, "World", partial(story.World, rules=rules))
    with pytest.raises(AssertionError, match="an expired incarnation never acts") as failure:
        simulate(freezes, seeds=range(3))
    assert "again: TENURE_SIM_SEED=0" in failure.value.__notes__[0]


# --- seeds ------------------------------------------------------------------------------------------------------------


async def with_dice(cluster: Simulation) -> None:
    """Reads clocks and rolls dice, as user code does."""
    await busy(cluster)
    cluster.note(f"{time.time()} {time.monotonic()} {random.random()}")


def test_a_seed_is_the_same_story_again() -> None:
    """To the last line, and another seed is another story."""
    first, second, other = simulate(with_dice, seeds=[7, 7, 8], faults="rough")
    assert first.transcript == second.transcript
    assert first.trace == second.trace != other.trace


def test_a_seed_is_the_same_story_in_another_process() -> None:
    """Also of no hash of a string and no address in memory."""
    script = (
        "import sys; sys.path[:0] = ['tests/simulation', 'examples/counter']\n"
        "import test_stories as t\n"
        "print([run.trace for run in t.simulate(t.with_dice, seeds=[17, 18], faults='rough')])"
    )

    def traces(seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        ran = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        return ran.stdout

    assert traces("0") == traces("1") != "[]\n"


def test_one_seed_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a failure says."""
    monkeypatch.setenv("TENURE_SIM_SEED", "11")
    assert [run.seed for run in simulate(losing_hosts)] == [11]


# --- stories ----------------------------------------------------------------------------------------------------------


def test_every_fault_of_a_story() -> None:
    """Whatever is done to the cluster, the count goes on."""
    simulate(uses_everything, seeds=range(5))


async def times(cluster: Simulation) -> None:
    """A minute."""
    clocks = [time.time, time.monotonic, asyncio.get_running_loop().time, lambda: cluster.now]
    before = [clock() for clock in clocks]
    time.sleep(5)  # noqa: ASYNC251 - takes no time here
    await asyncio.sleep(60)
    assert [clock() - began for clock, began in zip(clocks, before, strict=True)] == pytest.approx([60.0] * 4, rel=0.01)


def test_time_is_virtual_and_real_again_afterwards() -> None:
    """A minute of a quiet cluster costs two seconds or so."""
    real, clock = time.time(), time.time
    simulate(times, seeds=[1])
    assert time.time is clock
    assert real <= time.time() < real + 60


async def refused(cluster: Simulation) -> None:
    """What callers of a real cluster are told."""
    counter = await cluster.create(agents.Counter, "counter-1")
    with pytest.raises(errors.ActionFailed, match="by must be positive"):
        await counter.increment(by=-1)
    with pytest.raises(errors.NotFound):
        await cluster.agent(agents.Counter, "nobody").increment()
    cluster.faults.partition(["story"])
    with pytest.raises(errors.CallError) as late:
        await counter.call(agents.Counter.increment(), timeout=1.0)
    assert late.value.outcome == "unknown"
    cluster.faults.heal()
    assert await counter.value() in {0, 1}
    assert [call.outcome for call in cluster.history.of(counter)] == ["not_applied", "unknown"]
    await cluster.delete("counter-1")
    await cluster.advance(1.0)  # its host stops it
    with pytest.raises(errors.NotFound):
        await counter.value()


def test_calls_end_as_with_a_real_client() -> None:
    """In typed errors that say what is known."""
    simulate(refused, seeds=range(3))


def test_calls_take_as_long_as_was_said() -> None:
    """Those that say nothing themselves."""

    async def waits(cluster: Simulation) -> None:
        counter = await cluster.create(agents.Counter, "counter-1")
        cluster.faults.partition(["story"])
        began = cluster.now
        with pytest.raises(errors.CallError):
            await counter.increment()
        assert cluster.now - began == pytest.approx(0.7, abs=0.01)

    simulate(waits, seeds=range(3), timeout=0.7)


def test_a_story_without_an_end() -> None:
    """Is given up."""

    async def waits(cluster: Simulation) -> None:
        await cluster.advance(1e6)

    with pytest.raises(TimeoutError, match="has not ended within 5 s"):
        simulate(waits, seeds=[1], limit=5)


def test_what_the_cluster_does_not_settle_is_said() -> None:
    """With the reason."""

    async def alone(cluster: Simulation) -> None:
        counter = await cluster.create(agents.Counter, "counter-1")
        await counter.increment()
        for host in cluster.hosts:
            cluster.faults.kill_host(host)
        await cluster.settled(within=5)

    with pytest.raises(AssertionError, match="not settled within 5 s: default/counter-1 is"):
        simulate(alone, seeds=[1])


def test_a_class_that_hosts_do_not_have() -> None:
    """Is named, with the way to give it to them."""

    async def stranger(cluster: Simulation) -> None:
        class Stranger(tenure.Agent[agents.CounterState]):
            """Nobody has seen it before."""

        await cluster.create(Stranger, "s")

    with pytest.raises(errors.UsageError, match=r"simulate\(..., agents=\[Stranger\]\)"):
        simulate(stranger, seeds=[1])


def test_a_fault_that_there_is_not() -> None:
    """By chance, or by name."""

    async def unlucky(cluster: Simulation) -> None:
        cluster.faults.kill_host("h9")

    with pytest.raises(errors.UsageError, match="there is no fault 'earthquake'"):
        simulate(unlucky, faults=Background(names=("earthquake",)))
    with pytest.raises(ValueError, match="there is no host 'h9'; there are h0, h1"):
        simulate(unlucky, seeds=[1], hosts=2)


def test_what_agents_log_is_in_the_transcript(caplog: pytest.LogCaptureFixture) -> None:
    """With who says it; not in the log of the test, once a world."""
    logging.disable(logging.NOTSET)

    async def fails(cluster: Simulation) -> None:
        counter = await cluster.create(agents.Counter, "counter-1")
        await counter.increment(by=4)
        pytest.fail("enough")

    with pytest.raises(pytest.fail.Exception, match="enough") as failure:
        simulate(fails, seeds=[3])
    assert "default/counter-1 logs info: counted to 4" in failure.value.__notes__[0]
    assert "counted to" not in caplog.text


def test_a_story_may_be_partial() -> None:
    """With arguments of its own."""

    async def counts(cluster: Simulation, times: int) -> None:
        counter = await cluster.create(agents.Counter, "counter-1")
        assert [await counter.increment() for _ in range(times)] == list(range(1, times + 1))

    simulate(partial(counts, times=3), seeds=[1])


# --- without the daemon -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["tenured", "grpc", "pysyncobj"])
def test_without_the_daemon_the_extra_is_named(missing: str) -> None:
    """The SDK alone cannot simulate a cluster; whatever of the daemon is missing, the way to it is the same."""
    script = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from tenure import errors\n"
        "from tenure.testing import simulate\n"
        "try:\n"
        "    simulate(print)\n"
        "except errors.ConfigurationError as error:\n"
        "    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'tenure[daemon]'" in ran.stdout
    assert missing in ran.stdout


def test_the_daemon_is_loaded_by_the_first_simulation() -> None:
    """Tests of agents that need no cluster do not pay for it."""
    script = (
        "import sys, tenure.testing as t; t.simulate, t.Simulation, t.StorageContract\n"
        "print([name for name in ('tenured', 'grpc', 'pysyncobj') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


class Stumbling(agents.Counter):
    """Fails after a while; whoever asks it gets an answer."""

    @tenure.action
    def begin(self, ctx: tenure.Context) -> None:
        """Fail in a turn that is tried again."""
        ctx.send(self.id, Stumbling.fail())

    @tenure.action
    async def fail(self) -> None:
        """Undone each time."""
        await asyncio.sleep(0.1)
        raise ValueError("no luck")

    @tenure.query
    async def value_slowly(self) -> int:
        """The count, after a while."""
        await asyncio.sleep(0.2)
        return self.state.count


async def _asked_while_a_turn_is_dropped(cluster: Simulation) -> None:
    counter = await cluster.create(Stumbling, "counter-1")
    assert await counter.increment(by=2) == 2
    await counter.begin()
    await asyncio.sleep(0.05)
    assert await counter.value_slowly() == 2


def test_a_query_beside_a_turn_that_is_dropped_is_answered() -> None:
    simulate(_asked_while_a_turn_is_dropped, seeds=range(3))
