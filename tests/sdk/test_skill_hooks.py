"""What skills do around the turns of their agent."""

from typing import Any, cast

import msgspec
import pytest
from skill_agents import Desk, Log

import tenure
from tenure import errors
from tenure.signals import Signal
from tenure.storage import MemoryStorage


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
