"""Turns that wait for a time or a signal, in the local runtime: protocol 9, 5 and 6."""

import asyncio

import pytest
import step_agents as sample
from step_agents import Shop
from step_support import HOUR, approved, faults_restart, started

import tenure
from tenure import errors
from tenure.signals import Signal
from tenure.testing import VirtualRuntime

pytestmark = pytest.mark.usefixtures("outside_anew")


async def test_a_sleep_keeps_nothing_in_memory(rt: VirtualRuntime) -> None:
    """Protocol 9, 5: it goes on after its time, by the runtime's clock, whatever happened meanwhile."""
    shop = await rt.create(Shop, "s")
    task = asyncio.create_task(shop.call(Shop.nap(naps=2), timeout=HOUR))
    await rt.advance(59)
    assert not task.done()
    assert rt.running == ["default/s nap"], "the one who waits"
    await rt.advance(61)
    assert await task == "rested"
    await faults_restart(rt)
    assert await shop.log() == ["slept"]


async def test_a_sleep_goes_on_in_another_process(rt: VirtualRuntime) -> None:
    """Also if its time was over while there was none."""
    shop = await rt.create(Shop, "s")
    task = asyncio.create_task(shop.nap())
    await rt.advance(10)
    await faults_restart(rt, task)
    await rt.advance(49)
    assert await shop.log() == []
    await rt.advance(2)
    assert await shop.log() == ["slept"]


async def test_a_sleeping_agent_is_woken_by_what_it_owes(rt: VirtualRuntime) -> None:
    """Hibernation and suspension do not disturb each other; the caller gets its reply."""
    shop = await rt.create(Shop, "s")
    task = asyncio.create_task(shop.call(Shop.nap(), timeout=HOUR))
    await rt.idle()
    await rt.hibernate(shop)
    assert not rt.alive(shop)
    await rt.advance(61)
    assert await task == "rested"
    assert await shop.log() == ["slept"]


async def test_a_human_approves(rt: VirtualRuntime) -> None:
    """A signal ends a wait, and its sender learns that it was taken. No route is needed for it."""
    shop = await rt.create(Shop, "s")
    task = await started(rt, shop)
    assert await rt.signal(shop, approved()) is None
    assert await task == "receipt 1 for a cup at 0"
    assert await shop.log() == ["receipt 1 for a cup at 0, approved by ann"]
    with pytest.raises(errors.UnknownSignal):  # a later one is an ordinary signal
        await rt.signal(shop, approved())


async def test_nobody_approves(rt: VirtualRuntime) -> None:
    """None, when the time is over."""
    shop = await rt.create(Shop, "s")
    task = await started(rt, shop)
    await rt.advance(HOUR + 1)
    assert await task == ""
    assert await shop.log() == ["nobody approved a cup"]


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
@pytest.mark.parametrize("commit", range(6))
async def test_a_crash_at_any_commit_of_a_turn_that_waits(rt: VirtualRuntime, commit: int, when: str) -> None:
    """Protocol 9, 5 [wake_in_commit]: acceptance, quote, suspension, charge, end; the approval is not lost."""
    shop = await rt.create(Shop, "s")
    rt.faults.crash_turn(Shop.order, after=commit, when=when)  # type: ignore[arg-type]
    task = await started(rt, shop)
    if commit == 0 and when == "before_commit":
        with pytest.raises(errors.WorkerCrashed):
            await task
        return
    await rt.advance(10)
    await rt.signal(shop, approved())
    await rt.advance(10)
    if when == "after_commit" and commit in (0, 4):
        with pytest.raises(errors.Unavailable):
            await task
    else:
        assert await task == next(iter(sample.service.done.values()))
    assert len(sample.service.done) == 1
    assert len({what for what, _ in sample.service.asked}) == 1
    assert len(await shop.log()) == 1


async def test_queries_see_the_last_committed_state(rt: VirtualRuntime) -> None:
    """While the turn waits: nothing of its draft."""
    shop = await rt.create(Shop, "s")
    await shop.note(text="before")
    task = await started(rt, shop)
    assert await shop.log() == ["before"]
    await rt.signal(shop, approved())
    await task


async def test_what_comes_meanwhile_is_accepted_and_run_afterwards(rt: VirtualRuntime) -> None:
    """Protocol 9, 6 [inbox] [inbox_in_commit]: in order, also by another process."""
    shop = await rt.create(Shop, "s")
    task = await started(rt, shop)
    notes = [asyncio.create_task(shop.call(Shop.note(text=text), timeout=HOUR)) for text in "ab"]
    await rt.idle()
    rt._engine.post("default/s", Signal.new("note.y", 2, source="desk"))
    await rt.idle()
    assert [note.done() for note in notes] == [False, False]
    await faults_restart(rt, task, *notes)  # type: ignore[arg-type]
    await rt.signal(shop, approved())
    await rt.idle()
    log = await shop.log()
    assert [line.split()[0] for line in log] == ["receipt", "a", "b", "note.y"]
    await shop.note(text="on")
    assert (await shop.log())[-1] == "on"


async def test_those_who_wait_behind_a_turn_get_their_replies(rt: VirtualRuntime) -> None:
    """When it is their turn."""
    shop = await rt.create(Shop, "s")
    task = await started(rt, shop)
    other = await started(rt, shop, "a plate")
    await rt.signal(shop, approved())
    assert await task == "receipt 1 for a cup at 0"
    await rt.idle()
    await rt.signal(shop, approved("bob"))
    assert await other == "receipt 2 for a plate at 1"


async def test_a_wait_looks_into_the_inbox_first(rt: VirtualRuntime) -> None:
    """Protocol 9, 6 [inbox_seen]: what came during a sleep before it."""
    shop = await rt.create(Shop, "s")
    nap = asyncio.create_task(shop.call(Shop.nap(), timeout=10 * HOUR))
    await rt.idle()
    order = await started(rt, shop)
    rt._engine.post("default/s", approved())
    await rt.idle()
    await rt.advance(61)
    assert await nap == "rested"
    assert await order == "receipt 1 for a cup at 0"


async def test_a_full_inbox_refuses_calls_and_holds_signals_back(
    rt: VirtualRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded; what is held back is not lost, and may be what the turn waits for."""
    monkeypatch.setattr("tenure._local.owed.INBOX_LIMIT", 1)
    shop = await rt.create(Shop, "s")
    task = await started(rt, shop)
    for number in range(3):
        rt._engine.post("default/s", Signal.new("note.x", number, source="desk"))
    await rt.idle()
    with pytest.raises(errors.Busy):
        await shop.note(text="no")
    await rt.signal(shop, approved())
    await task
    await rt.idle()
    assert (await shop.log())[1:] == ["note.x 0", "note.x 1", "note.x 2"]


async def test_a_caller_that_gives_up_is_told_that_the_turn_goes_on(rt: VirtualRuntime) -> None:
    """DeadlineExceeded, "unknown"."""
    shop = await rt.create(Shop, "s")
    task = asyncio.create_task(shop.nap(seconds=100))
    await rt.advance(31)
    with pytest.raises(errors.DeadlineExceeded, match="accepted nap and goes on with it") as caught:
        await task
    assert caught.value.outcome == "unknown"
    await rt.advance(70)
    assert await shop.log() == ["slept"]


async def test_a_caller_gives_up_while_a_step_runs() -> None:
    """On the machine's clock, too; nothing of the turn is cancelled."""
    go = asyncio.Event()
    async with tenure.local() as rt:
        shop = await rt.create(Shop, "s")
        sample.plan.update(slow=go.wait, quick=lambda: 1)
        with pytest.raises(errors.DeadlineExceeded, match="goes on"):
            await shop.call(Shop.flexible(), timeout=0.02)
        go.set()
        await rt.idle()
        assert rt._engine.agents["default/s"].activation.slices == {}


async def test_a_body_that_swallows_the_suspension_is_told(rt: VirtualRuntime) -> None:
    """It is an error with words, and not a turn that went on."""
    shop = await rt.create(Shop, "s")
    with pytest.raises(errors.ActionFailed, match="catches BaseException"):
        await shop.swallows()


async def test_timers_during_a_turn_are_run_once_afterwards(rt: VirtualRuntime) -> None:
    """Their removal is committed with their place in the inbox."""
    shop = await rt.create(Shop, "s")
    await shop_after(rt, shop, 30)
    task = await started(rt, shop)
    await rt.advance(31)
    await faults_restart(rt, task)
    await rt.signal(shop, approved())
    await rt.advance(100)
    assert [line.split()[0] for line in await shop.log()] == ["receipt", "timed"]


async def shop_after(rt: VirtualRuntime, shop: Shop, seconds: float) -> None:
    from tenure.directives import Schedule

    held = rt._engine.agents["default/s"]
    await rt._engine.start(rt._engine.amend(held, (Schedule(seconds, Shop.note(text="timed"), "t"),)), "plan")
    rt._engine.timers.sync(held)


@pytest.mark.parametrize("commit", range(5))
async def test_whatever_the_storage_does_not_take_is_tried_again(rt: VirtualRuntime, commit: int) -> None:
    """Quote, suspension, wake-up by the time, end; and then the inbox."""
    shop = await rt.create(Shop, "s")
    task = await started(rt, shop)
    note = asyncio.create_task(shop.call(Shop.note(text="after"), timeout=10 * HOUR))
    await rt.idle()
    rt.faults.fail_storage(after=commit, times=3)
    await rt.advance(2 * HOUR)
    rt.storage.heal()  # type: ignore[attr-defined]
    await rt.advance(60)
    assert await task == ""
    await note
    assert await shop.log() == ["nobody approved a cup", "after"]


async def test_an_end_that_cannot_be_committed_comes_later(rt: VirtualRuntime) -> None:
    """Also that of a turn whose time is over."""
    shop = await rt.create(Shop, "s")
    task = asyncio.create_task(shop.call(Shop.hurry(), timeout=HOUR))
    await rt.idle()
    rt.faults.fail_storage(times=2)
    await rt.advance(101)
    assert not task.done()
    await rt.advance(20)
    with pytest.raises(errors.DeadlineExceeded, match="finished steps: first"):
        await task


async def test_an_agent_that_stops_tells_who_waits(rt: VirtualRuntime) -> None:
    """What it owes stays in its storage, and goes on when it is there again."""
    shop = await rt.create(Shop, "s")
    task = asyncio.create_task(shop.call(Shop.nap(), timeout=HOUR))
    await rt.idle()
    await rt.stop(shop)
    with pytest.raises(errors.Unavailable, match="has stopped before it ended nap") as caught:
        await task
    assert caught.value.outcome == "unknown"
    await rt.create(Shop, "s")
    await rt.advance(61)
    assert await shop.log() == ["slept"]
