"""What users' type checkers see of options, instructions, plans and the catalogue. Checked as surface.py is."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import Any, assert_type

import pydantic

import tenure
from tenure import catalog, plan, tools


class Receipt(pydantic.BaseModel):
    number: int


class OrderState(tenure.State):
    total: int = 0


def in_order(arguments: dict[str, Any]) -> None:
    if arguments["amount"] < 0:
        raise ValueError("`amount` is negative")


class Order(tenure.Agent[OrderState]):
    def _refund(self, ctx: tenure.Context, error: Exception) -> None:
        ctx.log.warning("%s after %s", self.id, error)

    async def _audit(self, ctx: tenure.Context, result: int) -> int:
        return result + ctx.epoch

    @tenure.action(
        timeout=5,
        max_retries=3,
        backoff=0.1,
        backoff_max=2,
        retry_on=(ConnectionError, TimeoutError),
        compensate=_refund,
        compensate_timeout=1,
        after_validate=in_order,
        after_run=_audit,
    )
    async def charge(self, ctx: tenure.Context, amount: int) -> int:
        self.state.total += amount + ctx.epoch
        return self.state.total

    @tenure.action(output=Receipt, retry_on=lambda error: "later" in str(error), description="A receipt.", tags=["pdf"])
    def receipt(self) -> dict[str, Any]:
        return {"number": 1}

    @tenure.query(category="reports", risk="high", visibility="internal", timeout=None)
    def total(self) -> int:
        return self.state.total

    @tenure.action
    async def all(self, ctx: tenure.Context) -> str:
        done = await PLAN.run(self, ctx, amount=3)
        assert_type(done, dict[str, Any])
        assert_type(await Order.charge(amount=1).then(Order.receipt()).run(self, ctx), dict[str, Any])
        return await tools.execute(self, "total", "{}")


PLAN = plan.Plan(
    [
        plan.Step("charge", Order.charge(amount=plan.given("amount"))),
        plan.Step("both", plan.Parallel({"a": Order.total(), "b": plan.pure(len, "x")}, collect=True), timeout=3),
        plan.Step("sum", plan.converge(max, "charge", "both"), after=["both"]),
        plan.Step("dear", plan.Branch(Order.total(), plan.chain(Order.total(), Order.receipt()), Order.total())),
    ],
    timeout=10,
)


async def values(order: Order) -> None:
    assert_type(await order.charge(amount=2), int)
    assert_type(await order.receipt(), dict[str, Any])
    assert_type(await order.total(), int)
    assert_type(Order.charge(amount=2), tenure.Instruction[int])
    assert_type(tenure.instruction(Order.total), tenure.Instruction[int])
    assert_type(tenure.instruction((Order.charge, {"amount": 2})), tenure.Instruction[int])
    assert_type(tenure.instruction(Order.total()), tenure.Instruction[int])
    assert_type(tenure.instruction([Order.total, Order.receipt()], allowed=[Order.total]), plan.Chain[Any])
    assert_type(Order.total().then(Order.receipt()), plan.Chain[dict[str, Any]])
    assert_type(PLAN.phases, tuple[tuple[str, ...], ...])
    known = catalog.Catalog([catalog.Entry("shop", "skill", "shop")])
    assert_type(known.list(kind="action", limit=3), tuple[catalog.Entry, ...])
    assert_type(known.search("refund"), tuple[catalog.Entry, ...])
    assert_type(tools.typed({"type": "object"}, "{}"), dict[str, object])


def refused() -> None:
    tenure.action(timeout="5")  # type: ignore[call-overload]
    tenure.action(retries=5)  # type: ignore[call-overload]
    tenure.action(risk="huge")  # type: ignore[call-overload]
    plan.Step("a", "charge")  # type: ignore[arg-type]
    tenure.instruction("charge")  # type: ignore[call-overload]
    catalog.Catalog().list(kind="thing")  # type: ignore[arg-type]
