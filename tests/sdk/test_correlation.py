"""What belongs to one flow says so, through any number of agents."""

import pydantic
from family_agents import Notes, Worker, boss_of, virtual

import tenure
from tenure.signals import Correlation, Signal, Trace


class Pending(tenure.State):
    pending: dict[str, int] = pydantic.Field(default_factory=dict)
    total: int = 0
    traces: set[str] = pydantic.Field(default_factory=set)


class Adder(tenure.Agent[Pending]):
    """The lowest layer."""

    @tenure.on("part.wanted")
    @tenure.action
    def add(self, ctx: tenure.Context, numbers: list[int]) -> None:
        ctx.emit_parent("part.done", {"sum": sum(numbers)})


class Coordinator(tenure.Agent[Pending]):
    """Cuts a sum in two, and remembers by correlation id how many parts are still to come."""

    @tenure.on("sum.wanted")
    @tenure.action
    def split(self, ctx: tenure.Context, signal: Signal) -> None:
        flow = _flow(signal)
        numbers: list[int] = signal.data["numbers"]  # type: ignore[index]
        half = len(numbers) // 2
        for index, part in enumerate((numbers[:half], numbers[half:])):
            name = f"adder-{index}"
            if name not in ctx.children:
                ctx.spawn(Adder, name)
            ctx.emit("part.wanted", {"numbers": part}, to=name)
        self.state.pending[flow] = 2

    @tenure.on("part.done")
    @tenure.action
    def part(self, ctx: tenure.Context, signal: Signal) -> None:
        flow = _flow(signal)
        self.state.total += signal.data["sum"]  # type: ignore[index]
        self.state.pending[flow] -= 1
        if not self.state.pending[flow]:
            del self.state.pending[flow]
            ctx.emit_parent("sum.done", {"sum": self.state.total})


class Orchestrator(tenure.Agent[Pending]):
    """The highest layer."""

    @tenure.on("job.wanted")
    @tenure.action
    def begin(self, ctx: tenure.Context, signal: Signal) -> None:
        self.state.pending[_flow(signal)] = 1
        ctx.spawn(Coordinator, "coordinator")
        ctx.emit("sum.wanted", signal.data, to="coordinator")

    @tenure.on("sum.done")
    @tenure.action
    def finish(self, signal: Signal) -> None:
        del self.state.pending[_flow(signal)]
        self.state.total = signal.data["sum"]  # type: ignore[index]
        trace = signal.extension(Trace)
        self.state.traces.add(trace.trace_id if trace else "")


def _flow(signal: Signal) -> str:
    correlation = signal.extension(Correlation)
    assert correlation is not None
    return correlation.correlationid


async def test_results_bubble_up_three_layers_and_are_matched() -> None:
    async with virtual() as rt:
        top = await rt.create(Orchestrator, "top")
        trace, flow = Trace.root(), Correlation.new()
        await rt.signal(top, Signal.new("job.wanted", {"numbers": [1, 2, 3, 4]}, source="test").extended(trace, flow))
        await rt.idle()
        state = rt.state(top)
        assert (state.total, state.pending, state.traces) == (10, {}, {trace.trace_id})
        assert rt.state(rt.agent(Coordinator, "coordinator")).pending == {}
        assert {_flow(one) for one in rt.signals} == {flow.correlationid}
        by_id = {one.id: one for one in rt.signals}
        done = next(one for one in rt.signals if one.type == "sum.done")
        cause = done.extension(Correlation)
        assert cause is not None
        assert by_id[cause.causationid or ""].type == "part.done", "and each says which one led to it"


async def test_instructions_carry_the_flow_too() -> None:
    class Relay(tenure.Agent[Notes]):
        @tenure.on("begin")
        @tenure.action
        def begin(self, ctx: tenure.Context) -> None:
            ctx.send("ann", Worker.work("x"))
            ctx.run(Relay.step())

        @tenure.action
        def step(self, ctx: tenure.Context) -> None:
            ctx.emit("stepped")

    async with virtual() as rt:
        await boss_of(rt, "ann")
        relay = await rt.create(Relay, "relay")
        flow = Correlation.new()
        await rt.signal(relay, Signal.new("begin", source="test").extended(flow))
        await rt.idle()
        assert {one.type: _flow(one) for one in rt.signals} == dict.fromkeys(
            ("work.done", "stepped"), flow.correlationid
        )
        rt.signals.clear()
        await rt.agent(Worker, "ann").work("y")
        assert rt.signals[-1].extensions == {}, "and it ends with the turns that belong to it"
