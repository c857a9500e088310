"""What runs in the local runtime, and when all of it has come to rest."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from tenure import errors
from tenure._clock import Clock, Handle
from tenure.sensors import Sensors

T = TypeVar("T")
_logger = logging.getLogger("tenure.local")


class Tasks:
    """The tasks of an engine, and the time that they go by."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.sensors = Sensors(clock)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._parked = 0
        """Tasks that wait for the clock or for their turn: they do nothing until something else happens."""
        self._progress = asyncio.Event()

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
        handles: list[Handle] = []
        try:
            await self._park(lambda wake: handles.append(self.clock.call_at(self.clock.now() + seconds, wake)))
        finally:
            for handle in handles:
                handle.cancel()

    async def arrival(self, task: asyncio.Task[T]) -> T:
        """The result of another task of the engine, which `idle` waits for, or not, by itself."""
        if not task.done():
            await self._park(lambda wake: task.add_done_callback(lambda _: wake()))
        return task.result()

    async def pause(self, seconds: float) -> None:
        """Wait on the runtime's clock."""
        await self._sleep(seconds)

    async def parked_on(self, future: asyncio.Future[T]) -> T:
        """The result of a future, which `idle` does not wait for."""
        if not future.done():
            await self._park(lambda wake: future.add_done_callback(lambda _: wake()))
        return future.result()

    async def _park(self, begin: Callable[[Callable[[], None]], None]) -> None:
        """Wait until what `begin` is given was called. `idle` does not wait for that."""
        over = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not over.done():
                self._parked -= 1  # at once, so that `idle` waits for what follows
                over.set_result(None)

        self._parked += 1
        self._progress.set()
        try:
            begin(wake)
            await over
        except BaseException:
            self._parked -= 0 if over.done() and not over.cancelled() else 1
            raise

    @contextmanager
    def parked(self) -> Generator[None]:
        """Around a wait for one's turn, which `idle` is not to wait for: it waits for the turn that goes on."""
        self._parked += 1
        self._progress.set()
        try:
            yield
        finally:
            self._parked -= 1

    def start(self, body: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """A task that `idle` waits for and `close` ends."""
        task = asyncio.get_running_loop().create_task(body, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def apart(self, body: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """As `start`, of something that is no part of what led to it: it inherits nothing of the running turn."""
        task = asyncio.get_running_loop().create_task(body, name=name, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def later(self, body: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T | None]:
        """As `start`, of something that nobody waits for: what fails is logged."""
        return self.start(self._logged(body, name), name)

    async def _logged(self, body: Coroutine[Any, Any, T], name: str) -> T | None:
        try:
            return await body
        except errors.TenureError as error:
            _logger.error("%s failed: %s", name, error)  # noqa: TRY400 - the agent's author is told what, not where
            return None

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._progress.set()
