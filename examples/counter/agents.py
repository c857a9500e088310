"""An agent that counts, and keeps its count whatever happens to the node that it runs on."""

import tenure


class CounterState(tenure.State):
    """What is kept."""

    count: int = 0


class Counter(tenure.Agent[CounterState]):
    """Counts things."""

    @tenure.action
    async def increment(self, ctx: tenure.Context, by: int = 1) -> int:
        """Add to the counter."""
        if by < 1:
            raise ValueError("by must be positive")
        self.state.count += by  # kept only if the turn commits
        ctx.emit("counter.changed", {"count": self.state.count})  # leaves with the state, or not at all
        ctx.log.info("counted to %d", self.state.count)
        return self.state.count

    @tenure.query
    def value(self) -> int:
        """The count."""
        return self.state.count
