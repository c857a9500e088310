"""Agents that sleep here: assigned to this host, in nobody's memory (protocol 2, bulk take-over).

One that goes to sleep has committed everything; its epoch is opened again when it wakes, and its record is read at the
version that it had. One that is taken over asleep is sealed in the background, many in one message, and adopted when it
wakes. What is kept of it here is when that will be.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from tenure_proto.v1.registry_pb2 import AgentRow
from tenured.clocks import wall_s
from tenured.core.cells import Version
from tenured.core.turns import Wake
from tenured.host.alarms import until
from tenured.host.site import Site
from tenured.host.stores import RecordLost

log = logging.getLogger("tenured.host.sleeping")

LONGEST_S = 60.0
"""Between two looks at the clocks."""
_wake = msgspec.msgpack.Decoder(Wake).decode


class Sleeper:
    """One agent."""

    __slots__ = ("epoch", "known", "timer", "uid")

    def __init__(self, uid: str, epoch: int, known: Version | None) -> None:
        self.uid = uid
        self.epoch = epoch
        self.known = known
        """What it had committed when it went to sleep here; None: its epoch is to be sealed."""
        self.timer: asyncio.Handle | None = None


class Sleepers:
    """All of this host."""

    def __init__(self, site: Site, wake: Callable[[str], object]) -> None:
        """`wake(uid)`: take it into memory, since its time has come."""
        self._site = site
        self._wake = wake
        self._all: dict[str, Sleeper] = {}
        self._sealing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, uid: str) -> bool:
        return uid in self._all

    def epochs(self) -> dict[str, int]:
        """uid -> epoch."""
        return {uid: one.epoch for uid, one in self._all.items()}

    def lay(self, uid: str, epoch: int, known: Version, wake: Wake) -> None:
        """It goes to sleep here."""
        one = self._all[uid] = Sleeper(uid, epoch, known)
        self._wait(one, wake)
        self._tell(one, wake)

    def take_over(self, row: AgentRow) -> None:
        """It sleeps, and is ours now: seal its epoch, and learn when it must be awake."""
        one = self._all[row.uid] = Sleeper(row.uid, row.epoch, None)
        task = asyncio.get_running_loop().create_task(self._seal(one, expect_state=row.ready_epoch > 0))
        self._sealing.add(task)
        task.add_done_callback(self._sealing.discard)

    def take(self, uid: str) -> Sleeper | None:
        """It is woken, or leaves."""
        one = self._all.pop(uid, None)
        if one is not None and one.timer is not None:
            one.timer.cancel()
        return one

    def stop(self) -> None:
        """Wake nobody any more."""
        for uid in list(self._all):
            self.take(uid)
        for task in self._sealing:
            task.cancel()

    async def _seal(self, one: Sleeper, *, expect_state: bool) -> None:
        record = self._site.store.open(one.uid, one.epoch, expect_state=expect_state, bare=True)
        try:
            data = await record.asleep()
            wake = _wake(data) if data else Wake()
        except (RecordLost, msgspec.DecodeError) as error:
            log.info("%s is woken: %s", one.uid, error)  # an activation says what is wrong, and to whom
            self._due(one)
            return
        finally:
            self._site.store.close(record)
        if self._all.get(one.uid) is one:
            self._wait(one, wake)
            self._tell(one, wake)

    def _wait(self, one: Sleeper, wake: Wake) -> None:
        """Until its time has come, by clocks that are set and read anew meanwhile."""
        seconds = until(wake, self._site.lease)
        if seconds is None or self._all.get(one.uid) is not one:
            return
        loop = asyncio.get_running_loop()
        if seconds > LONGEST_S:
            one.timer = loop.call_later(LONGEST_S, self._wait, one, wake)
        elif seconds > 0 or not self._site.lease.held:
            one.timer = loop.call_later(max(seconds, 0.25), self._wait, one, wake)
        else:
            one.timer = loop.call_soon(self._due, one)

    def _due(self, one: Sleeper) -> None:
        if self._all.get(one.uid) is one:
            self._wake(one.uid)

    def _tell(self, one: Sleeper, wake: Wake) -> None:
        seconds = until(wake, self._site.lease)
        self._site.reports.hibernated(one.uid, one.epoch, 0.0 if seconds is None else wall_s() + max(0.0, seconds))
