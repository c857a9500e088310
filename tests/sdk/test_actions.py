"""Options of actions: attempts in their time, nothing left of a failed one, compensation."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import tenure
from tenure import _exec, errors
from tenure._clock import VirtualClock


class LedgerState(tenure.State):
    total: int = 0
    rows: list[str] = []  # noqa: RUF012 - pydantic copies it


calls: list[str] = []
"""What happened outside of agents, where nothing is undone."""
events: dict[str, threading.Event] = {}


class Hopeless(RuntimeError):
    retry = False


class Ledger(tenure.Agent[LedgerState]):
    """Books, not always at the first attempt."""

    def _refund(self, ctx: tenure.Context, error: Exception) -> None:
        calls.append(f"refund after {type(error).__name__}, total {self.state.total}")
        self.state.total = -1
        ctx.emit("refunded")

    async def _refund_slowly(self, ctx: tenure.Context, error: Exception) -> None:
        calls.append(f"time left: {0 < ctx.deadline - asyncio.get_running_loop().time() < 5}")
        await asyncio.Event().wait()

    async def _refund_badly(self, ctx: tenure.Context, error: Exception) -> None:
        raise asyncio.CancelledError

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

    @tenure.action(timeout=0.3, max_retries=1, backoff=0, blocking=True)
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

    @tenure.action(compensate=_refund_slowly, compensate_timeout=5)
    async def pay_slowly(self) -> None:
        await asyncio.Event().wait()

    @tenure.action(compensate=_refund_badly)
    async def pay_badly(self) -> None:
        raise errors.Busy("later")

    @tenure.query
    def value(self) -> int:
        return self.state.total


@pytest.fixture(autouse=True)
def nothing_happened_yet() -> None:
    calls.clear()


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


async def test_waits_go_by_the_clock_that_is_handed_in(ledger: Ledger) -> None:
    """One that stands still, here."""
    clock = VirtualClock()
    began = clock.now()
    context = contextvars.copy_context()
    context.run(_exec.pace.set, _exec.paced_by(clock))
    call = asyncio.get_running_loop().create_task(ledger.book(amount=5, failures=2), context=context)
    waited = []
    while not call.done():
        await asyncio.sleep(0)
        if (due := clock.next_at()) is not None:
            waited.append(due - clock.now())
            clock.step(due)
    assert await call == 5
    assert 0.125 <= waited[0] <= 0.25 <= waited[1] <= 0.5
    assert clock.now() == pytest.approx(began + sum(waited))


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
        await ledger.call(Ledger.pay_slowly(), timeout=6.0)
    assert calls == ["time left: True"]
    assert "compensation failed: DeadlineExceeded" in caught.value.details


async def test_compensation_that_fails_does_not_hide_the_error(ledger: Ledger) -> None:
    with pytest.raises(errors.Busy, match="later") as caught:
        await ledger.pay_badly()
    assert caught.value.details == "Ledger.pay_badly: compensation failed: CancelledError"


def test_actions_without_options_are_as_before() -> None:
    """They run in the caller's step, with nothing around them."""
    assert (Ledger.value.immediate, Ledger.value.options) == (True, None)
    assert Ledger.book.options is not None
