"""A bus in this process: publish, subscribe, replay, spy. Bounded; nothing is kept beyond the process."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from types import TracebackType
from typing import Self, cast

from tenure.errors import TenureError
from tenure.signals._router import Route, Router, matches
from tenure.signals._signal import Signal

LOG_LIMIT = 100_000
"""Signals that a bus keeps for `replay`; the oldest go first."""
STREAM_LIMIT = 1_000
"""Signals that wait for the reader of a stream."""

Handler = Callable[[Signal], Awaitable[None] | None]
_logger = logging.getLogger("tenure.signals")


class Overflow(TenureError):
    """A stream's reader was too slow: its bus has cut it off. Subscribe again; `Bus.replay` has what was missed."""


class Subscription:
    """Ends with `close`, or as a context manager."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    def close(self) -> None:
        """Deliver nothing more. Idempotent."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Stream(Subscription):
    """Signals as they are published: `async for signal in bus.stream("order.**")`. Raises Overflow when cut off."""

    def __init__(self, end: Callable[[], None], limit: int) -> None:
        super().__init__(end)
        self._limit = limit
        self._waiting: deque[Signal] = deque()
        self._wake = asyncio.Event()
        self._closed = False
        self._overflowed = False

    def close(self) -> None:
        """Deliver nothing more; what waits may still be read. Idempotent."""
        super().close()
        self._closed = True
        self._wake.set()

    def take(self, signal: Signal) -> None:
        """Of the bus: one more for the reader."""
        if len(self._waiting) >= self._limit:
            self._overflowed = True
            self.close()
            return
        self._waiting.append(signal)
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[Signal]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._overflowed:
                raise Overflow(f"more than {self._limit} signals waited for their reader")
            if self._closed:
                return
            self._wake.clear()
            await self._wake.wait()


class Spy(Subscription):
    """Sees what crosses a bus, for tests: `with bus.spy() as spy: ...; await spy.wait_for("order.paid")`."""

    def __init__(self, end: Callable[[], None]) -> None:
        super().__init__(end)
        self.signals: list[Signal] = []
        """What has crossed since the spy was there, in order."""
        self._changed = asyncio.Event()

    def take(self, signal: Signal) -> None:
        """Of the bus: one more was seen."""
        self.signals.append(signal)
        self._changed.set()

    def seen(self, pattern: str = "**") -> list[Signal]:
        """Those whose type matches. Raises DefinitionError."""
        return [signal for signal in self.signals if matches(pattern, signal.type)]

    async def wait_for(
        self,
        pattern: str = "**",
        where: Callable[[Signal], bool] = lambda _signal: True,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 - in seconds, as everywhere in the SDK
    ) -> Signal:
        """The first signal that matches, seen or to come. Raises AssertionError, saying what crossed instead."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    for signal in self.seen(pattern):
                        if where(signal):
                            return signal
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            types = ", ".join(signal.type for signal in self.signals[-10:]) or "none"
            raise AssertionError(f"no {pattern} within {timeout:g} s; the last signals: {types}") from None


class Bus:
    """Delivers each signal to all who subscribed to its type, in the order of their priorities, one after the other.

    A handler that raises is logged and hurts nobody else. `log_limit` bounds what `replay` can give.
    """

    def __init__(self, *, log_limit: int = LOG_LIMIT) -> None:
        self._log: deque[Signal] = deque(maxlen=log_limit)
        self._handlers: Router[Handler] = Router(on_error=lambda route, error: self._report(route.pattern, error))

    async def publish(self, *signals: Signal) -> None:
        """Log and deliver, in order. Returns when every handler has returned."""
        for signal in signals:
            self._log.append(signal)
            for handler in self._handlers.route(signal):
                try:
                    result = handler(signal)
                    if inspect.isawaitable(result):
                        await result
                except Exception as error:  # noqa: BLE001 - whatever the subscriber's code raises
                    self._report(signal.type, error)

    def subscribe(
        self,
        pattern: str,
        handler: Handler,
        *,
        priority: int = 0,
        match: Callable[[Signal], bool] | None = None,
    ) -> Subscription:
        """Call `handler` with each signal that matches, from now on. Raises DefinitionError."""
        own = Route(pattern, _Once(handler), priority, match)
        self._handlers.add(cast(Route[Handler], own))
        return Subscription(lambda: self._remove(own))

    def stream(self, pattern: str = "**", *, limit: int = STREAM_LIMIT) -> Stream:
        """Signals that match, from now on, for one reader; cut off when over `limit` wait. Raises DefinitionError."""
        stream = Stream(lambda: self._remove(route), limit)
        route = Route(pattern, _Once(stream.take))
        self._handlers.add(cast(Route[Handler], route))
        return stream

    def spy(self, pattern: str = "**") -> Spy:
        """See what crosses, before anybody else does. Raises DefinitionError."""
        spy = Spy(lambda: self._remove(route))
        route = Route(pattern, _Once(spy.take), priority=100)
        self._handlers.add(cast(Route[Handler], route))
        return spy

    def replay(
        self, pattern: str = "**", *, since: datetime | None = None, after: str = "", limit: int | None = None
    ) -> Iterator[Signal]:
        """Past signals that match, oldest first: from a time on, or after the signal with an id.

        An id that is not in the log any more: everything that is. Raises DefinitionError.
        """
        past = list(self._log)
        position = next((at for at, signal in enumerate(past) if signal.id == after), -1) if after else -1
        wanted = Router([Route(pattern, True)])
        count = 0
        for signal in past[position + 1 :]:
            if limit is not None and count >= limit:
                return
            if since is not None and (signal.time is None or signal.time < since):
                continue
            if wanted.candidates(signal.type):
                count += 1
                yield signal

    def _remove(self, route: Route[_Once]) -> None:
        self._handlers.remove(route.pattern, route.target)

    def _report(self, what: str, error: Exception) -> None:
        _logger.error("a subscriber of %s failed: %s", what, error, exc_info=error)


class _Once:
    """A handler that equals nothing but itself, so that the same function may subscribe twice and leave once."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def __call__(self, signal: Signal) -> Awaitable[None] | None:
        return self._handler(signal)
