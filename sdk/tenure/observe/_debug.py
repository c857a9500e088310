"""The last events of single agents, kept on demand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tenure.errors import UsageError
from tenure.observe._events import Event
from tenure.signals import Subscription

AGENTS = 100
"""Agents with a buffer at a time."""


class DebugBuffer(Subscription):
    """What happens to an agent while the buffer is open: `events`, oldest first. Ends with `close`, or as a context."""

    def __init__(self, agent_id: str, limit: int, end: Callable[[], None]) -> None:
        super().__init__(end)
        self.agent_id = agent_id
        self.events: deque[Event] = deque(maxlen=limit)


class DebugBuffers:
    """The buffers of a hub. `listen(handler)` subscribes to all events of the hub; done while there is a buffer."""

    def __init__(self, listen: Callable[[Callable[[Event], None]], Subscription]) -> None:
        self._listen = listen
        self._buffers: dict[str, DebugBuffer] = {}
        self._listening: Subscription | None = None

    def open(self, agent_id: str, limit: int) -> DebugBuffer:
        known = self._buffers.get(agent_id)
        if known is not None:
            return known
        if len(self._buffers) >= AGENTS:
            raise UsageError(f"{AGENTS} agents have a debug buffer: close one of them first")
        buffer = self._buffers[agent_id] = DebugBuffer(agent_id, limit, lambda: self._close(buffer))
        if self._listening is None:
            self._listening = self._listen(self._take)
        return buffer

    def _take(self, event: Event) -> None:
        buffer = self._buffers.get(event.agent_id)
        if buffer is not None:
            buffer.events.append(event)

    def _close(self, buffer: DebugBuffer) -> None:
        if self._buffers.get(buffer.agent_id) is buffer:
            del self._buffers[buffer.agent_id]
        if not self._buffers and self._listening is not None:
            self._listening.close()
            self._listening = None
