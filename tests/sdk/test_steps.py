"""Steps of a turn in the local runtime: protocol 9, 1 to 4 and 7."""

import asyncio

import pytest
import step_agents as sample
from step_agents import Shop
from step_support import HOUR, ended, faults_restart

import tenure
from tenure import errors
from tenure.storage import SQLiteStorage
from tenure.testing import FakeStorage, VirtualRuntime

pytestmark = pytest.mark.usefixtures("outside_anew")


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
