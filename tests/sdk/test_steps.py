"""Steps and suspension in the local runtime: protocol 9."""

import asyncio
from collections.abc import AsyncIterator, Awaitable

import pytest
import step_agents as sample
from step_agents import Asks, Shop

import tenure
from tenure import errors
from tenure.signals import Signal
from tenure.storage import SQLiteStorage
from tenure.testing import FakeStorage, VirtualRuntime

HOUR = 3600.0


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nobody has been asked for anything."""
    sample.service.__init__()  # type: ignore[misc]
    sample.attempts.clear()
    sample.plan.clear()
    sample.prices = iter(range(100))


@pytest.fixture
async def rt() -> AsyncIterator[VirtualRuntime]:
    async with VirtualRuntime() as runtime:
        yield runtime


def approved(by: str = "ann") -> Signal:
    return Signal.new("order.approved", by, source="desk")


async def started(rt: VirtualRuntime, shop: Shop, what: str = "a cup") -> "asyncio.Task[str]":
    """An order that waits for its approval; its caller has patience."""
    task = asyncio.create_task(shop.call(Shop.order(what=what), timeout=10 * HOUR))
    await rt.idle()
    return task


async def ended(call: "Awaitable[str]") -> object:
    """The result of a call, or its error."""
    (end,) = await asyncio.gather(call, return_exceptions=True)
    return end


# --- steps ---


async def test_a_turn_of_steps_is_one_turn(rt: VirtualRuntime) -> None:
    """Each function once, typed results, one commit of state and signals, and nothing is left of the journal."""
    shop = await rt.create(Shop, "s")
    assert await shop.buy(what="a cup") == "receipt 1 for a cup at 0"
    assert await shop.log() == ["began a cup", "receipt 1 for a cup at 0"]
    assert [signal.type for signal in rt.signals] == ["bought"]
    assert sample.attempts == ["a cup"]
    assert [name for name in rt._engine.agents["default/s"].activation.slices if name.startswith("@")] == []


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
@pytest.mark.parametrize("commit", range(4))
async def test_a_crash_at_any_commit_repeats_nothing_that_was_journalled(
    rt: VirtualRuntime, commit: int, when: "str"
) -> None:
    """Protocol 9, 1 to 3 [accept_first] [journal_first] [stable_key]: acceptance, quote, charge, end."""
    shop = await rt.create(Shop, "s")
    rt.faults.crash_turn(Shop.buy, after=commit, when=when)  # type: ignore[arg-type]
    end = await ended(shop.buy(what="a cup"))
    if (commit, when) == (0, "before_commit"):
        assert isinstance(end, errors.WorkerCrashed), "it was not accepted"
        assert sample.service.done == {}
        return
    if when == "after_commit" and commit in (0, 3):  # the acceptance, and the end: the reply is lost
        assert isinstance(end, errors.Unavailable)
        assert end.outcome == "unknown"
        await rt.idle()
    else:
        assert end == next(iter(sample.service.done.values()))
    assert len(sample.service.done) == 1, "every attempt has the same key"
    assert len({what for what, _ in sample.service.asked}) == 1, "and the same arguments"
    assert [line[:5] for line in await shop.log()] == ["began", "recei"]
    assert len(rt.signals) == 1
    assert rt.faults.unmet() == []


async def test_the_acceptance_is_committed_before_the_first_step(rt: VirtualRuntime) -> None:
    """Protocol 9, 1 [accept_first]: what the storage does not take is not begun."""
    shop = await rt.create(Shop, "s")
    rt.faults.fail_storage()
    with pytest.raises(errors.Unavailable):
        await shop.buy(what="a cup")
    assert sample.service.asked == []
    assert await shop.log() == []


async def test_a_result_that_cannot_be_committed_is_asked_for_again(rt: VirtualRuntime) -> None:
    """Protocol 9, 2 [journal_first]: nothing that depends on it happens before."""
    shop = await rt.create(Shop, "s")
    rt.faults.fail_storage(after=2)  # accepted, quoted
    task = asyncio.create_task(shop.buy(what="a cup"))
    await rt.idle()
    assert not task.done()
    assert len(sample.service.asked) == 1
    await rt.advance(10)
    assert await task == "receipt 1 for a cup at 0"
    assert len(sample.service.asked) == 2
    assert len(set(sample.service.asked)) == 1


async def test_each_step_of_each_turn_has_a_key_of_its_own(rt: VirtualRuntime) -> None:
    """[stable_key]: also where two turns ask for the same."""
    shop = await rt.create(Shop, "s")
    await shop.buy(what="a cup")
    await shop.buy(what="a cup")
    assert len(sample.service.done) == 2


async def test_a_step_that_failed_is_journalled(rt: VirtualRuntime) -> None:
    """Every attempt is told the same, so that all take the same way."""
    shop = await rt.create(Shop, "s")
    task = asyncio.create_task(shop.careful())
    await rt.idle()
    await faults_restart(rt, task)
    await rt.advance(2)
    assert len(sample.service.asked) == 1
    assert len(sample.attempts) == 2
    assert set(sample.attempts) == {"ValueError in the step refused: no luck"}


async def faults_restart(rt: VirtualRuntime, *calls: "asyncio.Task[str]") -> None:
    """The process ends, and its callers do not learn how their calls end."""
    await rt.faults.restart()
    for call in calls:
        with pytest.raises(errors.Unavailable) as caught:
            await call
        assert caught.value.outcome == "unknown"


@pytest.mark.parametrize("after", [["quote", "refund"], ["refund", "charge"], ["quote"]])
async def test_a_replay_must_ask_for_the_same_steps(rt: VirtualRuntime, after: list[str]) -> None:
    """Protocol 9, 4 [same_steps]: the turn ends with both lists; the agent goes on."""
    shop = await rt.create(Shop, "s")
    rt.faults.crash_turn(Shop.flexible, after=3)  # before its end
    sample.plan.update(quote=lambda: 1, charge=lambda: deploys() + 0)

    def deploys() -> int:
        sample.plan.clear()
        sample.plan.update(dict.fromkeys(after, lambda: 2))
        return 1

    with pytest.raises(errors.StepsChanged, match=r"the journal: quote, charge; asked for: ") as caught:
        await shop.flexible()
    assert ", ".join(after) in str(caught.value) or after[0] == "refund"
    assert caught.value.outcome == "unknown", "it has had effects"
    assert await shop.note(text="on") is None  # type: ignore[func-returns-value]
    assert await shop.log() == ["on"]


async def test_steps_come_one_after_the_other(rt: VirtualRuntime) -> None:
    """Two at once are refused, and what has max_retries has none."""
    shop = await rt.create(Shop, "s")
    with pytest.raises(errors.ActionFailed, match="'b' was asked for while 'a' was not finished"):
        await shop.both()
    with pytest.raises(errors.ActionFailed, match="again has max_retries"):
        await shop.again()
    await asyncio.sleep(0.02)  # the other half of `both`


async def test_where_there_can_be_no_steps(rt: VirtualRuntime) -> None:
    """In `cmd`, in queries, and outside of turns."""
    shop = await rt.create(Shop, "s")
    with pytest.raises(errors.NotPure, match="the step 'quote'"):
        Shop.cmd(Shop.new(), Shop.buy(what="a cup"))
    with pytest.raises(errors.ActionFailed, match="make peeps an action"):
        await shop.peeps()


async def test_limits_of_the_call_do_not_bind_an_accepted_turn(rt: VirtualRuntime) -> None:
    """An action with a timeout of its own is run again without those of its call."""
    shop = await rt.create(Shop, "s")
    assert await shop.limited() == 1
    assert sample.attempts == ["limited"] * 2


async def test_a_turn_has_an_end(rt: VirtualRuntime) -> None:
    """Protocol 9, 7: with what was done, whether it waits or runs."""
    shop = await rt.create(Shop, "s")
    task = asyncio.create_task(shop.call(Shop.hurry(), timeout=HOUR))
    await rt.advance(101)
    with pytest.raises(errors.DeadlineExceeded, match="finished steps: first") as caught:
        await task
    assert caught.value.outcome == "unknown"
    with pytest.raises(errors.DeadlineExceeded, match="finished steps: first"):
        await shop.hang()
    await shop.note(text="on")
    assert await shop.log() == ["on"]


# --- waiting ---


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


# --- calls ---


async def pair(rt: VirtualRuntime) -> tuple[Asks, Asks]:
    return await rt.create(Asks, "a"), await rt.create(Asks, "b")


async def test_a_turn_asks_another_agent(rt: VirtualRuntime) -> None:
    """The reply resumes it; nothing is left on either side."""
    a, b = await pair(rt)
    assert await a.ask(to="b") == "hello yourself"
    assert (await a.log(), await b.log()) == (["hello yourself"], ["was asked hello"])
    await rt.idle()
    assert [held.activation.slices for held in rt._engine.agents.values()] == [{}, {}]
    assert await a.read(to=b.id) == ["was asked hello"]


async def test_what_the_other_agent_raises_is_raised(rt: VirtualRuntime) -> None:
    """So is that there is none."""
    a, _ = await pair(rt)
    with pytest.raises(errors.ActionFailed, match="no answer"):
        await a.ask(to="b", text="fail")
    with pytest.raises(errors.NotFound):
        await a.ask(to="nobody")


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
@pytest.mark.parametrize(("who", "commit"), [(who, n) for who in ("ask_slowly", "slow") for n in range(5)])
async def test_a_crash_at_any_commit_of_a_call(rt: VirtualRuntime, who: str, commit: int, when: str) -> None:
    """The other agent does it once, and the reply comes."""
    a, b = await pair(rt)
    rt.faults.crash_turn(f"Asks.{who}", after=commit, when=when)  # type: ignore[arg-type]
    task = asyncio.create_task(a.call(Asks.ask_slowly(to="b"), timeout=HOUR))
    await rt.advance(200)
    end = await ended(task)
    if who == "ask_slowly" and (commit == 0 or (commit, when) == (2, "after_commit")):
        assert isinstance(end, errors.WorkerCrashed if when == "before_commit" else errors.Unavailable)
    else:
        assert end == "slowly yourself"
    if who == "ask_slowly" and (commit, when) == (0, "before_commit"):
        return
    assert await b.log() == ["was asked slowly"]


@pytest.mark.parametrize("seconds", [0, 30, 61])
async def test_a_call_survives_the_process(rt: VirtualRuntime, seconds: float) -> None:
    """It is asked again under its key, and done once; whoever is there first."""
    a, b = await pair(rt)
    task = asyncio.create_task(a.call(Asks.ask_slowly(to="b"), timeout=HOUR))
    await rt.advance(seconds)
    if not task.done():
        await faults_restart(rt, task)
    await rt.advance(100)
    assert await b.log() == ["was asked slowly"]
    assert rt._engine.agents["default/a"].activation.slices == {}


async def test_a_reply_that_was_lost_is_the_recorded_one(rt: VirtualRuntime) -> None:
    """The other agent has committed its turn, and the process ends before the reply is."""
    a, b = await pair(rt)
    rt.faults.fail_storage(after=3)  # accepted, waits, answered: the reply is not committed
    task = asyncio.create_task(a.ask(to="b"))
    await rt.idle()
    await faults_restart(rt, task)
    await rt.advance(10)
    assert (await a.log(), await b.log()) == (["hello yourself"], ["was asked hello"])


async def test_a_call_has_its_time(rt: VirtualRuntime) -> None:
    """DeadlineExceeded, "unknown": the other one may have done it."""
    a, b = await pair(rt)
    busy = asyncio.create_task(b.call(Asks.slow(text="first"), timeout=HOUR))
    await rt.idle()
    task = asyncio.create_task(a.ask(to="b", timeout=5))
    await rt.advance(6)
    with pytest.raises(errors.DeadlineExceeded, match="no reply came in time"):
        await task
    await rt.advance(100)
    await busy
    assert await b.log() == ["was asked first", "was asked hello"]


async def test_turns_that_would_wait_for_each_other_are_refused(rt: VirtualRuntime) -> None:
    """With the chain of their ids."""
    a, _ = await pair(rt)
    with pytest.raises(errors.WaitCycle, match=r"default/a -> default/b -> default/a"):
        await a.round(to=["b", "a"])
    assert await a.round(to=["b"]) == "the end"
    with pytest.raises(errors.WaitCycle, match=r"default/a -> default/a"):
        await a.ask(to="a")


async def test_a_cycle_that_closes_later_is_refused_too(rt: VirtualRuntime) -> None:
    """Each of two turns comes to its call while the other one is suspended."""
    a, b = await pair(rt)
    calls = [asyncio.create_task(one.call(Asks.later(to=other), timeout=HOUR)) for one, other in ((a, "b"), (b, "a"))]
    await rt.advance(11)
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["WaitCycle", "str"]


async def test_the_machines_clock_and_a_disk(tmp_path: "object") -> None:
    """Without virtual time, on SQLite."""
    storage = SQLiteStorage(f"{tmp_path}/agents.db")
    async with tenure.local(storage=storage) as rt:
        shop = await rt.create(Shop, "s")
        assert await shop.nap(seconds=0.01) == "rested"
        assert await shop.buy(what="a cup") == "receipt 1 for a cup at 0"
    await storage.close()


def test_the_storage_of_these_tests_is_used() -> None:
    """Each commit is a write: what the crashes above count."""
    assert isinstance(VirtualRuntime().storage, FakeStorage)
