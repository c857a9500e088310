"""Agents by key: begun when wanted, asleep when not, the same one before and after."""

import asyncio
from typing import Any

import pydantic
import pytest
from family_agents import Boss, Worker, virtual

import tenure
from tenure import errors
from tenure.sensors import Heartbeat
from tenure.signals import Signal
from tenure.storage import MemoryStorage, StorageError


class CartState(tenure.State):
    items: list[str] = pydantic.Field(default_factory=list)


class Cart(tenure.Agent[CartState], subscribes=["sale.*"]):
    """Somebody's."""

    @tenure.action
    def add(self, item: str) -> int:
        self.state.items.append(item)
        return len(self.state.items)

    @tenure.query
    def items(self) -> list[str]:
        return self.state.items

    @tenure.action
    def remind(self, ctx: tenure.Context, seconds: float, item: str) -> None:
        ctx.after(seconds, Cart.add(item))

    @tenure.action
    def daily(self, ctx: tenure.Context, missed: str) -> None:
        ctx.cron("daily", "0 0 * * *", Cart.add("day"), missed=missed)  # type: ignore[arg-type]

    @tenure.action
    def cancel(self, ctx: tenure.Context, name: str) -> None:
        ctx.cancel(name)

    @tenure.on("sale.begins")
    @tenure.action
    def sale(self) -> None:
        self.state.items.append("sale")

    @tenure.action
    def pulse(self, ctx: tenure.Context) -> None:
        ctx.start_sensor("pulse", Heartbeat(interval=1000))

    @tenure.action
    async def hold(self) -> None:
        await gates[self.id].wait()


gates: dict[str, asyncio.Event] = {}


class Moody(MemoryStorage):
    """Can be told not to read."""

    broken = False

    async def get(self, key: str) -> Any:
        if self.broken:
            raise StorageError("the disk is gone")
        return await super().get(key)


def stored(**options: Any) -> tenure.LocalRuntime:
    return virtual(**{"storage": MemoryStorage(), **options})


def counts(manager: Any) -> tuple[int, int]:
    return manager.stats.here, manager.stats.asleep


# --- get, lookup, stop ---


async def test_a_key_has_one_agent_which_begins_when_it_is_wanted() -> None:
    async with stored() as rt:
        carts = rt.keyed(Cart)
        assert carts.lookup("ann") is None
        ann = await carts.get("ann", state={"items": ["gift"]})
        assert await ann.add("tea") == 2
        assert await (await carts.get("ann", state={"items": []})).items() == ["gift", "tea"]
        assert await (await carts.get("bob")).items() == []
        found = carts.lookup("ann")
        assert found is not None
        assert found.id == ann.id == "default/cart.ann"
        assert carts.stats.started == 2


async def test_those_that_ask_at_once_get_one_agent() -> None:
    async with stored() as rt:
        carts = rt.keyed(Cart)
        agents = await asyncio.gather(*(carts.get("ann") for _ in range(20)))
        await asyncio.gather(*(agent.add("x") for agent in agents))
        assert len(await agents[0].items()) == 20
        assert carts.stats.started == 1


async def test_a_stopped_agent_goes_on_from_its_storage() -> None:
    async with stored() as rt:
        carts = rt.keyed(Cart)
        await (await carts.get("ann")).add("tea")
        assert await carts.stop("ann", "enough")
        assert not await carts.stop("ann")
        assert carts.lookup("ann") is None
        assert await (await carts.get("ann")).items() == ["tea"]
        assert carts.stats.thawed == 1


async def test_what_is_not_stored_as_it_is_does_not_stop() -> None:
    storage = Moody()
    async with virtual(storage=storage) as rt:
        carts = rt.keyed(Cart)
        ann = await carts.get("ann")
        storage.broken = True
        with pytest.raises(StorageError, match="the disk is gone"):
            await carts.stop("ann")
        assert rt.alive(ann)


@pytest.mark.parametrize("key", ["Ann", "user:42", "ä@x", "a b", "-x", "x--y", "."])
async def test_keys_may_be_any_text(key: str) -> None:
    async with virtual() as rt:
        carts = rt.keyed(Cart)
        await (await carts.get(key)).add("tea")
        assert await (await carts.get(key)).items() == ["tea"]
        assert carts.id_of(key) != carts.id_of(key.lower() + "2")


async def test_keys_and_names_that_cannot_be() -> None:
    async with virtual() as rt:
        carts = rt.keyed(Cart)
        for key in ("", "a" * 500, "Ä" * 50):
            with pytest.raises(errors.UsageError, match="a key is"):
                await carts.get(key)
        with pytest.raises(errors.UsageError, match="names no manager"):
            rt.keyed(Cart, name="a.b")
        with pytest.raises(errors.DefinitionError, match="idle_timeout"):
            rt.keyed(Cart, name="other", idle_timeout=0)


async def test_names_and_namespaces_keep_keys_apart() -> None:
    async with stored() as rt:
        one, two = rt.keyed(Cart), rt.keyed(Cart, name="wish")
        three = rt.keyed(Cart, namespace="shop")
        await (await one.get("ann")).add("tea")
        assert await (await two.get("ann")).items() == []
        assert await (await three.get("ann")).items() == []
        assert two.lookup("ann") is not None
        await two.stop("ann")
        assert one.lookup("ann") is not None
        with pytest.raises(errors.Conflict, match="there is a manager default/cart already"):
            rt.keyed(Cart)
        await one.close()
        again = rt.keyed(Cart)
        assert await (await again.get("ann")).items() == ["tea"]


async def test_an_agent_of_another_class_under_a_key_is_a_conflict() -> None:
    async with stored() as rt:
        await rt.create(Worker, "cart.ann")
        with pytest.raises(errors.Conflict, match="is a Worker, not a Cart"):
            await rt.keyed(Cart).get("ann")


# --- idle ---


async def test_an_idle_agent_sleeps_and_a_call_wakes_it() -> None:
    async with stored() as rt:
        carts = rt.keyed(Cart, idle_timeout=300)
        ann = await carts.get("ann")
        await ann.add("tea")
        await rt.advance(299)
        assert counts(carts) == (1, 0)
        await ann.items()  # a query is use, too
        await rt.advance(299)
        assert counts(carts) == (1, 0)
        await rt.advance(1)
        assert counts(carts) == (0, 1)
        assert not rt.alive(ann)
        assert rt.status(ann).standing == "asleep"
        assert await ann.add("milk") == 2, "the reference goes on"
        assert counts(carts) == (1, 0)
        await rt.advance(300)
        assert counts(carts) == (0, 1)
        assert await (await carts.get("ann")).items() == ["tea", "milk"]
        assert (carts.stats.hibernated, carts.stats.thawed) == (2, 2)


async def test_signals_wake() -> None:
    async with stored() as rt:
        carts = rt.keyed(Cart, idle_timeout=10)
        ann = await carts.get("ann")
        for wake in (
            rt.publish(Signal.new("sale.begins", source="shop")),
            rt.signal(ann, Signal.new("sale.begins", source="shop")),
        ):
            await rt.advance(10)
            assert counts(carts) == (0, 1)
            await wake
            await rt.idle()
            assert counts(carts) == (1, 0)
        assert await ann.items() == ["sale", "sale"]


async def test_many_calls_that_wake_one_agent_all_arrive() -> None:
    async with stored() as rt:
        carts = rt.keyed(Cart, idle_timeout=10)
        ann = await carts.get("ann")
        await rt.advance(10)
        await asyncio.gather(*(ann.add(str(n)) for n in range(50)))
        assert await ann.items() == [str(n) for n in range(50)]
        assert carts.stats.thawed == 1


async def test_calls_and_sleep_at_once() -> None:
    """Whoever comes while an agent goes to sleep wakes it, or keeps it awake; nothing is lost."""
    async with stored() as rt:
        carts = rt.keyed(Cart)
        ann = await carts.get("ann")
        for n in range(30):
            await asyncio.gather(ann.add(f"a{n}"), carts.hibernate("ann"), ann.add(f"b{n}"), carts.hibernate("ann"))
        assert len(await ann.items()) == 60
        assert carts.stats.hibernated >= 1


async def test_touch_begins_the_idle_time_anew() -> None:
    async with stored() as rt:
        carts = rt.keyed(Cart, idle_timeout=300)
        await carts.get("ann")
        await rt.advance(200)
        assert carts.touch("ann")
        assert not carts.touch("bob")
        await rt.advance(200)
        assert counts(carts) == (1, 0)
        await rt.advance(100)
        assert counts(carts) == (0, 1)


async def test_who_is_attached_keeps_it_awake() -> None:
    async with stored() as rt:
        carts = rt.keyed(Cart, idle_timeout=300)
        async with carts.attach("ann", state={"items": ["gift"]}) as ann:
            await rt.advance(1000)
            assert counts(carts) == (1, 0)
            assert carts.stats.attached == 1
            assert await ann.items() == ["gift"]
        assert carts.stats.attached == 0
        await rt.advance(600)
        assert counts(carts) == (0, 1)
        await carts.attach("ann")
        await carts.attach("ann")
        assert carts.detach("ann")
        await rt.advance(1000)
        assert counts(carts) == (1, 0), "once more than it was detached"
        assert carts.detach("ann")
        assert not carts.detach("ann")


async def test_a_task_that_ends_detaches() -> None:
    async with stored() as rt:
        carts = rt.keyed(Cart, idle_timeout=300)
        leave = asyncio.Event()

        async def holder() -> None:
            await carts.attach("ann")
            await leave.wait()
            raise ValueError("it ends badly, even")

        task = asyncio.ensure_future(holder())
        await rt.advance(0)
        await rt.advance(1000)
        assert counts(carts) == (1, 0)
        leave.set()
        with pytest.raises(ValueError, match="badly"):
            await task
        await rt.advance(600)
        assert counts(carts) == (0, 1)


async def test_what_keeps_an_agent_awake_beside() -> None:
    """A turn that runs, a wait for it, a sensor of its own: none of them survives sleep."""
    async with stored() as rt:
        carts = rt.keyed(Cart, idle_timeout=10)
        ann, bob, eve = [await carts.get(name) for name in ("ann", "bob", "eve")]
        await bob.pulse()
        wait = asyncio.ensure_future(rt.wait(eve, lambda state: bool(state.items), timeout=None))
        await rt.advance(500)
        assert [rt.alive(one) for one in (ann, bob, eve)] == [False, True, True]
        wait.cancel()
        gates[ann.id] = asyncio.Event()
        call = asyncio.ensure_future(ann.hold())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gates[ann.id].set()
        await call


# --- plans ---


async def test_a_sleeping_agent_is_woken_for_what_it_planned() -> None:
    async with stored() as rt:
        carts = rt.keyed(Cart, idle_timeout=10)
        ann = await carts.get("ann")
        await ann.remind(1000, "soon")
        await ann.remind(2000, "later")
        await rt.advance(999)
        assert counts(carts) == (0, 1)
        await rt.advance(1)
        assert counts(carts) == (1, 0)
        await rt.advance(999)
        assert counts(carts) == (0, 1)
        await rt.advance(1)
        assert await ann.items() == ["soon", "later"]


async def test_cron_of_a_sleeping_agent_is_not_missed() -> None:
    async with stored() as rt:
        carts = rt.keyed(Cart, idle_timeout=10)
        ann = await carts.get("ann")
        await ann.daily("skip")
        await rt.advance(3 * 86_400)
        assert await ann.items() == ["day"] * 3
        assert carts.stats.hibernated >= 3


async def test_plans_survive_the_process(tmp_path: Any) -> None:
    storage = MemoryStorage()
    async with virtual(storage=storage) as rt:
        carts = rt.keyed(Cart, idle_timeout=10)
        await (await carts.get("ann")).remind(100, "tea")
        await (await carts.get("bob")).daily("once")
        eve = await carts.get("eve")
        await eve.daily("once")
        await eve.cancel("daily")
    async with virtual(storage=storage) as rt:
        carts = rt.keyed(Cart, idle_timeout=10)
        assert await carts.recover() == 3
        await rt.advance(86_400)
        assert {key: await (await carts.get(key)).items() for key in ("ann", "bob", "eve")} == {
            "ann": ["tea"],
            "bob": ["day"],
            "eve": [],
        }


async def test_a_reference_finds_what_only_the_storage_knows() -> None:
    storage = MemoryStorage()
    async with virtual(storage=storage) as rt:
        await (await rt.keyed(Cart).get("ann")).add("tea")
    async with virtual(storage=storage) as rt:
        carts = rt.keyed(Cart)
        assert await rt.agent(Cart, carts.id_of("ann")).add("milk") == 2
        with pytest.raises(errors.NotFound):
            await rt.agent(Cart, carts.id_of("bob")).items()


# --- when the storage fails ---


async def test_what_cannot_be_stored_stays_in_memory_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    storage = Moody()
    async with virtual(storage=storage) as rt:
        carts = rt.keyed(Cart, idle_timeout=10)
        ann = await carts.get("ann")
        storage.broken = True
        await rt.advance(10)
        assert (*counts(carts), carts.stats.failed) == (1, 0, 1)
        assert "hibernation of default/cart.ann failed: the disk is gone" in caplog.text
        storage.broken = False
        await rt.advance(10)
        assert counts(carts) == (0, 1), "and it is tried again"
        storage.broken = True
        with pytest.raises(errors.Unavailable, match="cannot be woken: the disk is gone"):
            await ann.items()
        assert counts(carts) == (0, 1)
        storage.broken = False
        assert await ann.items() == []


async def test_what_somebody_else_has_written_is_not_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    storage = MemoryStorage()
    async with virtual(storage=storage) as rt:
        carts = rt.keyed(Cart, idle_timeout=10)
        await carts.get("ann")
        await storage.put("default/cart.ann", b"not ours")
        await rt.advance(10)
        assert counts(carts) == (1, 0)
    assert "no record of an agent" in caplog.text


async def test_a_plan_that_is_due_waits_for_the_storage(caplog: pytest.LogCaptureFixture) -> None:
    storage = Moody()
    async with virtual(storage=storage) as rt:
        carts = rt.keyed(Cart, idle_timeout=10)
        ann = await carts.get("ann")
        await ann.remind(100, "tea")
        await rt.advance(50)
        storage.broken = True
        await rt.advance(100)
        storage.broken = False
        assert counts(carts) == (0, 1)
        await rt.advance(60)
        assert await ann.items() == ["tea"]
    assert "default/cart.ann could not be woken: the disk is gone" in caplog.text


async def test_without_a_storage_nothing_sleeps() -> None:
    async with stored() as rt:
        carts = rt.keyed(Cart, idle_timeout=10, storage=None)
        ann = await carts.get("ann")
        await rt.advance(1000)
        assert counts(carts) == (1, 0)
        with pytest.raises(errors.ConfigurationError, match="nowhere to sleep"):
            await rt.hibernate(ann)
        assert await rt._engine.storage.keys() == []  # type: ignore[union-attr]


async def test_a_manager_may_have_a_storage_of_its_own() -> None:
    own = MemoryStorage()
    async with virtual() as rt:
        carts = rt.keyed(Cart, idle_timeout=10, storage=own)
        ann = await carts.get("ann")
        await rt.create(Cart, "cart.bob")
        await rt.create(Cart, "other")
        await rt.advance(10)
        assert counts(carts) == (0, 2), "whoever made them"
        assert await own.keys() == ["default/cart.ann", "default/cart.bob"]
        assert await ann.items() == []


# --- beside managers ---


async def test_any_agent_with_a_storage_can_sleep() -> None:
    async with stored() as rt:
        ann = await rt.create(Cart, "ann")
        await ann.add("tea")
        await rt.hibernate(ann)
        await rt.hibernate(ann)
        assert not rt.alive(ann)
        assert await ann.items() == ["tea"]
        await rt.hibernate(ann)
        await rt.create(Cart, "ann")
        assert rt.alive(ann)
        await rt.hibernate(ann)
        await rt.stop(ann)
        with pytest.raises(errors.NotFound):
            await ann.items()
        with pytest.raises(errors.NotFound):
            await rt.hibernate("nobody")


async def test_sleep_ends_no_family() -> None:
    async with stored() as rt:
        boss = await rt.create(Boss, "boss")
        await boss.hire("ann")
        await rt.idle()
        ann = rt.agent(Worker, "ann")
        await rt.hibernate(boss)
        await ann.work("sums")
        await rt.idle()
        assert rt.alive(boss), "its child had something to tell"
        await rt.hibernate(ann)
        assert await boss.team() == {"ann": "default/ann"}
        await rt.hibernate(boss)
        await rt.stop(ann, "late")
        await rt.idle()
        assert rt.state(boss).log == ["ann began", "ann did sums", "ann ended: late"]
        await boss.hire("bob")
        await rt.idle()
        await rt.hibernate("bob")
        await rt.stop(boss)
        await rt.idle()
        assert not rt.alive("bob")
        assert rt.status("bob").standing == "stopped"
