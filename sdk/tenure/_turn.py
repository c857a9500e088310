"""The turn engine: one activation of an agent, the same in a worker and in `tenure.local()`.

An action works on the live state; the last committed bytes are the undo. A turn that ends well leaves its new state
pending until `commit` or `drop`. Queries see a copy of the last committed state, decoded when one is first needed after
a commit.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec

from tenure import _codec, _record, _routes, _state, _watch
from tenure._agent import Agent, Cell, Role, make
from tenure._context import Context
from tenure._effects import Directive, Error
from tenure._faults import fault_of
from tenure._instruction import Kind
from tenure._methods import Method, find
from tenure._order import Order, execute
from tenure._record import Record
from tenure._recorded import MEMORY, Ahead, Recorded
from tenure._scope import EMITS, Emission, Scope, current_scope
from tenure._state import State
from tenure.errors import Busy, CallError, StateInvalid
from tenure_link import Fault, Signal, Turn, TurnDone, Wait

if TYPE_CHECKING:
    from tenure._journal import Journal
    from tenure.signals import Signal as Envelope
    from tenure.strategies import Snapshot

_NO_CONFIG: Mapping[str, object] = MappingProxyType({})
Hook = Literal["on_start", "on_stop"]
Slices = dict[str, Any]
Fold = Callable[[Slices, Sequence[Directive]], Slices]
"""What a turn's directives change in the slices that are committed with it. Raises CallError to refuse the turn."""


class Done(msgspec.Struct, frozen=True):
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
    waits: Wait | None = None
    """The turn is suspended: there is nothing else of it."""
    asked: tuple[str, ...] = ()
    """Names of the steps that this attempt asked for."""


class Activation(Recorded):
    """One agent in memory. Actions one after the other; queries beside them, on what is committed.

    Turns may run ahead of their commits, each on the draft that the one before left (protocol 3, several turns in one
    write).
    """

    __slots__ = ("_config", "_fold", "_supports", "epoch", "recovered", "uid")

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
        super().__init__(cls, agent_id, stored, initial)
        self.uid = uid
        self.epoch = epoch
        self.recovered = stored is not None
        self._supports = supports
        self._fold = fold
        self._config: Mapping[str, object] = self._map(config, "config") if config else _NO_CONFIG

    @property
    def config(self) -> Mapping[str, object]:
        """Of its row."""
        return self._config

    def dissolve(self) -> None:
        """It is not used any more: it lets go of its runtime, so that both are freed at once, and not as a cycle."""
        self._fold = None

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
        if found is None and self._roster is not None:
            return self._roster.is_query(method)
        return isinstance(found, Method) and found.kind == "query"

    def find(self, name: str, kind: Kind) -> Method[..., Any]:
        """The method of that name, also of a skill (`cart.add`). Raises UnknownMethod, listing near ones."""
        if "." in name and self._roster is not None:
            return self._roster.find(name, kind)
        return find(self.cls, name, kind)

    @property
    def skills(self) -> Mapping[str, str]:
        """Keys of the skills that are attached, by alias."""
        return self._roster.keys if self._roster is not None else {}

    def run_now(self, turn: Turn, method: Method[..., Any], arguments: Mapping[str, Any]) -> Done:
        """Run and commit the turn of a plain function, in this step: for runtimes whose commits are immediate.

        Whatever user code raises becomes a `Fault`. `ended` is False when the function returned a coroutine: nothing
        has happened then.
        """
        self._refuse_second(turn.turn)
        scope = self._scope(turn.turn, method.name, turn.deadline_ns, turn.caller)
        token = current_scope.set(scope)
        began = time.monotonic()
        try:
            draft = self._draft(self._live_state(), scope)
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
            self._committed = state
            self._view.forget()
        return Done(turn.turn, reply, state, tuple(scope.directives) if scope.directives else ())

    async def run(self, turn: Turn, journal: Journal | None = None) -> TurnDone:
        """Run one turn, for a daemon. Else as `perform`."""
        done = await self.perform(turn, journal=journal)
        if done.fault is not None or done.waits is not None:
            return TurnDone(done.turn, fault=done.fault, waits=done.waits)
        signals = tuple(
            Signal(id=f"{self.uid}.{self.epoch}.{done.turn}.{n}", type=one.type, data=one.data)
            for n, one in enumerate(done.directives)
            if isinstance(one, Emission)
        )
        return TurnDone(done.turn, reply=cast(bytes | None, done.reply), state=done.state, signals=signals)

    async def perform(self, turn: Turn, extra: tuple[Directive, ...] = (), journal: Journal | None = None) -> Done:
        """Run one turn. Whatever user code raises becomes a `Fault`; after an undo only CancelledError passes, and what
        the journal raises.

        `extra`: directives of the runtime's own, folded into the record with the turn, or with its acceptance.
        `journal`: of the turn's steps; None: it can have none.
        """
        try:
            method = self.find(turn.method, cast(Kind, turn.kind))
            arguments = method.signature.decode(turn.arguments)
            if method.kind == "query":
                return await self._query(turn, method, arguments)
            self._refuse_second(turn.turn)
        except CallError as error:
            return Done(turn.turn, fault=fault_of(error, turn.method))
        calls = [(method, arguments)]
        return await self._act(
            Order(turn.turn, method.name, calls, turn.deadline_ns, turn.caller, extra=extra, journal=journal)
        )

    async def handle(
        self,
        number: int,
        signal: Envelope,
        *,
        deadline_ns: int = 0,
        caller: str = "",
        extra: tuple[Directive, ...] = (),
        journal: Journal | None = None,
    ) -> Done:
        """Run the actions that a signal leads to, in one turn. Else as `perform`; the reply is that of the first."""
        if self._roster is not None:  # its skills see the signal first
            return await self._act(Order(number, signal.type, (), deadline_ns, caller, signal, extra, journal=journal))
        try:
            methods = _routes.targets(self.cls, signal)
            calls = [(method, _routes.arguments(method, signal)) for method in methods]
            self._refuse_second(number)
        except Exception as error:  # noqa: BLE001 - checks of the signal's data may be the author's
            return Done(number, fault=fault_of(error, signal.type))
        return await self._act(
            Order(number, calls[0][0].name, calls, deadline_ns, caller, signal, extra, journal=journal)
        )

    def leads(self, signal: Envelope) -> int:
        """To how many actions a signal leads, as things are now."""
        if self._roster is None:
            return len(_routes.router_of(self.cls).route(signal))
        from tenure.skills._phases import router_with  # noqa: PLC0415 - agents without skills need none of it

        return len(router_with(self.cls, self._roster.shape).route(signal))

    def has_hook(self, hook: Hook) -> bool:
        """Whether there is something to do then: a hook of the class's own, or skills to begin with."""
        if hook == "on_start" and self._roster is not None:
            return True
        return getattr(self.cls, hook) is not getattr(Agent, hook)

    async def hook(self, number: int, hook: Hook, reason: str = "") -> Done:
        """Run a hook of the class as a turn. Else as `perform`."""
        return await self._act(Order(number, hook, (), reason=reason))

    async def amend(self, number: int, extra: tuple[Directive, ...]) -> Done:
        """A turn of the runtime's own: it folds directives into the record and runs nothing."""
        return await self._act(Order(number, "amend", (), extra=extra, bare=True))

    async def replace(self, number: int, content: bytes) -> Done:
        """A turn of the runtime's own: other values for the fields of the state, msgpack. Raises StateInvalid, Busy."""
        self._refuse_second(number)
        state = _state.of_content(self._kind, self._map(content, "the state"))
        before = self._record, self._unread
        self._record, self._unread = Record(state, self._record.slices, self._record.skills), False
        try:
            return await self.amend(number, ())
        finally:
            if not (self._ahead and self._ahead[-1].turn == number):
                self._record, self._unread = before

    async def _act(self, order: Order) -> Done:
        scope = self._scope(order.number, order.label, order.deadline_ns, order.caller)
        scope.signal, scope.extra = order.signal, order.extra
        scope.journal, scope.lasts = order.journal, order.lasts
        if not order.calls and order.signal is None and self._fold is None:
            scope.supports = frozenset()  # a daemon commits the state that a hook leaves, and nothing else
        self._running, self._dropped = order.number, False
        try:
            draft = self._draft(self._live_state(), scope)
            reply = await execute(order, draft, scope)
            if order.journal is not None:
                scope.extra = _ending(order.journal, scope, reply)
            after, state = self._after(draft, scope, order.calls[0][0].label if order.calls else order.label)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the author's code raises ends its turn only
            self._undo()
            failed = self._failed(order.number, fault_of(error, order.label))
            return failed if scope.steps is None else msgspec.structs.replace(failed, asked=tuple(scope.steps.asked))
        except BaseException as error:  # noqa: BLE001 - what is no end of an attempt is raised again
            self._undo()
            return await self._unwound(order, scope, error)
        finally:
            scope.open = False
            self._running = None
        if self._dropped:  # and the body would not be cancelled
            self._undo()
            return Done(order.number, fault=Fault("DeadlineExceeded", f"{order.label} was given up before it ended"))
        self._record = after
        self._ahead.append(Ahead(order.number, state, after.skills))
        asked = tuple(scope.steps.asked) if scope.steps is not None else ()
        return Done(order.number, reply, state, tuple(scope.directives), asked=asked)

    async def _unwound(self, order: Order, scope: Scope, error: BaseException) -> Done:
        """An attempt that ended before its turn did: what it waits for, or another one. Raises what is neither."""
        if scope.steps is None:
            raise error
        from tenure._steps import Interrupted, Rerun  # noqa: PLC0415 - most turns have none

        if isinstance(error, Interrupted):
            raise error.cause
        if isinstance(error, Rerun):
            scope.open, self._running = False, None
            return await self._act(msgspec.structs.replace(order, deadline_ns=scope.deadline_ns, extra=()))
        wait = scope.steps.waits(error)
        if wait is None or self._dropped:
            raise error
        return Done(order.number, waits=wait, asked=tuple(scope.steps.asked))

    def beside(self, directives: Sequence[Directive]) -> bytes:
        """The last committed record as these directives change it, beside a turn that runs; then `adopt` it."""
        content = _codec.unpack_map(self._committed)
        slices = {name: content.pop(name) for name in list(content) if name.startswith("@")}
        return _codec.pack({**content, **(self._fold or _as_it_is)(slices, directives)})

    async def _query(self, turn: Turn, method: Method[..., Any], arguments: Mapping[str, Any]) -> Done:
        scope = self._scope(turn.turn, method.name, turn.deadline_ns, turn.caller)
        scope.read_only, scope.roster = True, self._roster
        order = Order(turn.turn, method.name, [(method, arguments)], turn.deadline_ns, turn.caller)
        try:
            view = self._view.take(self._decoded, at_once=method.immediate)
            try:
                reply = await execute(order, self._draft(view, scope), scope)
            finally:
                scope.open = False
                self._view.give_back(view, method.label, self.id)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the author's code raises ends its turn only
            return Done(turn.turn, fault=fault_of(error, method.name))
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
        if self._record.skills is not None:
            scope.roster, scope.skills, scope.changes = self._record.skills, {}, []
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
        record = Record(state, slices, scope.roster)
        try:
            data = _record.encode(self.cls, record, checked=state is self._record.state)
        except StateInvalid as error:
            raise StateInvalid(f"{label} left a state that does not fit: {error.message}") from error
        return record, None if data == self._draft_bytes else data

    def _failed(self, number: int, fault: Fault) -> Done:
        """A turn that failed leaves nothing but what the strategy remembers of it."""
        strategy = self.cls.__tenure_strategy__
        if strategy is None or self._fold is None or self._unread:
            return Done(number, fault=fault)
        before = dict(self._record.slices.get(MEMORY, {}))
        memory = strategy.failed(before, Error(fault.code, fault.message))
        if memory == before:
            return Done(number, fault=fault)
        self._record = Record(self._record.state, {**self._record.slices, MEMORY: memory}, self._record.skills)
        state = _record.encode(self.cls, self._record, checked=False)
        self._ahead.append(Ahead(number, state, self._record.skills))
        return Done(number, state=state, fault=fault)

    def _refuse_second(self, number: int) -> None:
        """The host's duty, checked: one turn at a time."""
        if self._running is not None:
            raise Busy(f"turn {number} of {self.id} came while turn {self._running} ran")


def _ending(journal: Journal, scope: Scope, reply: bytes) -> tuple[Directive, ...]:
    """What is committed with the end of a turn [end_in_commit]. Raises StepsChanged, UsageError."""
    if scope.steps is not None or journal.entries:
        from tenure import _steps  # noqa: PLC0415 - most turns have none

        _steps.end(scope)
    return (*scope.extra, *journal.ending(reply))


def _as_it_is(slices: Slices, _: Sequence[Directive]) -> Slices:
    return slices
