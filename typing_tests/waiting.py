"""What users' type checkers see of waiting, families and agents by key. Checked as surface.py is."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Mapping
from typing import assert_type

import tenure


class Count(tenure.State):
    count: int = 0


class Counter(tenure.Agent[Count]):
    """Counts."""

    @tenure.action
    def add(self, ctx: tenure.Context, by: int) -> int:
        ctx.spawn(Counter, "more", tag="m", on_parent_end="continue", restart="permanent")
        ctx.spawn(Counter, "more", restart="sometimes")  # type: ignore[arg-type]
        assert_type(ctx.children, Mapping[str, str])
        assert_type(ctx.emit_parent("added"), bool)
        if ctx.parent is not None:
            assert_type(ctx.parent.tag, str)
        return by


async def waits(rt: tenure.LocalRuntime, counter: Counter) -> None:
    assert_type(await rt.wait(counter, lambda state: state.count > 1), Count)
    assert_type(await rt.wait(counter), tenure.AgentStatus)
    await rt.wait(counter, lambda state: state.cuont > 1)  # type: ignore[attr-defined]
    which, _ = await rt.wait_any([counter, counter])
    assert_type(which, Counter)


async def keys(rt: tenure.LocalRuntime) -> None:
    counters = rt.keyed(Counter, idle_timeout=300)
    assert_type(counters, tenure.InstanceManager[Counter])
    assert_type(await (await counters.get("a")).add(1), int)
    assert_type(counters.lookup("a"), Counter | None)
    assert_type(await counters.attach("a"), Counter)
    async with counters.attach("a") as held:
        assert_type(held, Counter)
