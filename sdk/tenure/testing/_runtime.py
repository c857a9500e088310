"""`VirtualRuntime`: a local runtime for tests, in time that moves only when it is told to, with faults."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tenure._clock import VirtualClock
from tenure._exec import Pace
from tenure._local.runtime import DEFAULT_TIMEOUT_S, QUEUE_LIMIT, LocalRuntime, UserExecutor
from tenure.directives import Directive
from tenure.errors import Unavailable, UsageError, WaitTimeout
from tenure.signals import Signal
from tenure.storage import Storage
from tenure.testing._engine import FaultyEngine
from tenure.testing._fakes import FakeStorage
from tenure.testing._faults import LocalFaults

if TYPE_CHECKING:
    from tenure._agent import Agent
    from tenure._instruction import Kind
    from tenure.observe import Hub
    from tenure.testing._signals import SignalSpy

T = TypeVar("T")
START = datetime(2024, 1, 1, tzinfo=UTC)
"""When the time of a runtime begins: a Monday, midnight."""
PATIENCE_S = 5.0
"""Real seconds that `idle` waits for turns that really run."""
_STEPS = 10
GRACE_S = 1.0
"""Real seconds that a turn has to end, when its test has ended."""


class VirtualRuntime(LocalRuntime):
    """A `tenure.local()` for tests: `async with VirtualRuntime() as runtime`, or the fixture `runtime`.

    Every turn goes through a storage, in memory unless one is given. `start`: when its time begins, with a time zone.
    `patience`: real seconds that `idle` waits for turns that really run. Waits between the attempts of an action take
    no time. `validate_effects`: each turn is run a second time, on what it began with and with the results of its
    steps; what it then does otherwise is in `differences`, and fails the test at its end. The rest is as in
    `tenure.local`.
    """

    _engine_class = FaultyEngine

    def __init__(  # noqa: PLR0913 - what a local runtime takes, and what tests want beside it
        self,
        *,
        namespace: str = "default",
        timeout: float = DEFAULT_TIMEOUT_S,
        storage: Storage | None = None,
        start: datetime = START,
        executors: Mapping[type[Directive], UserExecutor] | None = None,
        queue_limit: int = QUEUE_LIMIT,
        hub: Hub | None = None,
        patience: float = PATIENCE_S,
        validate_effects: bool = False,
    ) -> None:
        self.storage: Storage = storage if storage is not None else FakeStorage()
        self.faults = LocalFaults(self)
        self.spies: list[SignalSpy] = []
        self.differences: list[str] = []
        """Turns that did something else when they were run again, in words."""
        self._validates = validate_effects
        self._clock = VirtualClock(_seconds(start))
        self._patience = patience
        self._closed = False
        self._options: dict[str, Any] = {
            "namespace": namespace, "timeout": timeout, "executors": executors, "queue_limit": queue_limit,
            "hub": hub,
        }  # fmt: skip
        super().__init__(clock=self._clock, storage=self.storage, **self._options)
        self._adjust()

    # --- time ---

    @property
    def now(self) -> datetime:
        """Its time, UTC."""
        return datetime.fromtimestamp(self._clock.now(), UTC)

    async def advance_to(self, when: datetime) -> None:
        """As `advance`, up to a time. Raises UsageError for one that is past, or that has no time zone."""
        seconds = _seconds(when) - self._clock.now()
        if seconds < 0:
            raise UsageError(f"it is {self.now.isoformat()} already: {when.isoformat()} is past")
        await self.advance(seconds)

    async def idle(self) -> None:
        """Wait until nothing runs but what waits for the time to go on. Raises WaitTimeout, naming the turns."""
        try:
            async with asyncio.timeout(self._patience):
                for _ in range(_STEPS):  # tasks that were just made come to their calls
                    await asyncio.sleep(0)
                await super().idle()
        except TimeoutError:
            running = ", ".join(self._faulty.names()) or "something"
            raise self.overdue(f"still running after {self._patience:g} s: {running}") from None

    async def until(self, holds: Callable[[], bool], *, within: float = 60.0, what: str = "the condition") -> None:
        """Let time go on, from event to event, until a condition holds; at most so many seconds of the runtime's time.

        Raises WaitTimeout, which says how everything stands.
        """
        end = self._clock.now() + within
        await self.idle()
        while not holds():
            if not self._clock.step(end):
                raise self.overdue(f"{what} did not come within {within:g} s of the runtime's time")
            await self.idle()

    def overdue(self, sentence: str) -> WaitTimeout:
        """An error that tells how everything stands."""
        diagnosis = self.diagnosis()
        lines = "".join(f"\n  {name}: {value}" for name, value in diagnosis.items())
        return WaitTimeout(sentence + lines, diagnosis)

    def diagnosis(self) -> dict[str, object]:
        """How everything stands: time, next event, what runs, each agent, the last signals."""
        due = self._clock.next_at()
        return {
            "now": self.now.isoformat(),
            "next event": "none" if due is None else f"in {due - self._clock.now():g} s",
            "running": self._faulty.names(),
            "agents": {held.id: f"{held.standing}, {held.waiting} waiting" for held in self._faulty.agents.values()},
            "last signals": [signal.type for signal in self.signals[-10:]],
        }

    # --- what happens to it ---

    async def restart(self) -> None:
        """End it as `kill -9` would and begin anew on the same storage; agents, references and spies go on.

        Calls that are under way end with Unavailable, whose outcome is "unknown". Agents that slept are awake then, and
        managers of keyed agents are to be made again.
        """
        before = self._faulty
        alive = [(held.activation.cls, held.id, held.seed, held.storage) for held in before.agents.values()]
        alive += [(one.cls, agent, one.seed, one.storage) for agent, one in before.sleepers.asleep.items()]
        await before.close()
        LocalRuntime.__init__(self, clock=self._clock, storage=self.storage, **self._options)
        self._adjust()
        self._faulty.signals, self._faulty.broadcast.bus = before.signals, before.broadcast.bus
        for one in alive:
            await self._faulty.begin(*one)

    @property
    def open(self) -> bool:
        """Whether it was not closed."""
        return not self._closed

    async def close(self) -> None:
        """See `LocalRuntime`."""
        self._closed = True
        await super().close()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        if kind is None and self.differences:
            raise AssertionError("\n".join(self.differences))

    @property
    def running(self) -> list[str]:
        """What runs or waits: agent and action, each."""
        return self._faulty.names()

    async def unfinished(self) -> list[str]:
        """What still runs although it had real time to end: agent and action, each."""
        if tasks := self._faulty.running:
            await asyncio.wait(tasks, timeout=0 if self._faulty.standing_still else GRACE_S)
        return self._faulty.names()

    def spy(self) -> SignalSpy:
        """See every signal from now on."""
        from tenure.testing._signals import SignalSpy  # noqa: PLC0415 - it needs a runtime

        return SignalSpy(self)

    async def invoke(self, agent_id: str, kind: Kind, method: str, arguments: bytes, timeout: float | None) -> bytes:  # noqa: ASYNC109
        """See `LocalRuntime`."""
        return await self._not_lost(agent_id, super().invoke(agent_id, kind, method, arguments, timeout))

    async def signal(self, agent: Agent[Any] | str, signal: Signal, *, timeout: float | None = None) -> object:  # noqa: ASYNC109
        """See `LocalRuntime`."""
        agent_id = agent if isinstance(agent, str) else agent.id
        return await self._not_lost(agent_id, super().signal(agent, signal, timeout=timeout))

    async def _not_lost(self, agent_id: str, call: Coroutine[Any, Any, T]) -> T:
        """A call whose runtime ends in its turn has an unknown outcome, and its caller goes on."""
        try:
            return await call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling() or self._closed:
                raise
            raise Unavailable("the runtime ended in the turn", outcome="unknown", agent=agent_id) from None

    @property
    def _faulty(self) -> FaultyEngine:
        return cast(FaultyEngine, self._engine)

    def _adjust(self) -> None:
        engine = self._faulty
        engine.pace = Pace(_at_once)
        engine.faults = self.faults
        engine.seen = self._seen
        engine.differs = self.differences.append if self._validates else None
        if isinstance(self.storage, FakeStorage):
            self.storage.sleep = engine.sleep

    def _seen(self, signal: Signal) -> None:
        for spy in self.spies:
            spy.take(signal)


def _at_once(_seconds: float) -> Awaitable[object]:
    return asyncio.sleep(0)


def _seconds(when: datetime) -> float:
    if when.tzinfo is None:
        raise UsageError(f"{when.isoformat()} has no time zone: datetime(..., tzinfo=UTC)")
    return when.timestamp()
