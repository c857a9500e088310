"""What a storage keeps of agents: they go on from there, in this version or a later one, or not at all."""

from typing import Any

import pytest

import tenure
from tenure import errors
from tenure._clock import VirtualClock
from tenure.storage import MemoryStorage, SQLiteStorage, StorageError


class Money(tenure.State):
    amount: int = 0


class Purse(tenure.Agent[Money]):
    """Keeps money."""

    @tenure.action
    def put(self, amount: int) -> int:
        self.state.amount += amount
        return self.state.amount

    @tenure.action
    def later(self, ctx: tenure.Context, seconds: float, amount: int) -> None:
        ctx.after(seconds, Purse.put(amount))

    @tenure.action
    def daily(self, ctx: tenure.Context, missed: str) -> None:
        ctx.cron("daily", "0 0 * * *", Purse.put(1), missed=missed)  # type: ignore[arg-type]


def at(start: float, storage: Any) -> tenure.LocalRuntime:
    return tenure.LocalRuntime(storage=storage, clock=VirtualClock(start))


async def test_agents_go_on_from_their_storage(tmp_path: Any) -> None:
    for expected in (5, 10):
        async with SQLiteStorage(tmp_path / "agents.db") as storage, tenure.local(storage=storage) as rt:
            assert await (await rt.create(Purse, "p")).put(5) == expected


async def test_an_agent_that_was_never_used_is_kept_too() -> None:
    storage = MemoryStorage()
    async with tenure.local(storage=storage) as rt:
        await rt.create(Purse, "p", state={"amount": 7})
    async with tenure.local(storage=storage) as rt:
        assert rt.state(await rt.create(Purse, "p", state={"amount": 1})).amount == 7


async def test_a_turn_whose_state_cannot_be_stored_did_not_happen() -> None:
    class Full(MemoryStorage):
        full = False

        async def put(self, key: str, data: bytes, *, expected: int | None = None) -> int:
            if self.full:
                raise StorageError("the disk is full")
            return await super().put(key, data, expected=expected)

    storage = Full()
    async with tenure.local(storage=storage) as rt:
        purse = await rt.create(Purse, "p")
        await purse.put(1)
        storage.full = True
        with pytest.raises(errors.Unavailable, match="the disk is full"):
            await purse.put(1)
        assert rt.state(purse).amount == 1
        storage.full = False
        assert await purse.put(1) == 2


async def test_delays_outlive_the_process() -> None:
    storage = MemoryStorage()
    async with at(1_700_000_000, storage) as rt:
        await (await rt.create(Purse, "p")).later(100, 5)
    async with at(1_700_000_050, storage) as rt:
        purse = await rt.create(Purse, "p")
        await rt.advance(49)
        assert rt.state(purse).amount == 0
        await rt.advance(2)
        assert rt.state(purse).amount == 5
    async with at(1_700_000_500, storage) as rt:
        purse = await rt.create(Purse, "p")
        await rt.advance(1000)
        assert rt.state(purse).amount == 5, "it has fired, and that was committed"


async def test_a_delayed_action_whose_turn_could_not_be_stored_is_tried_again() -> None:
    class Full(MemoryStorage):
        full = False

        async def put(self, key: str, data: bytes, *, expected: int | None = None) -> int:
            if self.full:
                raise StorageError("the disk is full")
            return await super().put(key, data, expected=expected)

    storage = Full()
    async with at(1_700_000_000, storage) as rt:
        purse = await rt.create(Purse, "p")
        await purse.later(10, 5)
        storage.full = True
        await rt.advance(30)
        assert rt.state(purse).amount == 0
        storage.full = False
        await rt.advance(30)
        assert rt.state(purse).amount == 5


async def test_of_two_runtimes_on_one_storage_one_ends() -> None:
    """Whose state is older by the other's write is not written over it, and does not go on with it either."""
    storage = MemoryStorage()
    async with tenure.local(storage=storage) as one, tenure.local(storage=storage) as two:
        here, there = await one.create(Purse, "p"), await two.create(Purse, "p")
        await here.put(1)
        with pytest.raises(errors.Fenced, match="another process has written"):
            await there.put(10)
        assert not two.alive(there)
        assert await (await two.create(Purse, "p")).put(10) == 11


@pytest.mark.parametrize(("missed", "runs"), [("once", 1), ("skip", 0), ("all", 3)])
async def test_missed_runs(missed: str, runs: int) -> None:
    storage = MemoryStorage()
    midnight = 1_699_920_000.0  # 2023-11-14T00:00Z
    async with at(midnight + 60, storage) as rt:
        await (await rt.create(Purse, "p")).daily(missed)
    async with at(midnight + 3 * 86_400 + 60, storage) as rt:
        purse = await rt.create(Purse, "p")
        await rt.advance(1)
        assert rt.state(purse).amount == runs
        await rt.advance(86_400)
        assert rt.state(purse).amount == runs + 1


class Shouting(tenure.Agent[Money]):
    """Says how much it has."""

    @tenure.action
    def shout(self, ctx: tenure.Context) -> None:
        ctx.emit("money.is", self.state.amount)


async def test_signals_of_a_later_process_have_ids_of_their_own() -> None:
    storage, seen = MemoryStorage(), set[str]()
    for _ in range(2):
        async with tenure.local(storage=storage) as rt:
            await (await rt.create(Shouting, "s")).shout()
            seen |= {signal.id for signal in rt.signals}
    assert len(seen) == 2


class MoneyOfTwo(tenure.State):
    cents: int = 0


class PurseOfTwo(tenure.Agent[MoneyOfTwo], version=2):
    """The same in cents."""

    @tenure.migration(from_version=1)
    @staticmethod
    def in_cents(content: dict[str, Any]) -> dict[str, Any]:
        return {"cents": content["amount"] * 100}

    @tenure.action
    def put(self, cents: int) -> int:
        self.state.cents += cents
        return self.state.cents


PurseOfTwo.__name__ = "Purse"


class PurseOfThree(tenure.Agent[MoneyOfTwo], version=3):
    """Somebody forgot the way from 2."""


PurseOfThree.__name__ = "Purse"


async def test_versions_go_forward_only() -> None:
    storage = MemoryStorage()
    async with tenure.local(storage=storage) as rt:
        await (await rt.create(Purse, "p")).put(3)
        await rt.create(Purse, "old")
    async with tenure.local(storage=storage) as rt:
        assert await (await rt.create(PurseOfTwo, "p")).put(1) == 301
    async with tenure.local(storage=storage) as rt:
        with pytest.raises(errors.VersionSkew, match="written by version 2 of Purse, and this is version 1"):
            await rt.create(Purse, "p")
        assert not rt.alive("p")
        with pytest.raises(errors.StateInvalid, match=r"migration\(from_version=2\)"):
            await rt.create(PurseOfThree, "p")
    with pytest.raises(errors.DefinitionError, match="leads nowhere"):

        class Odd(tenure.Agent[Money]):  # pyright: ignore[reportUnusedClass] - refused
            @tenure.migration(from_version=1)
            @staticmethod
            def away(content: dict[str, Any]) -> dict[str, Any]:
                return content


async def test_what_cannot_be_read_is_never_an_empty_state() -> None:
    storage = MemoryStorage()
    await storage.put("default/p", b"\xc1 no msgpack")
    async with tenure.local(storage=storage) as rt:
        with pytest.raises(errors.StateUnreadable):
            await rt.create(Purse, "p")
        with pytest.raises(errors.NotFound):
            await rt.agent(Purse, "p").put(1)
    kept = await storage.get("default/p")
    assert kept is not None
    assert kept.data == b"\xc1 no msgpack"


async def test_an_agent_of_another_class_is_not_taken() -> None:
    class Other(tenure.Agent[Money]):
        pass

    storage = MemoryStorage()
    async with tenure.local(storage=storage) as rt:
        await rt.create(Purse, "p")
    async with tenure.local(storage=storage) as rt:
        with pytest.raises(errors.Conflict, match="is a Purse, not a Other"):
            await rt.create(Other, "p")


class Secretive(Purse):
    """Keeps its money in another form."""

    @classmethod
    def checkpoint(cls, state: Money) -> dict[str, object]:
        return {"reversed": str(state.amount)[::-1]}

    @classmethod
    def restore(cls, content: dict[str, Any]) -> Money:
        return Money(amount=int(content["reversed"][::-1]))


async def test_checkpoints_of_ones_own_form() -> None:
    storage = MemoryStorage()
    async with tenure.local(storage=storage) as rt:
        purse = await rt.create(Secretive, "p")
        assert await purse.put(12) == 12
        with pytest.raises(errors.InvalidArguments):
            await purse.put("x")  # type: ignore[arg-type]
    checkpoint = await storage.get("default/p")
    assert checkpoint is not None
    assert b"reversed" in checkpoint.data
    assert b"amount" not in checkpoint.data
    async with tenure.local(storage=storage) as rt:
        assert await (await rt.create(Secretive, "p")).put(1) == 13
