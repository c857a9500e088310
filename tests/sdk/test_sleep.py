"""Agents that sleep: their plans, their families, and storages that fail."""

import asyncio
from typing import Any

import pytest
from family_agents import Boss, Worker, virtual
from keyed_agents import Cart, Moody, counts, stored

from tenure import errors
from tenure.storage import MemoryStorage


async def test_calls_and_sleep_at_once() -> None:
    """Whoever comes while an agent goes to sleep wakes it, or keeps it awake; nothing is lost."""
    async with stored() as rt:
        carts = rt.keyed(Cart)
        ann = await carts.get("ann")
        for n in range(30):
            await asyncio.gather(ann.add(f"a{n}"), carts.hibernate("ann"), ann.add(f"b{n}"), carts.hibernate("ann"))
        assert len(await ann.items()) == 60
        assert carts.stats.hibernated >= 1


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
