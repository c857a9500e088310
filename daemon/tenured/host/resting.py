"""Agents at rest: in the memory of a worker, nothing asked of them for a moment, and nothing owed.

What runs an activation (a task, its queue, its judge and the others of `Parts`) takes several times the memory of what
must not be lost of it: what its owner has committed, and which worker has the agent. Only this is kept of one at rest,
and the others are made anew when something is asked: the owner of its record too, as when one that sleeps wakes
[sleep_settled]. Nobody is told: the epoch goes on, the worker keeps the agent, and for the registry it is awake.

Where a server lacks a write still, the record is large, or nothing is ever written, the record stays open under its
owner, with its book.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

import msgspec

from tenured.clocks import boot_ns
from tenured.core.backoff import Backoff
from tenured.core.frames import WAKE
from tenured.core.turns import NEVER, Damaged, Wake
from tenured.core.waking import Plans
from tenured.host.folding import Folded, fold
from tenured.host.ledger import Ledger
from tenured.host.parts import Parts
from tenured.host.policy import Policy
from tenured.host.standing import Phase, Standing
from tenured.host.stores import Record, StateStore
from tenured.host.worker import Worker

REST_S = 0.25
"""Without anything asked. The shorter this is, the fewer new agents are there in full at a time."""
LONGEST_REST_S = 8.0
"""To rest and to come back takes 0.1 ms of processor time. So one that is wanted again within `AGAIN_S` waits twice as
long before it rests the next time, up to this: one that is called every few seconds does not rest.
"""
AGAIN_S = 10.0
LATER_S = 2.0
"""Until one that was asked for nothing, and may not rest (it plans something, or is paused), is looked at again."""
AT_ONCE = 50
"""Agents that are looked at in one turn of the loop."""
GRAIN_S = 0.02
"""A look is set at least so far ahead, so that agents which tire one after the other share it. The loop's timers are of
whole milliseconds and may come early: one for the little that is left would come early again, and again.
"""
_wake = msgspec.msgpack.Decoder(Wake).decode


class Resting:
    """One agent. Of the words of a `Holder` it has those that its host needs of any agent that it holds."""

    __slots__ = ("_folded", "_open", "_store", "backoff", "epoch", "patience_s", "since_ns", "uid", "worker")

    phase = Phase.READY
    failure: BaseException | None = None

    def __init__(
        self, uid: str, epoch: int, store: StateStore, record: Record, ledger: Ledger, worker: Worker, backoff: Backoff
    ) -> None:
        """`record` is owned, and everything of it committed; `ledger`: its book. `worker` has the agent in memory. They
        are this one's from now on.
        """
        self.uid = uid
        self.epoch = epoch
        self._store = store
        self._open: tuple[Record, Ledger] | None = (record, ledger)
        self._folded: Folded | None = None
        """What is committed, of a record that is closed; one of them is None."""
        self.worker = worker
        self.backoff = backoff
        self.since_ns = boot_ns()
        self.patience_s = REST_S
        """After so long without anything asked it went to rest."""
        self.settle()

    @property
    def next_patience_s(self) -> float:
        """The same for the next time, if it is wanted now."""
        again = boot_ns() - self.since_ns < AGAIN_S * 1e9
        return min(2 * self.patience_s, LONGEST_REST_S) if again else REST_S

    @property
    def known(self) -> Folded | None:
        """What is committed; None: nothing is ever written."""
        if self._open is None:
            return self._folded
        record, ledger = self._open
        return fold(record.known) if ledger.durable else None

    @property
    def wake(self) -> Wake:
        """When it must be awake, by its record."""
        if self._open is not None:
            return self._open[1].book.wake
        entries = (self._folded.known.entries if self._folded is not None else None) or {}
        return _wake(entries[WAKE]) if WAKE in entries else NEVER

    def settle(self) -> None:
        """Close its record, once no server is still to be told of a write (a large one takes long to read again)."""
        if self._open is None or not self._open[0].settled:
            return
        known = self.known
        if known is not None and known.packed:
            self._store.close(self._open[0])
            self._open, self._folded = None, known

    def opened(self) -> tuple[Record, Ledger | None]:
        """It is wanted: its record, and its book, if that need not be waited for."""
        if self._open is not None:
            return self._open
        known = None if self._folded is None else self._folded.known
        record = self._store.open(self.uid, self.epoch, expect_state=True, known=known)
        adopted = record.at_hand()
        try:
            return record, None if adopted is None else Ledger(record, adopted.entries)
        except Damaged:  # whoever reads it next says so
            return record, None

    async def stop(self, *, finish_turn: bool) -> None:  # noqa: ARG002 - there is none
        """As of a holder: after it nothing of it runs here."""
        self.abort()

    def abort(self) -> None:
        """It leaves: the worker forgets it, and the record is closed."""
        if not self.worker.lost:
            self.worker.deactivate(self.uid, self.epoch)
        if self._open is not None:
            self._store.close(self._open[0])


def may_sleep(parts: Parts, standing: Standing, policy: Policy) -> bool:
    """Nothing was asked for so long, and nothing is under way [sleep_settled, sleep_owing]."""
    limit, book = policy.idle_timeout_s, parts.ledger.book
    if limit is None or standing.phase is not Phase.READY or not policy.durable or book.ended is not None:
        return False
    return idle_s(parts) >= limit and parts.runner.may_rest and not book.boxes.out


def may_rest(parts: Parts, standing: Standing, patience_s: float) -> bool:
    """Nothing was asked for so long; nothing is under way, planned or owed; all that it has said is durable, and told.
    With less it may not sleep [sleep_settled, sleep_owing], so one at rest may be put to sleep as it is.
    """
    runner, book = parts.runner, parts.ledger.book
    quiet = idle_s(parts) >= patience_s and standing.settled and parts.ledger.first is None and not parts.alarms.due
    return (
        quiet
        and runner.idle
        and runner.may_rest
        and not book.boxes.out
        and book.boxes.held is None
        and book.ended is None
    )


def idle_s(parts: Parts) -> float:
    """Seconds since something was asked last."""
    return (boot_ns() - parts.runner.used_ns) / 1e9


def next_look_s(parts: Parts, patience_s: float) -> float:
    """Seconds until it may be time to rest."""
    left = patience_s - idle_s(parts)
    return left if left > 0 else LATER_S


class Watched(Protocol):
    """An activation that is not at rest."""

    def look(self) -> float | None:
        """Go to rest, if it may. Seconds until it is to be asked again; None: not at all."""
        ...


class Rests:
    """Who is to be asked whether it may rest, and who at rest is to sleep: one timer for all."""

    def __init__(self, sleep: Callable[[str], None]) -> None:
        """`sleep(uid)`: so long nothing was asked of it that it is to leave the worker's memory, too."""
        self._sleep = sleep
        self._watched: list[tuple[float, int, Watched]] = []
        """A heap, by when to ask, in seconds of the loop."""
        self._numbers = count()
        self._plans = Plans()
        """When those at rest are to sleep, by the same clock."""
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = 0.0
        self._stopped = False

    def watch(self, one: Watched) -> None:
        """It begins to serve."""
        self._push(one, REST_S)

    def lay(self, one: Resting, idle_timeout_s: float | None) -> None:
        """It rests."""
        if idle_timeout_s is not None:
            at = asyncio.get_running_loop().time() + max(0.0, idle_timeout_s - one.patience_s)
            self._plans.put(one.uid, Wake(cluster=at))
            self._arm(at)

    def drop(self, uid: str) -> None:
        """It rests no more."""
        self._plans.drop(uid)

    def stop(self) -> None:
        """Ask nobody any more."""
        self._stopped = True
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _push(self, one: Watched, seconds: float) -> None:
        at = asyncio.get_running_loop().time() + seconds
        heappush(self._watched, (at, next(self._numbers), one))
        self._arm(at)

    def _arm(self, at: float) -> None:
        """Look then, if not before."""
        if self._stopped or (self._timer is not None and self._look_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        left = at - loop.time()
        wait_s = max(GRAIN_S, left) if left > 0 else 0.0
        self._timer, self._look_at = loop.call_later(wait_s, self._look), at

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for _ in range(AT_ONCE):
            if not self._watched or self._watched[0][0] > now:
                break
            one = heappop(self._watched)[2]
            if (seconds := one.look()) is not None:
                self._push(one, seconds)
        for uid in self._plans.due(now, 0.0, AT_ONCE):
            self._sleep(uid)
        if self._watched:
            self._arm(self._watched[0][0])
        if (wait_s := self._plans.wait_s(now, 0.0)) is not None:
            self._arm(now + wait_s)
