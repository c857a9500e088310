"""The last lines of each agent's log, and those who follow it. In memory: what must be kept goes to stderr and a log
collector.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from tenure_proto.v1.calls_pb2 import LogBatch, LogLine
from tenured.clocks import wall_s

KEPT_LINES = 500
"""Of one agent; older ones are dropped."""
MAX_TEXT = 8192
"""Characters of one line; the rest is cut off."""
MAX_BEHIND = 1000
"""Lines that a follower may be behind; older ones are dropped, which it can see by the gap in time."""


class AgentLogs:
    """Lines by uid."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._lines: dict[str, deque[LogLine]] = {}
        self._followers: dict[str, list[_Follower]] = {}

    def add(self, uid: str, agent: str, epoch: int, level: str, text: str, wall_time: float | None = None) -> None:
        """Keeps a line and hands it to the followers."""
        wall = wall_s() if wall_time is None else wall_time
        line = LogLine(wall_time=wall, agent=agent, host=self._host, epoch=epoch, level=level, text=text[:MAX_TEXT])
        self._lines.setdefault(uid, deque(maxlen=KEPT_LINES)).append(line)
        for follower in self._followers.get(uid, ()):
            follower.add(line)

    def forget(self, uid: str) -> None:
        """The agent has left this host: its followers end."""
        self._lines.pop(uid, None)
        for follower in self._followers.pop(uid, []):
            follower.end()

    async def read(self, uid: str, tail: int, *, follow: bool) -> AsyncIterator[LogBatch]:
        """The last `tail` lines, then, if `follow`, what comes until the agent leaves."""
        past = list(self._lines.get(uid, ()))
        follower = _Follower()
        if follow:  # before the past is handed out: nothing falls between the two
            self._followers.setdefault(uid, []).append(follower)
        try:
            if tail:
                yield LogBatch(lines=past[-tail:])
            while follow and (lines := await follower.take()):
                yield LogBatch(lines=lines)
        finally:
            if follower in self._followers.get(uid, []):
                self._followers[uid].remove(follower)


class _Follower:
    def __init__(self) -> None:
        self._lines: deque[LogLine] = deque(maxlen=MAX_BEHIND)
        self._wake = asyncio.Event()
        self._ended = False

    def add(self, line: LogLine) -> None:
        self._lines.append(line)
        self._wake.set()

    def end(self) -> None:
        self._ended = True
        self._wake.set()

    async def take(self) -> list[LogLine]:
        """Lines that came; none: the end."""
        while not self._lines and not self._ended:
            self._wake.clear()
            await self._wake.wait()
        lines = list(self._lines)
        self._lines.clear()
        return lines
