"""A bounded queue between those who send on a stream and its one writer, which takes all that waits at once."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """First in, first out. `put` never waits; when full or closed it answers False."""

    def __init__(self, max_items: int, max_batch: int = 512) -> None:
        self._items: deque[T] = deque()
        self._max_items = max_items
        self._max_batch = max_batch
        self._wake: asyncio.Future[None] | None = None
        self._fewer: asyncio.Future[None] | None = None
        self.closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> bool:
        """Queue one item. False: the queue is full or closed, the item was dropped."""
        if self.closed or len(self._items) >= self._max_items:
            return False
        self._items.append(item)
        self._notify()
        return True

    def close(self) -> None:
        """Drop what waits and end the writer's next `take`."""
        self.closed = True
        self._items.clear()
        self._notify()
        if self._fewer is not None and not self._fewer.done():
            self._fewer.set_result(None)

    async def take(self) -> list[T]:
        """All that waits, at most one batch; waits for the first. Empty: closed."""
        while not self._items and not self.closed:
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        if self._fewer is not None and not self._fewer.done():
            self._fewer.set_result(None)
        if len(self._items) <= self._max_batch:
            batch = list(self._items)
            self._items.clear()
            return batch
        return [self._items.popleft() for _ in range(self._max_batch)]

    async def room(self, most: int) -> None:
        """Until at most so many wait, or it is closed: for one who has much to send, and may wait."""
        while len(self._items) > most and not self.closed:
            self._fewer = asyncio.get_running_loop().create_future()
            await self._fewer

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
