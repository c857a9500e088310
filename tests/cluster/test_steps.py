"""Turns with steps and waits on hosts that are killed: what is done once stays done, and its caller hears of it."""

import asyncio
from pathlib import Path

import pytest

import card
from tenure import errors
from tenure_cli.dev.workers import restart_workers
from tests.cluster.cluster_local import DEADLINE_S, Local, deploy, good_hosts
from tests.cluster.cluster_signals import charges, looks
from tools.k8s.standstill import Standstills

pytestmark = pytest.mark.cluster
KILLS = 10


async def test_a_payment_is_charged_once_whoever_is_killed(whole: Local, tmp_path: Path) -> None:
    """Protocol 9: ten `kill -9` of worker or host, during a step, at its commit, during a wait; the caller that repeats
    its call id gets the reply. Between two kills the turn gets further: else it would be blamed for them (poison).
    """
    file = str(tmp_path / "card.db")
    shop = await whole.on(1, class_="Shop", config={"card": file})
    human = await whole.on(2, class_="Shop")
    buying = asyncio.create_task(whole.call(shop, "buy", amount=20, looks=KILLS // 2))

    async def kill(number: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while looks(file) <= number:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.005)
        for _ in range(number % 3):  # different moments: at the look, one answer of its holder later, and two
            await whole.remote.remote.control(shop, "state.get", {}, timeout_s=10)
        (whole.kill_worker if number % 2 else whole.kill_host)(await whole.host_of(shop))

    for number in range(KILLS // 2):
        await kill(number)
    assert charges(file) == []
    await whole.call(human, "approve", to=shop)
    for number in range(KILLS // 2, KILLS):
        await kill(number)
    assert await buying == "receipt for 40"
    assert charges(file) == [40]
    assert await whole.call(shop, "receipts") == ["receipt for 40"]


async def accepted(whole: Local, agent: str, writes: int = 4) -> None:
    """Its first turn is suspended: acceptance, steps and the wait are in the record, after the first state."""
    remote = whole.remote.remote
    async with asyncio.timeout(30):
        while (await remote.control(agent, "state.get", {}, timeout_s=10))["at"][1] < writes:  # type: ignore[index] # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_example_as_a_user_types_it(whole: Local, tmp_path: Path) -> None:
    """examples/payments: a payment waits for a human while its host dies, and charges once."""
    file = str(tmp_path / "card.db")
    payment = await whole.on(1, class_="Payment", config={"card": file})
    desk = await whole.on(2, class_="ApprovalDesk")
    paying = asyncio.create_task(whole.tenure("call", payment, "pay", "--amount", "40", "--timeout", "60"))
    await accepted(whole, payment)
    refused = await whole.tenure("call", payment, "pay", "--amount", "7", "--timeout", "2")
    assert refused.status != 0, "a second payment waits for the first"
    whole.kill_host(await whole.host_of(payment))
    approved = await whole.tenure("call", desk, "approve", "--payment", payment)
    assert approved.status == 0, approved.err
    paid = await paying
    assert (paid.status, paid.out.strip().strip('"')) == (0, "R1"), paid.err
    assert card.charges(file) == [40]
    assert await whole.call(payment, "receipt") == "R1"


async def test_an_agent_waits_for_the_reply_of_one_on_another_host(whole: Local) -> None:
    """`ctx.call`: request and reply are in the records, so that either host may be killed meanwhile."""
    asking, asked = await whole.on(1, class_="Shop"), await whole.on(2, class_="Shop")
    for victim in (asking, asked):
        calling = asyncio.create_task(whole.call(asking, "buy_at", other=asked, amount=4))
        await whole.until_answer(asked, "receipts", lambda _: True, "there")
        whole.kill_host(await whole.host_of(victim))
        assert await calling == 8
    assert await whole.call(asked, "receipts") == ["doubled"] * 2
    assert await whole.call(asking, "receipts") == [f"8 from {asked}"] * 2


async def test_shops_that_wait_for_each_other_go_on(whole: Local) -> None:
    """Protocol 9, rule 12: one is refused with the chain of ids, also where a host of theirs dies meanwhile."""
    human = await whole.running_agent(class_="Shop")
    for killed in (False, True):
        shops = [await whole.on(node, class_="Shop") for node in (1, 2)]
        swapping = [
            asyncio.create_task(whole.call(one, "swap", other=other)) for one, other in (shops, reversed(shops))
        ]
        for shop in shops:
            await accepted(whole, shop, writes=2)
        await asyncio.gather(*(whole.call(human, "approve", to=shop) for shop in shops))
        if killed:
            whole.kill_host(await whole.host_of(shops[0]))
        refused, answered = sorted(await asyncio.gather(*swapping), key=len, reverse=True)
        assert answered == "2"
        assert refused.startswith("turns would wait for each other: ")
        first, second, third = refused.partition(": ")[2].split(" -> ")
        assert (first, {first, second}) == (third, set(shops))


async def test_a_step_may_take_longer_than_anybody_looks(whole: Local, standstills: Standstills) -> None:
    """A host looks every 5 s for turns that are late: one that was accepted has a time of its own."""
    shop = await whole.on(1, class_="Shop")
    before = await whole.call(shop, "kitchen")
    assert whole.spared(before, await whole.call(shop, "cook", seconds=6.0), standstills)
    assert whole.spared(before, await whole.call(shop, "kitchen"), standstills)


async def test_a_wait_ends_with_its_time(whole: Local) -> None:
    """On cluster time, also when the host that began it is gone."""
    shop = await whole.on(1, class_="Shop")
    waiting = asyncio.create_task(whole.call(shop, "wait_in_vain", seconds=1.5))
    await whole.call(shop, "receipts")
    whole.kill_host(await whole.host_of(shop))
    assert await waiting == "nobody"
    assert await whole.call(shop, "receipts") == ["late"]


async def test_a_turn_under_other_code_says_which_steps_changed(whole: Local) -> None:
    """Rule 4: never guessed which result belongs to which step; both lists are named, and its outcome is unknown."""
    changing, human = await whole.running_agent(class_="Changing"), await whole.running_agent(class_="Mouth")
    working = asyncio.create_task(whole.call(changing, "work"))
    await whole.until_answer(changing, "code", lambda code: code == "old", "old")
    await accepted(whole, changing, writes=5)
    deploy(whole.code, "new")
    try:
        restart_workers(whole.running.process(host) for host in good_hosts(whole.running))
        await whole.until_answer(changing, "code", lambda code: code == "new", "new")
        await whole.call(human, "shout", type="work.on", to=changing)
        with pytest.raises(errors.StepsChanged, match="first, old") as caught:
            await working
    finally:
        deploy(whole.code, "old")
        restart_workers(whole.running.process(host) for host in good_hosts(whole.running))
    assert caught.value.outcome == "unknown"
    assert "first, new" in str(caught.value)
    await whole.until_answer(changing, "code", lambda code: code == "old", "old")
