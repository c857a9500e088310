"""What storages on a disk share: one piece of work at a time, in a thread, whole even when its caller gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from tenure.storage._interface import StorageError

T = TypeVar("T")


class Worker:
    """Base of storages on a disk. `_open` is called with the first work, `_release` once, when it is closed."""

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()
        self._opened = False
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._run(lambda: None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """See `Storage`."""
        async with self._one_at_a_time:
            opened, self._opened, self._closed = self._opened, False, True
            if opened:
                await asyncio.to_thread(self._release)

    def _open(self) -> None:
        """Take what the storage needs. In the thread. Raises StorageError."""
        raise NotImplementedError

    def _release(self) -> None:
        """Give it up. In the thread."""
        raise NotImplementedError

    async def _run(self, work: Callable[[], T]) -> T:
        async with self._one_at_a_time:
            if self._closed:
                raise StorageError("this storage is closed")
            running = asyncio.ensure_future(asyncio.to_thread(self._work, work))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                # A thread cannot be stopped: the next work must not begin before this one has ended.
                await asyncio.wait({running})
                raise

    def _work(self, work: Callable[[], T]) -> T:
        if not self._opened:
            self._open()
            self._opened = True
        return work()
