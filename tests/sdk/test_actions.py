"""Options of actions: attempts in their time, nothing left of a failed one, compensation, hooks, output."""

import asyncio
import contextvars
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date
from typing import Any

import pydantic
import pytest

import tenure
from tenure import _exec, _watch, errors
from tenure._turn import Activation
from tenure_link import Turn


class LedgerState(tenure.State):
    total: int = 0
    rows: list[str] = []  # noqa: RUF012 - pydantic copies it


calls: list[str] = []
"""What happened outside of agents, where nothing is undone."""
events: dict[str, threading.Event] = {}


class Hopeless(RuntimeError):
    retry = False


class Receipt(pydantic.BaseModel):
    number: int
    currency: str = "EUR"


def swap_names(arguments: dict[str, Any]) -> dict[str, Any]:
    """What the parameter was called in an earlier version."""
    return {{"begin": "first"}.get(name, name): value for name, value in arguments.items()}


def in_order(arguments: dict[str, Any]) -> None:
    if arguments["first"] > arguments["last"]:
        raise ValueError("`first` must not be after `last`")


class Ledger(tenure.Agent[LedgerState]):
    """Books, not always at the first attempt."""

    def _refund(self, ctx: tenure.Context, error: Exception) -> None:
        calls.append(f"refund after {type(error).__name__}, total {self.state.total}")
        self.state.total = -1
        ctx.emit("refunded")

    async def _refund_slowly(self, ctx: tenure.Context, error: Exception) -> None:
        calls.append(f"time left: {0 < ctx.deadline - asyncio.get_running_loop().time() < 0.3}")
        await asyncio.Event().wait()

    async def _refund_badly(self, ctx: tenure.Context, error: Exception) -> None:
        raise asyncio.CancelledError

    def _wrap(self, ctx: tenure.Context, result: int) -> str:
        return f"{self.id}: {result}"

    @tenure.action(max_retries=2)
    async def book(self, ctx: tenure.Context, amount: int, failures: int) -> int:
        self.state.total += amount
        self.state.rows.append(f"{amount}")
        ctx.emit("booked", self.state.total)
        calls.append("book")
        if len(calls) <= failures:
            raise ConnectionError("no line")
        return self.state.total

    @tenure.action(max_retries=2)
    async def book_all(self, amounts: list[int]) -> list[int]:
        amounts.append(0)
        calls.append("book")
        if len(calls) < 3:
            raise ConnectionError("no line")
        return amounts

    @tenure.action(blocking=True)
    def time_left_in_a_thread(self, ctx: tenure.Context) -> float:
        return ctx.deadline - time.monotonic()

    @tenure.action(max_retries=2)
    def book_plainly(self, failures: int) -> int:
        self.state.total += 1
        calls.append("book")
        if len(calls) <= failures:
            raise ConnectionError("no line")
        return self.state.total

    @tenure.action(max_retries=2, blocking=True)
    def block(self, failures: int) -> int:
        self.state.total += 1
        calls.append("book")
        if len(calls) <= failures:
            raise ConnectionError("no line")
        return self.state.total

    @tenure.action(max_retries=3, retry_on=ConnectionError)
    def fail_with(self, what: str) -> None:
        calls.append(what)
        if what == "assign":
            self.state.total = "many"  # type: ignore[assignment]
        raise {"value": ValueError(what), "hopeless": Hopeless(what), "usage": errors.UsageError(what)}.get(
            what, ConnectionError(what)
        )

    @tenure.action(max_retries=5, backoff=1, backoff_max=3)
    def never(self) -> None:
        raise ConnectionError("no line")

    @tenure.action
    async def around(self, failures: int) -> int:
        state = self.state
        state.rows.append("around")
        await self.book(amount=5, failures=failures)
        state.total += 1
        return self.state.total

    @tenure.action
    async def carry_on(self) -> int:
        self.state.total = 10
        try:
            await self.book(amount=5, failures=99)
        except ConnectionError:
            return self.state.total
        return -1

    @tenure.action(timeout=0.02)
    async def slow(self) -> None:
        self.state.total += 1
        await asyncio.Event().wait()

    @tenure.action(timeout=0.02, max_retries=1, backoff=0, blocking=True)
    def thread(self) -> str:
        calls.append("thread")
        if len(calls) == 1:
            events["hold"].wait(5)
            try:
                self.state.total = 99
            except errors.NotInTurn:
                calls.append("refused")
            events["late"].set()
        self.state.total += 1
        return threading.current_thread().name

    @tenure.action(compensate=_refund, max_retries=1)
    async def pay(self, error: bool = True, bad_state: bool = False) -> None:
        self.state.total += 1
        calls.append("pay")
        if bad_state:
            self.state.rows.append(1)  # type: ignore[arg-type]
        elif error:
            raise ConnectionError("no line")

    @tenure.action
    async def pay_and_go_on(self) -> int:
        self.state.total = 3
        try:
            await self.pay()
        except ConnectionError:
            self.state.rows.append("went on")
        return self.state.total

    @tenure.action(compensate=_refund_slowly, compensate_timeout=0.3)
    async def pay_slowly(self) -> None:
        await asyncio.Event().wait()

    @tenure.action(compensate=_refund_badly)
    async def pay_badly(self) -> None:
        raise errors.Busy("later")

    @tenure.action(before_validate=swap_names, after_validate=in_order)
    def between(self, first: date, last: date = date.max) -> int:
        return (last - first).days

    @tenure.action(after_run=_wrap)
    async def wrapped(self, number: int) -> str:
        return number  # type: ignore[return-value]

    @tenure.action(output=Receipt)
    def receipt(self, number: Any, more: dict[str, Any] | None = None) -> dict[str, Any]:
        self.state.total += 1
        return {"number": number, **(more or {})}

    @tenure.action(output=pydantic.PositiveInt, max_retries=3)
    def positive(self, number: int) -> int:
        calls.append("positive")
        return number

    @tenure.query(output=Receipt)
    def last_receipt(self) -> Receipt:
        return Receipt(number=self.state.total)

    @tenure.action
    async def family(self) -> None:
        async def child() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                calls.append("child ended")

        self.state.total += 1
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            group.create_task(child())

    @tenure.action
    async def half(self) -> None:
        self.state.total += 1
        await GATES[0].wait()
        self.state.rows.append("whole")

    @tenure.action
    def hold_the_loop(self) -> None:
        time.sleep(0.11)

    @tenure.action
    async def hold_the_loop_in_a_coroutine(self) -> None:
        await asyncio.sleep(0)
        time.sleep(0.11)  # noqa: ASYNC251 - that is the point

    @tenure.action(timeout=10)
    async def outer_deadline(self, ctx: tenure.Context) -> list[float]:
        now = asyncio.get_running_loop().time()
        return [ctx.deadline - now, await self.inner_deadline() - now, await self.own_deadline() - now]

    @tenure.action
    async def inner_deadline(self, ctx: tenure.Context) -> float:
        return ctx.deadline

    @tenure.action(timeout=1)
    async def own_deadline(self, ctx: tenure.Context) -> float:
        return ctx.deadline

    @tenure.action(timeout=0.01)
    async def late(self) -> str:
        time.sleep(0.02)  # noqa: ASYNC251 - the budget is spent
        return await self.touch()

    @tenure.action
    async def touch(self) -> str:
        calls.append("touched")
        return "touched"

    @tenure.query
    def value(self) -> int:
        return self.state.total


GATES: list[asyncio.Event] = []


@pytest.fixture(autouse=True)
def nothing_happened_yet() -> None:
    calls.clear()
    GATES[:] = [asyncio.Event()]


@pytest.fixture
async def rt() -> AsyncIterator[tenure.LocalRuntime]:
    async with tenure.local() as runtime:
        yield runtime


@pytest.fixture
async def ledger(rt: tenure.LocalRuntime) -> Ledger:
    return await rt.create(Ledger, "l")


@pytest.fixture
def waits() -> Iterator[list[float]]:
    """Waits between attempts, which take no time here."""
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        taken.append(seconds)

    token = _exec.pace.set(_exec.Pace(sleep=sleep, jitter=lambda: 1.0))
    yield taken
    _exec.pace.reset(token)


@pytest.fixture
def pace(waits: list[float]) -> contextvars.Context:
    """For tasks: fixtures of an asynchronous test may live in another context than the test."""
    return contextvars.copy_context()


async def run(pace: contextvars.Context, call: Any) -> Any:
    return await asyncio.get_running_loop().create_task(call, context=pace)


async def test_another_attempt_begins_where_the_first_began(
    rt: tenure.LocalRuntime, ledger: Ledger, waits: list[float], pace: contextvars.Context
) -> None:
    """State, list and signals of failed attempts are gone; the waits double."""
    assert await run(pace, ledger.book(amount=5, failures=2)) == 5
    assert calls == ["book"] * 3
    assert waits == [0.25, 0.5]
    assert rt.state(ledger) == LedgerState(total=5, rows=["5"])
    assert [signal.data for signal in rt.signals] == [5]


async def test_a_plain_function_tries_again_too(
    rt: tenure.LocalRuntime, ledger: Ledger, pace: contextvars.Context
) -> None:
    assert await run(pace, ledger.book_plainly(failures=2)) == 1
    assert len(calls) == 3


async def test_arguments_are_as_they_were_too(ledger: Ledger, pace: contextvars.Context) -> None:
    assert await run(pace, ledger.book_all(amounts=[5])) == [5, 0]


async def test_attempts_are_bounded_and_told(
    rt: tenure.LocalRuntime, ledger: Ledger, pace: contextvars.Context
) -> None:
    """The last error is the caller's; its details say how many attempts there were."""
    with pytest.raises(errors.ActionFailed, match="ConnectionError in book: no line") as caught:
        await run(pace, ledger.book(amount=5, failures=99))
    assert len(calls) == 3
    assert "Ledger.book: 3 attempts" in caught.value.details
    assert rt.state(ledger) == LedgerState()


async def test_waits_are_capped_and_end_at_the_deadline(
    ledger: Ledger, waits: list[float], pace: contextvars.Context
) -> None:
    with pytest.raises(errors.ActionFailed):
        await run(pace, ledger.never())
    assert waits == [1, 2, 3, 3, 3]
    waits.clear()
    with pytest.raises(errors.ActionFailed, match="no line") as caught:
        await run(pace, ledger.call(Ledger.never(), timeout=1.5))
    assert waits == [1], "2 s are not left"
    assert "2 attempts" in caught.value.details


@pytest.mark.parametrize(
    ("what", "attempts"), [("line", 4), ("value", 1), ("hopeless", 1), ("usage", 1), ("assign", 1)]
)
async def test_what_would_fail_again_is_not_tried_again(
    ledger: Ledger, pace: contextvars.Context, what: str, attempts: int
) -> None:
    """Another exception than asked for, one that says so itself, a wrong use, a value that does not fit."""
    with pytest.raises(errors.ActionFailed):
        await run(pace, ledger.fail_with(what=what))
    assert len(calls) == attempts


async def test_wrong_arguments_are_not_tried_again(ledger: Ledger) -> None:
    with pytest.raises(errors.InvalidArguments):
        await ledger.call_by_name("book", {"amount": "many", "failures": 0})
    assert calls == []


async def test_attempts_inside_of_a_turn_undo_only_themselves(
    rt: tenure.LocalRuntime, ledger: Ledger, pace: contextvars.Context
) -> None:
    """What the action around did before stays, also through a name that it holds."""
    assert await run(pace, ledger.around(failures=2)) == 6
    assert rt.state(ledger) == LedgerState(total=6, rows=["around", "5"])
    calls.clear()
    assert await run(pace, ledger.carry_on()) == 10
    assert rt.state(ledger) == LedgerState(total=10, rows=["around", "5"])
    assert [signal.data for signal in rt.signals] == [5]


class Machine(tenure.Agent[LedgerState], strategy=tenure.FSM()):
    """Its strategy remembers what the state does not."""

    @tenure.action(max_retries=1, backoff=0)
    def finish(self, ctx: tenure.Context) -> None:
        calls.append(f"{len(ctx.directives)}")
        ctx.transition("completed")
        ctx.after(1, Machine.finish())
        if len(calls) == 1:
            raise ConnectionError("no line")


async def test_what_a_strategy_remembers_is_undone_too(rt: tenure.LocalRuntime) -> None:
    """A machine that was in its last state already could not go there again."""
    machine = await rt.create(Machine, "m")
    await machine.finish()
    assert calls == ["0", "0"]


def test_the_pure_form_tries_again_at_once() -> None:
    """Time is none of its business."""
    after, effects = Ledger.cmd(Ledger.new(), Ledger.book(amount=5, failures=2))
    assert after.state.total == 5
    assert effects == (tenure.Emit("booked", 5),)
    calls.clear()
    before = Ledger.new()
    after, effects = Ledger.cmd(before, Ledger.book(amount=5, failures=99))
    assert after is before
    assert effects == (tenure.Error("ActionFailed", "ConnectionError in book: no line"),)
    assert len(calls) == 3


def test_the_pure_form_of_a_blocking_action_tries_again_too() -> None:
    after, _ = Ledger.cmd(Ledger.new(), Ledger.block(failures=1))
    assert (after.state.total, calls) == (1, ["book", "book"])


async def test_an_attempt_has_a_time_of_its_own(rt: tenure.LocalRuntime, ledger: Ledger) -> None:
    with pytest.raises(errors.DeadlineExceeded, match=r"Ledger\.slow did not end in its time") as caught:
        await ledger.slow()
    assert caught.value.outcome == "not_applied"
    assert rt.state(ledger).total == 0


async def test_a_thread_that_was_given_up_changes_nothing(rt: tenure.LocalRuntime, ledger: Ledger) -> None:
    """It cannot be stopped; what it does later goes nowhere, while the next attempt counts."""
    hold, late = events["hold"], events["late"] = threading.Event(), threading.Event()
    assert await ledger.thread() != "MainThread"
    hold.set()
    assert await asyncio.to_thread(late.wait, 5)
    assert calls == ["thread", "thread", "refused"]
    assert rt.state(ledger).total == 1
    assert Ledger.cmd(Ledger.new(), Ledger.thread())[0].state.total == 1


async def test_compensation_follows_the_last_failure(
    rt: tenure.LocalRuntime, ledger: Ledger, pace: contextvars.Context
) -> None:
    """Once, on the state before the action; what it does to the agent is not kept, what it does elsewhere is told."""
    with pytest.raises(errors.ActionFailed, match="no line") as caught:
        await run(pace, ledger.pay())
    assert calls == ["pay", "pay", "refund after ConnectionError, total 0"]
    assert "Ledger.pay: 2 attempts, compensated" in caught.value.details
    calls.clear()
    assert await run(pace, ledger.pay_and_go_on()) == 3
    assert calls == ["pay", "pay", "refund after ConnectionError, total 3"]
    assert rt.state(ledger) == LedgerState(total=3, rows=["went on"])
    assert rt.signals == []


async def test_success_is_not_compensated(ledger: Ledger) -> None:
    await ledger.pay(error=False)
    assert calls == ["pay"]


async def test_a_state_that_does_not_fit_is_compensated(ledger: Ledger) -> None:
    """The commit would refuse it, when it is too late to compensate."""
    with pytest.raises(errors.StateInvalid) as caught:
        await ledger.pay(bad_state=True)
    assert calls == ["pay", "refund after StateInvalid, total 0"]
    assert "compensated" in caught.value.details


async def test_compensation_has_time_left_and_no_more(ledger: Ledger) -> None:
    """The action ends before the call's deadline, so that compensation ends within it."""
    with pytest.raises(errors.DeadlineExceeded, match=r"Ledger\.pay_slowly did not end") as caught:
        await ledger.call(Ledger.pay_slowly(), timeout=0.6)
    assert calls == ["time left: True"]
    assert "compensation failed: DeadlineExceeded" in caught.value.details


async def test_compensation_that_fails_does_not_hide_the_error(ledger: Ledger) -> None:
    with pytest.raises(errors.Busy, match="later") as caught:
        await ledger.pay_badly()
    assert caught.value.details == "Ledger.pay_badly: compensation failed: CancelledError"


async def test_checks_see_all_arguments(ledger: Ledger) -> None:
    """Before: names of an earlier version; after: what parameters mean together. At the caller's as by name."""
    first, last = date(2026, 1, 1), date(2026, 1, 3)
    assert await ledger.between(first=first, last=last) == 2
    assert await ledger.call_by_name("between", {"begin": "2026-01-01", "last": "2026-01-03"}) == 2
    for call in (ledger.between(last, first), ledger.call_by_name("between", {"first": "2026-01-03", "last": first})):
        with pytest.raises(
            errors.InvalidArguments, match=r"Ledger\.between: `first` must not be after `last`; it takes"
        ):
            await call
    assert Ledger.between.immediate


async def test_a_hook_after_the_body_makes_the_reply(ledger: Ledger) -> None:
    assert await ledger.wrapped(number=3) == "default/l: 3"


async def test_output_is_checked_and_unknown_fields_are_kept(rt: tenure.LocalRuntime, ledger: Ledger) -> None:
    assert await ledger.receipt(number="7", more={"note": "x"}) == {"number": 7, "currency": "EUR", "note": "x"}
    with pytest.raises(errors.ActionFailed, match=r"Ledger.receipt returned what does not fit its output: `number`"):
        await ledger.receipt(number="many")
    assert rt.state(ledger).total == 1
    assert await ledger.last_receipt() == Receipt(number=1)
    with pytest.raises(errors.ActionFailed, match="should be greater than 0, got -1"):
        await ledger.positive(number=-1)
    assert calls == ["positive"], "it would fail again"


async def test_deadlines_get_tighter_inwards(ledger: Ledger) -> None:
    """The caller's, the action's own, that of one called inline."""
    outer, inner, own = await ledger.outer_deadline()
    assert 9 < outer <= 10
    assert math.isclose(outer, inner, abs_tol=0.1)
    assert 0.5 < own <= 1.1
    outer, inner, own = await ledger.call(Ledger.outer_deadline(), timeout=5)
    assert 4 < outer <= 5
    assert 4 < inner <= 5


async def test_a_thread_has_a_deadline_too(ledger: Ledger) -> None:
    assert 4 < await ledger.call(Ledger.time_left_in_a_thread(), timeout=5) <= 5


async def test_a_spent_budget_begins_nothing(ledger: Ledger) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await ledger.late()
    assert calls == []


async def test_a_caller_that_leaves_leaves_no_half_turn(rt: tenure.LocalRuntime, ledger: Ledger) -> None:
    call = asyncio.create_task(ledger.half())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert rt.state(ledger) == LedgerState()
    GATES[0].set()
    await ledger.touch()
    assert rt.state(ledger) == LedgerState(total=1, rows=["whole"])


async def test_children_of_a_turn_end_with_it(rt: tenure.LocalRuntime, ledger: Ledger) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await ledger.call(Ledger.family(), timeout=0.03)
    assert calls == ["child ended"] * 2
    assert rt.state(ledger).total == 0


async def test_a_turn_that_is_cancelled_is_undone() -> None:
    """As a worker does when its daemon gives the turn up."""
    activation = Activation(Ledger, uid="1", agent_id="d/l", epoch=1, stored=None)
    for action in ("half", "family"):
        turn = asyncio.create_task(activation.run(Turn(1, "1", "action", action, b"", 0)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert (await activation.run(Turn(2, "1", "query", "value", b"", 0))).reply == b"\x00"
    assert calls == ["child ended"] * 2


@pytest.mark.parametrize("action", ["hold_the_loop", "hold_the_loop_in_a_coroutine"])
async def test_what_holds_the_loop_is_named(ledger: Ledger, caplog: pytest.LogCaptureFixture, action: str) -> None:
    with caplog.at_level(logging.WARNING, "tenure.agent"):
        await ledger.call(getattr(Ledger, action)())
        await ledger.touch()
    about = [record.message for record in caplog.records if f"Ledger.{action} of default/l held" in record.message]
    assert len(about) == 1
    assert "blocking=True" in about[0]


async def test_waiting_is_not_holding(caplog: pytest.LogCaptureFixture) -> None:
    """Only the time between waits counts; exceptions and results pass through."""
    now = [0.0]

    async def body(step: float) -> str:
        now[0] += step
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            now[0] += step
            return "done"
        return "never"

    assert await _watch.watched(body(0.09), "a", "x", lambda: now[0]) == "done"
    assert caplog.records == []
    assert await _watch.watched(body(0.2), "a", "x", lambda: now[0]) == "done"
    assert len(caplog.records) == 2


def _wrong(**options: Any) -> Callable[[], object]:
    def define() -> object:
        return tenure.action(**options)(lambda agent: None)

    return define


@pytest.mark.parametrize(
    ("define", "text"),
    [
        (_wrong(timeout=0), "timeout is a number of seconds above 0, not 0"),
        (_wrong(max_retries=-1), "max_retries is 0 or more, not -1"),
        (_wrong(backoff=2, backoff_max=1), "backoff is between 0 and backoff_max, not 2 of 1"),
        (_wrong(retry_on="ValueError"), "retry_on is an exception class"),
        (_wrong(retries=3), "`retries` is no option of an action"),
        (_wrong(risk="huge"), "risk is low, medium or high, not 'huge'"),
        (_wrong(visibility="secret"), "visibility is public or internal"),
        (_wrong(tags="billing"), r"tags is a list of words"),
        (lambda: tenure.query(compensate=print)(lambda agent: None), "it has no effect to compensate"),  # type: ignore[call-overload]
    ],
)
def test_options_that_make_no_sense_are_refused(define: Callable[[], object], text: str) -> None:
    with pytest.raises(errors.DefinitionError, match=text):
        define()


def test_actions_without_options_are_as_before() -> None:
    """They run in the caller's step, with nothing around them."""
    assert (Ledger.hold_the_loop.immediate, Ledger.hold_the_loop.options) == (True, None)
    assert Ledger.book.options is not None
