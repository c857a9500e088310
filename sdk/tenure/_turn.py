"""The turn engine: one activation of an agent, the same in a worker and in `tenure.local()`.

An action works on the live state; the last committed bytes are the undo. A turn that ends well leaves its new state
pending until `commit` or `drop`. Queries see a copy of the last committed state, decoded when one is first needed after
a commit.
"""

from __future__ import annotations

import asyncio
import inspect
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tenure import _codec, _state, _watch
from tenure._agent import Agent, Cell, Role, make, state_class
from tenure._context import Context, Scope, current_scope, on_loop_clock
from tenure._methods import Method, find
from tenure._state import State
from tenure.errors import Busy, CallError, DeadlineExceeded, StateInvalid
from tenure_link import Fault, Signal, Turn, TurnDone

MESSAGE_LIMIT = 2_000
"""Characters of a fault's message; its traceback may have ten times as many."""


@dataclass(frozen=True, slots=True)
class Immediate:
    """How `Activation.run_now` ended. `done` False: not at all, the function is to be awaited."""

    reply: object = None
    signals: tuple[Signal, ...] = ()
    fault: Fault | None = None
    done: bool = False


class Activation:
    """One agent in memory. Actions one after the other; queries beside them."""

    def __init__(
        self,
        cls: type[Agent[Any]],
        *,
        uid: str,
        agent_id: str,
        epoch: int,
        stored: bytes | None,
        initial: bytes = b"",
        config: bytes = b"",
    ) -> None:
        """Begin with the stored state, or make the first one. Raises StateInvalid, StateUnreadable, DefinitionError."""
        self.cls = cls
        self.uid = uid
        self.id = agent_id
        self.epoch = epoch
        self._kind: type[State] = state_class(cls)
        self.first: bytes | None = None
        """The first state, to be committed before the agent is called; None when there was a stored one."""
        if stored is None:
            self._state = _state.initial(self._kind, self._map(initial, "initial state"))
            stored = self.first = _state.encode(self._state)
        else:
            self._state = _state.decode(self._kind, stored)
        self._config: Mapping[str, object] = self._map(config, "config")
        self._committed = stored
        self._running: int | None = None
        self._dropped = False
        self._pending: tuple[int, bytes | None] | None = None
        self._view: State | None = None

    @property
    def committed(self) -> bytes:
        """The last committed state, msgpack."""
        return self._committed

    def is_query(self, method: str) -> bool:
        """Whether it may run beside an action."""
        found = getattr(self.cls, method, None)
        return isinstance(found, Method) and found.kind == "query"

    def commit(self, turn: int) -> None:
        """The turn's state is durable: it is the new undo. Ignored for any turn but the pending one."""
        if self._pending is not None and self._pending[0] == turn:
            state = self._pending[1]
            self._pending = None
            if state is not None:
                self._committed, self._view = state, None

    def drop(self, turn: int) -> None:
        """The turn did not happen: undo it, when it ends if it still runs. Ignored for any turn but the last."""
        if self._running == turn:
            self._dropped = True
        elif self._pending is not None and self._pending[0] == turn:
            self._undo()

    def run_now(self, turn: Turn, method: Method[..., Any], arguments: Mapping[str, Any]) -> Immediate:
        """Run and commit the turn of a plain function, in this step: for runtimes whose commits are immediate.

        Whatever user code raises becomes a `Fault`. Returns None in place of a reply when the function returned a
        coroutine: nothing has happened then.
        """
        self._refuse_second(turn)
        scope = self._scope(turn, method)
        draft = make(self.cls, Cell(Role.DRAFT, self.id, state=self._state, scope=scope, config=self._config))
        token = current_scope.set(scope)
        began = time.monotonic()
        try:
            first = (draft, Context(scope)) if method.signature.takes_context else (draft,)
            result = method.function(*first, **arguments)
            if inspect.iscoroutine(result):
                result.close()
                self._undo()
                return Immediate()
            reply = method.signature.reply_value(result)
            after = draft.state
            state = self._encoded(after, method)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the author's code raises ends its turn only
            self._undo()
            return Immediate(fault=fault_of(error, method.name), done=True)
        except asyncio.CancelledError as error:  # of the body's own making: nothing was awaited
            self._undo()
            raised = RuntimeError("the action raised CancelledError").with_traceback(error.__traceback__)
            return Immediate(fault=fault_of(raised, method.name), done=True)
        except BaseException:
            self._undo()
            raise
        finally:
            current_scope.reset(token)
            scope.open = False
            _watch.note(method.label, self.id, time.monotonic() - began)
        self._state = after
        if state is not None:
            self._committed, self._view = state, None
        return Immediate(reply, self._signals(turn.turn, scope) if scope.emitted else (), done=True)

    async def run(self, turn: Turn) -> TurnDone:
        """Run one turn. Whatever user code raises becomes a `Fault`; only CancelledError passes, after an undo."""
        try:
            method = find(self.cls, turn.method, turn.kind)
            arguments = method.signature.decode(turn.arguments)
            if method.kind == "query":
                return await self._query(turn, method, arguments)
            self._refuse_second(turn)
            return await self._action(turn, method, arguments)
        except CallError as error:
            return TurnDone(turn.turn, fault=fault_of(error, turn.method))

    async def _action(self, turn: Turn, method: Method[..., Any], arguments: Mapping[str, Any]) -> TurnDone:
        scope = self._scope(turn, method)
        draft = make(self.cls, Cell(Role.DRAFT, self.id, state=self._state, scope=scope, config=self._config))
        self._running, self._dropped = turn.turn, False
        try:
            reply = await _execute(method, draft, scope, arguments, turn.deadline_ns)
            after = draft.state
            state = self._encoded(after, method)
        except CallError as error:
            self._undo()
            return TurnDone(turn.turn, fault=fault_of(error, method.name))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the author's code raises ends its turn only
            self._undo()
            return TurnDone(turn.turn, fault=fault_of(error, method.name))
        except BaseException:
            self._undo()
            raise
        finally:
            scope.open = False
            self._running = None
        if self._dropped:  # and the body would not be cancelled
            self._undo()
            return TurnDone(turn.turn, fault=Fault("DeadlineExceeded", f"{method.name} was given up before it ended"))
        self._state = after
        self._pending = (turn.turn, state)
        return TurnDone(turn.turn, reply=reply, state=state, signals=self._signals(turn.turn, scope))

    def _signals(self, turn: int, scope: Scope) -> tuple[Signal, ...]:
        return tuple(
            Signal(id=f"{self.uid}.{self.epoch}.{turn}.{n}", type=type_, data=data)
            for n, (type_, data) in enumerate(scope.emitted)
        )

    async def _query(self, turn: Turn, method: Method[..., Any], arguments: Mapping[str, Any]) -> TurnDone:
        scope = self._scope(turn, method)
        if self._view is None:
            self._view = _state.decode(self._kind, self._committed)
        draft = make(self.cls, Cell(Role.DRAFT, self.id, state=self._view, scope=scope, config=self._config))
        try:
            reply = await _execute(method, draft, scope, arguments, turn.deadline_ns)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the author's code raises ends its turn only
            return TurnDone(turn.turn, fault=fault_of(error, method.name))
        finally:
            scope.open = False
        return TurnDone(turn.turn, reply=reply)

    def _scope(self, turn: Turn, method: Method[..., Any]) -> Scope:
        return Scope(
            self.id,
            method.name,
            uid=self.uid,
            caller=turn.caller,
            epoch=self.epoch,
            deadline_ns=turn.deadline_ns,
            read_only=method.kind == "query",
        )

    def _encoded(self, after: State, method: Method[..., Any]) -> bytes | None:
        """The state to commit, None if it is what is committed. Raises StateInvalid."""
        try:
            state = _state.encode(after, checked=after is self._state)
        except StateInvalid as error:
            raise StateInvalid(f"{method.label} left a state that does not fit: {error.message}") from error
        return None if state == self._committed else state

    def _refuse_second(self, turn: Turn) -> None:
        """The host's duty, checked: the next turn only after the one before was committed or dropped."""
        unsettled = self._pending[0] if self._pending is not None else self._running
        if unsettled is not None:
            raise Busy(f"turn {turn.turn} of {self.id} came while turn {unsettled} was not settled")

    def _undo(self) -> None:
        self._pending = None
        self._state = _state.decode(self._kind, self._committed)

    def _map(self, data: bytes, what: str) -> dict[str, object]:
        try:
            return _codec.unpack_map(data)
        except ValueError as error:
            raise StateInvalid(f"{what} of {self.id}: {error}") from error


async def _execute(
    method: Method[..., Any], draft: Agent[Any], scope: Scope, arguments: Mapping[str, Any], deadline_ns: int
) -> bytes:
    """Run the body within the deadline; its reply. Raises DeadlineExceeded, ActionFailed, and what the body raises."""
    token = current_scope.set(scope)
    limit = asyncio.timeout_at(on_loop_clock(deadline_ns) if deadline_ns else None)
    try:
        if deadline_ns and time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= deadline_ns:
            raise DeadlineExceeded(f"the deadline passed before {method.name} began")
        async with limit:
            result = await _watch.watched(method.run(draft, Context(scope), arguments), method.label, scope.agent_id)
    except TimeoutError as error:
        if limit.expired():
            raise DeadlineExceeded(
                f"the deadline passed in {method.name}; it was cancelled and changed nothing"
            ) from error
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or not task.cancelling():  # raised by the body itself: nobody asked this task to end
            raise RuntimeError("the action raised CancelledError") from error
        raise
    finally:
        current_scope.reset(token)
    return method.signature.encode_reply(result)


def fault_of(error: BaseException, method: str) -> Fault:
    """An exception in words for the author of the code; the traceback begins at the author's first frame."""
    if isinstance(error, CallError):
        return Fault(error.code, error.message[:MESSAGE_LIMIT], error.details[: 10 * MESSAGE_LIMIT])
    text = str(error) or "no message"
    message = f"{type(error).__name__} in {method}: {text}"
    lines = traceback.format_exception(type(error), error, _author_frames(error.__traceback__))
    return Fault("ActionFailed", message[:MESSAGE_LIMIT], "".join(lines)[-10 * MESSAGE_LIMIT :])


def _author_frames(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of this package at its start."""
    first = trace
    while first is not None and first.tb_frame.f_globals.get("__name__", "").split(".")[0] in {"tenure", "asyncio"}:
        first = first.tb_next
    return first or trace
