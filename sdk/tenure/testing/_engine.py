"""The engine of a `VirtualRuntime`: that of the local runtime, in which turns can crash and be late."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenure import _routes, errors
from tenure._agent import Agent
from tenure._local.engine import Engine
from tenure._local.held import Held, How, Seed
from tenure._local.journal import LocalJournal, Ticket
from tenure._local.owed import Request
from tenure._local.work import Asked
from tenure._methods import methods_of
from tenure._turn import Done
from tenure.signals import Signal
from tenure.testing._effects import Trial
from tenure_link import Turn

if TYPE_CHECKING:
    from tenure._instruction import Kind
    from tenure.directives import Directive
    from tenure.storage import Storage
    from tenure.testing._faults import LocalFaults

CRASHED = "its process crashed"


@dataclass(slots=True)
class _Call:
    """The turn that a task is about."""

    labels: frozenset[str]
    ends: float
    """When its caller gives up, in the runtime's time."""


_call: ContextVar[_Call | None] = ContextVar("tenure_testing_call", default=None)


class FaultyEngine(Engine):
    """See `VirtualRuntime`."""

    faults: LocalFaults
    seen: Callable[[Signal], None]
    """Told of each signal, once."""
    differs: Callable[[str], None] | None = None
    """Told of turns that do something else when they are run again; None: they are not run again."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._kept: Signal | None = None

    def names(self) -> list[str]:
        """What runs or waits, sorted: agent and action, each."""
        return sorted(task.get_name() for task in self.running)

    @property
    def standing_still(self) -> bool:
        """Whether everything that runs waits for the time to go on."""
        return len(self._tasks) <= self._parked

    async def begin(self, cls: type[Agent[Any]], agent_id: str, seed: Seed, storage: Storage | None) -> None:
        """An agent that was here goes on from its storage. Raises what `LocalRuntime.create` raises."""
        await self.lives.activate(cls, agent_id, seed.initial, seed.config, How(storage))

    async def sleep(self, seconds: float) -> None:
        """Wait on the runtime's clock."""
        await self._sleep(seconds)

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
        """See `Engine`. A turn that waited while its agent crashed comes to the next activation, as on a cluster."""
        seconds = self.timeout if timeout is None else timeout
        _call.set(_Call(_labels(held.activation.cls, wanted), self.clock.now() + seconds))
        while True:
            try:
                return await super().do(
                    held,
                    wanted,
                    kind=kind,
                    timeout=timeout,
                    caller=caller,
                    extra=extra,
                    ticket=ticket,
                    priority=priority,
                )
            except errors.NotFound:
                if held.ended != CRASHED:
                    raise
                held = self.held(held.id)

    async def attempt(self, held: Held, request: Request, turn: Turn, journal: LocalJournal) -> Done:
        """See `Engine`."""
        if self.differs is None:
            return await super().attempt(held, request, turn, journal)
        trial = Trial(self, held, request, turn, held.activation.committed, journal.extra)
        done = await super().attempt(held, request, turn, journal)
        if difference := await trial.difference(journal, done):
            self.differs(difference)
        return done

    async def settle(self, held: Held, done: Done) -> None:
        """See `Engine`."""
        call = _call.get()
        if call is None or done.fault is not None:
            await super().settle(held, done)
            return
        await self._be_late(held, done, call)
        if self.faults.crashes(call.labels, "before_commit"):
            held.activation.drop(done.turn)
            await self._again(held)
            raise errors.WorkerCrashed("the process ended in the turn; nothing of it was kept", agent=held.id)
        await super().settle(held, done)
        if self.faults.crashes(call.labels, "after_commit"):
            await self._again(held)
            raise errors.Unavailable(
                "the process ended after the commit and before the reply", outcome="unknown", agent=held.id
            )

    async def persist(self, held: Held, record: bytes) -> None:
        """See `Engine`. The acceptance of a turn and each of its steps are commits, too."""
        call = _call.get()
        if call is not None and self.faults.crashes(call.labels, "before_commit"):
            await self._again(held)
            raise errors.WorkerCrashed("the process ended in the turn", agent=held.id)
        await super().persist(held, record)
        if call is not None and self.faults.crashes(call.labels, "after_commit"):
            await self._again(held)
            raise errors.Unavailable("the process ended in the turn", outcome="unknown", agent=held.id)

    def accepted(self, held: Held) -> None:  # noqa: ARG002 - the interface
        """See `Engine`. Its caller's timeout does not concern it any more."""
        if (call := _call.get()) is not None:
            call.ends = math.inf

    def about(self, held: Held, wanted: Asked | Signal) -> None:
        """See `Engine`."""
        _call.set(_Call(_labels(held.activation.cls, wanted), math.inf))

    def forgotten(self, held: Held) -> None:
        """See `Engine`. One that crashed comes back."""
        self.owing.forget(held, lost=not held.asleep and held.ended != CRASHED)

    async def _be_late(self, held: Held, done: Done, call: _Call) -> None:
        seconds = self.faults.delay_of(call.labels)
        left = call.ends - self.clock.now()
        if seconds:
            await self._sleep(max(0.0, min(seconds, left)))
        if seconds > left or left < 0:
            held.activation.drop(done.turn)
            raise errors.DeadlineExceeded("the deadline passed in the turn; it changed nothing", agent=held.id)

    async def _again(self, held: Held) -> None:
        """The agent's process ends, and it begins again from what is stored."""
        self.lives.forget(held, CRASHED, failed=True)
        token = _call.set(None)  # its first turn is not the caller's
        try:
            await self.begin(held.activation.cls, held.id, held.seed, held.storage)
        except errors.CallError as error:
            self.report(held, "its next activation", error)
        finally:
            _call.reset(token)

    def keep(self, signal: Signal) -> None:
        """See `Engine`."""
        super().keep(signal)
        self._kept = signal
        self.seen(signal)

    def spread(self, signal: Signal, priority: int = 0) -> None:
        """See `Engine`. What was not emitted by an agent was published from outside."""
        if signal is not self._kept:
            self.seen(signal)
        super().spread(signal, priority)


def _labels(cls: type[Agent[Any]], wanted: Asked | Signal) -> frozenset[str]:
    """The names that a fault may call a turn by."""
    if isinstance(wanted, Asked):
        method = methods_of(cls).get(wanted.name)
        own = f"{cls.__name__}.{wanted.name}"
        return frozenset({own, method.label} if method is not None else {own})
    try:
        methods = _routes.targets(cls, wanted)
    except errors.UnknownSignal:
        methods = []
    return frozenset({wanted.type} | {f"{cls.__name__}.{one.name}" for one in methods} | {one.label for one in methods})
