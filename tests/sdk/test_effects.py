"""Effect validation: a turn that is run twice has to do the same."""

import asyncio
import itertools

import pytest
from step_agents import Asks, Shop

import tenure
from tenure import errors
from tenure.signals import Signal
from tenure.testing import VirtualRuntime

numbers = itertools.count()
pytest_plugins = ["pytester"]


class Luck(tenure.State):
    drawn: int = 0


class Careless(tenure.Agent[Luck]):
    """Each action is another one when it is run again."""

    @tenure.action
    async def draw(self) -> None:
        self.state.drawn = next(numbers)

    @tenure.action
    async def emits(self, ctx: tenure.Context) -> None:
        ctx.emit("drawn", {"number": next(numbers)})

    @tenure.action
    async def replies(self) -> int:
        return next(numbers)

    @tenure.action
    async def other_step(self, ctx: tenure.Context) -> None:
        await ctx.step(f"step {next(numbers)}", lambda: 1)

    @tenure.action
    async def one_more(self, ctx: tenure.Context) -> None:
        for number in range(next(numbers) % 2 + 1):
            await ctx.step(f"step {number}", lambda: 1)

    @tenure.action
    async def sleeps(self, ctx: tenure.Context) -> None:
        if next(numbers) % 2:
            await ctx.sleep(10)

    @tenure.action
    async def fails(self) -> None:
        raise ValueError(str(next(numbers)))

    @tenure.action
    async def draws_in_a_step(self, ctx: tenure.Context) -> int:
        self.state.drawn = await ctx.step("draw", lambda: next(numbers))
        ctx.after(60, Careless.draws_in_a_step())
        ctx.emit("drawn", {"number": self.state.drawn})
        return self.state.drawn


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (Careless.draw, "state: first {'drawn': 0}; then {'drawn': 1}"),
        (Careless.emits, "directives: first [\"Emit(type='drawn', data={'number': 0}"),
        (Careless.replies, "reply: first b'\\x00'; then b'\\x01'"),
        (Careless.other_step, "steps: first ['step 0']; then ['step 1']"),
        (Careless.one_more, "steps: first ['step 0']; then ['step 0', 'step 1']"),
        (Careless.sleeps, "steps: first []; then ['sleep']"),
        (Careless.fails, "end: first ActionFailed: ValueError in fails: 0; then ActionFailed: ValueError in fails: 1"),
    ],
)
async def test_what_differs_is_told_with_both(action: object, text: str) -> None:
    """At the end, if nothing else was wrong; the turns themselves go on as always."""
    global numbers  # noqa: PLW0603
    numbers = itertools.count()
    rt = await VirtualRuntime(validate_effects=True).__aenter__()
    careless = await rt.create(Careless, "c")
    ends = await asyncio.gather(careless.call(action()), return_exceptions=True)  # type: ignore[operator]
    assert isinstance(ends[0], errors.ActionFailed) == (action is Careless.fails)
    with pytest.raises(AssertionError, match="of default/c does something else when it is run again") as caught:
        await rt.__aexit__(None, None, None)
    assert text in str(caught.value)


async def test_what_is_the_same_is_silent() -> None:
    """Steps, waits, calls, signals, timers: results of steps are those of the first run."""
    async with VirtualRuntime(validate_effects=True) as rt:
        careless = await rt.create(Careless, "c")
        number = await careless.draws_in_a_step()
        await rt.advance(61)
        assert rt.state(careless).drawn == number + 1
        shop, a, _ = await rt.create(Shop, "s"), await rt.create(Asks, "a"), await rt.create(Asks, "b")
        await shop.buy(what="a cup")
        assert await a.ask(to="b") == "hello yourself"
        await rt.signal(shop, Signal.new("note.x", 1, source="desk"))
        nap = rt._engine.post("default/s", Signal.new("note.y", 2, source="desk"))
        assert nap is None
        await rt.idle()
        assert rt.differences == []


def test_the_plugin_has_it_as_an_option(pytester: pytest.Pytester) -> None:
    """For a whole suite: on the command line, or in the settings."""
    pytester.makepyfile(
        """
        import itertools, tenure
        numbers = itertools.count()
        class S(tenure.State):
            n: int = 0
        class A(tenure.Agent[S]):
            @tenure.action
            def draw(self) -> None:
                self.state.n = next(numbers)
        async def test_it(runtime):
            await (await runtime.create(A, "a")).draw()
        """
    )
    quick = ["-p", "no:cacheprovider"]
    pytester.runpytest_subprocess(*quick).assert_outcomes(passed=1)
    result = pytester.runpytest_subprocess(*quick, "--tenure-validate-effects")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*draw of default/a does something else when it is run again:*"])
    pytester.makeini("[pytest]\ntenure_validate_effects = true\n")
    pytester.runpytest_subprocess(*quick).assert_outcomes(failed=1)
