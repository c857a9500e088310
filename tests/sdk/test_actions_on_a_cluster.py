"""Options of actions and plans in the simulated cluster: in virtual time, with a host that dies."""

import asyncio

import pytest

import tenure
from tenure import errors, plan
from tenure.testing import Simulation, simulate


class ParcelState(tenure.State):
    sent: int = 0
    weight: int = 0


attempts: list[str] = []
"""Of this worker process, since its start: what is outside of agents is not undone."""


class Parcel(tenure.Agent[ParcelState]):
    """Sent by a carrier that answers at the third attempt."""

    @tenure.action(max_retries=2, backoff=2, timeout=1)
    async def post(self) -> int:
        self.state.sent += 1
        attempts.append("post")
        if len(attempts) % 3 == 1:
            await asyncio.sleep(30)
        if len(attempts) % 3:
            raise ConnectionError("no answer")
        return self.state.sent

    async def _call_off(self, ctx: tenure.Context, error: Exception) -> None:
        await asyncio.sleep(1)

    @tenure.action(compensate=_call_off)
    async def never_ends(self) -> None:
        self.state.sent += 100
        await asyncio.sleep(3600)

    @tenure.query
    async def asked(self, grams: int) -> int:
        await asyncio.sleep(1)
        return grams

    @tenure.action
    def load(self, weight: int) -> int:
        self.state.weight += weight
        return self.state.weight

    @tenure.action
    async def pack(self, ctx: tenure.Context) -> dict[str, int]:
        return await PACK.run(self, ctx)

    @tenure.query
    def count(self) -> int:
        return self.state.sent


PACK = plan.Plan(
    [
        plan.Step("tea", Parcel.asked(grams=50)),
        plan.Step("pot", Parcel.asked(grams=700), timeout=1.5),
        plan.Step("load", Parcel.load(weight=plan.output("pot"))),
        plan.Step("more", Parcel.load(weight=plan.output("tea"))),
    ]
)


async def sends(cluster: Simulation) -> None:
    """Attempts, then a host that dies between two of them; a plan; an action that is out of time."""
    parcel = await cluster.create(Parcel, "parcel-1")
    assert await parcel.post() == 1
    sending = asyncio.create_task(parcel.post())
    await cluster.advance(2)  # the first attempt has ended, the second waits
    cluster.faults.kill_host(cluster.holder(parcel))
    assert await sending == 2, "the next holder begins anew, on what was committed"
    began = cluster.now
    assert await parcel.pack() == {"tea": 50, "pot": 700, "load": 700, "more": 750}
    assert cluster.now - began < 1.5, "both were asked at the same time; clocks here run fast or slow"
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await parcel.call(Parcel.never_ends(), timeout=10)
    assert caught.value.outcome == "not_applied"
    assert await parcel.count() == 2


def test_attempts_and_plans_hold_on_a_cluster() -> None:
    """In three worlds."""
    simulate(sends, seeds=range(3), timeout=30)
