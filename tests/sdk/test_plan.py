"""Plans: refused when they cannot be, run in a turn, each part in its time."""

import asyncio
import operator
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import tenure
from tenure import errors, plan


class OrderState(tenure.State):
    booked: int = 0
    log: list[str] = []  # noqa: RUF012 - pydantic copies it


running: list[str] = []
"""What is being asked outside of the agent now; `most` at once."""
most: list[int] = [0]
gate: list[asyncio.Event] = []


async def ask(what: str) -> str:
    running.append(what)
    most[0] = max(most[0], len(running))
    try:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    finally:
        running.remove(what)
    return what


async def never(what: str) -> None:
    running.append(what)
    try:
        await asyncio.Event().wait()
    finally:
        running.remove(what)


async def soon_fails() -> None:
    await asyncio.sleep(0)
    raise ConnectionError("no line")


class Order(tenure.Agent[OrderState]):
    """An order, put together of several actions."""

    @tenure.query
    def price(self, article: str) -> int:
        return {"tea": 3, "pot": 20}[article]

    @tenure.query
    async def asked(self, what: str) -> str:
        return await ask(what)

    @tenure.action
    def book(self, amount: int, note: str = "booked") -> dict[str, Any]:
        self.state.booked += amount
        self.state.log.append(note)
        return {"total": self.state.booked, "notes": self.state.log}

    @tenure.action
    async def book_slowly(self, note: str) -> str:
        self.state.log.append(f"{note} begins")
        await ask(note)
        self.state.log.append(f"{note} ends")
        return note

    @tenure.action
    def fail(self, ctx: tenure.Context) -> None:
        self.state.booked += 100
        ctx.emit("failed")
        raise ValueError("no luck")

    @tenure.action
    async def run(self, ctx: tenure.Context) -> Any:
        work, given = current[0]
        return await work.run(self, ctx, **given)

    @tenure.action
    async def run_and_catch(self, ctx: tenure.Context) -> str:
        work, given = current[0]
        try:
            await work.run(self, ctx, **given)
        except Exception as error:  # noqa: BLE001 - that is what is looked at
            caught.append(error)
        return "caught"

    @tenure.query
    def log(self) -> list[str]:
        return self.state.log


current: list[tuple[Any, dict[str, object]]] = []
caught: list[Exception] = []


@pytest.fixture
async def order() -> AsyncIterator[Order]:
    running.clear()
    caught.clear()
    most[0] = 0
    async with tenure.local() as rt:
        yield await rt.create(Order, "o")


async def run(order: Order, work: Any, **given: object) -> Any:
    current[:] = [(work, given)]
    return await order.run()


PLACE = plan.Plan(
    [
        plan.Step("book", Order.book(amount=plan.output("total"), note=plan.given("note"))),
        plan.Step("price", Order.price(article=plan.given("article"))),
        plan.Step("count", plan.pure(int, plan.given("count"))),
        plan.Step("total", plan.converge(operator.mul, "price", "count")),
        plan.Step("note", Order.book(amount=0, note="done"), after=["book"]),
    ]
)


# --- definitions ------------------------------------------------------------------------------------------------------


def test_phases_are_what_is_ready_together() -> None:
    assert PLACE.phases == (("price", "count"), ("total",), ("book",), ("note",))


@pytest.mark.parametrize(
    ("make", "error", "path", "text"),
    [
        (
            lambda: plan.Plan([plan.Step("a", Order.log(), after=["c"]), plan.Step("c", Order.log(), after=["a"])]),
            plan.Cycle,
            ("a", "c", "a"),
            "a -> c -> a|c -> a -> c",
        ),
        (
            lambda: plan.Plan([plan.Step("a", Order.price(article=plan.output("a")))]),
            plan.Cycle,
            ("a", "a"),
            "a -> a",
        ),
        (
            lambda: plan.Plan([plan.Step("price", Order.log()), plan.Step("b", Order.log(), after=["prise"])]),
            plan.MissingStep,
            ("b", "prise"),
            "step 'b' needs 'prise', which there is not; did you mean price",
        ),
        (
            lambda: plan.Plan(
                [plan.Step("b", plan.chain(plan.pure(print, [plan.output("x", "y")]))), plan.Step("c", Order.log())]
            ),
            plan.MissingStep,
            ("b", "x"),
            "step 'b' needs 'x'",
        ),
        (
            lambda: plan.Plan([plan.Step("a", Order.log()), plan.Step("a", Order.log())]),
            plan.PlanInvalid,
            ("a",),
            "two steps are called 'a'",
        ),
        (lambda: plan.Step("a", Order.log(), after="bc"), plan.PlanInvalid, ("a",), r"such as \['bc'\]"),
        (lambda: plan.Step("", Order.log()), plan.PlanInvalid, (), "needs a name"),
        (lambda: plan.Step("a", Order.log(), timeout=0), plan.PlanInvalid, (), "above 0, not 0"),
        (
            lambda: plan.Plan([plan.Step("a", Order.price(article=plan.previous))]),
            plan.PlanInvalid,
            ("a",),
            "in a chain only",
        ),
    ],
)
def test_a_plan_that_cannot_be_is_refused_when_it_is_made(
    make: Callable[[], object], error: type[plan.PlanInvalid], path: tuple[str, ...], text: str
) -> None:
    """With a type, and the path in the graph."""
    with pytest.raises(error, match=text) as found:
        make()
    assert sorted(set(found.value.path)) == sorted(set(path))
    assert len(found.value.path) == len(path)


def test_a_plan_is_a_value() -> None:
    """Equal when it says the same; nothing in it can be set."""
    assert plan.chain(Order.log(), Order.log()) == Order.log().then(Order.log())
    assert plan.Plan([plan.Step("a", Order.log())]) == plan.Plan((plan.Step("a", Order.log()),))
    with pytest.raises(AttributeError):
        PLACE.steps = ()  # type: ignore[misc]
    with pytest.raises(TypeError):
        plan.Parallel({"a": Order.log()}).works["b"] = Order.log()  # type: ignore[index]


# --- runs -------------------------------------------------------------------------------------------------------------


async def test_outputs_go_where_they_are_wanted(order: Order) -> None:
    """Written in any order; each step after what it takes."""
    done = await run(order, PLACE, article="tea", count="2", note="two teas")
    assert {name: done[name] for name in ("price", "count", "total")} == {"price": 3, "count": 2, "total": 6}
    assert done["book"]["total"] == 6
    assert list(done) == ["book", "price", "count", "total", "note"]
    assert await order.log() == ["two teas", "done"]


@pytest.mark.parametrize("given", [{}, {"article": "tea", "count": 1, "note": "", "more": 1}])
async def test_a_run_is_given_what_it_names(order: Order, given: dict[str, object]) -> None:
    with pytest.raises(errors.InvalidArguments, match=r"`(article|more)` is (missing|not known)"):
        await run(order, PLACE, **given)


def test_a_plan_that_does_not_wait_is_pure() -> None:
    current[:] = [(PLACE, {"article": "pot", "count": 1, "note": "a pot"})]
    after, effects = Order.cmd(Order.new(), Order.run())
    assert (after.state.booked, after.state.log, effects) == (20, ["a pot", "done"], ())
    current[:] = [(plan.Parallel({"a": Order.price(article="tea"), "b": plan.pure(len, "bc")}), {})]
    # pieces of a chain run in the pure form too, one after the other
    current[:] = [(plan.chain(current[0][0], Order.book(amount=plan.previous)), {})]
    _, effects = Order.cmd(Order.new(), Order.run())
    assert [type(one) for one in effects] == [tenure.Error]
    assert "`amount` should be a valid integer" in effects[0].message  # type: ignore[union-attr]


async def test_a_chain_hands_on(order: Order) -> None:
    work = Order.price(article="tea").then(Order.book(amount=plan.previous)).then(Order.log())
    assert await run(order, work) == ["booked"]
    again = plan.chain(Order.price(article="pot"), Order.book(amount=plan.previous), plan.pure(_total, plan.previous))
    assert await run(order, again) == 23
    with pytest.raises(errors.ActionFailed, match="nothing was before"):
        await run(order, plan.chain(Order.book(amount=plan.previous)))
    with pytest.raises(errors.ActionFailed, match="only a plan has named steps"):
        await run(order, plan.chain(Order.book(amount=plan.output("price"))))


def _total(booked: dict[str, Any]) -> int:
    return int(booked["total"])


async def test_a_part_of_an_output(order: Order) -> None:
    """Keys, attributes, indices, also within lists."""
    work = plan.Plan(
        [
            plan.Step("book", Order.book(amount=7)),
            plan.Step("parts", plan.pure(list, [plan.output("book", "total"), plan.output("book", "notes", 0)])),
            plan.Step("missing", Order.book(amount=plan.output("book", "sum")), after=["parts"]),
        ]
    )
    with pytest.raises(errors.InvalidArguments, match="the output of step 'book' has no 'sum'") as found:
        await run(order, work)
    assert "in step 'missing'" in found.value.details
    done = await run(order, plan.Plan(work.steps[:2]))
    assert done["parts"] == [7, "booked"]


async def test_an_output_must_fit_the_parameter(order: Order) -> None:
    work = plan.Plan([plan.Step("log", Order.log()), plan.Step("book", Order.book(amount=plan.output("log")))])
    with pytest.raises(errors.InvalidArguments, match=r"Order\.book: `amount` should be a valid integer"):
        await run(order, work)


async def test_a_branch_takes_one_way(order: Order) -> None:
    def work(article: str) -> plan.Plan:
        dear = plan.chain(Order.price(article=article), plan.pure(operator.gt, plan.previous, 10))
        return plan.Plan(
            [
                plan.Step(
                    "buy", plan.Branch(dear, Order.book(amount=1, note="dear"), Order.book(amount=1, note="cheap"))
                ),
                plan.Step("no", plan.Branch(plan.pure(bool), Order.fail()), after=["buy"]),
            ]
        )

    assert (await run(order, work("tea")))["no"] is None
    await run(order, work("pot"))
    assert await order.log() == ["cheap", "dear"]


async def test_what_changes_nothing_runs_at_the_same_time(order: Order) -> None:
    """Queries and pure functions; as soon as one of them is an action, one after the other, as written."""
    side_by_side: dict[str, plan.Work] = {
        "a": Order.asked(what="a"),
        "b": plan.pure(ask, "b"),
        "c": plan.pure(ask, "c"),
    }
    assert await run(order, plan.chain(plan.Parallel(side_by_side))) == {"a": "a", "b": "b", "c": "c"}
    assert most == [3]
    steps = [plan.Step(name, work) for name, work in side_by_side.items()]
    most[0] = 0
    await run(order, plan.Plan(steps))
    assert most == [3]
    most[0] = 0
    await run(order, plan.Plan([*steps, plan.Step("d", Order.book_slowly(note="d"))]))
    await run(order, plan.chain(plan.Parallel({"e": Order.book_slowly(note="e"), "f": Order.book_slowly(note="f")})))
    assert most == [1]
    assert await order.log() == ["d begins", "d ends", "e begins", "e ends", "f begins", "f ends"]


async def test_the_first_error_ends_the_rest(order: Order) -> None:
    work = plan.Parallel({"a": plan.pure(never, "a"), "b": plan.pure(soon_fails), "c": plan.pure(never, "c")})
    with pytest.raises(errors.ActionFailed, match="ConnectionError in run: no line"):
        await run(order, plan.chain(work))
    assert running == []
    with pytest.raises(errors.ActionFailed, match="no luck"):
        await run(order, plan.chain(plan.Parallel({"a": Order.fail(), "b": Order.book(amount=1)})))
    assert await order.log() == []


async def test_errors_can_be_collected(order: Order) -> None:
    """What a failed piece changed and sent is undone, what the others did stays."""
    work = plan.Parallel({"a": Order.book(amount=1), "b": Order.fail(), "c": Order.book(amount=2)}, collect=True)
    done = plan.Plan([plan.Step("try", work), plan.Step("ok", plan.pure(list, [plan.output("try", "c", "ok")]))])

    @tenure.action
    async def attempt(agent: Order, ctx: tenure.Context) -> list[object]:
        outcome = (await done.run(agent, ctx))["try"]
        return [outcome["a"].value["total"], str(outcome["b"].error), outcome["c"].value["total"], outcome["b"].ok]

    class Trying(Order, actions=[attempt]):
        pass

    async with tenure.local() as rt:
        trying = await rt.create(Trying, "t")
        assert await trying.call(attempt()) == [1, "no luck", 3, False]
        assert rt.state(trying).booked == 3
        assert rt.signals == []
        failing = plan.chain(plan.Parallel({"a": plan.pure(soon_fails), "b": plan.pure(ask, "b")}, collect=True))
        current[:] = [
            (plan.chain(failing, plan.pure(lambda found: {k: v.ok for k, v in found.items()}, plan.previous)), {})
        ]
        assert await trying.run() == {"a": False, "b": True}


@pytest.mark.parametrize(
    ("work", "what"),
    [
        (plan.Plan([plan.Step("wait", plan.pure(never, "x"), timeout=0.25)]), "step 'wait' did not end"),
        (plan.Plan([plan.Step("wait", plan.pure(never, "x"))], timeout=0.25), "the plan did not end"),
        (plan.chain(plan.pure(never, "x"), timeout=0.25), "the chain did not end"),
        (plan.chain(plan.Branch(plan.pure(never, "x"), Order.log(), timeout=0.25)), "the branch did not end"),
        (
            plan.chain(plan.Parallel({"x": plan.pure(never, "x"), "y": plan.pure(never, "y")}, timeout=0.25)),
            "the parallel work did not end",
        ),
    ],
)
async def test_every_part_may_have_a_time(order: Order, work: Any, what: str) -> None:
    with pytest.raises(errors.DeadlineExceeded, match=what):
        await run(order, work)
    assert running == []


async def test_no_step_begins_without_time(order: Order) -> None:
    """An action that goes on after its time finds every step refused."""
    begun: list[str] = []

    async def spend() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await current[0][0].run(*draft)

    @tenure.action
    async def late(agent: Order, ctx: tenure.Context) -> None:
        draft[:] = [agent, ctx]
        await spend()

    class Late(Order, actions=[late]):
        pass

    draft: list[Any] = []
    current[:] = [(plan.Plan([plan.Step("a", plan.pure(begun.append, "a"))]), {})]
    async with tenure.local() as rt:
        agent = await rt.create(Late, "l")
        with pytest.raises(errors.DeadlineExceeded, match=r"before (step .a.|the plan) began"):
            await agent.call(late(), timeout=0.02)
    assert begun == []


async def test_a_plan_runs_in_a_turn_only(order: Order) -> None:
    with pytest.raises(errors.NotInTurn, match=r"a plan runs in a turn: write an action that does `await plan\.run"):
        await PLACE.run(order, article="tea", count=1, note="")


async def test_a_step_that_the_class_has_not(order: Order) -> None:
    class Other(tenure.Agent[OrderState]):
        @tenure.action
        def polish(self) -> None: ...

    with pytest.raises(errors.UnknownMethod, match="Order has no action or query 'polish'"):
        await run(order, plan.Plan([plan.Step("a", Other.polish())]))


async def test_plans_within_plans_have_outputs_of_their_own(order: Order) -> None:
    """And share what the run was given."""
    inner = plan.Plan([plan.Step("price", Order.price(article=plan.given("article")))])
    outer = plan.Plan(
        [
            plan.Step("price", plan.pure(str, "outer")),
            plan.Step("inner", inner),
            plan.Step("book", Order.book(amount=plan.output("inner", "price"), note=plan.output("price"))),
        ]
    )
    done = await run(order, outer, article="pot")
    assert (done["book"]["total"], await order.log()) == (20, ["outer"])
