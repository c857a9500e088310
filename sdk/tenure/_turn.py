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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, cast

from tenure import _codec, _record, _routes, _state, _watch
from tenure._agent import Agent, Cell, Role, make, state_class
from tenure._body import run_one, settled
from tenure._context import EMITS, Context, Emission, Scope, current_scope, on_loop_clock
from tenure._effects import Directive, Error
from tenure._methods import Method, find
from tenure._record import Record
from tenure._state import S, State
from tenure.errors import Busy, CallError, DeadlineExceeded, StateInvalid
from tenure_link import Fault, Signal, Turn, TurnDone

if TYPE_CHECKING:
    from tenure.signals import Signal as Envelope
    from tenure.strategies import Snapshot

MESSAGE_LIMIT = 2_000
"""Characters of a fault's message; its traceback may have ten times as many."""
MEMORY = "@strategy"
"""The slice of the agent's strategy."""
Hook = Literal["on_start", "on_stop"]
Call = tuple[Method[..., Any], Mapping[str, Any]]
"""An action and its checked arguments."""
Slices = dict[str, Any]
Fold = Callable[[Slices, Sequence[Directive]], Slices]
"""What a turn's directives change in the slices that are committed with it. Raises CallError to refuse the turn."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a turn ended: with a fault, or with a reply and what is to be committed and done."""

    turn: int
    reply: object = None
    """msgpack; of `run_now` the value itself."""
    state: bytes | None = None
    """To be committed; None: nothing has changed."""
    directives: tuple[Directive, ...] = ()
    fault: Fault | None = None
    ended: bool = True
    """False, of `run_now` only: the function is to be awaited, nothing has happened."""


@dataclass(frozen=True, slots=True)
class _Order:
    """What a turn is to do: actions one after the other, as one."""

    number: int
    label: str
    calls: Sequence[Call]
    deadline_ns: int = 0
    caller: str = ""
    signal: Envelope | None = None
    extra: tuple[Directive, ...] = ()
    reason: str = ""


class Activation:
    """One agent in memory. Actions one after the other; queries beside them."""

    def __init__(  # noqa: PLR0913 - what an activation is made of
        self,
        cls: type[Agent[Any]],
        *,
        uid: str,
        agent_id: str,
        epoch: int,
        stored: bytes | None,
        initial: bytes = b"",
        config: bytes = b"",
        supports: frozenset[type[Directive]] | None = EMITS,
        fold: Fold | None = None,
    ) -> None:
        """Begin with the stored state, or make the first one. Raises StateInvalid, StateUnreadable, DefinitionError.

        `supports`: directives that the runtime has executors for, None: any. With `fold` the runtime keeps slices of
        its own, and commits what a strategy remembers of a failed turn.
        """
        self.cls = cls
        self.uid = uid
        self.id = agent_id
        self.epoch = epoch
        self.recovered = stored is not None
        self._kind: type[State] = state_class(cls)
        self._supports = supports
        self._fold = fold
        self.first: bytes | None = None
        """The first state, to be committed before the agent is called; None when there was a stored one."""
        if stored is None:
            state = _state.initial(self._kind, self._map(initial, "initial state"))
            memory = cls.__tenure_strategy__.initial() if cls.__tenure_strategy__ is not None else {}
            self._record = Record(state, {MEMORY: memory} if memory else {})
            stored = self.first = _record.encode(cls, self._record, checked=False)
        else:
            self._record = _record.decode(cls, self._kind, stored)
        self._config: Mapping[str, object] = self._map(config, "config")
        self._committed = stored
        self._running: int | None = None
        self._dropped = False
        self._pending: tuple[int, bytes | None] | None = None
        self._view: State | None = None

    @property
    def committed(self) -> bytes:
        """The last committed record, msgpack."""
        return self._committed

    def committed_state(self, kind: type[S]) -> S:
        """A copy of the last committed state."""
        return _record.decode(cast("type[Agent[S]]", self.cls), kind, self._committed).state

    @property
    def slices(self) -> Mapping[str, Any]:
        """What is kept beside the state, by name; of the live record."""
        return self._record.slices

    @property
    def direct(self) -> bool:
        """Whether an action is its function and nothing else, so that `run_now` may run it."""
        return self.cls.__tenure_direct__

    def snapshot(self) -> Snapshot:
        """Where the agent stands, as its strategy sees it."""
        from tenure.strategies import Snapshot  # noqa: PLC0415 - agents without a strategy need none of it

        strategy = self.cls.__tenure_strategy__
        return Snapshot() if strategy is None else strategy.snapshot(dict(self._record.slices.get(MEMORY, {})))

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

    def run_now(self, turn: Turn, method: Method[..., Any], arguments: Mapping[str, Any]) -> Done:
        """Run and commit the turn of a plain function, in this step: for runtimes whose commits are immediate.

        Whatever user code raises becomes a `Fault`. `ended` is False when the function returned a coroutine: nothing
        has happened then.
        """
        self._refuse_second(turn.turn)
        scope = self._scope(turn.turn, method.name, turn.deadline_ns, turn.caller)
        draft = self._draft(self._record.state, scope)
        token = current_scope.set(scope)
        began = time.monotonic()
        try:
            first = (draft, Context(scope)) if method.signature.takes_context else (draft,)
            result = method.function(*first, **arguments)
            if inspect.iscoroutine(result):
                result.close()
                self._undo()
                return Done(turn.turn, ended=False)
            reply = method.signature.reply_value(result)
            after, state = self._after(draft, scope, method.label)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the author's code raises ends its turn only
            self._undo()
            return Done(turn.turn, fault=fault_of(error, method.name))
        except asyncio.CancelledError as error:  # of the body's own making: nothing was awaited
            self._undo()
            raised = RuntimeError("the action raised CancelledError").with_traceback(error.__traceback__)
            return Done(turn.turn, fault=fault_of(raised, method.name))
        except BaseException:
            self._undo()
            raise
        finally:
            current_scope.reset(token)
            scope.open = False
            _watch.note(method.label, self.id, time.monotonic() - began)
        self._record = after
        if state is not None:
            self._committed, self._view = state, None
        return Done(turn.turn, reply, state, tuple(scope.directives) if scope.directives else ())

    async def run(self, turn: Turn) -> TurnDone:
        """Run one turn, for a daemon. Whatever user code raises becomes a `Fault`; only CancelledError passes."""
        done = await self.perform(turn)
        if done.fault is not None:
            return TurnDone(done.turn, fault=done.fault)
        signals = tuple(
            Signal(id=f"{self.uid}.{self.epoch}.{done.turn}.{n}", type=one.type, data=one.data)
            for n, one in enumerate(done.directives)
            if isinstance(one, Emission)
        )
        return TurnDone(done.turn, reply=cast(bytes | None, done.reply), state=done.state, signals=signals)

    async def perform(self, turn: Turn, extra: tuple[Directive, ...] = ()) -> Done:
        """Run one turn. Whatever user code raises becomes a `Fault`; only CancelledError passes, after an undo.

        `extra`: directives of the runtime's own, folded into the record with the turn.
        """
        try:
            method = find(self.cls, turn.method, turn.kind)
            arguments = method.signature.decode(turn.arguments)
            if method.kind == "query":
                return await self._query(turn, method, arguments)
            self._refuse_second(turn.turn)
        except CallError as error:
            return Done(turn.turn, fault=fault_of(error, turn.method))
        calls = [(method, arguments)]
        return await self._act(_Order(turn.turn, method.name, calls, turn.deadline_ns, turn.caller, extra=extra))

    async def handle(
        self,
        number: int,
        signal: Envelope,
        *,
        deadline_ns: int = 0,
        caller: str = "",
        extra: tuple[Directive, ...] = (),
    ) -> Done:
        """Run the actions that a signal leads to, in one turn. Else as `perform`; the reply is that of the first."""
        try:
            methods = _routes.targets(self.cls, signal)
            calls = [(method, _routes.arguments(method, signal)) for method in methods]
            self._refuse_second(number)
        except Exception as error:  # noqa: BLE001 - checks of the signal's data may be the author's
            return Done(number, fault=fault_of(error, signal.type))
        return await self._act(_Order(number, calls[0][0].name, calls, deadline_ns, caller, signal, extra))

    def has_hook(self, hook: Hook) -> bool:
        """Whether the class has a hook of its own."""
        return getattr(self.cls, hook) is not getattr(Agent, hook)

    async def hook(self, number: int, hook: Hook, reason: str = "") -> Done:
        """Run a hook of the class as a turn. Else as `perform`."""
        return await self._act(_Order(number, hook, (), reason=reason))

    async def amend(self, number: int, extra: tuple[Directive, ...]) -> Done:
        """A turn of the runtime's own: it folds directives into the record and runs nothing."""
        return await self._act(_Order(number, "amend", (), extra=extra))

    async def _act(self, order: _Order) -> Done:
        scope = self._scope(order.number, order.label, order.deadline_ns, order.caller)
        scope.signal, scope.extra = order.signal, order.extra
        if not order.calls and self._fold is None:
            scope.supports = frozenset()  # a daemon commits the state that a hook leaves, and nothing else
        draft = self._draft(self._record.state, scope)
        self._running, self._dropped = order.number, False
        try:
            reply = await _execute(order, draft, scope)
            after, state = self._after(draft, scope, order.calls[0][0].label if order.calls else order.label)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the author's code raises ends its turn only
            self._undo()
            return self._failed(order.number, fault_of(error, order.label))
        except BaseException:
            self._undo()
            raise
        finally:
            scope.open = False
            self._running = None
        if self._dropped:  # and the body would not be cancelled
            self._undo()
            return Done(order.number, fault=Fault("DeadlineExceeded", f"{order.label} was given up before it ended"))
        self._record = after
        self._pending = (order.number, state)
        return Done(order.number, reply, state, tuple(scope.directives))

    async def _query(self, turn: Turn, method: Method[..., Any], arguments: Mapping[str, Any]) -> Done:
        scope = self._scope(turn.turn, method.name, turn.deadline_ns, turn.caller)
        scope.read_only = True
        if self._view is None:
            self._view = _record.decode(self.cls, self._kind, self._committed).state
        order = _Order(turn.turn, method.name, [(method, arguments)], turn.deadline_ns, turn.caller)
        try:
            reply = await _execute(order, self._draft(self._view, scope), scope)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the author's code raises ends its turn only
            return Done(turn.turn, fault=fault_of(error, method.name))
        finally:
            scope.open = False
        return Done(turn.turn, reply)

    def _scope(self, turn: int, label: str, deadline_ns: int, caller: str) -> Scope:
        scope = Scope(
            self.id,
            label,
            uid=self.uid,
            caller=caller,
            epoch=self.epoch,
            turn=turn,
            deadline_ns=deadline_ns,
            supports=self._supports,
            recovered=self.recovered,
            slices=self._record.slices,
        )
        if self.cls.__tenure_strategy__ is not None:
            scope.strategy = self.cls.__tenure_strategy__
            scope.memory = dict(self._record.slices.get(MEMORY) or scope.strategy.initial())
        return scope

    def _draft(self, state: State, scope: Scope) -> Agent[Any]:
        return make(self.cls, Cell(Role.DRAFT, self.id, state=state, scope=scope, config=self._config))

    def _after(self, draft: Agent[Any], scope: Scope, label: str) -> tuple[Record[Any], bytes | None]:
        """The record after a turn, and the bytes to commit, None if nothing has changed. Raises StateInvalid."""
        state, slices = draft.state, self._record.slices
        if scope.memory:
            slices = {**slices, MEMORY: scope.memory}
        if self._fold is not None and (scope.directives or scope.extra):
            slices = self._fold(dict(slices), [*scope.extra, *scope.directives])
        record = Record(state, slices)
        try:
            data = _record.encode(self.cls, record, checked=state is self._record.state)
        except StateInvalid as error:
            raise StateInvalid(f"{label} left a state that does not fit: {error.message}") from error
        return record, None if data == self._committed else data

    def _failed(self, number: int, fault: Fault) -> Done:
        """A turn that failed leaves nothing but what the strategy remembers of it."""
        strategy = self.cls.__tenure_strategy__
        if strategy is None or self._fold is None:
            return Done(number, fault=fault)
        before = dict(self._record.slices.get(MEMORY, {}))
        memory = strategy.failed(before, Error(fault.code, fault.message))
        if memory == before:
            return Done(number, fault=fault)
        self._record = Record(self._record.state, {**self._record.slices, MEMORY: memory})
        state = _record.encode(self.cls, self._record, checked=False)
        self._pending = (number, state)
        return Done(number, state=state, fault=fault)

    def _refuse_second(self, number: int) -> None:
        """The host's duty, checked: the next turn only after the one before was committed or dropped."""
        unsettled = self._pending[0] if self._pending is not None else self._running
        if unsettled is not None:
            raise Busy(f"turn {number} of {self.id} came while turn {unsettled} was not settled")

    def _undo(self) -> None:
        self._pending = None
        self._record = _record.decode(self.cls, self._kind, self._committed)

    def _map(self, data: bytes, what: str) -> dict[str, object]:
        try:
            return _codec.unpack_map(data)
        except ValueError as error:
            raise StateInvalid(f"{what} of {self.id}: {error}") from error


async def _execute(order: _Order, draft: Agent[Any], scope: Scope) -> bytes:
    """Run the bodies within the deadline; the first one's reply. Raises DeadlineExceeded and what the bodies raise."""
    token = current_scope.set(scope)
    limit = asyncio.timeout_at(on_loop_clock(order.deadline_ns) if order.deadline_ns else None)
    try:
        if order.deadline_ns and time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= order.deadline_ns:
            raise DeadlineExceeded(f"the deadline passed before {order.label} began")
        async with limit:
            if not order.calls:
                return await _hook(order, draft, Context(scope))
            replies = [
                await _watch.watched(run_one(draft, scope, method, arguments), method.label, scope.agent_id)
                for method, arguments in order.calls
            ]
    except TimeoutError as error:
        if limit.expired():
            raise DeadlineExceeded(
                f"the deadline passed in {order.label}; it was cancelled and changed nothing"
            ) from error
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or not task.cancelling():  # raised by the body itself: nobody asked this task to end
            raise RuntimeError("the action raised CancelledError") from error
        raise
    finally:
        current_scope.reset(token)
    return order.calls[0][0].signature.encode_reply(replies[0])


async def _hook(order: _Order, draft: Agent[Any], context: Context) -> bytes:
    if order.label == "on_start":
        await settled(draft.on_start(context))
    elif order.label == "on_stop":
        await settled(draft.on_stop(context, order.reason))
    return _codec.pack(None)


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
