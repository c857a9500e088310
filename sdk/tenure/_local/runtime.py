"""The local runtime: who is here, and how turns reach them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, TypeVar

from tenure import _codec, errors
from tenure._agent import Agent, Cell, Role, make, pack_arguments, state_class
from tenure._clock import Clock, SystemClock, VirtualClock
from tenure._instruction import Kind, Target
from tenure._local import owed, spans
from tenure._local.effects import Executor
from tenure._local.engine import Engine
from tenure._local.held import error_of
from tenure._local.keyed import InstanceManager
from tenure._local.lives import other_class
from tenure._local.owing import deadline_ns
from tenure._local.waiting import Waits
from tenure._local.work import Asked
from tenure._state import S, State
from tenure.directives import Directive
from tenure.observe import Hub
from tenure.signals import Bus, Signal
from tenure.storage import Storage
from tenure.strategies import Snapshot
from tenure_link import Turn

A = TypeVar("A", bound=Agent[Any])
UserExecutor = Callable[["LocalRuntime", str, Any], Awaitable[None] | None]
"""What to do for a directive: with the runtime, the id of the agent that asked, and the directive."""

DEFAULT_TIMEOUT_S = 30.0
"""Of a call, where the caller gives none."""
QUEUE_LIMIT = 10_000
"""Turns that may wait for one agent."""


class LocalRuntime(Waits):
    """Agents in this process. Their turns behave as on a cluster: committed as one, or not at all."""

    _engine_class: ClassVar[type[Engine]] = Engine
    """`tenure.testing` has one with faults."""

    def __init__(
        self,
        *,
        namespace: str = "default",
        timeout: float = DEFAULT_TIMEOUT_S,
        storage: Storage | None = None,
        clock: Clock | None = None,
        executors: Mapping[type[Directive], UserExecutor] | None = None,
        queue_limit: int = QUEUE_LIMIT,
        hub: Hub | None = None,
    ) -> None:
        self._engine = self._engine_class(
            self,
            namespace=namespace,
            timeout=timeout,
            storage=storage,
            clock=clock or SystemClock(),
            executors={kind: _of_user(function) for kind, function in (executors or {}).items()},
            queue_limit=queue_limit,
            hub=hub or Hub(),
        )

    @property
    def hub(self) -> Hub:
        """Who hears of what happens here."""
        return self._engine.hub

    @property
    def signals(self) -> list[Signal]:
        """What agents emitted, in the order of their commits; of many, the last ones."""
        return self._engine.signals

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Forget the agents; turns that are running are cancelled. What a storage holds stays there."""
        await self._engine.close()

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
        _check_class(cls)
        full = self._engine.full_id(agent_id)
        held = self._engine.agents.get(full)
        if held is None and self._engine.sleepers.comes(full):
            held = await asyncio.shield(self._engine.start(self._engine.reach(full), f"{full} is wanted"))
        if held is None:
            initial = state.model_dump(mode="python", round_trip=True) if isinstance(state, State) else state
            await self._engine.lives.activate(
                cls, full, pack_arguments("state", initial), pack_arguments("config", config)
            )
        elif held.activation.cls is not cls:
            raise other_class(full, held.activation.cls.__name__, cls)
        return self.agent(cls, agent_id)

    def agent(self, cls: type[A], agent_id: str) -> A:
        """A reference to an agent, existing or not."""
        return make(cls, Cell(Role.REFERENCE, self._engine.full_id(agent_id), runtime=self))

    async def stop(self, agent: Agent[Any] | str, reason: str = "stopped") -> None:
        """End an agent, after the turns before. What its storage holds stays there."""
        full = self.full_id(agent)
        held = self._engine.agents.get(full)
        if held is None and self._engine.sleepers.comes(full):
            held = await asyncio.shield(self._engine.start(self._engine.reach(full), f"{full} is wanted"))
        if held is not None:
            await asyncio.shield(self._engine.start(self._engine.lives.end(held, reason, failed=False), f"{full} stop"))

    def alive(self, agent: Agent[Any] | str) -> bool:
        """Whether the agent is here."""
        return self.full_id(agent) in self._engine.agents

    def full_id(self, agent: Agent[Any] | str) -> str:
        """`namespace/name`. Raises UsageError for what names no agent."""
        return self._engine.full_id(agent if isinstance(agent, str) else agent.id)

    def state(self, agent: Agent[S]) -> S:
        """A copy of the last committed state, for the assertions of tests. Raises NotFound."""
        activation = self._engine.held(agent.id).activation
        return activation.committed_state(state_class(type(agent)))

    async def hibernate(self, agent: Agent[Any] | str) -> None:
        """Let an agent sleep in its storage, after the turns before, until somebody wants it or a plan of it is due.

        References to it go on as before. Raises ConfigurationError without a storage, StorageError if what is stored
        is not what the agent is: it stays here then; NotFound. One that sleeps already sleeps on.
        """
        full = self.full_id(agent)
        if full not in self._engine.sleepers.asleep:
            held = self._engine.held(full)
            await asyncio.shield(self._engine.start(self._engine.sleepers.put(held), f"{full} sleeps"))

    def keyed(
        self,
        cls: type[A],
        *,
        name: str = "",
        namespace: str = "",
        idle_timeout: float | None = None,
        storage: Storage | Literal["inherit"] | None = "inherit",
    ) -> InstanceManager[A]:
        """A manager of agents of one class by key.

        `name`: before each key in the agents' ids; the class's, if none is given. `idle_timeout`: seconds without a
        turn after which an agent goes to sleep in its storage; None: never. `storage`: the runtime's, another one, or
        None: in memory only, and awake for ever. Raises Conflict for a name that is in use, UsageError for no name.
        """
        manager = InstanceManager(
            self._engine,
            cls,
            name=name or cls.__name__.lower(),
            namespace=namespace or self._engine.namespace,
            idle_timeout=idle_timeout,
            storage=self._engine.storage if storage == "inherit" else storage,
        )
        self._engine.keepers.add(manager)
        return manager

    def snapshot(self, agent: Agent[Any]) -> Snapshot:
        """Where an agent stands, as its strategy sees it. Raises NotFound."""
        return self._engine.held(agent.id).activation.snapshot()

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
        full = self._engine.full_id(agent_id)
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
        held = self._engine.agents.get(agent_id)
        if held is None:
            packed = await self.invoke(agent_id, target.kind, target.name, target.encode_arguments(arguments), timeout)
            return target.decode_reply(packed)
        activation = held.activation
        method = activation.find(target.name, target.kind)
        seconds = self._engine.timeout if timeout is None else timeout
        at_once = method.immediate and method.kind == "action" and activation.direct and held.storage is None
        if at_once and not held.busy and seconds > 0 and not owed.queues(activation.slices):
            turn = Turn(
                held.next_turn(), activation.uid, "action", method.name, b"", deadline_ns(seconds), caller="local"
            )
            values, hub = method.signature.values(arguments), self._engine.hub
            span = (
                hub.begin("tenure.turn", held.who, method.name, turn=turn.turn, parameters=values) if hub.on else None
            )
            done = activation.run_now(turn, method, values)
            if span is not None and not done.ended:
                hub.forget(span)
            if done.ended:
                self._engine.after(held, done)
                if span is not None:
                    spans.ended(self._engine.hub, span, done)
                if done.fault is not None:
                    raise error_of(done.fault, agent_id)
                return done.reply
        packed = target.encode_arguments(arguments)
        return target.decode_reply(await self.invoke(agent_id, target.kind, target.name, packed, timeout))

    async def invoke(self, agent_id: str, kind: Kind, method: str, arguments: bytes, timeout: float | None) -> bytes:  # noqa: ASYNC109
        """Where references lead. Raises CallError."""
        if agent_id not in self._engine.agents and not self._engine.expected(agent_id):
            self._engine.held(agent_id)  # says what is wrong
        seconds = self._engine.timeout if timeout is None else timeout
        return await self._engine.answered(agent_id, Asked(method, arguments), kind=kind, timeout=seconds)

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
        full = self.full_id(agent)
        if full not in self._engine.agents and not self._engine.expected(full):
            self._engine.held(full)  # says what is wrong
        seconds = self._engine.timeout if timeout is None else timeout
        return _codec.unpack(await self._engine.answered(full, signal, timeout=seconds))

    async def publish(self, *signals: Signal) -> None:
        """Hand signals to the bus and to the agents that subscribe to their types."""
        for signal in signals:
            if not isinstance(signal, Signal):  # pyright: ignore[reportUnnecessaryIsInstance] - not everybody checks
                raise errors.UsageError(f"publish takes signals, Signal.new(type, data, source=...), not {signal!r}")
            self._engine.spread(self._engine.hub.incoming(signal) if self._engine.hub.on else signal)

    @property
    def bus(self) -> Bus:
        """What crosses this runtime: subscribe, spy, replay."""
        return self._engine.broadcast.open_bus()

    async def idle(self) -> None:
        """Wait until no turn runs or waits, and everything that was sent has arrived."""
        await self._engine.idle()

    async def advance(self, seconds: float) -> None:
        """Let virtual time pass: run what is due, in order, each to its end. Raises UsageError for a real clock."""
        if not isinstance(self._engine.clock, VirtualClock):
            raise errors.UsageError(
                "this runtime runs on the machine's clock: tenure.testing has one that can be moved"
            )
        if seconds < 0:
            raise errors.UsageError(f"time goes on and not back: advance({seconds:g})")
        until = self._engine.clock.now() + seconds
        await asyncio.sleep(0)  # tasks of the caller's that are about to wait for the time
        await self.idle()
        while self._engine.clock.step(until):
            await self.idle()


def _check_class(cls: object) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Agent)):
        raise errors.UsageError(f"create takes a class of agents, class Counter(tenure.Agent[...]), not {cls!r}")


def _of_user(function: UserExecutor) -> Executor:
    return lambda engine, held, directive: function(engine.runtime, held.id, directive)


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
