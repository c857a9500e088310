"""Actions with options: attempts, each in its time, with nothing left of a failed one; and compensation at the end."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import random
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tenure import _codec, _deadline, _state
from tenure._agent import Agent, Cell, around
from tenure._clock import Clock
from tenure._context import Context
from tenure._deadline import boot_ns, on_loop_clock
from tenure._scope import Scope
from tenure._state import State
from tenure.errors import CallError, DeadlineExceeded

if TYPE_CHECKING:
    from tenure._methods import Method
    from tenure._options import Options

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pace:
    """The two things that waiting between attempts needs of the world."""

    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    """Seconds."""
    jitter: Callable[[], float] = lambda: random.random()  # noqa: PLW0108, S311 - looked up late: a simulation has its own
    """0 to 1: how much of the second half of a wait is waited."""


pace: ContextVar[Pace] = ContextVar("tenure_pace", default=Pace())  # noqa: B039 - it is frozen
"""For tests, and for runtimes whose clock is not the machine's."""


def paced_by(clock: Clock) -> Pace:
    """Waits on this clock, such as one that stands still until a test moves it."""

    async def sleep(seconds: float) -> None:
        over = asyncio.get_running_loop().create_future()
        handle = clock.call_at(clock.now() + seconds, lambda: None if over.done() else over.set_result(None))
        try:
            await over
        finally:
            handle.cancel()

    return Pace(sleep)


class Before:
    """A draft as it is now, to go back to: its state, and what the turn has sent so far."""

    __slots__ = ("_cell", "_content", "_lists", "_maps", "_state")

    def __init__(self, cell: Cell[Any]) -> None:
        """Raises StateInvalid when the state, as the turn has left it so far, does not fit its class."""
        state: State | None = cell.state
        self._cell = cell
        self._state = state
        self._content = _state.encode(state) if state is not None else b""
        # What a turn does beside its state stands in lists of its scope, which grow, and in maps.
        names = cast(tuple[str, ...], getattr(cell.scope, "__slots__", ()))
        lists: list[list[Any]] = [value for name in names if isinstance(value := getattr(cell.scope, name), list)]
        maps: list[dict[str, Any]] = [value for name in names if isinstance(value := getattr(cell.scope, name), dict)]
        self._lists = [(rows, len(rows)) for rows in lists]
        self._maps = [(content, copy.deepcopy(content)) for content in maps]

    def copy(self) -> State | None:
        """The state as it was, an object of its own."""
        return _state.decode(type(self._state), self._content) if self._state is not None else None

    def restore(self) -> None:
        """Go back. The state is the same object as before: an action around this one may hold it."""
        was = self.copy()
        if was is not None and self._state is not None:
            _overwrite(self._state, was)
        self._cell.state = self._state
        for rows, length in self._lists:
            del rows[length:]
        for content, was_then in self._maps:
            content.clear()
            content.update(copy.deepcopy(was_then))


def _overwrite(state: State, content: State) -> None:
    vars(state).clear()
    vars(state).update(vars(content))
    for name in ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
        object.__setattr__(state, name, getattr(content, name))


def is_pure() -> bool:
    """Whether `cmd` runs this: without an event loop, and so without time."""
    return not isinstance(asyncio._get_running_loop(), asyncio.AbstractEventLoop)  # noqa: SLF001 - see `cmd`


async def within(scope: Scope | None, ends_ns: int, what: str, begin: Callable[[], Awaitable[T]]) -> T:
    """Await what `begin` returns until then at most, CLOCK_BOOTTIME; 0: as long as the turn may.

    Raises DeadlineExceeded, which says `what` took too long.
    """
    ends_ns = _deadline.until(scope, ends_ns)
    if not ends_ns or is_pure():
        return await begin()
    if boot_ns() >= ends_ns:
        raise DeadlineExceeded(f"the deadline passed before {what} began")
    limit = asyncio.timeout_at(on_loop_clock(ends_ns))
    try:
        async with limit:
            with _deadline.capped(scope, ends_ns):
                return await begin()
    except TimeoutError as error:
        if limit.expired():
            raise DeadlineExceeded(f"{what} did not end in its time; it was cancelled") from error
        raise


def ends_at(scope: Scope | None, seconds: float | None) -> int:
    """CLOCK_BOOTTIME in ns so many seconds from now, or the earlier deadline of the turn; 0: never."""
    deadline = _deadline.until(scope, scope.deadline_ns if scope is not None else 0)
    if seconds is None:
        return deadline
    own = boot_ns() + int(seconds * 1e9)
    return min(own, deadline) if deadline else own


async def run(
    method: Method[..., Any], agent: Agent[Any], context: Context, arguments: Mapping[str, Any], options: Options
) -> object:
    """Run a body as its options say. Raises what the last attempt raised, with a note on what was done about it."""
    scope = agent.__tenure__.scope
    if scope is not None and options.max_retries:
        scope.repeated = True
    undoes = method.kind == "action" and (options.max_retries or options.compensate is not None or method.blocking)
    before = Before(agent.__tenure__) if undoes else None
    ends_ns = _room_for_compensation(scope, options)
    limited = options.timeout is not None or options.compensate is not None  # else the turn's own deadline will do
    attempt = 0
    while True:
        attempt += 1
        until = min(filter(None, (ends_at(scope, options.timeout), ends_ns)), default=0) if limited else 0
        try:
            given = _given(arguments, options)
            body = functools.partial(_attempt, method, agent, context, given, options, before)
            return await within(scope, until, method.label, body)
        except Exception as error:
            if before is not None:
                before.restore()
            wait = _wait_before(attempt, options, error, ends_ns)
            if wait is None:
                await _give_up(method, agent, context, options, before, error, attempt)
                raise
        if wait and not is_pure():
            await pace.get().sleep(wait)


def _given(arguments: Mapping[str, Any], options: Options) -> Mapping[str, Any]:
    """The arguments for one attempt, which may change them."""
    if not options.max_retries or all(map(_codec.crosses, arguments.values())):
        return arguments
    try:
        return copy.deepcopy(dict(arguments))
    except TypeError:  # what cannot be copied cannot come from outside of the turn
        return arguments


async def _attempt(
    method: Method[..., Any],
    agent: Agent[Any],
    context: Context,
    arguments: Mapping[str, Any],
    options: Options,
    before: Before | None,
) -> object:
    if method.blocking and before is not None:
        result = await _in_thread(method, agent, context, arguments, before)
    else:
        result = await method.body(agent, context, arguments)
    if options.after_run is not None:
        result = options.after_run(agent, context, result)
        if inspect.isawaitable(result):
            result = await result
    if options.compensate is not None and agent.state is not None:
        _state.encode(agent.state)  # what the commit would refuse is to be compensated too
    return options.refine(result, method.label)


async def _in_thread(
    method: Method[..., Any], agent: Agent[Any], context: Context, arguments: Mapping[str, Any], before: Before
) -> object:
    """A thread cannot be stopped: it works on a draft of its own, so that one given up has nothing to change."""
    cell = agent.__tenure__
    own: Cell[Any] = copy.copy(cell)
    own.state = mine = before.copy()
    if cell.scope is None or is_pure():
        return await method.body(agent, context, arguments)
    own.scope = scope = copy.copy(cell.scope)
    scope.skills = copy.deepcopy(cell.scope.skills)
    scope.deadline_ns = _deadline.until(cell.scope, scope.deadline_ns)
    try:
        result = await method.body(around(agent, own), Context(scope), arguments)
        replaced: State | None = own.state
    finally:
        scope.open = False
    cell.scope.skills = scope.skills
    if replaced is not mine:
        cell.state = replaced
    elif mine is not None and cell.state is not None:
        _overwrite(cell.state, mine)
    return result


def _room_for_compensation(scope: Scope | None, options: Options) -> int:
    """Until when there may be attempts. CLOCK_BOOTTIME; 0: for ever."""
    deadline = ends_at(scope, None)
    if not deadline or options.compensate is None:
        return deadline
    left = deadline - boot_ns()
    return deadline - min(int(options.compensate_timeout * 1e9), left // 2)


def _wait_before(attempt: int, options: Options, error: Exception, ends_ns: int) -> float | None:
    """Seconds until the next attempt; None: there is none."""
    if attempt > options.max_retries or not options.retries(error):
        return None
    whole = min(options.backoff * 2.0 ** min(attempt - 1, 64), options.backoff_max)
    wait = whole * (0.5 + pace.get().jitter() / 2)
    if ends_ns and boot_ns() + wait * 1e9 >= ends_ns:
        return None
    return wait


async def _give_up(
    method: Method[..., Any],
    agent: Agent[Any],
    context: Context,
    options: Options,
    before: Before | None,
    error: Exception,
    attempts: int,
) -> None:
    """Compensate, and tell with the error what was done."""
    done = [f"{attempts} attempts"] if attempts > 1 else []
    if options.compensate is not None:
        done.append(await _compensate(agent, context, options, error))
        if before is not None:
            before.restore()
    if not done:
        return
    tell(error, f"{method.label}: {', '.join(done)}")


def tell(error: Exception, text: str) -> None:
    """Add to what the details of the turn's fault will say."""
    if isinstance(error, CallError):  # its traceback is not told
        error.details = f"{error.details}\n{text}".strip()
    else:
        error.add_note(text)


async def _compensate(agent: Agent[Any], context: Context, options: Options, error: Exception) -> str:
    """How it went, in words. Whatever it raises ends here."""
    function = options.compensate
    task = None if is_pure() else asyncio.current_task()
    cancelled = task.cancelling() if task is not None else 0

    async def compensate() -> None:
        result = function(agent, context, error) if function is not None else None
        if inspect.isawaitable(result):
            await result

    scope = agent.__tenure__.scope
    seconds = options.compensate_timeout
    if deadline := ends_at(scope, None):  # a tenth is left to tell of it
        seconds = min(seconds, max(0, deadline - boot_ns()) * 0.9e-9)
    try:
        await within(scope, ends_at(scope, seconds), "the compensation", compensate)
    except (Exception, SystemExit) as failed:  # noqa: BLE001 - it must not hide the error that it follows
        return f"compensation failed: {type(failed).__name__}: {failed}"
    except asyncio.CancelledError:
        if task is None or task.cancelling() > cancelled:
            raise
        return "compensation failed: CancelledError"
    return "compensated"
