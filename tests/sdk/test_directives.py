"""Effects as data: what a turn asks for leaves with its commit, in order, or not at all."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest

import tenure
from tenure import directives, errors
from tenure._clock import VirtualClock
from tenure.policies import EmitOnError, MaxErrors, StopOnError
from tenure.signals import Signal


class Notes(tenure.State):
    seen: list[str] = pydantic.Field(default_factory=list)


class Clerk(tenure.Agent[Notes]):
    """Writes down what it is told."""

    @tenure.action
    def note(self, text: str) -> None:
        self.state.seen.append(text)

    @tenure.action
    def tell(self, ctx: tenure.Context, to: str, text: str) -> None:
        ctx.send(to, Clerk.note(text))

    @tenure.action
    def tell_and_fail(self, ctx: tenure.Context, to: str) -> None:
        ctx.send(to, Clerk.note("never"))
        raise ValueError("no luck")

    @tenure.action
    def twice(self, ctx: tenure.Context, text: str, then: str = "") -> None:
        ctx.run(Clerk.note(text), then=then)

    @tenure.action
    def run_bad(self, ctx: tenure.Context) -> None:
        ctx.run(Clerk.fail(), then="told")

    @tenure.action
    def fail(self) -> int:
        raise ValueError("no luck")

    @tenure.action
    def told(self, reply: object, error: str) -> None:
        self.state.seen.append(error or f"got {reply}")

    @tenure.action
    def beside(self, ctx: tenure.Context) -> None:
        ctx.background(_outside, name="outside")

    @tenure.action
    def leave(self, ctx: tenure.Context) -> None:
        ctx.stop("enough")

    @tenure.action
    def ring(self, ctx: tenure.Context, number: str) -> None:
        ctx.do(Ring(number))

    @tenure.action
    def wrong(self, ctx: tenure.Context) -> None:
        ctx.send("other", tenure.Instruction(Clerk.note, {"txet": "x"}))

    @tenure.query
    def peek(self, ctx: tenure.Context) -> None:
        ctx.stop()


rung: list[str] = []


async def _outside() -> None:
    rung.append("outside")


@dataclass(frozen=True, slots=True)
class Ring(tenure.Directive):
    """One of our own."""

    number: str


async def test_what_is_sent_arrives_in_order_and_only_with_the_commit() -> None:
    async with tenure.local() as rt:
        one, two = await rt.create(Clerk, "one"), await rt.create(Clerk, "two")
        await one.tell(to="two", text="a")
        with pytest.raises(errors.ActionFailed):
            await one.tell_and_fail(to="two")
        await one.tell(to="two", text="b")
        await rt.idle()
        assert rt.state(two).seen == ["a", "b"]


async def test_an_instruction_runs_in_a_turn_of_its_own_and_its_end_is_told() -> None:
    async with tenure.local() as rt:
        clerk = await rt.create(Clerk, "c")
        await clerk.twice("x")
        await rt.idle()
        await clerk.twice("y", then="told")
        await rt.idle()
        await clerk.run_bad()
        await rt.idle()
        seen = rt.state(clerk).seen
        assert seen[:3] == ["x", "y", "got None"]
        assert "ValueError" in seen[3]


async def test_functions_beside_the_agent() -> None:
    rung.clear()
    async with tenure.local() as rt:
        clerk = await rt.create(Clerk, "c")
        await clerk.beside()
        await rt.idle()
    assert rung == ["outside"]


async def test_an_agent_that_stops_is_gone_after_its_turn() -> None:
    async with tenure.local() as rt:
        clerk = await rt.create(Clerk, "c")
        await clerk.leave()
        await rt.idle()
        assert not rt.alive(clerk)
        with pytest.raises(errors.NotFound):
            await clerk.note("x")


async def test_directives_of_ones_own() -> None:
    """With an executor they are done; without one the turn is refused before anything of it is kept."""
    rung.clear()

    def ring(_: tenure.LocalRuntime, agent: str, directive: Ring) -> None:
        rung.append(f"{agent} {directive.number}")

    async with tenure.local(executors={Ring: ring}) as rt:
        await (await rt.create(Clerk, "c")).ring(number="112")
    assert rung == ["default/c 112"]
    async with tenure.local() as rt:
        with pytest.raises(errors.NotSupported, match=r"no executor for Ring, which ring asks for"):
            await (await rt.create(Clerk, "c")).ring(number="112")


async def test_an_executor_that_fails_hurts_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async def ring(*_: object) -> None:
        raise OSError("no line")

    async with tenure.local(executors={Ring: ring}) as rt:
        clerk = await rt.create(Clerk, "c")
        await clerk.ring(number="112")
        await rt.idle()
        await clerk.note("still here")
    assert "Ring: no line" in caplog.text


def test_cmd_executes_nothing_and_shows_all() -> None:
    _, effects = Clerk.cmd(Clerk.new(), Clerk.tell(to="two", text="a"))
    assert effects == (directives.Send("two", Clerk.note("a")),)
    _, effects = Clerk.cmd(Clerk.new(), Clerk.leave())
    assert effects == (directives.Stop("enough"),)


async def test_misuse_is_told_where_it_happens() -> None:
    async with tenure.local() as rt:
        clerk = await rt.create(Clerk, "c")
        with pytest.raises(errors.InvalidArguments, match="txet"):
            await clerk.wrong()
        with pytest.raises(errors.ActionFailed, match="a query only reads"):
            await clerk.peek()


# --- routes ---


class Paid(tenure.State):
    total: int = 0
    log: list[str] = pydantic.Field(default_factory=list)


class Till(tenure.Agent[Paid], subscribes=["order.*"]):
    """Reacts to orders."""

    @tenure.on("order.paid")
    @tenure.action
    def paid(self, amount: int) -> int:
        self.state.total += amount
        return self.state.total

    @tenure.on("order.**", priority=10)
    @tenure.action
    def log(self, signal: Signal) -> None:
        self.state.log.append(signal.type)

    @tenure.on("order.failed")
    @tenure.action
    def failed(self) -> None:
        raise ValueError("as asked")


async def test_signals_lead_to_actions_in_one_turn() -> None:
    async with tenure.local() as rt:
        till = await rt.create(Till, "till")
        paid = Signal.new("order.paid", {"amount": 3, "currency": "EUR"}, source="shop")
        assert await rt.signal(till, paid) is None  # the reply of the first: `log` has the higher priority
        assert rt.state(till) == Paid(total=3, log=["order.paid"])
        with pytest.raises(errors.ActionFailed):
            await rt.signal(till, Signal.new("order.failed", source="shop"))
        assert rt.state(till).log == ["order.paid"], "one turn: what ran before the failure is undone"
        with pytest.raises(errors.UnknownSignal, match=r"no route for a signal 'stock.low'; it has order"):
            await rt.signal(till, Signal.new("stock.low", source="shop"))
        with pytest.raises(errors.InvalidArguments, match="amount"):
            await rt.signal(till, Signal.new("order.paid", {"amount": "much"}, source="shop"))


async def test_agents_get_what_they_subscribe_to() -> None:
    async with tenure.local() as rt:
        till = await rt.create(Till, "till")
        with rt.bus.spy() as spy:
            await rt.publish(Signal.new("order.paid", {"amount": 2}, source="shop"))
            await rt.publish(Signal.new("stock.low", source="shop"))
            await rt.idle()
        assert rt.state(till).total == 2
        assert [one.type for one in spy.signals] == ["order.paid", "stock.low"]
        await rt.stop(till)
        await rt.publish(Signal.new("order.paid", {"amount": 2}, source="shop"))
        await rt.idle()


def test_two_routes_of_one_pattern_are_a_conflict() -> None:
    class Twice(tenure.Agent[Paid]):
        @tenure.on("a.b")
        @tenure.action
        def one(self) -> None: ...

        @tenure.on("a.b")
        @tenure.action
        def two(self) -> None: ...

    from tenure._routes import router_of

    with pytest.raises(errors.DefinitionError, match=r"'a.b' leads to one and to two"):
        router_of(Twice)
    with pytest.raises(errors.DefinitionError, match="no segment"):
        tenure.on("a b")(Till.paid)
    with pytest.raises(errors.DefinitionError, match=r"above @tenure\.action"):
        tenure.on("a")(lambda: None)  # type: ignore[type-var]


# --- error policies ---


def _failing(policy: Any) -> type[Clerk]:
    class Failing(Clerk, on_error=policy):
        pass

    return Failing


def _own_policy(error: tenure.Error, count: int) -> list[tenure.Directive]:
    return [directives.Stop(f"{error.code} {count}")]


async def test_error_policies() -> None:
    async with tenure.local() as rt:

        async def fails(policy: Any, times: int = 1) -> tenure.Agent[Any]:
            agent = await rt.create(_failing(policy), f"a{len(rt.signals)}-{id(policy)}")
            for _ in range(times):
                with pytest.raises(errors.ActionFailed):
                    await agent.fail()
            await rt.idle()
            return agent

        assert rt.alive(await fails(None))
        assert not rt.alive(await fails(StopOnError()))
        assert rt.alive(await fails(MaxErrors(3), times=2))
        assert not rt.alive(await fails(MaxErrors(2), times=2))
        assert rt.alive(await fails(EmitOnError("clerk.sick")))
        assert rt.signals[-1].type == "clerk.sick"
        assert rt.signals[-1].data == {"code": "ActionFailed", "message": "ValueError in fail: no luck", "count": 1}
        assert not rt.alive(await fails(_own_policy))


# --- delays and cron ---


class Alarm(tenure.Agent[Notes]):
    """Plans."""

    @tenure.action
    def plan(self, ctx: tenure.Context, seconds: float, text: str, name: str = "") -> str:
        return ctx.after(seconds, Alarm.note(text), name=name)

    @tenure.action
    def every(self, ctx: tenure.Context, name: str, times: str, missed: str = "once") -> None:
        ctx.cron(name, times, Alarm.note(name), missed=missed)  # type: ignore[arg-type]

    @tenure.action
    def forget(self, ctx: tenure.Context, name: str) -> None:
        ctx.cancel(name)

    @tenure.action
    def note(self, text: str) -> None:
        self.state.seen.append(text)
        if text == "bad":
            raise ValueError("no luck")


def virtual(**options: Any) -> tenure.LocalRuntime:
    return tenure.LocalRuntime(clock=VirtualClock(), **options)


async def test_delays_fire_once_in_order_at_their_time() -> None:
    async with virtual() as rt:
        alarm = await rt.create(Alarm, "a")
        await alarm.plan(20, "later")
        await alarm.plan(10, "soon")
        name = await alarm.plan(15, "never")
        await alarm.plan(5, "old", name="same")
        await alarm.plan(12, "new", name="same")
        await alarm.forget(name)
        await rt.advance(9.9)
        assert rt.state(alarm).seen == []
        await rt.advance(60)
        assert rt.state(alarm).seen == ["soon", "new", "later"]


async def test_a_delayed_action_that_fails_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    async with virtual() as rt:
        alarm = await rt.create(Alarm, "a")
        await alarm.plan(1, "bad")
        await rt.advance(100)
        assert rt.state(alarm).seen == []
        assert caplog.text.count("ValueError in note: no luck") >= 1
        await alarm.plan(1, "good")
        await rt.advance(100)
        assert rt.state(alarm).seen == ["good"]


async def test_cron_runs_again_and_again_until_it_is_cancelled() -> None:
    async with virtual() as rt:
        alarm, other = await rt.create(Alarm, "a"), await rt.create(Alarm, "b")
        await alarm.every("minute", "* * * * *")
        await other.every("minute", "*/2 * * * *")
        await rt.advance(600)
        assert len(rt.state(alarm).seen) == 10
        assert len(rt.state(other).seen) == 5
        await alarm.forget("minute")
        await rt.advance(600)
        assert len(rt.state(alarm).seen) == 10
        with pytest.raises(errors.ActionFailed, match="cron 'nonsense'"):
            await alarm.every("x", "nonsense")
        await rt.stop(other)
        await rt.advance(600)


class Stubborn(tenure.Agent[Notes]):
    """Tries again and again, by the runtime's clock."""

    @tenure.action(max_retries=3, backoff=10.0)
    async def push(self) -> int:
        rung.append("push")
        if len(rung) < 3:
            raise OSError("not yet")
        self.state.seen.append("through")
        return len(rung)

    @tenure.action
    def note(self, text: str) -> None:
        self.state.seen.append(text)


async def test_waits_between_attempts_are_the_runtimes_and_others_queue_behind_them() -> None:
    rung.clear()
    async with virtual() as rt:
        stubborn = await rt.create(Stubborn, "s")
        pushed = asyncio.ensure_future(stubborn.push())
        await asyncio.sleep(0)
        await rt.idle()
        noted = asyncio.ensure_future(stubborn.note("after"))
        await rt.advance(4.9)
        assert (len(rung), pushed.done(), noted.done()) == (1, False, False)
        await rt.advance(60)
        assert await pushed == 3
        await noted
        assert rt.state(stubborn).seen == ["through", "after"]
