"""Signals that name no agent: to those that subscribe to their types, and to the bus, in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from tenure.signals import Bus, Router, Signal


class Post(Protocol):
    """Let an agent do something; nobody waits for it."""

    def __call__(self, agent_id: str, signal: Signal, /, *, caller: str, priority: int) -> None: ...


class Broadcast:
    """Of one runtime."""

    def __init__(self, post: Post, start: Callable[[Coroutine[Any, Any, None], str], object]) -> None:
        """`start(work, name)`: as a task of the engine."""
        self.subscribers: Router[str] = Router()
        self._post = post
        self._start = start
        self.bus: Bus | None = None
        self._outbox: deque[Signal] = deque()

    def open_bus(self) -> Bus:
        """The bus, from the first time that somebody asks for it."""
        if self.bus is None:
            self.bus = Bus()
        return self.bus

    def send(self, signal: Signal, priority: int) -> None:
        """To all of them. Agents get it soon; nobody waits for that."""
        for agent_id in dict.fromkeys(self.subscribers.route(signal)):
            self._post(agent_id, signal, caller=signal.source, priority=priority)
        if self.bus is not None:
            self._outbox.append(signal)
            if len(self._outbox) == 1:
                self._start(self._publish(self.bus), "bus")

    async def _publish(self, bus: Bus) -> None:
        while self._outbox:
            await bus.publish(self._outbox[0])
            self._outbox.popleft()
