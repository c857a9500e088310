"""Schedules and sensors of skills and of agents: what begins and ends with them."""

import pytest
from skill_agents import Count, Desk

import tenure
from tenure import directives, errors
from tenure._clock import VirtualClock
from tenure._turn import Activation
from tenure.sensors import Heartbeat
from tenure.storage import MemoryStorage


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
