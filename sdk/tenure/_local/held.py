"""An agent of the local runtime: its activation, and the queue that makes its turns come one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Literal

from tenure import errors
from tenure._turn import Activation
from tenure.errors import Busy, NotFound
from tenure.observe import Who
from tenure_link import Fault

Standing = Literal["idle", "processing", "stopped"]


class Held:
    """One agent in this process."""

    __slots__ = (
        "_lock",
        "activation",
        "changed",
        "emitted",
        "ended",
        "errors",
        "limit",
        "revision",
        "turns",
        "waiting",
        "who",
    )

    def __init__(self, activation: Activation, *, limit: int) -> None:
        self.activation = activation
        self.who = Who(activation.id, activation.cls.__name__, activation.epoch)
        self.turns = 0
        self.emitted = 0
        """Signals; with uid and epoch the id of the last one."""
        self.errors = 0
        """Failed turns since the activation."""
        self.waiting = 0
        """Turns that wait for theirs."""
        self.limit = limit
        self.revision = 0
        """Of its checkpoint; 0: there is none."""
        self.ended: str | None = None
        """Why it was stopped; None: it was not."""
        self.changed: asyncio.Event | None = None
        """Made by who waits for a change; set, and forgotten, at the next one."""
        self._lock: asyncio.Lock | None = None

    @property
    def id(self) -> str:
        """`namespace/name`."""
        return self.activation.id

    @property
    def busy(self) -> bool:
        """Whether an action runs or waits."""
        return self._lock is not None and self._lock.locked()

    @property
    def standing(self) -> Standing:
        """What it does."""
        return "stopped" if self.ended is not None else "processing" if self.busy else "idle"

    def next_turn(self) -> int:
        """The number of a new turn."""
        self.turns += 1
        return self.turns

    @asynccontextmanager
    async def turn(self, parked: Callable[[], AbstractContextManager[None]] = nullcontext) -> AsyncGenerator[None]:
        """Wait for one's turn, and have it. Raises Busy when the queue is full, NotFound if the agent has ended.

        `parked`: around the wait.
        """
        if self.waiting >= self.limit:
            raise Busy(f"{self.waiting} turns wait for {self.id} already", agent=self.id)
        if self._lock is None:
            self._lock = asyncio.Lock()  # most agents never wait
        self.waiting += 1
        try:
            if self._lock.locked():
                with parked():
                    await self._lock.acquire()
            else:
                await self._lock.acquire()
        finally:
            self.waiting -= 1
        try:
            if self.ended is not None:
                raise NotFound(f"{self.id} has stopped: {self.ended}", agent=self.id)
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
