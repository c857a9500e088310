"""Hooks, strategies and the operations on a state."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pydantic
import pytest

import tenure
from tenure import errors, ops
from tenure.directives import Directive, Emit
from tenure.storage import MemoryStorage
from tenure.strategies import Memory, Snapshot, Strategy


class Work(tenure.State):
    done: int = 0
    log: list[str] = pydantic.Field(default_factory=list)


class Hooked(tenure.Agent[Work]):
    """Hooks around its actions."""

    def before_action(
        self, ctx: tenure.Context, instruction: tenure.Instruction[Any]
    ) -> tenure.Instruction[Any] | None:
        self.state.log.append(f"before {instruction.name}")
        if instruction.name == "forbidden":
            raise PermissionError("not here")
        return Hooked.work(by=10) if instruction.name == "boost" else None

    async def after_action(
        self, ctx: tenure.Context, instruction: tenure.Instruction[Any], directives: Sequence[Directive]
    ) -> Sequence[Directive]:
        self.state.log.append(f"after {instruction.name}")
        return [*directives, Emit("work.seen", {"count": len(directives)})]

    @tenure.action
    def work(self, ctx: tenure.Context, by: int = 1) -> int:
        self.state.done += by
        ctx.emit("work.done")
        return self.state.done

    @tenure.action
    def boost(self) -> int:
        raise AssertionError("never run")

    @tenure.action
    def forbidden(self) -> None: ...

    @tenure.query
    def log(self) -> list[str]:
        return self.state.log


async def test_hooks_change_state_action_and_effects() -> None:
    async with tenure.local() as rt:
        agent = await rt.create(Hooked, "h")
        assert await agent.boost() == 10
        assert await agent.log() == ["before boost", "after work"]
        assert [one.type for one in rt.signals] == ["work.done", "work.seen"]
        with pytest.raises(errors.ActionFailed, match="not here"):
            await agent.forbidden()
        assert await agent.log() == ["before boost", "after work"]


def test_hooks_run_in_the_pure_form() -> None:
    after, effects = Hooked.cmd(Hooked.new(), Hooked.work(by=2))
    assert after.state == Work(done=2, log=["before work", "after work"])
    assert effects == (Emit("work.done"), Emit("work.seen", {"count": 1}))


class Mounted(tenure.Agent[Work]):
    """Notes its beginnings and ends."""

    async def on_start(self, ctx: tenure.Context) -> None:
        self.state.log.append("again" if ctx.recovered else "first")

    def on_stop(self, ctx: tenure.Context, reason: str) -> None:
        ctx.emit("mounted.gone", {"reason": reason})


async def test_beginnings_and_ends() -> None:
    storage = MemoryStorage()
    for expected in (["first"], ["first", "again"]):
        async with tenure.local(storage=storage) as rt:
            agent = await rt.create(Mounted, "m")
            assert rt.state(agent).log == expected
            await rt.stop(agent, "the day is over")
            assert rt.signals[-1].data == {"reason": "the day is over"}


# --- strategies ---


class Machine(tenure.Agent[Work], strategy=tenure.FSM()):
    """A machine with the usual states."""

    @tenure.action
    def work(self) -> None:
        self.state.done += 1

    @tenure.action
    def finish(self, ctx: tenure.Context) -> None:
        ctx.transition("completed")

    @tenure.action
    def fail(self) -> None:
        self.state.done += 100
        raise ValueError("broken")

    @tenure.action
    def jump(self, ctx: tenure.Context) -> None:
        ctx.transition("nowhere")


class Manual(Machine, strategy=tenure.FSM(auto_transition=False)):
    """Stays in `processing`."""


async def test_the_machine_counts_and_goes_back() -> None:
    async with tenure.local() as rt:
        agent = await rt.create(Machine, "m")
        assert rt.snapshot(agent).status == "idle"
        await agent.work()
        await agent.work()
        assert rt.snapshot(agent).details == {"state": "idle", "processed": 2, "error": ""}
        await agent.finish()
        assert rt.snapshot(agent) == Snapshot("success", {"state": "completed", "processed": 3, "error": ""})
        assert rt.snapshot(agent).done


async def test_the_machine_remembers_a_failure_and_the_state_does_not() -> None:
    async with tenure.local(storage=MemoryStorage()) as rt:
        agent = await rt.create(Machine, "m")
        with pytest.raises(errors.ActionFailed):
            await agent.fail()
        assert rt.state(agent).done == 0
        assert rt.snapshot(agent) == Snapshot(
            "failure", {"state": "failed", "processed": 0, "error": "ValueError in fail: broken"}
        )
        await agent.work()
        assert rt.snapshot(agent).details == {"state": "idle", "processed": 1, "error": ""}


async def test_the_machine_refuses_ways_that_there_are_not() -> None:
    async with tenure.local() as rt:
        agent = await rt.create(Machine, "m")
        with pytest.raises(errors.InvalidTransition, match="from processing there is no way to nowhere"):
            await agent.jump()
        manual = await rt.create(Manual, "n")
        await manual.work()
        assert rt.snapshot(manual).status == "running"
        with pytest.raises(errors.InvalidTransition, match="from processing there is no way to processing"):
            await manual.work()
        assert rt.state(manual).done == 1


def test_machines_in_the_pure_form_and_bad_ones() -> None:
    one, _ = Manual.cmd(Manual.new(), Manual.work())
    same, effects = Manual.cmd(one, Manual.work())
    assert same.state.done == 1
    assert [type(effect).__name__ for effect in effects] == ["Error"]
    with pytest.raises(errors.DefinitionError, match="leads to 'b'"):
        tenure.FSM(start="a", transitions={"a": ["b"]})
    with pytest.raises(errors.DefinitionError, match="start='x'"):
        tenure.FSM(start="x")


class Counting(Strategy):
    """Remembers how often it ran, and refuses the third time."""

    def initial(self) -> Memory:
        return {"runs": 0}

    async def run(self, name: str, memory: Memory, proceed: Callable[[], Awaitable[object]]) -> object:
        memory["runs"] += 1
        if memory["runs"] > 2:
            raise RuntimeError(f"{name}: enough")
        return await proceed()

    def snapshot(self, memory: Memory) -> Snapshot:
        return Snapshot("waiting", dict(memory))

    def routes(self) -> Sequence[tuple[str, str]]:
        return [("work.please", "work")]


class Own(tenure.Agent[Work], strategy=Counting()):
    """A strategy of one's own."""

    @tenure.action
    def work(self) -> int:
        self.state.done += 1
        return self.state.done


async def test_a_strategy_of_ones_own() -> None:
    storage = MemoryStorage()
    async with tenure.local(storage=storage) as rt:
        agent = await rt.create(Own, "o")
        assert await agent.work() == 1
        assert await rt.signal(agent, tenure.Signal.new("work.please", source="test")) == 2
        assert rt.snapshot(agent) == Snapshot("waiting", {"runs": 2})
    async with tenure.local(storage=storage) as rt:
        agent = await rt.create(Own, "o")
        with pytest.raises(errors.ActionFailed, match="enough"):
            await agent.work()


# --- operations on a state ---


class Address(pydantic.BaseModel):
    city: str = ""
    street: str = ""


class Profile(tenure.State):
    name: str = "nobody"
    address: Address = Address()
    tags: list[str] = pydantic.Field(default_factory=list)
    extra: dict[str, Any] = pydantic.Field(default_factory=dict)


def test_merging() -> None:
    before = Profile(name="Ann", address=Address(city="Bern", street="A"), tags=["a"], extra={"x": {"y": 1}})
    after = ops.apply(ops.SetState({"address": {"city": "Basel"}, "extra": {"x": {"z": 2}}}), before)
    assert after.address == Address(city="Basel", street="A")
    assert after.extra == {"x": {"y": 1, "z": 2}}
    assert (after.name, after.tags) == ("Ann", ["a"])
    assert ops.apply(ops.SetState({"address": Address(city="Ulm")}), before).address == Address(city="Ulm")
    assert ops.apply(ops.SetState({"tags": []}), before).tags == []
    assert before.address.city == "Bern"


def test_replacing_deleting_and_paths() -> None:
    before = Profile(name="Ann", tags=["a"], extra={"keep": 1})
    assert ops.apply(ops.ReplaceState({"name": "Bo"}), before) == Profile(name="Bo")
    assert ops.apply(ops.DeleteKeys(["tags", "tags", "nothing"]), before).tags == []
    placed = ops.apply(ops.SetPath(["extra", "a", "b"], 5), before)
    assert placed.extra == {"keep": 1, "a": {"b": 5}}
    assert ops.apply(ops.DeletePath(["extra", "a", "b"]), placed).extra == {"keep": 1, "a": {}}
    assert ops.apply(ops.DeletePath(["extra", "no", "way"]), before) == before
    assert ops.apply(ops.SetPath(["address", "city"], "Bern"), before).address.city == "Bern"


@pytest.mark.parametrize(
    ("op", "field"),
    [
        (ops.SetState({"nmae": 1}), "nmae"),
        (ops.SetState({"name": 1}), "name"),
        (ops.SetPath(["address", "city"], 3), "address.city"),
        (ops.SetPath([], 3), "a path is a list"),
        (ops.ReplaceState({"tags": "a"}), "tags"),
    ],
)
def test_operations_that_do_not_fit_name_the_field(op: ops.StateOp, field: str) -> None:
    with pytest.raises(errors.StateInvalid, match=field):
        ops.apply(op, Profile())


class Lax(tenure.State, extra="allow"):
    name: str = ""


class Strict(tenure.State, extra="ignore"):
    name: str = ""


def test_strict_and_lax_states() -> None:
    """`extra`: forbid (the default) refuses unknown fields, ignore drops them, allow keeps them."""
    assert ops.apply(ops.SetState({"more": 1}), Lax()).model_extra == {"more": 1}
    assert ops.apply(ops.DeleteKeys(["more"]), Lax.model_validate({"more": 1})).model_extra == {}
    assert ops.apply(ops.SetState({"more": 1}), Strict()) == Strict()
