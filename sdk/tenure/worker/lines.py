"""The agents of a worker: those that work, and those that doze."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

import msgspec

from tenure.worker.dozing import Dozing
from tenure.worker.line import Line

DOZE_S = 0.5
"""Without a turn; it may become twice as long."""
AT_ONCE = 100
"""Agents that fall into a doze in one turn of the loop."""


class Lines:
    """See the module; by uid."""

    def __init__(self, wake: Callable[[Dozing], Line], may_doze: Callable[[str], bool]) -> None:
        """`wake` raises what activating it raises."""
        self._wake = wake
        self._may_doze = may_doze
        self._all: dict[str, Line | Dozing] = {}
        self._used: dict[str, None] = {}
        """Since the last look."""
        self._before: dict[str, None] = {}
        """Between the last look and the one before."""
        self._looking = False

    def put(self, uid: str, line: Line) -> None:
        """It is taken into memory."""
        self._all[uid] = line
        self._use(uid)

    def take(self, uid: str) -> Line | Dozing | None:
        """It leaves."""
        return self._all.pop(uid, None)

    def get(self, uid: str) -> Line | Dozing | None:
        """One of them, as it is."""
        return self._all.get(uid)

    def awake(self, uid: str) -> Line | None:
        """One of them, to be asked something. Raises what activating it raises; then it dozes on."""
        one = self._all.get(uid)
        if one is None:
            return None
        if isinstance(one, Dozing):
            one = self._all[uid] = self._wake(one)
        self._use(uid)
        return one

    def forget_told(self, uid: str) -> None:
        """Of one that dozes the daemon is told all plans again, by the turn that wakes it."""
        one = self._all.get(uid)
        if isinstance(one, Dozing):
            self._all[uid] = msgspec.structs.replace(one, told=False)

    def _use(self, uid: str) -> None:
        self._used[uid] = None
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(DOZE_S, self._look)

    def _look(self) -> None:
        """Those that were used before the last look and not since: let them doze, a part in each turn of the loop."""
        for uid in list(islice(self._before, AT_ONCE)):
            del self._before[uid]
            if uid not in self._used and not self._doze(uid):
                self._used[uid] = None
        loop = asyncio.get_running_loop()
        if self._before:
            loop.call_soon(self._look)
            return
        self._before, self._used = self._used, self._before
        self._looking = bool(self._before)
        if self._looking:
            loop.call_later(DOZE_S, self._look)

    def _doze(self, uid: str) -> bool:
        """False: something of it is under way, so it is to be looked at again."""
        line = self._all.get(uid)
        if not isinstance(line, Line):
            return True
        if not (line.idle and line.resident.settled and self._may_doze(uid)):
            return False
        self._all[uid] = line.resident.doze() or line
        return True
