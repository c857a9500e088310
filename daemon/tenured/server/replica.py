"""The registry behind the replicated log: the engine's state machine, and who hears of what changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol

from tenured.core import machine, snapshots
from tenured.core.changes import Delta
from tenured.core.registry import Registry
from tenured.raft import NotApplied, Unknown


def cannot_tell(agent_id: str, outcome: NotApplied | Unknown) -> str:
    """Why this server does not say "not found": it may only not know yet."""
    return f"This server cannot tell whether there is an agent {agent_id}: {outcome.reason}. Ask again, or another one."


class Listener(Protocol):
    """Called on the loop after each entry that changed something; must not block."""

    def changed(self, delta: Delta, /) -> None:
        """Rows changed."""

    def replaced(self) -> None:
        """Everything changed: a snapshot was installed."""


class Restoring:
    """Implements `tenured.raft.Restore`: a registry that is being read."""

    def __init__(self, finished: Callable[[Registry], None]) -> None:
        self._registry = Registry()
        self._strings: dict[str, str] = {}
        self._finished = finished

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk. Raises Undecodable, a ValueError."""
        part = snapshots.decode(chunk)
        snapshots.share(part.agents, self._strings)
        self._registry.take(part)

    def finish(self) -> None:
        """All of it is there."""
        self._finished(self._registry)


class Replica:
    """Implements `tenured.raft.StateMachine`."""

    def __init__(self, settle: Callable[[], None] = lambda: None) -> None:
        """`settle` is called when the rows that are there now will stay for long (server/heap.py)."""
        self._settle = settle
        self.rule: Callable[[Registry, int, bytes], tuple[bytes, machine.Applied]] = machine.apply_bytes
        """What an entry does; a simulation may put something else in its place, to see that it is missed."""
        self.registry = Registry()
        self._listeners: list[Listener] = []
        self._reached: list[tuple[int, asyncio.Future[None]]] = []
        self._watched: dict[str, list[asyncio.Future[None]]] = {}
        """uid -> those who wait for a change of that agent's row."""

    def listen(self, listener: Listener) -> None:
        """Add one who hears of changes."""
        self._listeners.append(listener)

    def apply(self, index: int, command: bytes) -> bytes:
        """One committed entry."""
        result, applied = self.rule(self.registry, index, command)
        if applied.changed:
            for listener in self._listeners:
                listener.changed(applied.changed)
            self._wake()
            if self._watched:
                for key in (*applied.changed.changed, *applied.changed.gone):
                    if key.kind == "agent":
                        self._wake_watched(key.name)
        return result

    def snapshot(self) -> Iterator[bytes]:
        """The whole registry as it is now."""
        frozen = self.registry.freeze()
        self._settle()
        return snapshots.chunks(frozen)

    def restore(self) -> Restoring:
        """Begin to take a registry over; the present one stays until all of it is there."""
        return Restoring(self._replace)

    def _replace(self, registry: Registry) -> None:
        self.registry = registry
        self._settle()
        for listener in self._listeners:
            listener.replaced()
        self._wake()
        for uid in list(self._watched):
            self._wake_watched(uid)

    async def reached(self, revision: int, timeout_s: float) -> bool:
        """Wait until this server's registry has that revision; False when the time passed first."""
        if self.registry.revision >= revision:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reached.append((revision, future))
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return False
        return True

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until the condition on the registry holds; it is looked at after each change."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    await self._next_change()
        except TimeoutError:
            return condition()
        return True

    async def until_agent(self, uid: str, condition: Callable[[], bool], timeout_s: float) -> bool:
        """As `until`, looked at only when that agent's row changed or went: of thousands who wait few are woken."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._watched.setdefault(uid, []).append(future)
                    try:
                        await future
                    finally:
                        self._forget(uid, future)
        except TimeoutError:
            return condition()
        return True

    def _wake_watched(self, uid: str) -> None:
        for future in self._watched.pop(uid, ()):
            if not future.done():
                future.set_result(None)

    def _forget(self, uid: str, future: asyncio.Future[None]) -> None:
        waiting = self._watched.get(uid)
        if waiting is not None and future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._watched[uid]

    async def _next_change(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reached.append((self.registry.revision + 1, future))
        await future

    def _wake(self) -> None:
        revision = self.registry.revision
        waiting, self._reached = self._reached, []
        for wanted, future in waiting:
            if future.done():
                continue
            if wanted <= revision:
                future.set_result(None)
            else:
                self._reached.append((wanted, future))
