"""Turns of the local runtime: one after the other for each agent, committed, then followed by what they asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tenure import errors
from tenure._clock import Clock, SystemClock
from tenure._exec import Pace, pace
from tenure._instruction import Kind
from tenure._local import families, owed, records, spans, timers, work
from tenure._local.broadcast import Broadcast
from tenure._local.carrying import NOTHING
from tenure._local.effects import EXECUTORS, Executor, execute, follow
from tenure._local.held import Held, Slept, error_of
from tenure._local.journal import Full, LocalJournal, Ticket
from tenure._local.keyed import InstanceManager, Keepers
from tenure._local.kinship import Kinship
from tenure._local.lives import Lives
from tenure._local.owed import Request
from tenure._local.owing import Owing, deadline_ns
from tenure._local.sleeping import Sleep
from tenure._local.tasks import Tasks
from tenure._local.work import Asked
from tenure._names import full_id
from tenure._scope import Emission
from tenure._turn import Done, Slices
from tenure.directives import Directive, Emit, Error
from tenure.observe import Hub
from tenure.signals import Signal, new_id
from tenure.storage import RevisionConflict, Storage, StorageError
from tenure_link import Turn

if TYPE_CHECKING:
    from tenure._local.runtime import LocalRuntime

T = TypeVar("T")
SIGNALS_KEPT = 100_000
_logger = logging.getLogger("tenure.local")


class Engine(Tasks):
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
        super().__init__(clock)
        self.runtime = runtime
        self.hub = hub
        self.namespace = namespace
        self.timeout = timeout
        self.storage = storage
        self.queue_limit = queue_limit
        self.open = True
        self.run = new_id()
        """Part of the ids of its signals: those of another runtime on the same storage differ."""
        self.executors: dict[type[Directive], Executor] = {**EXECUTORS, Emission: EXECUTORS[Emit], **executors}
        self.supports = frozenset(self.executors)
        self.agents: dict[str, Held] = {}
        self.broadcast = Broadcast(self.post, self.start)
        self.signals: list[Signal] = []
        self.timers = timers.Timers(clock, self._fire)
        self.lives = Lives(self)
        self.kinship = Kinship(self)
        self.sleepers = Sleep(self)
        self.owing = Owing(self)
        self.keepers = Keepers()
        self.pace = None if isinstance(clock, SystemClock) else Pace(self._sleep)
        """Of waits between attempts; None: as the machine's clock goes."""

    def full_id(self, agent_id: str) -> str:
        """`namespace/name`. Raises UsageError."""
        return full_id(agent_id, self.namespace)

    def alive(self, agent_id: str = "") -> None:
        """Raise Unavailable once this runtime is closed."""
        if not self.open:
            raise errors.Unavailable("this local runtime is closed", agent=agent_id)

    def held(self, agent_id: str) -> Held:
        """An agent that is here. Raises NotFound, Unavailable."""
        self.alive(agent_id)
        held = self.agents.get(agent_id)
        if held is None:
            asleep = ", but it sleeps: a call wakes it" if agent_id in self.sleepers.asleep else ""
            raise errors.NotFound(f"there is no agent {agent_id}{asleep}", agent=agent_id)
        return held

    def expected(self, agent_id: str) -> bool:
        """Whether `reach` may find an agent that is not here."""
        return self.sleepers.comes(agent_id) or self.keepers.of(agent_id) is not None

    async def reach(self, agent_id: str) -> Held:
        """An agent that is here, on its way, or asleep: it is waited for, or woken. In a task of the engine.

        Raises NotFound, Unavailable, and why it could not begin.
        """
        while (held := self.agents.get(agent_id)) is None:
            self.alive(agent_id)
            arrival = self.lives.arriving.get(agent_id) or self.sleepers.wake(agent_id)
            if arrival is None:
                keeper = self.keepers.of(agent_id)
                if keeper is None or not await self._recalled(keeper, agent_id):
                    return self.held(agent_id)
                continue
            try:
                await self.arrival(arrival)
            except StorageError as error:
                raise errors.Unavailable(f"{agent_id} cannot be woken: {error}", agent=agent_id) from error
        return held

    async def _recalled(self, keeper: InstanceManager[Any], agent_id: str) -> bool:
        """Whether a manager has an agent in its storage that nobody asked for in this process yet."""
        try:
            return keeper.storage is not None and await self.sleepers.recall(keeper.cls, agent_id, keeper.storage)
        except StorageError as error:
            raise errors.Unavailable(f"{agent_id} cannot be read: {error}", agent=agent_id) from error

    def storage_of(self, agent_id: str) -> Storage | None:
        """Where an agent is to be kept."""
        keeper = self.keepers.of(agent_id)
        return self.storage if keeper is None else keeper.storage

    async def close(self) -> None:
        """Forget the agents; turns that are running are cancelled."""
        self.open = False
        self.timers.close()
        self.owing.close()
        self.sleepers.close()
        await self.sensors.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.agents.clear()

    async def do(
        self,
        held: Held,
        wanted: Asked | Signal,
        *,
        kind: Kind = "action",
        timeout: float | None = None,  # noqa: ASYNC109
        caller: str = "local",
        extra: tuple[Directive, ...] = (),
        ticket: Ticket | None = None,
        priority: int = 0,
    ) -> bytes:
        """Run a turn, when it is its turn. Raises CallError. In a task of the engine.

        `ticket`: of who waits for the reply of a turn that is accepted; without one, that returns at once.
        """
        request = Request(wanted, kind, caller, priority=priority)
        until_ns = deadline_ns(self.timeout if timeout is None else timeout)
        while True:
            try:
                reply = await self._do(held, request, until_ns, extra, ticket)
                return await self.owing.answer(ticket) if reply is None else reply
            except Slept:
                held = await self.reach(held.id)
            except Full:
                if ticket is not None:
                    raise
                await self.owing.room(held)

    async def request(self, held: Held, request: Request) -> bytes | None:
        """`do` for the turn of another agent; None: its reply will come by itself."""
        self.about(held, request.wanted)
        try:
            return await self._do(held, request, deadline_ns(self.timeout), (), None)
        except Slept:
            return await self.request(await self.reach(held.id), request)

    async def ask(
        self,
        agent_id: str,
        wanted: Asked | Signal,
        ticket: Ticket,
        *,
        kind: Kind = "action",
        timeout: float,  # noqa: ASYNC109
    ) -> bytes:
        """`do` of an agent that need not be here yet."""
        held = self.agents.get(agent_id) or await self.reach(agent_id)
        return await self.do(held, wanted, kind=kind, timeout=timeout, ticket=ticket)

    async def answered(self, agent_id: str, wanted: Asked | Signal, *, kind: Kind = "action", timeout: float) -> bytes:  # noqa: ASYNC109
        """The reply of `ask`, for a caller outside. One that gives up does not stop the turn, as on a cluster."""
        ticket = Ticket(self.clock.now() + timeout, timeout)
        task = self.start(
            self.ask(agent_id, wanted, ticket, kind=kind, timeout=timeout), f"{agent_id} {work.label_of(wanted)}"
        )
        return await ticket.follow(task)

    async def _do(
        self,
        held: Held,
        request: Request,
        until_ns: int,
        extra: tuple[Directive, ...],
        ticket: Ticket | None,
    ) -> bytes | None:
        if self.pace is not None:
            pace.set(self.pace)
        wanted = request.wanted
        if isinstance(wanted, Asked) and held.activation.is_query(wanted.name):
            query = held.activation.perform(_turn(held, wanted, request.kind, until_ns, request.caller))
            done = await (spans.query(self.hub, held, wanted, query) if self.hub.on else query)
            if held.touched is not None:
                held.touched()
        else:
            if self.hub.on and held.waiting >= held.limit:
                self.hub.overflowed(held.who, "mailbox", held.limit)
            queue = held.turn(self.parked, always=bool(extra), priority=request.priority, sender=request.caller)
            async with queue:
                return await self.owing.take(held, request, until_ns, extra, ticket)
        if done.fault is not None:
            raise error_of(done.fault, held.id)
        assert isinstance(done.reply, bytes)  # noqa: S101 - of a turn that went well
        return done.reply

    async def act(self, held: Held, request: Request, until_ns: int, journal: LocalJournal) -> Done:
        """A turn that may change something, to its commit and what follows it, or to its suspension."""
        if self.pace is not None:
            pace.set(self.pace)
        held.note_change()  # it is processing
        wanted = request.wanted
        held.carried = work.carried_of(wanted)
        turn = _turn(held, wanted, request.kind, until_ns, request.caller)
        body = self._settled(held, self.attempt(held, request, turn, journal))
        try:
            done = await (spans.turn(self.hub, held, wanted, turn.turn, body) if self.hub.on else body)
        finally:
            held.carried = NOTHING
        if done.fault is not None and (closing := journal.closing(done.fault)):
            await self.settle(held, await held.activation.amend(held.next_turn(), closing))
        return done

    async def attempt(self, held: Held, request: Request, turn: Turn, journal: LocalJournal) -> Done:
        """One run of a turn's code."""
        wanted, extra = request.wanted, journal.extra
        if isinstance(wanted, Asked):
            return await held.activation.perform(turn, extra, journal)
        return await held.activation.handle(
            turn.turn, wanted, deadline_ns=turn.deadline_ns, caller=turn.caller, extra=extra, journal=journal
        )

    async def _settled(self, held: Held, body: Coroutine[Any, Any, Done]) -> Done:
        done = await body
        if done.waits is None:
            await self.settle(held, done)
        return done

    async def settle(self, held: Held, done: Done) -> None:
        """Make the turn's record durable, then do what it asked for. Raises Unavailable: the turn did not happen."""
        if done.state is not None:
            try:
                await self._save(held, done.state)
            except errors.CallError:
                held.activation.drop(done.turn)
                raise
        held.activation.commit(done.turn)
        self.after(held, done)

    async def persist(self, held: Held, record: bytes) -> None:
        """Make something of a turn durable while it runs. Raises Unavailable, Fenced."""
        await self._save(held, record)

    async def _save(self, held: Held, record: bytes) -> None:
        if held.storage is None:
            return
        try:
            await records.save(held.storage, held, record)
        except RevisionConflict as error:
            self.lives.forget(held, "another process has written its state", failed=True)
            raise errors.Fenced(f"another process has written the state of {held.id}", agent=held.id) from error
        except StorageError as error:
            raise errors.Unavailable(f"the storage did not take the state: {error}", agent=held.id) from error

    def accepted(self, held: Held) -> None:
        """A turn of an agent is owed: it outlives its call. For engines with more to do about it."""

    def about(self, held: Held, wanted: Asked | Signal) -> None:
        """What the running task does for an agent, from now on. As above."""

    def forgotten(self, held: Held) -> None:
        """An agent is not here any more."""
        self.owing.forget(held, lost=not held.asleep)

    def after(self, held: Held, done: Done) -> None:
        """What follows a commit."""
        if done.directives:
            execute(self, held, done.directives)
        if done.fault is not None:
            self.fail(held, Error(done.fault.code, done.fault.message), error_of(done.fault, held.id))
        if held.changed is not None:
            held.note_change()
        if held.touched is not None:
            held.touched()

    async def amend(self, held: Held, extra: tuple[Directive, ...]) -> None:
        """Commit something of the runtime's own. Raises CallError. In a task of the engine."""
        await self.lives.amend(held, extra)

    def post(
        self,
        agent_id: str,
        wanted: Asked | Signal,
        *,
        caller: str = "",
        extra: tuple[Directive, ...] = (),
        carried: Mapping[str, object] = NOTHING,
        priority: int = 0,
    ) -> None:
        """Let an agent do something; nobody waits for it. What fails is logged. `carried`: of what led to it."""
        held = self.agents.get(agent_id)
        label = work.label_of(wanted)
        wanted = work.carrying(wanted, carried)
        if held is not None:
            self.start(self._posted(held, wanted, caller, extra, priority), f"{agent_id} {label}")
        elif self.expected(agent_id):
            self.later(self._posted_later(agent_id, wanted, caller, extra, priority), f"{agent_id} {label}")
        else:
            _logger.warning("%s: there is no agent %s", label, agent_id)

    async def _posted_later(
        self, agent_id: str, wanted: Asked | Signal, caller: str, extra: tuple[Directive, ...], priority: int
    ) -> None:
        await self._posted(await self.reach(agent_id), wanted, caller, extra, priority)

    async def _posted(
        self, held: Held, wanted: Asked | Signal, caller: str, extra: tuple[Directive, ...], priority: int
    ) -> None:
        try:
            await self.do(held, wanted, caller=caller, extra=extra, priority=priority)
        except errors.CallError as error:
            self.report(held, work.label_of(wanted), error)
        if extra:
            self.timers.sync(held)
            for directive in extra:
                if isinstance(directive, timers.Fired):
                    self.timers.again(held, directive)

    def keep(self, signal: Signal) -> None:
        """One more for `signals`, which is bounded."""
        self.signals.append(signal)
        if len(self.signals) > 2 * SIGNALS_KEPT:
            del self.signals[:SIGNALS_KEPT]

    def spread(self, signal: Signal, priority: int = 0) -> None:
        """To the bus, and to the agents that subscribe."""
        self.broadcast.send(signal, priority)

    def fail(self, held: Held, error: Error, cause: BaseException | None) -> None:
        """An agent has failed: its policy decides. `cause`: what somebody is told already; None: it is logged."""
        follow(self, held, error, cause)

    def report(self, held: Held, what: str, error: BaseException) -> None:
        """Log a failure that nobody waits for."""
        details = getattr(error, "details", "")
        _logger.error("%s of %s failed: %s%s", what, held.id, error, f"\n{details}" if details else "")

    def fold(self, me: str, slices: Slices, directives: Sequence[Directive]) -> Slices:
        """What a turn of an agent changes beside its state. Raises CallError: the turn is refused."""
        now = self.clock.now()
        for directive in directives:
            timers.fold(slices, directive, now, now)
            owed.fold(slices, directive)
            families.fold(slices, directive, me, self)
        return slices

    def known(self, agent_id: str) -> families.Known:
        """What there is to know of an agent."""
        return self.lives.known(agent_id)

    def _fire(self, held: Held, name: str, plan: Mapping[str, Any]) -> None:
        if self.hub.on and "every" in plan:
            self.hub.cron_fired(held.who, name, self.clock.now() - plan["at"])
        extra = (timers.Fired(name, plan["at"]),)
        self.post(held.id, work.read(plan), caller=f"{held.id} timer {name}", extra=extra)


def _turn(held: Held, wanted: Asked | Signal, kind: Kind, until_ns: int, caller: str) -> Turn:
    arguments = wanted.arguments if isinstance(wanted, Asked) else b""
    return Turn(held.next_turn(), held.activation.uid, kind, work.label_of(wanted), arguments, until_ns, caller)
