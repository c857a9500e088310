"""The virtual object that `bench.restate_peer` calls. Served by granian in the peer's own environment, not in ours."""

import time
from datetime import timedelta

import restate

counter = restate.VirtualObject("Counter")


@counter.handler("increment")
async def increment(ctx: restate.ObjectContext, by: int) -> int:
    """Add; the reply is the count."""
    count = (await ctx.get("count", type_hint=int) or 0) + by
    ctx.set("count", count)
    return count


@counter.handler("value", kind="shared")
async def value(ctx: restate.ObjectSharedContext) -> int:
    """The count."""
    return await ctx.get("count", type_hint=int) or 0


@counter.handler("later")
async def later(ctx: restate.ObjectContext, delay_ms: int) -> None:
    """Note, after a delay, how late that was."""
    due = time.time() + delay_ms / 1000
    ctx.object_send(note, key=ctx.key(), arg=due, send_delay=timedelta(milliseconds=delay_ms))


@counter.handler("note")
async def note(ctx: restate.ObjectContext, due: float) -> None:
    """Milliseconds after the time."""
    late = [*(await ctx.get("late") or []), (time.time() - due) * 1000]
    ctx.set("late", late)


@counter.handler("lateness", kind="shared")
async def lateness(ctx: restate.ObjectSharedContext) -> list[float]:
    """All of them."""
    return await ctx.get("late") or []


app = restate.app([counter])
