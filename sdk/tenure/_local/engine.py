"""Turns of the local runtime: one after the other for each agent, committed, then followed by what they asked for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tenure import errors
from tenure._clock import Clock, SystemClock
from tenure._context import Emission
from tenure._exec import Pace, pace
from tenure._instruction import Kind
from tenure._local import records, timers, work
from tenure._local.effects import EXECUTORS, Executor, follow
from tenure._local.held import Held, error_of
from tenure._local.lives import Lives
from tenure._local.work import Asked
from tenure._names import full_id
from tenure._routes import router_of
from tenure._turn import Done, Slices
from tenure.directives import Directive, Emit, Error
from tenure.observe import Hub, Span
from tenure.sensors import Sensors
from tenure.signals import Bus, Router, Signal
from tenure.storage import Storage, StorageError
from tenure_link import Turn

if TYPE_CHECKING:
    from tenure._local.runtime import LocalRuntime

SIGNALS_KEPT = 100_000
_logger = logging.getLogger("tenure.local")


class Engine:
    """What is behind a `LocalRuntime`. Not for user code."""

    def __init__(
        self,
        runtime: LocalRuntime,
        *,
        namespace: str,
        timeout: float,
        storage: Storage | None,
        clock: Clock,
        executors: Mapping[type[Directive], Executor],
        queue_limit: int,
        hub: Hub,
    ) -> None:
        self.runtime = runtime
        self.hub = hub
        self.namespace = namespace
        self.timeout = timeout
        self.storage = storage
        self.clock = clock
        self.queue_limit = queue_limit
        self.open = True
        self.executors: dict[type[Directive], Executor] = {**EXECUTORS, Emission: EXECUTORS[Emit], **executors}
        self.supports = frozenset(self.executors)
        self.agents: dict[str, Held] = {}
        self.subscribers: Router[str] = Router()
        self.bus: Bus | None = None
        self.signals: list[Signal] = []
        self.timers = timers.Timers(clock, self._fire)
        self.sensors = Sensors(clock)
        self.lives = Lives(self)
        self.pace = None if isinstance(clock, SystemClock) else Pace(self._sleep)
        """Of waits between attempts; None: as the machine's clock goes."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._parked = 0
        """Tasks that wait for the clock or for their turn: they do nothing until something else happens."""
        self._progress = asyncio.Event()
        self._outbox: deque[Signal] = deque()

    def full_id(self, agent_id: str) -> str:
        """`namespace/name`. Raises UsageError."""
        return full_id(agent_id, self.namespace)

    def held(self, agent_id: str) -> Held:
        """An agent that is here. Raises NotFound, Unavailable."""
        if not self.open:
            raise errors.Unavailable("this local runtime is closed", agent=agent_id)
        held = self.agents.get(agent_id)
        if held is None:
            raise errors.NotFound(f"there is no agent {agent_id}", agent=agent_id)
        return held

    async def close(self) -> None:
        """Forget the agents; turns that are running are cancelled."""
        self.open = False
        self.timers.close()
        await self.sensors.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.agents.clear()

    @property
    def running(self) -> list[asyncio.Task[Any]]:
        """What `idle` waits for; the name of each is that of an agent, and what it does."""
        return list(self._tasks)

    async def idle(self) -> None:
        """Wait until no turn runs or waits."""
        await self.sensors.settle()
        while len(self._tasks) > self._parked:
            self._progress.clear()
            await self._progress.wait()
            await self.sensors.settle()

    async def _sleep(self, seconds: float) -> None:
        """Wait on the runtime's clock."""
        over = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not over.done():
                self._parked -= 1  # at once, so that `idle` waits for what follows
                over.set_result(None)

        handle = self.clock.call_at(self.clock.now() + seconds, wake)
        self._parked += 1
        self._progress.set()
        try:
            await over
        except BaseException:
            self._parked -= 0 if over.done() and not over.cancelled() else 1
            raise
        finally:
            handle.cancel()

    @contextmanager
    def parked(self) -> Generator[None]:
        """Around a wait for one's turn, which `idle` is not to wait for: it waits for the turn that goes on."""
        self._parked += 1
        self._progress.set()
        try:
            yield
        finally:
            self._parked -= 1

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
        if self.pace is not None:
            pace.set(self.pace)
        activation = held.activation
        until_ns = deadline_ns(self.timeout if timeout is None else timeout)
        if isinstance(wanted, Asked) and activation.is_query(wanted.name):
            turn = Turn(held.next_turn(), activation.uid, kind, wanted.name, wanted.arguments, until_ns, caller)
            done = await activation.perform(turn)
        else:
            if self.hub.on and held.waiting >= held.limit:
                self.hub.overflowed(held.who, "mailbox", held.limit)
            async with held.turn(self.parked):
                number = held.next_turn()
                if isinstance(wanted, Asked):
                    turn = Turn(number, activation.uid, kind, wanted.name, wanted.arguments, until_ns, caller)
                    body = activation.perform(turn, extra)
                else:
                    body = activation.handle(number, wanted, deadline_ns=until_ns, caller=caller, extra=extra)
                done = await (self._observed(held, wanted, number, body) if self.hub.on else self._settled(held, body))
                if done.fault is not None and extra:
                    await self.settle(held, await activation.amend(held.next_turn(), extra))
        if done.fault is not None:
            raise error_of(done.fault, held.id)
        assert isinstance(done.reply, bytes)  # noqa: S101 - of a turn that went well
        return done.reply

    async def _settled(self, held: Held, body: Coroutine[Any, Any, Done]) -> Done:
        done = await body
        await self.settle(held, done)
        return done

    async def _observed(self, held: Held, wanted: Asked | Signal, number: int, body: Coroutine[Any, Any, Done]) -> Done:
        """A turn that somebody watches, to its commit and what follows it."""
        signal = wanted if isinstance(wanted, Signal) else None
        if signal is not None:
            self.hub.routed(held.who, signal, len(router_of(held.activation.cls).route(signal)))
        span = self.hub.begin("tenure.turn", held.who, work.label_of(wanted), turn=number, cause=signal)
        try:
            done = await self._settled(held, body)
        except BaseException as error:
            self.hub.end(span, error=error)
            raise
        self.ended(span, done)
        return done

    def ended(self, span: Span, done: Done) -> None:
        """The span of a turn ends as the turn did."""
        if done.fault is None:
            self.hub.end(span)
        else:
            self.hub.end(span, fault=done.fault.code, message=done.fault.message)

    async def settle(self, held: Held, done: Done) -> None:
        """Make the turn's record durable, then do what it asked for. Raises Unavailable: the turn did not happen."""
        activation = held.activation
        if done.state is not None and self.storage is not None:
            try:
                await records.save(self.storage, held, done.state)
            except StorageError as error:
                activation.drop(done.turn)
                raise errors.Unavailable(f"the storage did not take the state: {error}", agent=held.id) from error
        activation.commit(done.turn)
        self.after(held, done)

    def after(self, held: Held, done: Done) -> None:
        """What follows a commit."""
        if done.directives:
            self.execute(held, done.directives)
        if done.fault is not None:
            self.fail(held, Error(done.fault.code, done.fault.message), error_of(done.fault, held.id))
        if held.changed is not None:
            held.note_change()

    def post(
        self, agent_id: str, wanted: Asked | Signal, *, caller: str = "", extra: tuple[Directive, ...] = ()
    ) -> None:
        """Let an agent do something; nobody waits for it. What fails is logged."""
        held = self.agents.get(agent_id)
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
        for agent_id in dict.fromkeys(self.subscribers.route(signal)):
            self.post(agent_id, signal, caller=signal.source)
        if self.bus is not None:
            self._outbox.append(signal)
            if len(self._outbox) == 1:
                self.start(self._publish(self.bus), "bus")

    async def _publish(self, bus: Bus) -> None:
        while self._outbox:
            await bus.publish(self._outbox[0])
            self._outbox.popleft()

    def execute(self, held: Held, directives: Sequence[Directive]) -> None:
        """Do what a turn asked for, in order; what fails hurts nothing else."""
        for directive in directives:
            name = "Emit" if isinstance(directive, Emission) else type(directive).__name__
            hub = self.hub
            span = hub.begin("tenure.directive", held.who, attributes={"tenure.directive": name}) if hub.on else None
            try:
                result = self.executors[type(directive)](self, held, directive)
                if result is not None:
                    self.start(self._finish(held, directive, result), f"{held.id} {name}")
            except Exception as error:  # noqa: BLE001 - executors may be the user's
                if span is not None:
                    hub.end(span, error=error)
                self._misdone(held, directive, error)
            if span is not None:
                hub.end(span)  # a second end is ignored

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
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._progress.set()

    def fold(self, slices: Slices, directives: Sequence[Directive]) -> Slices:
        now = self.clock.now()
        for directive in directives:
            timers.fold(slices, directive, now)
        return slices

    def _fire(self, held: Held, name: str, plan: Mapping[str, Any]) -> None:
        if self.hub.on and "every" in plan:
            self.hub.cron_fired(held.who, name, self.clock.now() - plan["at"])
        extra = (timers.Fired(name, plan["at"]),)
        self.post(held.id, work.read(plan), caller=f"{held.id} timer {name}", extra=extra)


def deadline_ns(seconds: float) -> int:
    """That many seconds from now, on CLOCK_BOOTTIME."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(seconds * 1e9)
