"""An agent of the local runtime: its activation, and the queue that makes its turns come one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tenure import _codec, errors
from tenure._local.carrying import NOTHING
from tenure._local.turnstile import Turnstile
from tenure._turn import Activation
from tenure.directives import Directive
from tenure.errors import Busy, NotFound
from tenure.observe import Who
from tenure.storage import Storage
from tenure_link import Fault

Standing = Literal["idle", "processing", "stopped"]


class Seed(NamedTuple):
    """What an agent is made of when nothing is stored of it: initial state and config, msgpack."""

    initial: bytes = _codec.EMPTY_MAP
    config: bytes = _codec.EMPTY_MAP


@dataclass(frozen=True, slots=True)
class How:
    """How an agent is to begin."""

    storage: Storage | None
    extra: tuple[Directive, ...] = ()
    """To be committed with its beginning."""
    woken: bool = False
    """It was asleep: there must be something stored."""
    missed: bool = True
    """Whether nobody waited for its plans meanwhile."""
    after: Sequence[asyncio.Task[None]] = ()
    """What must have ended before."""


class Slept(NotFound):
    """It has gone to sleep since: a turn for it is to wake it. Never seen outside."""


class Held:
    """One agent in this process."""

    __slots__ = (
        "_lock",
        "activation",
        "asleep",
        "carried",
        "changed",
        "emitted",
        "ended",
        "errors",
        "last_error",
        "limit",
        "pumping",
        "revision",
        "seed",
        "storage",
        "touched",
        "turns",
        "waiting",
        "watchers",
        "who",
    )

    def __init__(
        self, activation: Activation, *, limit: int, storage: Storage | None = None, seed: Seed | None = None
    ) -> None:
        self.activation = activation
        self.storage = storage
        self.seed = seed or Seed()
        self.who = Who(activation.id, activation.cls.__name__, activation.epoch)
        self.turns = 0
        self.emitted = 0
        """Signals; with uid and epoch the id of the last one."""
        self.errors = 0
        """Failed turns since the activation."""
        self.last_error = ""
        self.waiting = 0
        """Turns that wait for theirs."""
        self.limit = limit
        self.revision = 0
        """Of its checkpoint; 0: there is none."""
        self.ended: str | None = None
        """Why it was stopped; None: it was not."""
        self.asleep = False
        """Whether it ended here because it sleeps."""
        self.pumping = False
        """Whether a task runs what it owes."""
        self.carried: Mapping[str, object] = NOTHING
        """What signals of the turn that runs are to have."""
        self.watchers = 0
        """Who waits for something to become of it."""
        self.touched: Callable[[], None] | None = None
        """To be called after each turn, if anybody wants to know."""
        self.changed: asyncio.Event | None = None
        """Made by who waits for a change; set, and forgotten, at the next one."""
        self._lock: Turnstile | None = None

    @property
    def id(self) -> str:
        """`namespace/name`."""
        return self.activation.id

    @property
    def busy(self) -> bool:
        """Whether an action runs or waits."""
        return self._lock is not None and self._lock.locked

    @property
    def standing(self) -> Standing:
        """What it does."""
        return "stopped" if self.ended is not None else "processing" if self.busy else "idle"

    def next_turn(self) -> int:
        """The number of a new turn."""
        self.turns += 1
        return self.turns

    @asynccontextmanager
    async def turn(
        self,
        parked: Callable[[], AbstractContextManager[None]] = nullcontext,
        *,
        always: bool = False,
        priority: int = 0,
        sender: str = "",
    ) -> AsyncGenerator[None]:
        """Wait for one's turn, and have it. Raises Busy when the queue is full, NotFound if the agent has ended.

        `parked`: around the wait. `always`: however long the queue is, for the runtime's own. `priority`: the higher
        the earlier, behind what the same `sender` asked for before.
        """
        if self.waiting >= self.limit and not always:
            raise Busy(f"{self.waiting} turns wait for {self.id} already", agent=self.id)
        if self._lock is None:
            self._lock = Turnstile()  # most agents never wait
        self.waiting += 1
        try:
            if self._lock.locked:
                with parked():
                    await self._lock.acquire(priority, sender)
            else:
                await self._lock.acquire()
        finally:
            self.waiting -= 1
        try:
            if self.ended is not None:
                kind = Slept if self.asleep else NotFound
                raise kind(f"{self.id} has stopped: {self.ended}", agent=self.id)
            yield
        finally:
            self._lock.release()

    def note_change(self) -> None:
        """Wake who waits for a change."""
        if self.changed is not None:
            self.changed.set()
            self.changed = None


def error_of(fault: Fault, agent_id: str) -> errors.CallError:
    """The exception of a fault."""
    return errors.from_code(fault.code, fault.message, agent=agent_id, details=fault.details)
