"""What leaves on one framed connection: what a turn of the loop puts leaves together at its end, without a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from tenure_frames import FrameStream

T = TypeVar("T")


class Departures(Generic[T]):
    """First in, first out, as an `Outbox`. `put` never waits; while the peer reads slowly, things wait here."""

    def __init__(self, stream: FrameStream, encode: Callable[[list[T]], Iterable[bytes]], limit: int) -> None:
        """`encode` makes frames of all that waits; `limit`: so many may wait."""
        self.closed = False
        self._stream = stream
        self._encode = encode
        self._limit = limit
        self._waiting: list[T] = []
        self._frames: Iterator[bytes] = iter(())
        self._leaves = False
        self._fewer: asyncio.Future[None] | None = None
        stream.on_room = self._leave
        stream.lost.add_done_callback(lambda _: self.close())

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: T) -> bool:
        """Queue one item. False: too many wait, or the connection is over; the item was dropped."""
        if self.closed or len(self._waiting) >= self._limit:
            return False
        self._waiting.append(item)
        if not self._leaves:
            self._leaves = True
            asyncio.get_running_loop().call_soon(self._leave)
        return True

    def close(self) -> None:
        """Drop what waits."""
        self.closed = True
        self._waiting.clear()
        self._frames = iter(())
        self._left()

    async def room(self, most: int) -> None:
        """Until at most so many wait and the peer reads, or it is over: for one who has much to send, and may wait."""
        while (len(self._waiting) > most or self._stream.full) and not self.closed:
            self._fewer = asyncio.get_running_loop().create_future()
            await self._fewer

    def _leave(self) -> None:
        self._leaves = False
        while not self._stream.full:
            frame = next(self._frames, None)
            if frame is not None:
                self._stream.send(frame)
            elif self._waiting:
                waiting, self._waiting = self._waiting, []
                self._frames = iter(self._encode(waiting))
            else:
                self._left()
                return

    def _left(self) -> None:
        if self._fewer is not None and not self._fewer.done():
            self._fewer.set_result(None)
