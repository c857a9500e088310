"""What a turn is to do, and the doing of it: within its deadline, with the skills of the agent around it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from tenure import _codec, _watch
from tenure._body import run_one, settled
from tenure._context import Context
from tenure._deadline import on_loop_clock
from tenure._eager import into_task, resumed
from tenure._effects import Directive
from tenure._methods import Method
from tenure._scope import Scope, current_scope
from tenure.errors import DeadlineExceeded

if TYPE_CHECKING:
    from tenure._agent import Agent
    from tenure._journal import Journal
    from tenure.signals import Signal as Envelope

Call = tuple[Method[..., Any], Mapping[str, Any]]
"""An action and its checked arguments."""


class Order(msgspec.Struct, frozen=True):  # a frozen dataclass takes seven times as long to make
    """What a turn is to do: actions one after the other, as one."""

    number: int
    label: str
    calls: Sequence[Call]
    deadline_ns: int = 0
    caller: str = ""
    signal: Envelope | None = None
    extra: tuple[Directive, ...] = ()
    reason: str = ""
    bare: bool = False
    """No code of the user's is run."""
    journal: Journal | None = None
    """Where its steps are kept; None: it can have none."""

    @property
    def lasts(self) -> float:
        """Seconds that it may take once it is accepted; 0: as long as is usual."""
        longest = 0.0
        for method, _ in self.calls:
            longest = max(longest, method.turn_timeout)
        return longest


async def execute(order: Order, draft: Agent[Any], scope: Scope) -> bytes:
    """Run the bodies within the deadline; the first one's reply. Raises DeadlineExceeded and what the bodies raise."""
    token = current_scope.set(scope)
    limit: asyncio.Timeout | None = None
    try:
        if order.deadline_ns and time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= order.deadline_ns:
            raise DeadlineExceeded(f"the deadline passed before {order.label} began")
        if asyncio.current_task() is None and not _immediate(order, draft, scope):
            await into_task()  # code that may wait may ask for its task
        run = _run(order, draft, scope)
        try:
            waits_for = run.send(None)
        except StopIteration as end:
            return cast(bytes, end.value)  # it has waited for nothing: there was nothing that a time-out could end
        if asyncio.current_task() is None:
            await into_task()
        limit = scope.limit = asyncio.timeout_at(on_loop_clock(order.deadline_ns) if order.deadline_ns else None)
        async with limit:
            reply = await resumed(run, waits_for)
    except TimeoutError as error:
        if limit is not None and limit.expired():
            raise DeadlineExceeded(_overdue(order)) from error
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or not task.cancelling():  # raised by the body itself: nobody asked this task to end
            raise RuntimeError("the action raised CancelledError") from error
        raise
    finally:
        current_scope.reset(token)
    return reply


def _immediate(order: Order, draft: Agent[Any], scope: Scope) -> bool:
    """Whether it is one plain function with nothing around it."""
    if len(order.calls) != 1 or order.bare or scope.roster is not None:
        return False
    method = order.calls[0][0]
    return method.immediate and (method.kind == "query" or type(draft).__tenure_direct__)


def _overdue(order: Order) -> str:
    text = f"the deadline passed in {order.label}; it was cancelled and changed nothing"
    if order.journal is None or not order.journal.accepted:
        return text
    return f"{text}; finished steps: {', '.join(entry.name for entry in order.journal.entries) or 'none'}"


async def _run(order: Order, draft: Agent[Any], scope: Scope) -> bytes:
    if scope.roster is None or order.bare:
        return await _bodies(order.calls, draft, scope) if order.calls else await _hook(order, draft, Context(scope))
    from tenure.skills import _phases  # noqa: PLC0415 - most agents have no skills

    await _phases.begin(draft, scope)
    calls = order.calls
    if order.signal is not None:
        calls = await _phases.incoming(draft, scope, order.signal)
    reply = await _bodies(calls, draft, scope) if calls else await _hook(order, draft, Context(scope))
    if not scope.read_only:
        await _phases.finish(draft, scope)
    return reply


async def _bodies(calls: Sequence[Call], draft: Agent[Any], scope: Scope) -> bytes:
    replies = [
        await _watch.watched(run_one(draft, scope, method, arguments), method.label, scope.agent_id)
        for method, arguments in calls
    ]
    return calls[0][0].signature.encode_reply(replies[0])


async def _hook(order: Order, draft: Agent[Any], context: Context) -> bytes:
    if order.label == "on_start":
        await settled(draft.on_start(context))
    elif order.label == "on_stop":
        await settled(draft.on_stop(context, order.reason))
    return _codec.pack(None)
