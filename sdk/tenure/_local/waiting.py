"""Waiting for agents, without asking them again and again: each change of an agent wakes who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast, overload

from tenure import _codec, errors
from tenure._agent import Agent, state_class
from tenure._context import Parent
from tenure._local import families, owed, work
from tenure._local.held import Held
from tenure._scope import running_scope
from tenure._state import S
from tenure.strategies import Snapshot

if TYPE_CHECKING:
    from tenure._local.engine import Engine

T = TypeVar("T")
A = TypeVar("A", bound=Agent[Any])
WAIT_S = 10.0
"""How long to wait, where nothing is said."""
CHILD_S = 30.0
"""The same, for a child: it may have to begin first."""


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """How an agent stands."""

    id: str
    standing: Literal["idle", "processing", "starting", "asleep", "stopped"]
    queue_length: int = 0
    """Turns that wait."""
    turns: int = 0
    """Since it was activated; queries are turns, too."""
    errors: int = 0
    """Turns and effects that failed, since it was activated."""
    last_error: str = ""
    snapshot: Snapshot = field(default_factory=Snapshot)
    """As its strategy sees it."""
    reason: str = ""
    """Why it stopped."""
    owes: str = ""
    """The action of a turn that is accepted and has not ended."""
    waits_for: str = ""
    """What that turn waits for, e.g. "wait_for order.approved"; empty: it goes on."""

    @property
    def done(self) -> bool:
        """Whether nothing more is to be expected: its strategy says so, or it has stopped."""
        return self.standing == "stopped" or self.snapshot.done


def status_of(engine: Engine, agent_id: str) -> AgentStatus:
    """How an agent stands. Raises NotFound for one that was never here, Unavailable."""
    held = engine.agents.get(agent_id)
    if held is not None:
        return _status(held)
    known = engine.known(agent_id)
    match known.standing:
        case "starting" | "asleep":
            return AgentStatus(agent_id, known.standing)
        case "ended":
            return AgentStatus(agent_id, "stopped", reason=known.reason)
        case _:
            return _status(engine.held(agent_id))  # which says what is wrong


def _status(held: Held) -> AgentStatus:
    turn = owed.turn_of(_codec.unpack_map(held.activation.committed)) or {}
    return AgentStatus(
        held.id,
        "asleep" if held.asleep else held.standing,
        held.waiting,
        held.turns,
        held.errors,
        held.last_error,
        held.activation.snapshot(),
        held.ended or "",
        work.label_of(work.read(turn)) if turn else "",
        turn["wait"]["name"] if turn and turn["wait"] else "",
    )


def hint(status: AgentStatus) -> str:  # noqa: PLR0911 - one sentence each
    """What to look at first when an agent does not come to where it should."""
    if status.standing == "stopped":
        return f"it has stopped: {status.reason}"
    if status.standing == "asleep":
        return "it is asleep: a call or a signal wakes it"
    if status.standing == "starting":
        return "it is starting: look at what its storage or its on_start waits for"
    if status.waits_for:
        return f"its turn of {status.owes} is suspended: {status.waits_for}"
    if status.standing == "processing":
        waiting = f", and {status.queue_length} wait behind it" if status.queue_length else ""
        return f"one of its turns is still running{waiting}"
    if status.last_error:
        return f"it is idle, and its last failure was {status.last_error}"
    if not status.turns:
        return "it is idle and had no turn yet: nobody asked it for anything"
    return "it is idle and nothing waits for it: what is waited for must still be asked for"


class Waits:
    """The part of a runtime that waits for agents. Time-outs are in seconds, by the runtime's clock; None: never.

    None of it can be used inside a turn: it raises CallInsideTurn there.
    """

    _engine: Engine

    @overload
    async def wait(self, agent: Agent[S], condition: Callable[[S], bool], *, timeout: float | None = WAIT_S) -> S: ...  # noqa: ASYNC109

    @overload
    async def wait(self, agent: Agent[Any] | str, *, timeout: float | None = WAIT_S) -> AgentStatus: ...  # noqa: ASYNC109

    async def wait(
        self,
        agent: Agent[Any] | str,
        condition: Callable[[Any], bool] | None = None,
        *,
        timeout: float | None = WAIT_S,  # noqa: ASYNC109 - as everywhere in the SDK
    ) -> Any:
        """Wait until a committed state is as wanted, and return it; else until the agent is done, and its status.

        `condition` gets a copy of the state. Without one: until the agent's strategy says success or failure, or it has
        stopped. Raises WaitTimeout with a diagnosis, NotFound for an agent that is not there, AgentUnavailable for one
        that stops before the condition holds, and what the condition raises.
        """
        async with _Until(self._engine, timeout) as until:
            return await self._one(agent, condition, until)

    async def _one(self, agent: Agent[Any] | str, condition: Callable[[Any], bool] | None, until: _Until) -> Any:
        _refuse_in_turn(agent)
        full = self._engine.full_id(agent if isinstance(agent, str) else agent.id)
        return await _wait(self._engine, full, condition, until)

    async def wait_child(
        self,
        parent: Agent[Any] | str,
        tag: str,
        condition: Callable[[Any], bool] | None = None,
        *,
        timeout: float | None = CHILD_S,  # noqa: ASYNC109
    ) -> Any:
        """`wait` for a child of an agent, which may still have to begin. Else as `wait`."""
        _refuse_in_turn(parent)
        engine = self._engine
        full = engine.full_id(parent if isinstance(parent, str) else parent.id)

        def there(held: Held) -> str | None:
            row = families.children_of(held.activation.slices).get(tag)
            if row is not None and (row["id"] in engine.agents or engine.sleepers.comes(row["id"])):
                return cast(str, row["id"])
            return engine.kinship.left.get(Parent(full, tag)) if row is None else None

        async with _Until(engine, timeout) as until:
            child = await _changes(engine, full, there, until, f"the child {tag!r} of {full}")
            return await _wait(engine, child, condition, until)

    async def wait_all(
        self,
        agents: Sequence[Agent[Any] | str],
        condition: Callable[[Any], bool] | None = None,
        *,
        timeout: float | None = WAIT_S,  # noqa: ASYNC109
    ) -> list[Any]:
        """`wait` for all of them; the results, in their order. WaitTimeout is about the first one that is missing."""
        async with _Until(self._engine, timeout) as until:
            tasks = [asyncio.ensure_future(self._one(one, condition, until)) for one in agents]
            try:
                return [await task for task in tasks]
            finally:
                await _end(tasks)

    async def wait_any(
        self,
        agents: Sequence[A],
        condition: Callable[[Any], bool] | None = None,
        *,
        timeout: float | None = WAIT_S,  # noqa: ASYNC109
    ) -> tuple[A, Any]:
        """`wait` for the first of them: which one, and its result. WaitTimeout is about the first in the list.

        One that fails is an answer only if all do. Raises UsageError for an empty list.
        """
        if not agents:
            raise errors.UsageError("wait_any of no agents would never end")
        async with _Until(self._engine, timeout) as until:
            tasks = [asyncio.ensure_future(self._one(one, condition, until)) for one in agents]
            try:
                left = set(tasks)
                while left:
                    _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                    for agent, task in zip(agents, tasks, strict=True):
                        if task.done() and task.exception() is None:
                            return agent, task.result()
                return agents[0], tasks[0].result()  # which raises
            finally:
                await _end(tasks)

    def children(self, agent: Agent[Any] | str) -> Mapping[str, str]:
        """Ids of an agent's children, by tag. Raises NotFound."""
        held = self._engine.held(self._engine.full_id(agent if isinstance(agent, str) else agent.id))
        return {tag: row["id"] for tag, row in families.children_of(held.activation.slices).items()}

    def status(self, agent: Agent[Any] | str) -> AgentStatus:
        """How an agent stands. Raises NotFound for one that was never here."""
        return status_of(self._engine, self._engine.full_id(agent if isinstance(agent, str) else agent.id))

    async def watch_status(self, agent: Agent[Any] | str) -> AsyncGenerator[AgentStatus]:
        """How an agent stands, now and after each change, until it is done; of changes at once, the last.

        `async for status in rt.watch_status(agent): ...`. An agent that is watched does not sleep. Raises NotFound.
        """
        engine = self._engine
        full = engine.full_id(agent if isinstance(agent, str) else agent.id)
        last: AgentStatus | None = None
        while last is None or not last.done:
            held = engine.agents.get(full)
            changed = None if held is None else _changed(held)
            status = status_of(engine, full)
            if status != last:
                last = status
                yield status
            elif held is None or changed is None:
                await _present(engine, full)
            else:
                with _watching(held):
                    await changed.wait()


# --- how it is done ---


class _Until:
    """An end of waiting by the runtime's clock."""

    def __init__(self, engine: Engine, seconds: float | None) -> None:
        self._clock = engine.clock
        self._seconds = seconds
        self._began = engine.clock.now()
        self.passed: asyncio.Event = asyncio.Event()
        self._handle = None if seconds is None else engine.clock.call_at(self._began + seconds, self._pass)
        self.waited_s = 0.0

    def _pass(self) -> None:
        self.waited_s = self._clock.now() - self._began
        self.passed.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._handle is not None:
            self._handle.cancel()

    async def first(self, changed: asyncio.Event) -> bool:
        """Wait for a change. False: it did not come in time."""
        tasks = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(self.passed.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(tasks)
        return changed.is_set()


async def _wait(engine: Engine, full: str, condition: Callable[[Any], bool] | None, until: _Until) -> Any:
    if condition is None:
        ended = engine.known(full)
        if ended.standing == "ended":
            return status_of(engine, full)
        return await _changes(engine, full, lambda held: s if (s := _status(held)).done else None, until, full)
    found: list[Any] = []

    def holds(held: Held) -> bool | None:
        state = held.activation.committed_state(state_class(held.activation.cls))
        if condition(state):
            found.append(state)
            return True
        if held.ended is not None and not held.asleep:
            message = f"{full} stopped before the condition held: {held.ended}"
            raise errors.AgentUnavailable(message, agent=full)
        return None

    await _changes(engine, full, holds, until, f"the condition on {full}")
    return found[-1]


async def _changes(engine: Engine, full: str, wanted: Callable[[Held], T | None], until: _Until, what: str) -> T:
    """Look at an agent after each of its changes until `wanted` finds something. Raises WaitTimeout, NotFound."""
    held = await _present(engine, full)
    while True:
        if held.ended is not None and (held.asleep or full in engine.agents or full in engine.lives.arriving):
            held = await _present(engine, full)  # it was woken, or began again
        changed = _changed(held)
        found = wanted(held)
        if found is not None:
            return found
        if held.ended is not None and not held.asleep:
            raise errors.AgentUnavailable(f"{full} has stopped: {held.ended}", agent=full)
        with _watching(held):
            if not await until.first(changed):
                raise _timeout(engine, full, what, until)


async def _present(engine: Engine, full: str) -> Held:
    if full in engine.agents:
        return engine.agents[full]
    engine.alive(full)
    come: Held = await asyncio.shield(engine.start(engine.reach(full), f"{full} is waited for"))
    return come


def _changed(held: Held) -> asyncio.Event:
    """Set at the agent's next change."""
    if held.changed is None:
        held.changed = asyncio.Event()
    return held.changed


@contextmanager
def _watching(held: Held) -> Generator[None]:
    """An agent that somebody waits for does not go to sleep by itself."""
    held.watchers += 1
    try:
        yield
    finally:
        held.watchers -= 1


def _timeout(engine: Engine, full: str, what: str, until: _Until) -> errors.WaitTimeout:
    status = status_of(engine, full)
    diagnosis: dict[str, object] = {
        "hint": hint(status),
        "status": status.standing,
        "queue_length": status.queue_length,
        "turns": status.turns,
        "waited_ms": round(until.waited_s * 1000),
        "last_error": status.last_error,
    }
    return errors.WaitTimeout(f"{what} did not come in {round(until.waited_s, 3):g} s: {diagnosis['hint']}", diagnosis)


def _refuse_in_turn(agent: Agent[Any] | str) -> None:
    scope = running_scope()
    if scope is not None:
        raise errors.CallInsideTurn(f"{scope.agent_id} waits for {agent!r} inside of its turn of {scope.method}")


async def _end(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
