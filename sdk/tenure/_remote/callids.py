"""Call ids: what a repetition of a call has in common with it (protocol section 3, external clients).

An agent's record keeps which calls were applied as spans of consecutive keys (`tenured.core.turns`), and only so many
spans. So the calls of one client to one agent are numbered by themselves, 1, 2, 3, ...: they cost it one span, however
many other agents this client calls between them. Queries leave no mark, and would be gaps: they are numbered apart.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

LIMIT = 10_000
"""Agents whose numbering is kept. The one that was called the longest ago is dropped, and begins under another id."""


@dataclass(slots=True)
class Stream:
    """Calls that are numbered together."""

    client_id: str
    last: int = 0


class CallIds:
    """Of one client. Ids are never used twice, whatever they are for."""

    def __init__(self, base: str, limit: int = LIMIT) -> None:
        """`base`: what all its client ids begin with; no other client's does."""
        self.streams: OrderedDict[str, Stream] = OrderedDict()
        """By agent."""
        self._base, self._limit = base, limit
        self._opened = 0
        self._queries = Stream(f"{base}-q")

    def next(self, agent: str, *, query: bool) -> tuple[str, int]:
        """(client id, key) of one more call."""
        stream = self._queries if query else self._stream(agent)
        stream.last += 1
        return stream.client_id, stream.last

    def peek(self, agent: str, *, query: bool) -> tuple[str, int]:
        """What `next` will answer."""
        stream = self._queries if query else self._stream(agent)
        return stream.client_id, stream.last + 1

    def _stream(self, agent: str) -> Stream:
        stream = self.streams.get(agent)
        if stream is None:
            stream = self.streams[agent] = Stream(f"{self._base}-{self._opened:x}")
            self._opened += 1
            if len(self.streams) > self._limit:
                self.streams.popitem(last=False)
        else:
            self.streams.move_to_end(agent)
        return stream
