"""What a storage keeps of parents and children."""

import pytest
from family_agents import Boss, Worker, boss_of, fail, virtual

from tenure import errors
from tenure.storage import MemoryStorage
from tenure.testing import VirtualRuntime


async def test_families_outlive_the_process() -> None:
    storage = MemoryStorage()
    async with virtual(storage=storage) as rt:
        await boss_of(rt, "ann", "bob")
    async with virtual(storage=storage) as rt:
        boss = await rt.create(Boss, "boss")
        ann = await rt.create(Worker, "ann")
        await rt.idle()
        assert await boss.team() == {"ann": "default/ann", "bob": "default/bob"}
        assert await ann.whose() == ("default/boss", "ann")
        assert rt.state(boss).log == ["ann began", "bob began", "ann began"]
        await boss.hire("bob")  # what is left of the earlier process begins again under its name
        await rt.idle()
        await ann.work("sums")
        await boss.dismiss("bob")
        await rt.idle()
        assert rt.state(boss).log[3:] == ["bob began", "ann did sums", "bob ended: dismissed"]


async def test_a_child_may_be_there_before_its_parent() -> None:
    storage = MemoryStorage()
    async with virtual(storage=storage) as rt:
        await boss_of(rt, "ann")
    async with virtual(storage=storage) as rt:
        ann = await rt.create(Worker, "ann")
        boss = await rt.create(Boss, "boss")
        await rt.idle()
        assert rt.state(boss).log == ["ann began", "ann began"]
        await rt.stop(boss)
        await rt.idle()
        assert not rt.alive(ann)


async def test_a_stored_child_whose_parent_has_forgotten_it_is_an_orphan() -> None:
    storage = MemoryStorage()
    async with virtual(storage=storage) as rt:
        await boss_of(rt, "ann")
    async with virtual(storage=storage) as rt:
        boss = await rt.create(Boss, "boss")
        await rt.stop(boss)
        await rt.create(Boss, "boss")
        ann = await rt.create(Worker, "ann")
        await rt.idle()
        assert await ann.whose() is None
        assert rt.state(ann).log == ["orphan of default/boss: its parent does not know it any more"]


async def test_an_ended_family_is_not_in_the_storage() -> None:
    storage = MemoryStorage()
    async with virtual(storage=storage) as rt:
        boss = await boss_of(rt, "ann")
        await rt.stop(boss)
        await rt.idle()
        boss = await boss_of(rt)
        assert await boss.team() == {}
        assert await (await rt.create(Worker, "ann")).whose() is None


async def test_with_a_storage_a_child_begins_again_with_what_it_had() -> None:
    async with virtual(storage=MemoryStorage()) as rt:
        await boss_of(rt, "ann")
        await rt.agent(Worker, "ann").work("sums")
        await fail(rt, "ann")
        assert rt.state(rt.agent(Worker, "ann")).log == ["sums"]


async def test_families_survive_crashes() -> None:
    async with VirtualRuntime() as rt:
        boss = await rt.create(Boss, "boss")
        rt.faults.crash_turn(Boss.hire, when="after_commit")
        with pytest.raises(errors.Unavailable):
            await boss.hire("ann")
        await rt.idle()
        ann = rt.agent(Worker, "ann")
        rt.faults.crash_turn(Worker.work)
        with pytest.raises(errors.WorkerCrashed):
            await ann.work("sums")
        await ann.work("sums")
        await rt.idle()
        assert await boss.team() == {"ann": "default/ann"}
        assert await ann.whose() == ("default/boss", "ann")
