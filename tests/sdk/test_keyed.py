"""Agents by key: begun when wanted, asleep when not, the same one before and after."""

import asyncio

import pytest
from family_agents import Worker, virtual
from keyed_agents import Cart, Moody, counts, gates, stored

from tenure import errors
from tenure.signals import Signal
from tenure.storage import StorageError

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
