"""The agent, tested without any cluster."""

import pytest

import agents
import tenure


@pytest.mark.asyncio
async def test_it_counts_and_says_so() -> None:
    """Two increments add up, and each emits a signal."""
    async with tenure.local() as rt:
        counter = await rt.create(agents.Counter, "counter-1")
        assert await counter.increment(by=2) == 2
        assert await counter.increment() == 3
        assert await counter.value() == 3
        assert [signal.data for signal in rt.signals] == [{"count": 2}, {"count": 3}]


@pytest.mark.asyncio
async def test_a_refused_increment_changes_nothing() -> None:
    """An action that raises is undone; the caller learns what it said."""
    async with tenure.local() as rt:
        counter = await rt.create(agents.Counter, "counter-1", state={"count": 7})
        with pytest.raises(tenure.CallError, match="by must be positive"):
            await counter.increment(by=-1)
        assert await counter.value() == 7
        assert rt.signals == []


def test_the_pure_form_needs_no_runtime() -> None:
    """`cmd` gives the agent as it would be, and the effects as data."""
    counter, effects = agents.Counter.cmd(agents.Counter.new(), agents.Counter.increment(by=2))
    assert counter.state.count == 2
    assert effects == (tenure.Emit("counter.changed", {"count": 2}),)
