"""`tenure.actions`: what is ready to attach."""

from typing import Any

import pytest

import tenure
from tenure import actions, errors
from tenure._clock import VirtualClock
from tenure.signals import Signal


class Standing(tenure.State):
    status: str = "idle"
    result: Any = None
    error: str = ""
    got: tuple[str, ...] = ()


MARKS: list[Any] = [
    actions.cancel,
    actions.set_status,
    actions.mark_working,
    actions.mark_completed,
    actions.mark_failed,
    actions.mark_idle,
]


class Marked(tenure.Agent[Standing], actions=MARKS):
    """Says how it stands."""


class Bare(tenure.State):
    count: int = 0


class Unmarked(tenure.Agent[Bare], actions=[actions.mark_working]):
    """Has nowhere to say it."""


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("mark_working", {}, {"status": "working"}),
        ("mark_completed", {"result": 7}, {"status": "completed", "result": 7}),
        ("mark_failed", {"error": "no"}, {"status": "failed", "error": "no"}),
        ("mark_idle", {}, {"status": "idle"}),
        ("set_status", {"status": "odd"}, {"status": "odd"}),
        ("cancel", {"reason": "late"}, {"status": "failed", "error": "cancelled: late"}),
    ],
)
async def test_marks(name: str, arguments: dict[str, Any], expected: dict[str, Any]) -> None:
    async with tenure.local() as rt:
        agent = await rt.create(Marked, "m")
        await rt.call_by_name("m", name, arguments)
        assert rt.state(agent) == Standing(**expected)


async def test_a_state_without_the_field_is_named() -> None:
    async with tenure.local() as rt:
        await rt.create(Unmarked, "u")
        with pytest.raises(errors.StateInvalid, match="`status` is not known"):
            await rt.call_by_name("u", "mark_working")


class Hub(
    tenure.Agent[Standing],
    actions=[
        actions.noop,
        actions.broadcast,
        actions.forward,
        actions.notify,
        actions.reply,
        actions.notify_parent,
        actions.stop_self,
        actions.stop_child,
        actions.schedule_signal,
        actions.schedule_timeout,
        actions.schedule_cron,
        actions.cancel_cron,
        actions.spawner(Marked),
    ],
    subscribes=["news.*"],
):
    """Everything else, and it notes what it hears."""

    @tenure.on("**", priority=-5)
    @tenure.action
    def hear(self, signal: Signal) -> None:
        self.state.got += (signal.type,)

    @tenure.on("question")
    @tenure.action
    async def answer(self, ctx: tenure.Context) -> None:
        await self.call(actions.reply(type="answer"))


async def test_signals_find_their_way() -> None:
    async with tenure.local() as rt:
        one, two = await rt.create(Hub, "one"), await rt.create(Hub, "two")
        await rt.call_by_name("one", "noop")
        await rt.call_by_name("one", "broadcast", {"type": "news.now", "data": {"x": 1}})
        await rt.call_by_name("one", "notify", {"to": "two", "type": "psst"})
        await rt.idle()
        assert rt.state(one).got == ("news.now",)
        assert rt.state(two).got == ("news.now", "psst")
        await one.call(actions.forward(to="two", signal=Signal.new("on", source="x")))
        await rt.idle()
        assert rt.state(two).got[-1] == "on"


async def test_answers_go_to_who_asked() -> None:
    """And without a signal there is nobody."""
    async with tenure.local() as rt:
        one = await rt.create(Hub, "one")
        await rt.create(Hub, "two")
        await rt.call_by_name("one", "notify", {"to": "two", "type": "question"})
        await rt.idle()
        assert rt.state(one).got == ("answer",)
        with pytest.raises(errors.ActionFailed, match="none led to this turn"):
            await rt.call_by_name("one", "reply", {"type": "answer"})


async def test_children_and_ends() -> None:
    async with tenure.local() as rt:
        hub = await rt.create(Hub, "hub")
        await rt.call_by_name("hub", "spawn_marked", {"id": "child", "tag": "c"})
        await rt.idle()
        assert rt.alive("child")
        await rt.call_by_name("hub", "stop_child", {"tag": "c"})
        await rt.idle()
        assert not rt.alive("child")
        await rt.call_by_name("hub", "stop_self")
        await rt.idle()
        assert not rt.alive(hub)


async def test_what_is_planned_comes_and_can_be_cancelled() -> None:
    async with tenure.LocalRuntime(clock=VirtualClock()) as rt:
        hub = await rt.create(Hub, "hub")
        await rt.call_by_name("hub", "schedule_signal", {"seconds": 5, "type": "later"})
        await rt.call_by_name("hub", "schedule_timeout", {"seconds": 9})
        await rt.call_by_name("hub", "schedule_timeout", {"seconds": 20})
        await rt.call_by_name("hub", "schedule_cron", {"name": "m", "times": "* * * * *", "type": "tick"})
        await rt.advance(15)
        assert rt.state(hub).got == ("later",), "the second time-out took the place of the first"
        await rt.advance(120)
        assert sorted(rt.state(hub).got) == ["later", "tenure.timeout", "tick", "tick"]
        await rt.call_by_name("hub", "cancel_cron", {"name": "m"})
        await rt.advance(300)
        assert len(rt.state(hub).got) == 4
