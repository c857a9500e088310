"""What skills do around the turns of their agent, where their state is kept, and what starts and ends with them."""

from typing import Any, cast

import msgspec
import pydantic
import pytest

import tenure
from tenure import directives, errors, plan
from tenure._clock import VirtualClock
from tenure._turn import Activation
from tenure.sensors import Heartbeat
from tenure.signals import Signal
from tenure.skills import Identity, Journal, Memory, Persist
from tenure.storage import MemoryStorage


class Log(tenure.State):
    lines: list[str] = pydantic.Field(default_factory=list)


class Desk(tenure.Agent[Log]):
    """Base of the agents here."""

    @tenure.on("order.*")
    @tenure.on("note")
    @tenure.action
    def order(self, text: str) -> str:
        self.state.lines.append(text)
        return text

    @tenure.action
    def tell(self, ctx: tenure.Context, text: str) -> str:
        ctx.emit("desk.told", {"text": text})
        return text

    @tenure.action
    def other(self) -> str:
        return "other"

    @tenure.query
    def lines(self) -> list[str]:
        return self.state.lines


# --- hooks ---


class Tag(tenure.Skill[Log], key="tag", signals=["order.**"]):
    """Puts its mark on everything, and refuses what says so."""

    mark: str = "x"

    def prepare_signal(self, ctx: tenure.Context, signal: Signal) -> Signal | None:
        text = cast("dict[str, str]", signal.data)["text"]
        if text == "refuse signal":
            raise PermissionError(f"{self.mark} refuses")
        if text == "as it is":
            return None
        self.state.lines.append(f"signal {signal.type}")
        return msgspec.structs.replace(signal, data={"text": text + self.mark})

    async def prepare_action(
        self, ctx: tenure.Context, instruction: tenure.Instruction[Any]
    ) -> tenure.Instruction[Any] | None:
        if instruction.arguments.get("text") == "refuse action":
            raise PermissionError(f"{self.mark} refuses")
        return Desk.other() if instruction.arguments.get("text") == "replace" else None

    def transform_result(self, ctx: tenure.Context, instruction: tenure.Instruction[Any], result: Any) -> Any:
        if result == "crash result":
            raise RuntimeError("result")
        return f"{result}{self.mark}" if instruction.kind == "action" and isinstance(result, str) else result

    def prepare_emit(self, ctx: tenure.Context, emit: tenure.Emit) -> tenure.Emit | None:
        text = cast("dict[str, str]", emit.data)["text"]
        if text == "refuse emit":
            raise PermissionError(f"{self.mark} refuses")
        return tenure.Emit(emit.type, {"text": f"{text}{self.mark}"}) if self.mark != "silent" else None

    @tenure.query
    def lines(self) -> list[str]:
        return self.state.lines


class Tagged(Desk, skills=[Tag(mark="1"), Tag(mark="2", alias="second")]):
    pass


def _order(text: str, type_: str = "order.new") -> Signal:
    return Signal.new(type_, source="t", data={"text": text})


async def test_changes_of_hooks_go_through_the_skills_in_order() -> None:
    async with tenure.local() as rt:
        desk = await rt.create(Tagged, "d")
        assert await rt.signal(desk, _order("a")) == "a1212"
        assert await desk.lines() == ["a12"]
        assert await rt.signal(desk, _order("b", "note")) == "b12", "the pattern of the hook leaves it out"
        assert await desk.skill(Tag).lines() == ["signal order.new"]
        assert await rt.signal(desk, _order("as it is")) == "as it is12"
        assert await desk.tell("c") == "c12"
        assert rt.signals[-1].data == {"text": "c12"}
        assert await desk.tell("replace") == "other12"
        assert await desk.lines() == ["a12", "b", "as it is"]


@pytest.mark.parametrize("text", ["refuse signal", "refuse action", "refuse emit", "crash result"])
async def test_a_hook_that_raises_fails_the_turn_and_nothing_else(text: str) -> None:
    async with tenure.local() as rt:
        desk = await rt.create(Tagged, "d")
        with pytest.raises(errors.ActionFailed, match=r"refuses|result"):
            await rt.signal(desk, _order(text)) if text == "refuse signal" else await desk.tell(text)
        assert (await desk.lines(), await desk.skill(Tag).lines(), rt.signals) == ([], [], [])
        assert await desk.order("next") == "next12"


def test_hooks_run_in_the_pure_form() -> None:
    _, effects = Tagged.cmd(Tagged.new(), Desk.tell("c"))
    assert effects == (tenure.Emit("desk.told", {"text": "c12"}),)


class Guard(tenure.Skill[tenure.State], key="guard"):
    """Lets nobody ask, and would put an action in the place of a question."""

    allow: bool = False

    def prepare_action(
        self, ctx: tenure.Context, instruction: tenure.Instruction[Any]
    ) -> tenure.Instruction[Any] | None:
        if self.allow:
            return Desk.other()
        raise errors.PermissionDenied(f"{instruction.name} is not for you")


@pytest.mark.parametrize(("allow", "error"), [(False, errors.PermissionDenied), (True, errors.ActionFailed)])
async def test_queries_are_guarded_too(allow: bool, error: type[Exception]) -> None:
    class Guarded(Desk, skills=[Guard(allow=allow)]):
        pass

    async with tenure.local() as rt:
        desk = await rt.create(Guarded, "d")
        with pytest.raises(error):
            await desk.lines()


class Mounted(tenure.Skill[Log], key="mounted"):
    """Notes its beginnings and ends."""

    def on_attach(self, ctx: tenure.Context) -> None:
        self.state.lines.append("attach")
        self.agent.state.lines.append("attached")

    async def on_start(self, ctx: tenure.Context) -> None:
        self.state.lines.append("again" if ctx.recovered else "start")

    def on_detach(self, ctx: tenure.Context) -> None:
        self.state.lines.append("detach")
        ctx.emit("mounted.gone")

    @tenure.query
    def lines(self) -> list[str]:
        return self.state.lines


class Mounting(Desk, skills=[Mounted()], attachable=[Mounted]):
    @tenure.action
    def attach(self, ctx: tenure.Context, alias: str) -> None:
        ctx.attach(Mounted(alias=alias))

    @tenure.action
    def swap(self, ctx: tenure.Context) -> None:
        ctx.detach("mounted")
        ctx.attach(Mounted())


async def test_beginnings_and_ends_of_skills() -> None:
    storage = MemoryStorage()
    async with tenure.local(storage=storage) as rt:
        desk = await rt.create(Mounting, "d")
        assert await desk.skill(Mounted).lines() == ["attach", "start"]
        await desk.attach("second")
        assert await desk.skill(Mounted, "second").lines() == ["attach", "start"]
        assert await desk.lines() == ["attached", "attached"]
    async with tenure.local(storage=storage) as rt:
        desk = await rt.create(Mounting, "d")
        await desk.swap()
        lines = ["attach", "start", "again", "detach", "attach", "again"]
        assert await desk.skill(Mounted).lines() == lines
        assert await desk.skill(Mounted, "second").lines() == ["attach", "start", "again"]
        assert rt.signals[-1].type == "mounted.gone"


class Vague(tenure.Skill[tenure.State], key="vague"):
    def prepare_action(self, ctx: tenure.Context, instruction: tenure.Instruction[Any]) -> Any:
        return False


async def test_an_answer_that_means_nothing_refuses_the_turn() -> None:
    class Unsure(Desk, skills=[Vague()]):
        pass

    async with tenure.local() as rt:
        with pytest.raises(errors.ActionFailed, match=r"vague\.prepare_action returned False"):
            await (await rt.create(Unsure, "u")).other()


class Bringing(tenure.Skill[tenure.State], key="bringing"):
    def on_attach(self, ctx: tenure.Context) -> None:
        ctx.attach(Mounted(alias="brought"))


async def test_a_skill_brings_another() -> None:
    class Open(Desk, skills=[Bringing()], attachable=[tenure.Skill]):
        @tenure.action
        def more(self, ctx: tenure.Context) -> None:
            ctx.attach(Bringing(alias="again"))
            ctx.detach("brought")

        @tenure.query
        def skills(self, ctx: tenure.Context) -> list[str]:
            return list(ctx.skills)

    async with tenure.local() as rt:
        desk = await rt.create(Open, "o")
        assert await desk.skills() == ["bringing", "brought"]
        await desk.more()
        assert await desk.skills() == ["bringing", "again", "brought"]


# --- where its state is kept ---


class Count(tenure.State):
    n: int = 0


class Keep(tenure.Skill[Count], key="keep"):
    @tenure.action
    def up(self, fail: bool = False) -> int:
        self.state.n += 1
        if fail:
            raise ValueError("no")
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


# --- schedules and sensors ---


class Daily(
    tenure.Skill[Count],
    key="daily",
    schedules=[("0 9 * * *", "digest")],
    sensors={"beat": lambda skill: Heartbeat(interval=skill.every, type=f"{skill.alias}.beat")},
):
    every: float = 3600

    @tenure.action
    def digest(self) -> None:
        self.state.n += 1

    @tenure.on("daily.beat")
    @tenure.action
    def beat(self) -> None:
        self.agent.state.lines.append(self.alias)

    @tenure.query
    def n(self) -> int:
        return self.state.n


class Office(
    Desk,
    attachable=[Daily],
    schedules={"open": ("0 8 * * *", "open_up"), "far": ("0 9 * * *", "note", "America/New_York")},
):
    @tenure.action
    def open_up(self) -> None:
        self.state.lines.append("open")

    @tenure.action
    def note(self, text: str = "far") -> None:
        self.state.lines.append(text)

    @tenure.action
    def attach(self, ctx: tenure.Context, alias: str = "") -> None:
        ctx.attach(Daily(every=40_000, alias=alias))

    @tenure.action
    def detach(self, ctx: tenure.Context, alias: str) -> None:
        ctx.detach(alias)


DAY = 86_400


async def test_schedules_begin_with_the_agent_and_with_the_skill() -> None:
    async with _virtual() as rt:
        office = await rt.create(Office, "o")
        await rt.advance(DAY)
        assert await office.lines() == ["open", "far"]
        await office.attach()
        await office.attach(alias="second")
        await rt.advance(DAY)
        assert await office.skill(Daily).n() == await office.skill(Daily, "second").n() == 1
        assert (await office.lines()).count("open") == 2
        await office.detach("daily")
        await rt.advance(DAY)
        assert await office.skill(Daily, "second").n() == 2
        await office.attach()
        assert await office.skill(Daily).n() == 1


async def test_sensors_begin_and_end_with_their_skill() -> None:
    async with _virtual() as rt:
        office = await rt.create(Office, "o")
        await office.attach()
        await rt.advance(50_000)
        beats = (await office.lines()).count("daily")
        assert beats == 1
        await office.detach("daily")
        await rt.advance(DAY)
        assert (await office.lines()).count("daily") == beats


async def test_a_schedule_goes_on_after_a_restart_and_ends_with_its_declaration() -> None:
    class Changed(Desk, schedules={"open": ("0 7 * * *", "other")}):
        pass

    Changed.__name__ = "Office"
    storage, clock = MemoryStorage(), VirtualClock()
    async with tenure.LocalRuntime(storage=storage, clock=clock) as rt:
        await rt.create(Office, "o")
        planned = rt._engine.held("default/o").activation.slices["@timers"]
    async with tenure.LocalRuntime(storage=storage, clock=clock) as rt:
        await rt.create(Office, "o")
        assert rt._engine.held("default/o").activation.slices["@timers"] == planned
    async with tenure.LocalRuntime(storage=storage, clock=clock) as rt:
        await rt.create(Changed, "o")
        assert set(rt._engine.held("default/o").activation.slices["@timers"]) == {"open"}


def test_schedules_are_effects_in_the_pure_form_and_once() -> None:
    one, effects = Office.cmd(Office.new(), Office.attach())
    assert {type(effect) for effect in effects} == {directives.Cron, directives.StartSensor}
    assert {effect.name for effect in effects if isinstance(effect, directives.Cron)} == {"open", "far", "daily.digest"}
    _, effects = Office.cmd(one, Office.detach("daily"))
    assert effects == (directives.StopSensor("daily.beat"), directives.Cancel("daily.digest"))


@pytest.mark.parametrize(
    ("schedules", "why"),
    [
        ([("0 9 * * *", "digets")], "did you mean digest"),
        ([("61 9 * * *", "digest")], "cron '61 9"),
        ([("0 9 * * *", "digest", "Europe/Nowhere")], "no time zone"),
        ([("0 9 * * *", "n")], "no action of it"),
        ([("0 9 * * *",)], r"a schedule is \(times, action\)"),
        ({"a b": ("0 9 * * *", "digest")}, "the name of a schedule"),
    ],
)
def test_schedules_that_cannot_be(schedules: object, why: str) -> None:
    with pytest.raises(errors.DefinitionError, match=why):
        type("Bad", (Daily,), {}, key="bad", schedules=schedules)


async def test_a_runtime_that_can_plan_nothing_refuses_the_agent() -> None:
    activation = Activation(Office, uid="u", agent_id="default/o", epoch=1, stored=None)
    done = await activation.hook(0, "on_start")
    assert done.fault is not None
    assert (done.fault.code, "Cron" in done.fault.message) == ("NotSupported", True)


def _virtual() -> tenure.LocalRuntime:
    return tenure.LocalRuntime(clock=VirtualClock())


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
