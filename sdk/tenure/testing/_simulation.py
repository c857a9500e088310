"""`simulate`: a story about agents, told in a whole cluster in this process, in virtual time, once a seed.

The cluster is the daemon's own code (`tenured.simulation`), which is loaded when a simulation begins; what is needed of
it is said in `_worlds`, as protocols.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tenure import _codec, errors
from tenure._agent import Agent, pack_arguments
from tenure._client import AsyncClient, Durability, Reads
from tenure._instruction import Kind
from tenure._names import full_id
from tenure._state import State
from tenure.testing._history import Call, History
from tenure.testing._program import Image, classes_of, named
from tenure.testing._replay import replay
from tenure.testing._worlds import Faults, World

if TYPE_CHECKING:  # with gRPC
    from tenure._remote.simulated import SimulatedRemote

A = TypeVar("A", bound=Agent[Any])
CLIENT = "story"
NOTE_LINES = 80
"""Of the transcript, under a failure."""
SEED_VARIABLE = "TENURE_SIM_SEED"


@dataclass(frozen=True, kw_only=True)
class Background:
    """Faults by chance, while the story is told: `faults=Background(names=("power_host",), gap=0.5)`."""

    names: tuple[str, ...]
    """Of those in docs/sdk/simulation.md."""
    gap: float = 1.0
    """Mean time between two, in seconds."""
    wild: bool = False
    """Slow networks and disks, and lost and doubled frames, as the seed draws them."""


Chance = Literal["none", "calm", "rough"] | Background


class Simulation(AsyncClient):
    """What a story gets: a client of the simulated cluster (`create`, `agent`, `delete`, …), with more powers."""

    def __init__(self, world: World, image: Image, timeout: float) -> None:
        from tenure._remote.registry import Works  # noqa: PLC0415 - with gRPC
        from tenure._remote.simulated import SimulatedRemote  # noqa: PLC0415 - with gRPC

        super().__init__("simulation", timeout=timeout)
        self._world, self._image = world, image
        self._simulated: SimulatedRemote = SimulatedRemote(tuple(world.server_names), world.channel, CLIENT, timeout)
        self._remote, self._works = self._simulated, Works
        self._made: dict[str, tuple[str, bytes, bytes]] = {}  # id -> class, initial state, config
        self.history = History()
        """Every call of the story, and what its caller was told."""

    @property
    def faults(self) -> Faults:
        """What can go wrong."""
        return self._world.faults

    @property
    def hosts(self) -> list[str]:
        """Names of all hosts, up or down."""
        return list(self._world.hosts)

    @property
    def servers(self) -> list[str]:
        """Names of all servers, up or down."""
        return list(self._world.server_names)

    @property
    def now(self) -> float:
        """Seconds since the world began."""
        return self._world.now_s

    def leader(self) -> str:
        """The server that leads. Raises NoQuorum: none does."""
        name = self._world.leader()
        if name is None:
            raise errors.NoQuorum("no server leads at the moment")
        return name

    def holder(self, agent: Agent[Any] | str) -> str:
        """The host that holds an agent, as committed. Raises NotFound, NotReady: none does."""
        agent_id = full_id(agent, "default") if isinstance(agent, str) else agent.id
        row = self._world.row(agent_id)
        if row is None:
            raise errors.NotFound(f"there is no agent {agent_id}", agent=agent_id)
        if not row.host:
            raise errors.NotReady(f"no host holds {agent_id} at the moment", agent=agent_id)
        return row.host

    def asleep(self, agent: Agent[Any] | str) -> bool:
        """Whether the cluster has it on record that an agent sleeps, in the memory of no worker."""
        row = self._world.row(full_id(agent, "default") if isinstance(agent, str) else agent.id)
        return row is not None and row.ready and row.hibernation is not None

    async def operate(self, agent: Agent[Any] | str, operation: str, **arguments: object) -> Any:
        """An operation of docs/operating.md ("resume", "dlq.list", …) on an agent. Raises CallError."""
        agent_id = full_id(agent, "default") if isinstance(agent, str) else agent.id
        try:
            answer = await self._simulated.control(agent_id, operation, arguments)
        except errors.CallError as error:
            self.note(f"{operation} of {agent_id} -> {error.code}: {error.outcome.replace('_', ' ')}")
            raise
        self.note(f"{operation} of {agent_id} -> done")
        return answer

    async def advance(self, seconds: float) -> None:
        """Let time pass; the same as `asyncio.sleep`."""
        await asyncio.sleep(seconds)

    async def settled(self, within: float = 30.0) -> None:
        """Wait until a server leads and every agent is Ready on a host that works; `within` seconds.

        Raises AssertionError, with what is not as it should be.
        """
        end = self.now + within
        while why := self._world.unsettled():
            if self.now > end:
                raise AssertionError(f"the cluster has not settled within {within:g} s: {why}")
            await asyncio.sleep(0.02)

    async def assert_replays(self, agent: Agent[Any]) -> None:
        """Raise AssertionError unless an agent's state and replies are what its calls make of it without any trouble.

        The calls that took effect are run once more, in their order, on a new agent in a process of its own. For agents
        whose actions depend on nothing but state and arguments: no clock, no dice, no epoch. Finds what they keep
        elsewhere. Raises NotReady: the agent is not Ready now.
        """
        committed = self._world.committed(agent.id)
        if committed is None:
            raise errors.NotReady(f"no host shows the state of {agent.id} at the moment", agent=agent.id)
        calls = {call.id: call for call in self.history}
        await replay(self._image, agent.id, self._made[agent.id], [calls[one] for one in committed[0]], committed[1])

    def note(self, text: str) -> None:
        """A line of one's own in the transcript."""
        self._world.note(CLIENT, text)

    async def create(  # noqa: PLR0913 - what a spec says, each by its name and with a default
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
        on_exhausted: Literal["DeadLetter", "Pause"] = "DeadLetter",
        max_attempts: int = 5,
        backoff: float = 0.1,
        ttl: float = 300.0,
    ) -> A:
        """As `AsyncClient.create`, and as `spec.onExhausted` and `spec.delivery` of an Agent say: what becomes of a
        signal whose turn fails, at which attempt, after how many seconds the next one begins, and after how many its
        sender gives it up. Raises UsageError for a class that the simulated hosts do not have.
        """
        if self._image.agents.get(cls.__name__) is not cls:
            raise errors.UsageError(
                f"the simulated hosts do not have {cls.__name__}: simulate(..., agents=[{cls.__name__}])"
            )
        initial = state.model_dump(mode="python", round_trip=True) if isinstance(state, State) else dict(state or {})
        agent = self.agent(cls, agent_id)
        await self._simulated.create(
            agent.id,
            cls.__name__,
            pool=pool,
            state=pack_arguments("state", initial),
            config=pack_arguments("config", config),
            works=self._works(durability, reads, idle_timeout or 0.0, on_exhausted, max_attempts, backoff, ttl),
        )
        self._made[agent.id] = (cls.__name__, _codec.pack(initial), _codec.pack(dict(config or {})))
        row = self._world.row(agent.id)
        self.note(f"creates {agent.id}, a {cls.__name__}: {row.uid if row is not None else 'gone'}")
        return agent

    async def invoke(self, agent_id: str, kind: Kind, method: str, arguments: bytes, timeout: float | None) -> bytes:  # noqa: ASYNC109
        """Where references lead. Raises CallError."""
        call = Call(self._simulated.next_call(agent_id, kind), agent_id, method, _codec.unpack_map(arguments), self.now)
        call.query = kind == "query"
        self.history.calls.append(call)
        before = self._world.acknowledged_before(agent_id)
        try:
            reply = await self._simulated.call(agent_id, kind, method, arguments, timeout_s=timeout)
        except errors.CallError as error:
            call.outcome, call.error, call.ended = error.outcome, error, self.now
            self.note(f"{call.id} {_words(call)} -> {error.code}: {error.outcome.replace('_', ' ')}")
            if error.outcome == "not_applied":
                self._world.refused(call.id)
            raise
        value, call.query = self._world.answered(reply.value, reply.epoch, before)
        call.outcome, call.reply, call.ended = "applied", _codec.unpack(value), self.now
        again = " (as recorded)" if reply.recorded else ""
        self.note(f"{call.id} {_words(call)} -> {call.reply!r}, by {reply.host} at epoch {reply.epoch}{again}")
        return value


Story = Callable[[Simulation], Awaitable[None]]


@dataclass(frozen=True)
class Run:
    """A world that held."""

    seed: int
    transcript: tuple[str, ...]
    """What happened, a line each: time in seconds, who, what. Its last 10,000 lines."""
    trace: int
    """Checksum of all of it: the same for the same seed."""
    history: History


def simulate(  # noqa: PLR0913 - what a world is made of, each by its name and with a default
    story: Story,
    *,
    seeds: Iterable[int] = range(20),
    servers: int = 3,
    hosts: int = 3,
    faults: Chance = "none",
    agents: Iterable[type[Agent[Any]]] | None = None,
    isolate: bool = True,
    timeout: float = 10.0,
    limit: float = 600.0,
) -> list[Run]:
    """Tell a story once in each seed's world, and check after every event that the promises of Tenure hold.

    `story`: `async def story(cluster: Simulation)`; all waiting in it is in virtual time. `faults`: what goes wrong by
    chance, beside what the story does itself. `agents`: the classes that hosts have; None: those that the module of
    the story names. `isolate`: each simulated process imports the modules of these classes for itself. `timeout`: of
    calls that give none, in seconds. `limit`: seconds after which a story is too long.

    Raises what the story raises, AssertionError for a promise that was broken, TimeoutError for a story without an end;
    each with the seed and the end of its transcript. TENURE_SIM_SEED in the environment is the only seed then. Raises
    ConfigurationError where the package's `daemon` extra is not installed.
    """
    daemon = _load()
    image = Image(classes_of(story) if agents is None else named(agents), isolate=isolate)
    plan = _plan(daemon, faults)
    only = os.environ.get(SEED_VARIABLE)
    return [
        _run(story, daemon.World(seed, image, servers=servers, hosts=hosts, plan=plan), seed, image, timeout, limit)
        for seed in ([int(only)] if only else seeds)
    ]


def _run(story: Story, world: World, seed: int, image: Image, timeout_s: float, limit_s: float) -> Run:
    histories: list[History] = []

    async def tell() -> None:
        cluster = Simulation(world, image, timeout_s)
        histories.append(cluster.history)
        await story(cluster)

    if image.shared:
        world.note("world", f"all processes share the modules of {', '.join(image.shared)}")
    try:
        with _logged(world):
            world.play(tell, limit_s)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # what pytest.fail raises is no Exception
        error.add_note(_failure(seed, world))
        raise
    return Run(seed, tuple(world.transcript()), world.trace, histories[0])


class _Lines(logging.Handler):
    """What agents log, as lines of the transcript."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        loop = asyncio.get_running_loop()
        agent = getattr(record, "agent", "?")
        self._world.note(getattr(loop, "name", ""), f"{agent} logs {record.levelname.lower()}: {record.getMessage()}")


@contextmanager
def _logged(world: World) -> Generator[None]:
    log = logging.getLogger("tenure.agent")
    handler, before = _Lines(world), (log.level, log.propagate)
    log.addHandler(handler)
    log.setLevel(min(logging.INFO, log.getEffectiveLevel()))
    log.propagate = False  # fifty worlds of it
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


def _failure(seed: int, world: World) -> str:
    lines = world.transcript()
    left_out = [f"  ({len(lines) - NOTE_LINES} lines before)"] if len(lines) > NOTE_LINES else []
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
    again = f"{SEED_VARIABLE}={seed} pytest '{test}'" if test else f"simulate(..., seeds=[{seed}])"
    return "\n".join([f"seed {seed}; the end of its transcript:", *left_out, *lines[-NOTE_LINES:], f"again: {again}"])


def _plan(daemon: Any, faults: Chance) -> Any:
    if isinstance(faults, Background):
        unknown = [name for name in faults.names if name not in daemon.CHANCES]
        if unknown:
            raise errors.UsageError(f"there is no fault {unknown[0]!r}; there are {', '.join(daemon.CHANCES)}")
        return daemon.Plan(names=faults.names, gap_s=faults.gap, wild=faults.wild)
    if faults not in daemon.PLANS:
        raise errors.UsageError(f'faults is "none", "calm", "rough" or a Background, not {faults!r}')
    return daemon.PLANS[faults]


def _load() -> Any:
    """The daemon's side. The SDK does not import it by name: it is another package, and need not be there."""
    try:
        importlib.import_module("tenure._remote.simulated")
        return importlib.import_module("tenured.simulation.story")
    except ImportError as error:
        raise errors.ConfigurationError(
            f"simulating a cluster needs the daemon's own code ({error}): pip install 'tenure[daemon]'"
        ) from error


def _words(call: Call) -> str:
    inner = ", ".join(f"{name}={value!r}" for name, value in call.arguments.items())
    return f"{call.method}({inner}) of {call.agent}"
