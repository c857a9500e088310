"""What actions check beside their annotations, and options that make no sense."""

from collections.abc import AsyncIterator, Callable
from datetime import date
from typing import Any

import pydantic
import pytest

import tenure
from tenure import errors


class LedgerState(tenure.State):
    total: int = 0


calls: list[str] = []


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
    """Books that are particular."""

    def _wrap(self, ctx: tenure.Context, result: int) -> str:
        return f"{self.id}: {result}"

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


@pytest.fixture
async def rt() -> AsyncIterator[tenure.LocalRuntime]:
    async with tenure.local() as runtime:
        yield runtime


@pytest.fixture
async def ledger(rt: tenure.LocalRuntime) -> Ledger:
    calls.clear()
    return await rt.create(Ledger, "l")


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
