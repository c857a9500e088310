"""The agent that the benches call. Imported by the hosts' workers."""

import tenure


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

    @tenure.query
    def value(self) -> int:
        """The count."""
        return self.state.count
