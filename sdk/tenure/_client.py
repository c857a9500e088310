"""Clients of a cluster: `AsyncClient`, and `Client` for code without an event loop.

Both are thin: gRPC and all else that a connection needs is in `tenure._remote`, loaded with the first connection.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

from tenure import _codec, errors
from tenure._agent import Agent, Cell, Role, make, pack_arguments
from tenure._instruction import Instruction, Kind, Target
from tenure._local import DEFAULT_TIMEOUT_S
from tenure._names import full_id
from tenure._state import State

if TYPE_CHECKING:  # with gRPC: loaded when it is needed
    from tenure._remote import Remote
    from tenure._remote.registry import Works

A = TypeVar("A", bound=Agent[Any])
R = TypeVar("R")
Durability = Literal["Quorum", "Volatile"]
Reads = Literal["Local", "Quorum"]
FIRST_ANSWER_S = 10.0
"""How long a new connection waits for the first server to answer."""


class AsyncClient:
    """A connection to a cluster: `async with tenure.connect() as client`.

    `url`: `tenure://HOST:PORT[,…]/NAMESPACE/CLUSTER`; None: TENURE_URL, then a running `tenure dev`. `timeout`: seconds
    for calls that give none. A call is repeated under one id until then, wherever the agent moves, and takes effect
    once.
    """

    def __init__(self, url: str | None = None, *, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        self._url = url
        self._timeout = timeout
        self._remote: Remote | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect, unless connected. Raises ConfigurationError, Unavailable, Unauthenticated."""
        if self._remote is not None:
            return
        self._remote = await _open_remote(self._url, self._timeout)

    async def close(self) -> None:
        """End the connection. Calls that wait end with Unavailable."""
        remote, self._remote = self._remote, None
        if remote is not None:
            await remote.close()

    @property
    def cluster(self) -> str:
        """`namespace/name` of the cluster. Raises UsageError before `open`."""
        return self._open().endpoint.cluster

    async def create(
        self,
        cls: type[A],
        agent_id: str,
        *,
        state: State | Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
        pool: str = "default",
        durability: Durability = "Quorum",
        reads: Reads = "Local",
        idle_timeout: float | None = None,
    ) -> A:
        """Create an agent and return a reference to it; one that exists with this class and spec is left as it is.

        `state`: initial values, the class's defaults for the rest. `durability` "Volatile": nothing is stored. `reads`
        "Quorum": queries ask a majority of the servers and trust no clock. `idle_timeout`: seconds without work after
        which the agent leaves memory until it is asked again; None: never. Returns when the cluster has recorded the
        agent; calls wait until it is ready. Raises Conflict, NotReady while one of that name is going, and what else
        the cluster refuses.
        """
        initial = state.model_dump(mode="python", round_trip=True) if isinstance(state, State) else dict(state or {})
        await self._open().create(
            self._full(agent_id),
            cls.__name__,
            pool=pool,
            state=pack_arguments("state", initial),
            config=pack_arguments("config", config),
            works=_works(durability, reads, idle_timeout),
        )
        return self.agent(cls, agent_id)

    def agent(self, cls: type[A], agent_id: str) -> A:
        """A reference to an agent, existing or not."""
        return make(cls, Cell(Role.REFERENCE, self._full(agent_id), runtime=self))

    async def delete(self, agent_id: str) -> None:
        """Stop an agent and remove it with its state; nothing if there is none. Raises CallError."""
        await self._open().delete(self._full(agent_id))

    async def find(
        self,
        *,
        capability: str = "",
        labels: Mapping[str, str] | None = None,
        node: str = "",
        live: bool = True,
    ) -> list[str]:
        """Ids of the agents that offer a capability, have all of these labels, or are on a node: ask for one of them.

        `live`: only those that are Ready. A capability is the agent's own (spec) or its class's
        (`class Reader(Agent[State], capabilities=["ocr"])`). Raises CallError.
        """
        rows = await self._open().find(capability=capability, labels=labels, node=node, live=live)
        return [row.spec.id for row in rows]

    async def call_by_name(
        self,
        agent_id: str,
        name: str,
        arguments: Mapping[str, object] | None = None,
        /,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - in seconds, as everywhere in the SDK
    ) -> object:
        """Run an action or a query by its name, for tools that know no class. Raises CallError."""
        packed = pack_arguments(name, arguments)
        return _codec.unpack(await self.invoke(self._full(agent_id), "by_name", name, packed, timeout))

    async def invoke(self, agent_id: str, kind: Kind, method: str, arguments: bytes, timeout: float | None) -> bytes:  # noqa: ASYNC109
        """Where references lead. Raises CallError."""
        return await self._open().invoke(agent_id, kind, method, arguments, timeout)

    async def call(
        self,
        agent_id: str,
        target: Target[Any],
        arguments: Mapping[str, object],
        timeout: float | None,  # noqa: ASYNC109
    ) -> object:
        """Where references lead. Raises CallError."""
        packed = target.encode_arguments(arguments)
        return target.decode_reply(await self.invoke(agent_id, target.kind, target.name, packed, timeout))

    def _open(self) -> Remote:
        if self._remote is None:
            raise errors.UsageError("the client is not connected: use `async with tenure.connect() as client`")
        return self._remote

    def _full(self, agent_id: str) -> str:
        return full_id(agent_id, self._open().endpoint.namespace)


class Reference(Generic[A]):
    """An agent as a `Client` sees it. `ref.call(Counter.increment(by=2))` blocks until the reply."""

    def __init__(self, client: Client, agent: A) -> None:
        self._client = client
        self._agent = agent

    @property
    def id(self) -> str:
        """`namespace/name`."""
        return self._agent.id

    def call(self, instruction: Instruction[R], /, *, timeout: float | None = None) -> R:
        """Run an instruction and return its reply. `timeout` in seconds. Raises CallError."""
        return self._client.run(self._agent.call(instruction, timeout=timeout))

    def send(self, instruction: Instruction[Any], /, *, timeout: float | None = None) -> None:
        """As `call`, without the reply: returns when the effect is committed. Raises CallError."""
        self._client.run(self._agent.send(instruction, timeout=timeout))

    def call_by_name(
        self, name: str, arguments: Mapping[str, object] | None = None, /, *, timeout: float | None = None
    ) -> object:
        """Run an action or a query by its name. Raises CallError."""
        return self._client.run(self._agent.call_by_name(name, arguments, timeout=timeout))

    def __repr__(self) -> str:
        return repr(self._agent)


class Client:
    """A connection for code without an event loop: `with tenure.Client() as client`. Otherwise as `AsyncClient`.

    Usable from several threads. All clients of a process share one background thread, which runs their event loop.
    """

    def __init__(self, url: str | None = None, *, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        self._client = AsyncClient(url, timeout=timeout)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Connect, unless connected. Raises ConfigurationError, Unavailable, Unauthenticated."""
        self.run(self._client.open())

    def close(self) -> None:
        """End the connection."""
        self.run(self._client.close())

    def create(
        self,
        cls: type[A],
        agent_id: str,
        *,
        state: State | Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
        pool: str = "default",
        durability: Durability = "Quorum",
        reads: Reads = "Local",
        idle_timeout: float | None = None,
    ) -> Reference[A]:
        """As `AsyncClient.create`."""
        made = self._client.create(
            cls, agent_id, state=state, config=config, pool=pool,
            durability=durability, reads=reads, idle_timeout=idle_timeout,
        )  # fmt: skip
        return Reference(self, self.run(made))

    def agent(self, cls: type[A], agent_id: str) -> Reference[A]:
        """A reference to an agent, existing or not."""
        return Reference(self, self._client.agent(cls, agent_id))

    def delete(self, agent_id: str) -> None:
        """As `AsyncClient.delete`."""
        self.run(self._client.delete(agent_id))

    def find(
        self,
        *,
        capability: str = "",
        labels: Mapping[str, str] | None = None,
        node: str = "",
        live: bool = True,
    ) -> list[str]:
        """As `AsyncClient.find`."""
        return self.run(self._client.find(capability=capability, labels=labels, node=node, live=live))

    def call_by_name(
        self,
        agent_id: str,
        name: str,
        arguments: Mapping[str, object] | None = None,
        /,
        *,
        timeout: float | None = None,
    ) -> object:
        """As `AsyncClient.call_by_name`."""
        return self.run(self._client.call_by_name(agent_id, name, arguments, timeout=timeout))

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the clients' event loop and wait for it. Raises UsageError on an event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run_coroutine_threadsafe(work, _background_loop()).result()
        work.close()
        raise errors.UsageError("tenure.Client would block this event loop: use tenure.connect()")


_loop_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def _background_loop() -> asyncio.AbstractEventLoop:
    """One for all clients: grpc.aio serves one event loop per process."""
    global _loop  # noqa: PLW0603 - the one background thread of this process
    with _loop_lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="tenure-client", daemon=True).start()
        return _loop


def _works(durability: Durability, reads: Reads, idle_timeout: float | None) -> Works:
    from tenure._remote.registry import Works  # noqa: PLC0415 - loaded with the connection, which is there

    return Works(durability, reads, idle_timeout or 0.0)


async def _open_remote(url: str | None, timeout_s: float) -> Remote:
    """A connection that a server has answered. Raises ConfigurationError: what to install where gRPC is missing."""
    try:
        from tenure._remote import Remote, discover  # noqa: PLC0415 - gRPC takes a quarter of a second to load
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "tenure":
            raise
        raise errors.ConfigurationError(f"connecting needs {error.name}: pip install 'tenure[client]'") from error
    remote = Remote(await discover(url, os.environ), timeout_s=timeout_s)
    try:
        await remote.status(timeout_s=FIRST_ANSWER_S)
    except BaseException:
        await remote.close()
        raise
    return remote


def connect(url: str | None = None, *, timeout: float = DEFAULT_TIMEOUT_S) -> AsyncClient:
    """A client of a cluster: `async with tenure.connect() as client`. The arguments are those of `AsyncClient`."""
    return AsyncClient(url, timeout=timeout)
