"""Where the state of a skill is kept; its attempts; and the skills that come along."""

from typing import cast

import pytest
from skill_agents import Count, Desk

import tenure
from tenure import errors, plan
from tenure.skills import Identity, Journal, Memory, Persist
from tenure.storage import MemoryStorage


class Keep(tenure.Skill[Count], key="keep"):
    @tenure.action
    def up(self, fail: bool = False) -> int:
        self.state.n += 1
        if fail:
            raise ValueError("no")
        return self.state.n

    @tenure.action
    def look(self) -> int:
        return self.state.n


class Drop(Keep, key="drop", persist="drop"):
    pass


ELSEWHERE: dict[str, int] = {}


class Elsewhere(Keep, key="elsewhere", persist="externalize"):
    async def save(self, ctx: tenure.Context) -> str:
        pointer = f"{ctx.caller or 'x'}-{len(ELSEWHERE)}"
        ELSEWHERE[pointer] = self.state.n
        return pointer

    async def load(self, pointer: str) -> Count:
        return Count(n=ELSEWHERE[pointer])


class Keeping(tenure.Agent[tenure.State], skills=[Keep(), Drop(), Elsewhere()]):
    pass


@pytest.mark.parametrize(("kind", "goes_on_with"), [(Keep, 3), (Drop, 1), (Elsewhere, 3)])
async def test_three_ways_to_keep_a_state(kind: type[Keep], goes_on_with: int) -> None:
    ELSEWHERE.clear()
    storage = MemoryStorage()
    async with tenure.local(storage=storage) as rt:
        keeping = await rt.create(Keeping, "k")
        for _ in range(2):
            await keeping.skill(kind).up()
            assert await keeping.skill(kind).look() > 0
            with pytest.raises(errors.ActionFailed):
                await keeping.skill(kind).up(fail=True)
    stored = await storage.get("default/k")
    assert stored is not None
    assert (b"n\x02" in stored.data) == (kind is Keep)
    async with tenure.local(storage=storage) as rt:
        keeping = await rt.create(Keeping, "k")
        assert await keeping.skill(kind).up() == goes_on_with
    assert len(ELSEWHERE) == (3 if kind is Elsewhere else 0), "saved when it has changed, and only then"


class Home(Keep, key="elsewhere"):
    def load(self, pointer: str) -> Count:
        return Count(n=ELSEWHERE[pointer])


async def test_a_state_moves_when_its_class_keeps_it_elsewhere_and_back() -> None:
    class Keeping2(tenure.Agent[tenure.State], skills=[Home()]):
        pass

    class Keeping1(tenure.Agent[tenure.State], skills=[Elsewhere()]):
        pass

    storage, ways = MemoryStorage(), ((Keeping2, Home), (Keeping1, Elsewhere), (Keeping1, Elsewhere), (Keeping2, Home))
    for n, (cls, kind) in enumerate([*ways, (Keeping2, Home)]):
        cls.__name__ = "Keeping"
        async with tenure.local(storage=storage) as rt:
            await rt.create(cls, "k")
        async with tenure.local(storage=storage) as rt:  # twice: what was only read has to be there still
            keeping = await rt.create(cls, "k")
            assert await keeping.skill(kind).up() == n + 1


async def test_what_is_lost_elsewhere_is_a_clear_error() -> None:
    storage = MemoryStorage()
    async with tenure.local(storage=storage) as rt:
        await (await rt.create(Keeping, "k")).skill(Elsewhere).up()
    ELSEWHERE.clear()
    async with tenure.local(storage=storage) as rt:
        with pytest.raises(errors.ActionFailed, match="KeyError"):
            await rt.create(Keeping, "k")
        assert not rt.alive("k")


def test_there_are_three_ways() -> None:
    with pytest.raises(errors.DefinitionError, match="persist is keep, drop, externalize"):
        type("Bad", (tenure.Skill,), {}, key="bad", persist="forget")
    mode: Persist = "keep"
    assert Keep.__tenure_persist__ == mode


class Peeking(Elsewhere, key="peeking"):
    async def load(self, pointer: str) -> Count:
        return Count(n=self.state.n)


async def test_a_state_that_is_being_loaded_is_not_there_yet() -> None:
    class Asking(tenure.Agent[tenure.State], skills=[Peeking()]):
        pass

    assert Peeking.__tenure_persist__ == "externalize"
    storage = MemoryStorage()
    async with tenure.local(storage=storage) as rt:
        await (await rt.create(Asking, "a")).skill(Peeking).up()
    async with tenure.local(storage=storage) as rt:
        with pytest.raises(errors.ActionFailed, match="not loaded yet"):
            await rt.create(Asking, "a")


# --- attempts, plans, strategies ---


class Flaky(tenure.Skill[Count], key="flaky"):
    @tenure.action(max_retries=2, backoff=0)
    def up(self) -> int:
        self.state.n += 1
        self.agent.state.lines.append("up")
        if len(TRIES) < 2:
            TRIES.append(self.state.n)
            raise ValueError("again")
        return self.state.n

    @tenure.action(blocking=True)
    def in_thread(self) -> int:
        self.state.n += 10
        return self.state.n

    @tenure.query
    def n(self) -> int:
        return self.state.n


TRIES: list[int] = []


async def test_each_attempt_begins_with_the_state_before() -> None:
    class Trying(Desk, skills=[Flaky()]):
        pass

    TRIES.clear()
    async with tenure.local() as rt:
        desk = await rt.create(Trying, "d")
        assert await desk.skill(Flaky).up() == 1
        assert await desk.lines() == ["up"]
        assert await desk.skill(Flaky).in_thread() == 11
        assert await desk.skill(Flaky).n() == 11
    assert TRIES == [1, 1]


class Planner(tenure.Skill[Count], key="planner"):
    @tenure.action
    async def run(self, ctx: tenure.Context) -> int:
        work = plan.chain(Keep.up(), Keep.up().of("second"), Keep.up())
        return cast("int", await work.run(self.agent, ctx))


async def test_plans_and_strategies_take_actions_of_skills() -> None:
    skills = [Keep(), Keep(alias="second"), Planner()]

    class Machine(tenure.Agent[tenure.State], skills=skills, strategy=tenure.FSM()):
        pass

    async with tenure.local() as rt:
        machine = await rt.create(Machine, "m")
        assert await machine.skill(Planner).run() == 2
        assert await machine.skill(Keep, "second").up() == 2
        assert rt.snapshot(machine).details["processed"] == 2


# --- those that come along ---


class Person(Desk, skills=[Identity(), Memory(), Journal(limit=3)]):
    pass


async def test_identity_memory_and_journal() -> None:
    async with tenure.local() as rt:
        person = await rt.create(Person, "p")
        me, memory, journal = person.skill(Identity), person.skill(Memory), person.skill(Journal)
        assert await me.evolve({"name": "Ann", "likes": {"tea": 1}}) == 1
        assert await me.evolve({"likes": {"pots": 2}, "age": 4}) == 2
        assert await me.forget(["age"]) == 3
        assert await me.profile() == {"name": "Ann", "likes": {"tea": 1, "pots": 2}}

        assert await memory.put("world", "sky", "blue") == 1
        assert await memory.append("tasks", {"what": "wake"}) == 1
        assert await memory.make("shops", "list") == 0
        assert await memory.take("tasks") == {"what": "wake"}
        assert await memory.revisions() == {"world": 1, "tasks": 2, "shops": 0}
        assert await memory.get("world", "sky") == "blue"
        with pytest.raises(errors.Conflict, match="always there"):
            await memory.drop("world")
        with pytest.raises(errors.Conflict, match="'tasks' is a list, not a map"):
            await memory.put("tasks", "a", 1)
        with pytest.raises(errors.NotFound, match="no space 'shop'"):
            await memory.read("shop")

        for n in range(4):
            assert await journal.append("seen", n, {"n": str(n % 2)}) == n + 1
        assert [entry.seq for entry in await journal.entries()] == [2, 3, 4]
        assert [entry.content for entry in await journal.entries(after=2, refs={"n": "1"})] == [3]
        assert await journal.entries(kind="heard") == []
