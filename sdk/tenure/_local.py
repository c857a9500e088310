"""`tenure.local()`: agents in this process, for tests and first steps. No daemon, nothing on disk."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from tenure import _codec, errors
from tenure._agent import Agent, Cell, Role, make, pack_arguments, state_class
from tenure._instruction import Kind, Target
from tenure._methods import find
from tenure._state import S, State
from tenure._turn import Activation
from tenure.signals import Signal
from tenure_link import Fault, Turn
from tenure_link import Signal as Emitted

A = TypeVar("A", bound=Agent[Any])

DEFAULT_TIMEOUT_S = 30.0
"""Of a call, where the caller gives none."""

_ID = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def full_id(agent_id: str, namespace: str) -> str:
    """`namespace/name`, with the default namespace where none is given. Raises UsageError for what is no such name."""
    if not _ID.fullmatch(agent_id):
        raise errors.UsageError(
            f"{agent_id!r} names no agent: [namespace/]name, of lower case letters, digits, - and ."
        )
    return agent_id if "/" in agent_id else f"{namespace}/{agent_id}"


class _Held:
    """An agent of this runtime: its activation, and the lock that makes its actions take turns."""

    __slots__ = ("_lock", "activation", "turns")

    def __init__(self, activation: Activation) -> None:
        self.activation = activation
        self.turns = 0
        self._lock: asyncio.Lock | None = None

    @property
    def lock(self) -> asyncio.Lock:
        """Made when it is first needed: most agents never wait."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    @property
    def busy(self) -> bool:
        """Whether an action runs or waits."""
        return self._lock is not None and self._lock.locked()


class LocalRuntime:
    """Agents in this process. Their turns behave as on a cluster: committed as one, or not at all."""

    def __init__(self, *, namespace: str = "default", timeout: float = DEFAULT_TIMEOUT_S) -> None:
        self._namespace = namespace
        self._timeout = timeout
        self._agents: dict[str, _Held] = {}
        self._tasks: set[asyncio.Task[bytes]] = set()
        self._open = True
        self.signals: list[Signal] = []
        """What agents emitted, in the order of their commits."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Forget the agents; turns that are running are cancelled."""
        self._open = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._agents.clear()

    async def create(
        self,
        cls: type[A],
        agent_id: str,
        *,
        state: State | Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
    ) -> A:
        """Create an agent and return a reference to it; one that exists with this class is left as it is.

        `state`: initial values, the class's defaults for the rest. Raises StateInvalid, Conflict, DefinitionError.
        """
        full = full_id(agent_id, self._namespace)
        held = self._agents.get(full)
        if held is None:
            initial = (
                state.model_dump(mode="python", round_trip=True) if isinstance(state, State) else dict(state or {})
            )
            activation = Activation(
                cls,
                uid=str(len(self._agents) + 1),
                agent_id=full,
                epoch=1,
                stored=None,
                initial=pack_arguments("state", initial),
                config=pack_arguments("config", config),
            )
            self._agents[full] = _Held(activation)
        elif held.activation.cls is not cls:
            have = held.activation.cls.__name__
            raise errors.Conflict(f"{full} exists and is a {have}, not a {cls.__name__}", agent=full)
        return self.agent(cls, agent_id)

    def agent(self, cls: type[A], agent_id: str) -> A:
        """A reference to an agent, existing or not."""
        return make(cls, Cell(Role.REFERENCE, full_id(agent_id, self._namespace), runtime=self))

    def state(self, agent: Agent[S]) -> S:
        """A copy of the last committed state, for the assertions of tests. Raises NotFound."""
        activation = self._held(agent.id).activation
        return _decoded(state_class(type(agent)), activation.committed)

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
        held = self._held(agent_id)
        method = find(held.activation.cls, target.name, target.kind)
        seconds = self._timeout if timeout is None else timeout
        if method.immediate and method.kind == "action" and not held.busy and seconds > 0:
            held.turns += 1
            deadline_ns = _boot_ns() + int(seconds * 1e9)
            turn = Turn(held.turns, held.activation.uid, "action", method.name, b"", deadline_ns, caller="local")
            ended = held.activation.run_now(turn, method, method.signature.values(arguments))
            if ended.fault is not None:
                raise _error(ended.fault, agent_id)
            if ended.done:
                self._publish(agent_id, ended.signals)
                return ended.reply
        packed = target.encode_arguments(arguments)
        return target.decode_reply(await self.invoke(agent_id, target.kind, target.name, packed, timeout))

    async def invoke(self, agent_id: str, kind: Kind, method: str, arguments: bytes, timeout: float | None) -> bytes:  # noqa: ASYNC109
        """Where references lead. Raises CallError."""
        held = self._held(agent_id)
        seconds = self._timeout if timeout is None else timeout
        deadline_ns = _boot_ns() + int(seconds * 1e9)
        held.turns += 1
        turn = Turn(held.turns, held.activation.uid, kind, method, arguments, deadline_ns, caller="local")
        task = asyncio.create_task(self._turn(held, turn), name=f"{agent_id} {method}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A caller that gives up does not stop the turn, as on a cluster.
        return await asyncio.shield(task)

    def _held(self, agent_id: str) -> _Held:
        if not self._open:
            raise errors.Unavailable("this local runtime is closed", agent=agent_id)
        held = self._agents.get(agent_id)
        if held is None:
            raise errors.NotFound(f"there is no agent {agent_id}", agent=agent_id)
        return held

    async def _turn(self, held: _Held, turn: Turn) -> bytes:
        activation = held.activation
        async with contextlib.nullcontext() if activation.is_query(turn.method) else held.lock:
            done = await activation.run(turn)
            if done.fault is not None:
                raise _error(done.fault, activation.id)
            activation.commit(turn.turn)
            self._publish(activation.id, done.signals)
        return done.reply or b""

    def _publish(self, agent_id: str, signals: Iterable[Emitted]) -> None:
        self.signals.extend(
            Signal(id=one.id, source=agent_id, type=one.type, data=_codec.unpack(one.data)) for one in signals
        )


def _boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _error(fault: Fault, agent_id: str) -> errors.CallError:
    return errors.from_code(fault.code, fault.message, agent=agent_id, details=fault.details)


def _decoded(kind: type[S], data: bytes) -> S:
    return kind.model_validate(_codec.unpack_map(data), by_name=True, by_alias=False)


def local(*, namespace: str = "default", timeout: float = DEFAULT_TIMEOUT_S) -> LocalRuntime:
    """A runtime in this process: `async with tenure.local() as rt`. `timeout` in seconds, of calls that give none."""
    return LocalRuntime(namespace=namespace, timeout=timeout)
