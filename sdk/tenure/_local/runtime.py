"""The local runtime: who is here, and how turns reach them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from tenure import _codec, errors
from tenure._agent import Agent, Cell, Role, make, pack_arguments, state_class
from tenure._clock import Clock, SystemClock, VirtualClock
from tenure._context import Emission
from tenure._instruction import Kind, Target
from tenure._local import records, timers, work
from tenure._local.effects import EXECUTORS, Executor, follow
from tenure._local.held import Held
from tenure._local.work import Asked
from tenure._methods import find
from tenure._names import full_id
from tenure._state import S, State
from tenure._turn import Activation, Done, Hook, Slices
from tenure.directives import Directive, Emit, Error
from tenure.signals import Bus, Route, Router, Signal
from tenure.storage import Storage, StorageError
from tenure.strategies import Snapshot
from tenure_link import Fault, Turn

A = TypeVar("A", bound=Agent[Any])
UserExecutor = Callable[["LocalRuntime", str, Any], Awaitable[None] | None]
"""What to do for a directive: with the runtime, the id of the agent that asked, and the directive."""

DEFAULT_TIMEOUT_S = 30.0
"""Of a call, where the caller gives none."""
QUEUE_LIMIT = 10_000
"""Turns that may wait for one agent."""
SIGNALS_KEPT = 100_000

_logger = logging.getLogger("tenure.local")


class LocalRuntime:
    """Agents in this process. Their turns behave as on a cluster: committed as one, or not at all."""

    def __init__(
        self,
        *,
        namespace: str = "default",
        timeout: float = DEFAULT_TIMEOUT_S,
        storage: Storage | None = None,
        clock: Clock | None = None,
        executors: Mapping[type[Directive], UserExecutor] | None = None,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        self._namespace = namespace
        self._timeout = timeout
        self._storage = storage
        self._queue_limit = queue_limit
        self._clock: Clock = clock or SystemClock()
        self._agents: dict[str, Held] = {}
        self._made = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._open = True
        self._executors: dict[type[Directive], Executor] = {**EXECUTORS, Emission: EXECUTORS[Emit]}
        self._executors.update({kind: _of_user(function) for kind, function in (executors or {}).items()})
        self._supports = frozenset(self._executors)
        self._subscribers: Router[str] = Router()
        self._bus: Bus | None = None
        self._outbox: deque[Signal] = deque()
        self.timers = timers.Timers(self._clock, self._fire)
        self.signals: list[Signal] = []
        """What agents emitted, in the order of their commits; of many, the last ones."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Forget the agents; turns that are running are cancelled. What a storage holds stays there."""
        self._open = False
        self.timers.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._agents.clear()

    # --- agents ---

    async def create(
        self,
        cls: type[A],
        agent_id: str,
        *,
        state: State | Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
    ) -> A:
        """Create an agent and return a reference to it; one that exists with this class is left as it is.

        With a storage, one that is stored there goes on with its state. `state`: initial values, the class's defaults
        for the rest. Raises StateInvalid, StateUnreadable, VersionSkew, Conflict, DefinitionError, StorageError.
        """
        full = full_id(agent_id, self._namespace)
        held = self._agents.get(full)
        if held is None:
            initial = state.model_dump(mode="python", round_trip=True) if isinstance(state, State) else state
            await self._activate(cls, full, pack_arguments("state", initial), pack_arguments("config", config))
        elif held.activation.cls is not cls:
            raise self._other_class(full, held.activation.cls.__name__, cls)
        return self.agent(cls, agent_id)

    def agent(self, cls: type[A], agent_id: str) -> A:
        """A reference to an agent, existing or not."""
        return make(cls, Cell(Role.REFERENCE, full_id(agent_id, self._namespace), runtime=self))

    async def stop(self, agent: Agent[Any] | str, reason: str = "stopped") -> None:
        """End an agent, after the turns before. What its storage holds stays there."""
        held = self._agents.get(self.full_id(agent if isinstance(agent, str) else agent.id))
        if held is not None:
            await self.end(held, reason, failed=False)

    def alive(self, agent: Agent[Any] | str) -> bool:
        """Whether the agent is here."""
        return self.full_id(agent if isinstance(agent, str) else agent.id) in self._agents

    def state(self, agent: Agent[S]) -> S:
        """A copy of the last committed state, for the assertions of tests. Raises NotFound."""
        activation = self.held(agent.id).activation
        return activation.committed_state(state_class(type(agent)))

    def snapshot(self, agent: Agent[Any]) -> Snapshot:
        """Where an agent stands, as its strategy sees it. Raises NotFound."""
        return self.held(agent.id).activation.snapshot()

    def full_id(self, agent_id: str) -> str:
        """`namespace/name`. Raises UsageError."""
        return full_id(agent_id, self._namespace)

    def held(self, agent_id: str) -> Held:
        """Of the engine. Raises NotFound, Unavailable."""
        if not self._open:
            raise errors.Unavailable("this local runtime is closed", agent=agent_id)
        held = self._agents.get(agent_id)
        if held is None:
            raise errors.NotFound(f"there is no agent {agent_id}", agent=agent_id)
        return held

    async def _activate(self, cls: type[Agent[Any]], full: str, initial: bytes, config: bytes) -> Held:
        stored = await records.load(self._storage, full) if self._storage is not None else None
        if full in self._agents:  # meanwhile
            return self._agents[full]
        if stored is not None and stored[0] != cls.__name__:
            raise self._other_class(full, stored[0], cls)
        self._made += 1
        activation = Activation(
            cls,
            uid=str(self._made),
            agent_id=full,
            epoch=1,
            stored=stored[1] if stored else None,
            initial=initial,
            config=config,
            supports=self._supports,
            fold=self._fold,
        )
        held = Held(activation, limit=self._queue_limit)
        held.revision = stored[2] if stored else 0
        self._agents[full] = held
        for pattern in cls.__tenure_subscribes__:
            self._subscribers.add(Route(pattern, full))
        try:
            await self._begin(held)
        except BaseException:
            self._forget(held, "it could not begin")
            raise
        return held

    async def _begin(self, held: Held) -> None:
        activation = held.activation
        if activation.first is not None and self._storage is not None:
            await records.save(self._storage, held, activation.first)
        if activation.slices.get(timers.SLICE):
            async with held.turn():
                await self._settle(held, await activation.amend(held.next_turn(), (timers.Resumed(),)))
            self.timers.sync(held)
        if activation.cls.on_start is not Agent.on_start:
            await self._hook(held, "on_start")

    async def _hook(self, held: Held, hook: Hook, reason: str = "") -> None:
        async with held.turn():
            done = await held.activation.hook(held.next_turn(), hook, reason)
            await self._settle(held, done)
        if done.fault is not None:
            raise _error(done.fault, held.id)

    async def end(self, held: Held, reason: str, *, failed: bool) -> None:
        """End an agent: its last hook, then nothing more of it. Idempotent."""
        if held.ended is not None:
            return
        if held.activation.cls.on_stop is not Agent.on_stop:
            try:
                await self._hook(held, "on_stop", reason)
            except errors.CallError as error:
                self.report(held, "on_stop", error)
        self._forget(held, reason, failed=failed)

    def _forget(self, held: Held, reason: str, *, failed: bool = False) -> None:  # noqa: ARG002 - FAMILIES
        if held.ended is not None:
            return
        held.ended = reason
        self._agents.pop(held.id, None)
        self.timers.forget(held.id)
        for pattern in held.activation.cls.__tenure_subscribes__:
            self._subscribers.remove(pattern, held.id)
        held.note_change()

    def _other_class(self, full: str, have: str, cls: type[Agent[Any]]) -> errors.Conflict:
        return errors.Conflict(f"{full} exists and is a {have}, not a {cls.__name__}", agent=full)

    # --- turns ---

    async def call_by_name(
        self,
        agent_id: str,
        name: str,
        arguments: Mapping[str, object] | None = None,
        /,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - in seconds, as everywhere in the SDK
    ) -> object:
        """Run an action or a query by its name. Raises CallError."""
        full = full_id(agent_id, self._namespace)
        return _codec.unpack(await self.invoke(full, "by_name", name, pack_arguments(name, arguments), timeout))

    async def call(
        self,
        agent_id: str,
        target: Target[Any],
        arguments: Mapping[str, object],
        timeout: float | None,  # noqa: ASYNC109 - in seconds, as everywhere in the SDK
    ) -> object:
        """Where references lead. Raises CallError.

        A plain function of an agent that is doing nothing runs in the caller's step: nothing can come between.
        """
        held = self.held(agent_id)
        activation = held.activation
        method = find(activation.cls, target.name, target.kind)
        seconds = self._timeout if timeout is None else timeout
        at_once = method.immediate and method.kind == "action" and activation.direct and self._storage is None
        if at_once and not held.busy and seconds > 0:
            turn = Turn(
                held.next_turn(), activation.uid, "action", method.name, b"", _deadline(seconds), caller="local"
            )
            done = activation.run_now(turn, method, method.signature.values(arguments))
            if done.ended:
                self._after(held, done)
                if done.fault is not None:
                    raise _error(done.fault, agent_id)
                return done.reply
        packed = target.encode_arguments(arguments)
        return target.decode_reply(await self.invoke(agent_id, target.kind, target.name, packed, timeout))

    async def invoke(self, agent_id: str, kind: Kind, method: str, arguments: bytes, timeout: float | None) -> bytes:  # noqa: ASYNC109
        """Where references lead. Raises CallError."""
        held = self.held(agent_id)
        seconds = self._timeout if timeout is None else timeout
        asked = Asked(method, arguments)
        task = self.start(self.do(held, asked, kind=kind, timeout=seconds), f"{agent_id} {method}")
        # A caller that gives up does not stop the turn, as on a cluster.
        return await asyncio.shield(task)

    async def signal(
        self,
        agent: Agent[Any] | str,
        signal: Signal,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> object:
        """Let an agent handle a signal, and wait for it; the reply of the first action that it led to.

        Raises CallError; UnknownSignal if the agent's class has no route for it.
        """
        held = self.held(self.full_id(agent if isinstance(agent, str) else agent.id))
        seconds = self._timeout if timeout is None else timeout
        task = self.start(self.do(held, signal, timeout=seconds), f"{held.id} {signal.type}")
        return _codec.unpack(await asyncio.shield(task))

    async def publish(self, *signals: Signal) -> None:
        """Hand signals to the bus and to the agents that subscribe to their types."""
        for signal in signals:
            self.spread(signal)

    @property
    def bus(self) -> Bus:
        """What crosses this runtime: subscribe, spy, replay."""
        if self._bus is None:
            self._bus = Bus()
        return self._bus

    async def idle(self) -> None:
        """Wait until no turn runs or waits, and everything that was sent has arrived."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def advance(self, seconds: float) -> None:
        """Let virtual time pass: run what is due, in order, each to its end. Raises UsageError for a real clock."""
        if not isinstance(self._clock, VirtualClock):
            raise errors.UsageError(
                "this runtime runs on the machine's clock: tenure.testing has one that can be moved"
            )
        until = self._clock.now() + seconds
        await self.idle()
        while self._clock.step(until):
            await self.idle()

    async def do(
        self,
        held: Held,
        wanted: Asked | Signal,
        *,
        kind: Kind = "action",
        timeout: float | None = None,  # noqa: ASYNC109
        caller: str = "local",
        extra: tuple[Directive, ...] = (),
    ) -> bytes:
        """Run a turn, when it is its turn. Raises CallError. Of the engine."""
        activation = held.activation
        deadline_ns = _deadline(self._timeout if timeout is None else timeout)
        if isinstance(wanted, Asked) and activation.is_query(wanted.name):
            turn = Turn(held.next_turn(), activation.uid, kind, wanted.name, wanted.arguments, deadline_ns, caller)
            done = await activation.perform(turn)
        else:
            async with held.turn():
                number = held.next_turn()
                if isinstance(wanted, Asked):
                    turn = Turn(number, activation.uid, kind, wanted.name, wanted.arguments, deadline_ns, caller)
                    done = await activation.perform(turn, extra)
                else:
                    done = await activation.handle(number, wanted, deadline_ns=deadline_ns, caller=caller, extra=extra)
                await self._settle(held, done)
                if done.fault is not None and extra:
                    await self._settle(held, await activation.amend(held.next_turn(), extra))
        if done.fault is not None:
            raise _error(done.fault, held.id)
        assert isinstance(done.reply, bytes)  # noqa: S101 - of a turn that went well
        return done.reply

    async def _settle(self, held: Held, done: Done) -> None:
        """Make the turn's record durable, then do what it asked for. Raises Unavailable: the turn did not happen."""
        activation = held.activation
        if done.state is not None and self._storage is not None:
            try:
                await records.save(self._storage, held, done.state)
            except StorageError as error:
                activation.drop(done.turn)
                raise errors.Unavailable(f"the storage did not take the state: {error}", agent=held.id) from error
        activation.commit(done.turn)
        self._after(held, done)

    def _after(self, held: Held, done: Done) -> None:
        """What follows a commit."""
        if done.directives:
            self.execute(held, done.directives)
        if done.fault is not None:
            self.fail(held, Error(done.fault.code, done.fault.message), _error(done.fault, held.id))
        if held.changed is not None:
            held.note_change()

    # --- effects ---

    def post(
        self, agent_id: str, wanted: Asked | Signal, *, caller: str = "", extra: tuple[Directive, ...] = ()
    ) -> None:
        """Let an agent do something; nobody waits for it. What fails is logged."""
        held = self._agents.get(agent_id)
        label = work.label_of(wanted)
        if held is None:
            _logger.warning("%s: there is no agent %s", label, agent_id)
            return
        self.start(self._posted(held, wanted, caller, extra), f"{agent_id} {label}")

    async def _posted(self, held: Held, wanted: Asked | Signal, caller: str, extra: tuple[Directive, ...]) -> None:
        try:
            await self.do(held, wanted, caller=caller, extra=extra)
        except errors.CallError as error:
            self.report(held, work.label_of(wanted), error)
        if extra:
            self.timers.sync(held)

    def keep(self, signal: Signal) -> None:
        """One more for `signals`, which is bounded."""
        self.signals.append(signal)
        if len(self.signals) > 2 * SIGNALS_KEPT:
            del self.signals[:SIGNALS_KEPT]

    def spread(self, signal: Signal) -> None:
        """To the bus, and to the agents that subscribe."""
        for agent_id in dict.fromkeys(self._subscribers.route(signal)):
            self.post(agent_id, signal, caller=signal.source)
        if self._bus is not None:
            self._outbox.append(signal)
            if len(self._outbox) == 1:
                self.start(self._publish(self._bus), "bus")

    async def _publish(self, bus: Bus) -> None:
        while self._outbox:
            await bus.publish(self._outbox[0])
            self._outbox.popleft()

    def execute(self, held: Held, directives: Sequence[Directive]) -> None:
        """Do what a turn asked for, in order; what fails hurts nothing else."""
        for directive in directives:
            try:
                result = self._executors[type(directive)](self, held, directive)
                if result is not None:
                    self.start(self._finish(held, directive, result), f"{held.id} {type(directive).__name__}")
            except Exception as error:  # noqa: BLE001 - executors may be the user's
                self._misdone(held, directive, error)

    async def _finish(self, held: Held, directive: Directive, result: Any) -> None:
        try:
            await result
        except Exception as error:  # noqa: BLE001 - as above
            self._misdone(held, directive, error)

    def _misdone(self, held: Held, directive: Directive, error: Exception) -> None:
        self.fail(held, Error("DirectiveFailed", f"{type(directive).__name__}: {error}"), None)

    def fail(self, held: Held, error: Error, cause: BaseException | None) -> None:
        """An agent has failed: its policy decides. `cause`: what somebody is told already; None: it is logged."""
        follow(self, held, error, cause)

    def report(self, held: Held, what: str, error: BaseException) -> None:
        """Log a failure that nobody waits for."""
        details = getattr(error, "details", "")
        _logger.error("%s of %s failed: %s%s", what, held.id, error, f"\n{details}" if details else "")

    def start(self, body: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """A task that `idle` waits for and `close` ends."""
        task = asyncio.get_running_loop().create_task(body, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _fold(self, slices: Slices, directives: Sequence[Directive]) -> Slices:
        now = self._clock.now()
        for directive in directives:
            timers.fold(slices, directive, now)
        return slices

    def _fire(self, held: Held, name: str, plan: Mapping[str, Any]) -> None:
        extra = (timers.Fired(name, plan["at"]),)
        self.post(held.id, work.read(plan), caller=f"{held.id} timer {name}", extra=extra)


def _of_user(function: UserExecutor) -> Executor:
    return lambda runtime, held, directive: function(runtime, held.id, directive)


def _deadline(seconds: float) -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(seconds * 1e9)


def _error(fault: Fault, agent_id: str) -> errors.CallError:
    return errors.from_code(fault.code, fault.message, agent=agent_id, details=fault.details)


def local(
    *,
    namespace: str = "default",
    timeout: float = DEFAULT_TIMEOUT_S,
    storage: Storage | None = None,
    executors: Mapping[type[Directive], UserExecutor] | None = None,
) -> LocalRuntime:
    """A runtime in this process: `async with tenure.local() as rt`.

    `timeout` in seconds, of calls that give none. `storage`: where agents are kept, so that they go on from there next
    time; without one they are gone with the runtime. `executors`: what to do for directives of your own.
    """
    return LocalRuntime(namespace=namespace, timeout=timeout, storage=storage, executors=executors)
