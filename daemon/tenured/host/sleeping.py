"""Agents that sleep here: assigned to this host, in nobody's memory (protocol 2, bulk take-over).

One that goes to sleep has committed everything; its epoch is opened again when it wakes, and its record is read at the
version that it had. One that is taken over asleep is sealed in the background, many in one message, and adopted when it
wakes. What is kept of it here is its epoch, that version, and when it is wanted, if it is: one timer for all. Of those
that went to sleep last the record is kept, too: they wake without asking anybody, as if they had never slept.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable

import msgspec

from tenured.clocks import wall_s
from tenured.core.turns import Wake
from tenured.core.waking import Plans
from tenured.host.alarms import until
from tenured.host.folding import Folded
from tenured.host.rows import Row
from tenured.host.site import Site
from tenured.host.stores import RecordLost

log = logging.getLogger("tenured.host.sleeping")

LONGEST_S = 60.0
"""Between two looks at the clocks."""
LEAST_S = 0.001
"""What is left of a wait may be too little for the loop's clock to see."""
FENCED_S = 0.25
"""Between two looks while no lease is held, or not all rows are known."""
AT_ONCE = 200
"""Agents that are woken in one turn of the loop."""
SEALING = 1000
"""Agents whose epochs are being sealed at a time; the others wait, and each that is called is woken at once."""
KEPT_BYTES = 16 * 1024 * 1024
"""Of records that are kept, in all; the others are read again."""
KEPT_SHARE = 16
"""A record that is larger than such a part of them is not kept."""
_wake = msgspec.msgpack.Decoder(Wake).decode


class Sleeper:
    """One agent."""

    __slots__ = ("epoch", "known", "told", "uid")

    def __init__(self, uid: str, epoch: int, known: Folded | None = None, told: Wake | None = None) -> None:
        self.uid = uid
        self.epoch = epoch
        self.known = known
        """What it had committed when it went to sleep here; None: its epoch is to be sealed."""
        self.told = told
        """When it will be awake, as the registry was told last; None: it does not know that it sleeps."""


class Sleepers:
    """All of this host."""

    def __init__(self, site: Site, wake: Callable[[str], object]) -> None:
        """`wake(uid)`: take it into memory, since its time has come."""
        self._site = site
        self._wake = wake
        self._all: dict[str, Sleeper] = {}
        self._plans = Plans()
        self._kept = _Kept()
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = 0.0
        """Of the timer; uvloop's handle of one that is due at once does not know it."""
        self._unsealed: deque[tuple[Sleeper, bool]] = deque()
        """With whether a state must be found."""
        self._sealing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, uid: str) -> bool:
        return uid in self._all

    def get(self, uid: str) -> Sleeper | None:
        """One that sleeps."""
        return self._all.get(uid)

    def lay(self, one: Sleeper, wake: Wake) -> None:
        """It goes to sleep here."""
        self._all[one.uid] = one
        self._kept.add(one)
        self._wait(one, wake)

    def take_over(self, row: Row) -> None:
        """It sleeps, and is ours now: seal its epoch, and learn when it must be awake."""
        one = self._all[row.uid] = Sleeper(row.uid, row.epoch)
        self._unsealed.append((one, row.ready_epoch > 0))
        self._seal_next()

    def take(self, uid: str) -> Sleeper | None:
        """It is woken, or leaves."""
        one = self._all.pop(uid, None)
        if one is not None:
            self._plans.drop(uid)
            self._kept.drop(one)
        return one

    def look(self) -> None:
        """Wake those whose time has come, by clocks that may have been set meanwhile."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lease = self._site.lease
        may_wake = lease.held and self._site.mirror.synced
        if may_wake:
            for uid in self._plans.due(lease.cluster_now, wall_s(), AT_ONCE):
                self._wake(uid)
        seconds = self._plans.wait_s(lease.cluster_now, wall_s())
        if seconds is not None:
            self._look_in(seconds if may_wake else FENCED_S)

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        pause = min(max(seconds, LEAST_S), LONGEST_S)
        self._timer, self._look_at = loop.call_later(pause, self.look), loop.time() + pause

    def stop(self) -> None:
        """Wake nobody any more."""
        self._all.clear()
        self._plans, self._kept = Plans(), _Kept()
        self._unsealed.clear()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._sealing:
            task.cancel()

    def _seal_next(self) -> None:
        while self._unsealed and len(self._sealing) < SEALING:
            one, expect_state = self._unsealed.popleft()
            if self._all.get(one.uid) is one:  # not woken, and not gone meanwhile
                task = asyncio.get_running_loop().create_task(self._seal(one, expect_state=expect_state))
                self._sealing.add(task)
                task.add_done_callback(self._sealed)

    def _sealed(self, task: asyncio.Task[None]) -> None:
        self._sealing.discard(task)
        self._seal_next()

    async def _seal(self, one: Sleeper, *, expect_state: bool) -> None:
        record = self._site.store.open(one.uid, one.epoch, expect_state=expect_state, bare=True)
        try:
            data = await record.asleep()
            wake = _wake(data) if data else Wake()
        except (RecordLost, msgspec.DecodeError) as error:
            log.info("%s is woken: %s", one.uid, error)  # an activation says what is wrong, and to whom
            if self._all.get(one.uid) is one and self._wake(one.uid) is None:
                self.take(one.uid)  # nobody knows whose it is: when its row has come, it begins as any other
            return
        finally:
            self._site.store.close(record)
        if self._all.get(one.uid) is one:
            self._wait(one, wake)

    def _wait(self, one: Sleeper, wake: Wake) -> None:
        """Until its time has come; the registry is told when that will be."""
        self._plans.put(one.uid, wake)
        seconds = until(wake, self._site.lease)
        if seconds is not None and (self._timer is None or self._look_at > asyncio.get_running_loop().time() + seconds):
            self._look_in(seconds)
        if one.told != wake:
            one.told = wake
            wake_at = 0.0 if seconds is None else wall_s() + max(0.0, seconds)
            self._site.reports.hibernated(one.uid, one.epoch, wake_at)


class _Kept:
    """Sleepers whose records are kept, up to a bound; the first one to go to sleep is the first to be forgotten."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[Sleeper, int] = OrderedDict()
        self._bytes = 0

    def add(self, one: Sleeper) -> None:
        size = one.known.bytes if one.known is not None else 0
        if not 0 < size <= KEPT_BYTES // KEPT_SHARE:
            _forget(one)
            return
        self._sizes[one] = size
        self._bytes += size
        while self._bytes > KEPT_BYTES:
            oldest, size = self._sizes.popitem(last=False)
            self._bytes -= size
            _forget(oldest)

    def drop(self, one: Sleeper) -> None:
        self._bytes -= self._sizes.pop(one, 0)


def _forget(one: Sleeper) -> None:
    """Its version is enough to read it again."""
    if one.known is not None:
        one.known = one.known.bare
