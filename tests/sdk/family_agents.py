"""A parent and a worker, for tests of families."""

from collections.abc import Mapping
from typing import Any

import pydantic
import pytest

import tenure
from tenure import errors
from tenure._clock import VirtualClock
from tenure.directives import ParentEnd, Restart
from tenure.policies import StopOnError
from tenure.signals import Signal


class Notes(tenure.State):
    log: list[str] = pydantic.Field(default_factory=list)
    fails: bool = False


class Worker(tenure.Agent[Notes], on_error=StopOnError()):
    """Does what it is told; stops when that fails."""

    def on_start(self, ctx: tenure.Context) -> None:
        if self.state.fails:
            raise ValueError("no legs")

    @tenure.action
    def work(self, ctx: tenure.Context, what: str) -> None:
        if what == "fail":
            raise ValueError("no luck")
        self.state.log.append(what)
        ctx.emit_parent("work.done", {"what": what})

    @tenure.on("tenure.orphaned")
    @tenure.action
    def orphaned(self, parent: str, reason: str) -> None:
        self.state.log.append(f"orphan of {parent}: {reason}")

    @tenure.action
    def leave(self, ctx: tenure.Context, reason: str) -> None:
        ctx.stop(reason)

    @tenure.action
    def whose(self, ctx: tenure.Context) -> tuple[str, str] | None:
        return ctx.parent

    @tenure.action
    def ask_parent(self, ctx: tenure.Context) -> bool:
        return ctx.emit_parent("work.asked")


class Boss(tenure.Agent[Notes]):
    """Has children, and writes down what it hears of them."""

    @tenure.action
    def hire(
        self,
        ctx: tenure.Context,
        name: str,
        tag: str = "",
        on_end: ParentEnd = "stop",
        restart: Restart = "transient",
        state: Mapping[str, object] | None = None,
    ) -> None:
        ctx.spawn(Worker, name, tag=tag, state=state, on_parent_end=on_end, restart=restart)

    @tenure.action
    def hire_and_tell(self, ctx: tenure.Context, name: str, what: str) -> None:
        ctx.spawn(Worker, name)
        ctx.send(name, Worker.work(what))

    @tenure.action
    def take(self, ctx: tenure.Context, name: str, tag: str) -> None:
        ctx.adopt(name, tag=tag)

    @tenure.action
    def dismiss(self, ctx: tenure.Context, tag: str) -> None:
        ctx.stop_child(tag, "dismissed")

    @tenure.action
    def team(self, ctx: tenure.Context) -> dict[str, str]:
        return dict(ctx.children)

    @tenure.action
    def leave(self, ctx: tenure.Context, reason: str) -> None:
        ctx.stop(reason)

    @tenure.on("tenure.child.started")
    @tenure.action
    def started(self, tag: str, id: str, restarts: int) -> None:  # noqa: A002
        self.state.log.append(f"{tag} began" + (f" again, {restarts}" if restarts else ""))

    @tenure.on("tenure.child.ended")
    @tenure.action
    def ended(self, tag: str, id: str, reason: str, failed: bool) -> None:  # noqa: A002
        self.state.log.append(f"{tag} {'failed' if failed else 'ended'}: {reason}")

    @tenure.on("work.done")
    @tenure.action
    def done(self, signal: Signal) -> None:
        self.state.log.append(f"{signal.source.partition('/')[2]} did {signal.data['what']}")  # type: ignore[index]


def virtual(**options: Any) -> tenure.LocalRuntime:
    return tenure.LocalRuntime(clock=VirtualClock(), **options)


async def boss_of(rt: tenure.LocalRuntime, *names: str, **options: Any) -> Boss:
    boss = await rt.create(Boss, "boss")
    for name in names:
        await boss.hire(name, **options)
    await rt.idle()
    return boss


async def fail(rt: tenure.LocalRuntime, name: str) -> None:
    with pytest.raises(errors.ActionFailed):
        await rt.agent(Worker, name).work("fail")
    await rt.idle()
