"""All activations of this host, kept as the registry says: level-triggered. What changed is compared at once,
everything after a snapshot, and once a second a few more, whether or not anything changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from tenured.core.signals import Again, Signal
from tenured.core.turns import Wake
from tenured.host.arrivals import Answered
from tenured.host.events import Events
from tenured.host.folding import Folded
from tenured.host.holder import Holder
from tenured.host.mirror import Touched
from tenured.host.reconcile import Agenda, Why, compare
from tenured.host.resting import Resting, Rests
from tenured.host.rows import Row
from tenured.host.site import Site
from tenured.host.sleeping import Sleeper, Sleepers

log = logging.getLogger("tenured.host.activations")

PERIOD_S = 1.0
"""Without any change: lost messages only cost time."""
PART = 200
"""Agents that are compared in one turn of the loop; each may have to be started."""


class Activations:
    """See the module."""

    def __init__(self, site: Site) -> None:
        self.holders: dict[str, Holder | Resting] = {}
        """uid -> activation, in whatever phase."""
        self.sleepers = Sleepers(site, self.find)
        self._rests = Rests(self._sleep)
        self._events = Events(self._fell_asleep, self._ended, self._rested, self._rests.watch)
        self._site = site
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._given_up: dict[str, int] = {}
        """uid -> epoch that was reported as released or stopped, while the registry says that it is ours."""
        self._opened: dict[str, int] = {}
        """uid -> the highest epoch that was ever opened here (protocol 2, owner 1 [epoch_once])."""
        self._releasing = False
        self._aborted = False
        self._agenda = Agenda()
        self._whole = False
        """Everything is to be compared, once the mirror is whole."""
        self._sweep: list[str] = []
        """What is compared without a change, one part after the other."""
        self._wake = asyncio.Event()
        self._change: asyncio.Future[None] | None = None

    def deliver(self, signal: Signal, answered: Answered) -> None:
        """A signal for an activation here; answered when its turn is committed, or with why it has to come again."""
        holder = self.find(signal.receiver) if self._site.lease.held else None  # asked again when its turn begins
        if holder is not None:
            holder.deliver(signal, answered)
        else:
            answered(self._refusal(signal.receiver))

    def here(self, uid: str) -> bool:
        """Whether this host holds it, awake or asleep."""
        return uid in self.holders or uid in self.sleepers

    def find(self, uid: str) -> Holder | None:
        """The activation of an agent, which is woken for it; None: it is not held here, as far as is known now."""
        here = self.holders.get(uid)
        if isinstance(here, Holder):
            return here
        mirror = self._site.mirror
        row = mirror.mine.get(uid)
        if row is None and not mirror.synced and self.here(uid):
            return None  # a snapshot is being read, and its row is still to come: it sleeps on
        if row is not None and not self.here(uid) and not self._aborted:
            self._compare((uid,))  # thousands may wait for that; whoever is wanted comes first
            here = self.holders.get(uid)
        if isinstance(here, Holder):
            return here
        one = self.sleepers.take(uid) if here is None else here
        return None if one is None else self._woken(uid, row, one)

    def _woken(self, uid: str, row: Row | None, one: Sleeper | Resting) -> Holder | None:
        if row is None or row.epoch != one.epoch or self._releasing or row.deleting or uid in self._ending:
            self._look_at((uid,))  # it leaves; the comparison says how
            return None
        if isinstance(one, Resting):
            self._rests.drop(uid)
            rested = self.holders[uid] = self._hold(row, rested=one)
            return rested
        holder = self.holders[uid] = self._hold(row, known=one.known, told=one.told)
        self._notify()
        return holder

    def _hold(
        self, row: Row, known: Folded | None = None, told: Wake | None = None, rested: Resting | None = None
    ) -> Holder:
        return Holder(self._site, row, known=known, told=told, events=self._events, rested=rested)

    def _rested(self, holder: Holder, resting: Resting) -> bool:
        """Whether it is kept: the rest of it is forgotten."""
        if self.holders.get(holder.uid) is not holder or holder.uid in self._ending or self._aborted:
            return False
        self.holders[holder.uid] = resting
        row = self._site.mirror.mine.get(holder.uid)
        policy = None if row is None else row.kind.policy
        self._rests.lay(resting, policy.idle_timeout_s if policy is not None and policy.durable else None)
        resting.worker.on_lost[self._worker_lost] = None
        return True

    def _worker_lost(self) -> None:
        """Agents that rested there go on in another one."""
        self._look_at([uid for uid, one in self.holders.items() if isinstance(one, Resting) and one.worker.lost])

    def _sleep(self, uid: str) -> None:
        """It has rested long enough, and everything of it is committed [sleep_settled]."""
        one = self.holders.get(uid)
        if isinstance(one, Resting) and (known := one.known) is not None and uid not in self._ending:
            one.abort()
            del self.holders[uid]
            self.sleepers.lay(Sleeper(uid, one.epoch, known), one.wake)

    def _fell_asleep(self, holder: Holder, known: Folded, wake: Wake) -> None:
        """Everything of it is committed, and nothing of it runs."""
        if self.holders.get(holder.uid) is holder and holder.uid not in self._ending:
            del self.holders[holder.uid]
            self.sleepers.lay(Sleeper(holder.uid, holder.epoch, known, holder.told), wake)

    def _ended(self, holder: Holder, reason: str) -> None:
        """It has ended by itself, and its record owes nothing: its row may go (protocol 3, ends)."""
        if self.holders.get(holder.uid) is holder and holder.uid not in self._ending:
            del self.holders[holder.uid]
            self._given_up[holder.uid] = holder.epoch
            self._site.reports.ended(holder.uid, holder.epoch, reason)
            self._site.logs.forget(holder.uid)
            self._notify()

    def _refusal(self, receiver: str) -> Again:
        if not self._site.lease.held:
            return Again("Fenced", "the lease of this host has lapsed")
        row = self._site.mirror.agents.get(receiver)
        if row is not None and row.host and row.incarnation != self._site.mirror.incarnation:
            return Again("Moved", f"{row.id} is held by {row.host}")
        return Again("NotReady", "the agent does not run here" if row is None else f"{row.id} is not running")

    def rows_changed(self, touched: Touched) -> None:
        """The mirror has taken a batch."""
        if not self._site.mirror.synced:  # what a snapshot has not brought yet is not gone
            self._whole = True
        elif touched.whole or self._whole:
            self._look_at_all()
        elif touched.uids:
            self._look_at(touched.uids)
        self._notify()

    def next_change(self) -> asyncio.Future[None]:
        """Ends at the next change of the mirror or of what runs here."""
        if self._change is None or self._change.done():
            self._change = asyncio.get_running_loop().create_future()
        return self._change

    def release_all(self, releasing: bool) -> None:
        """Whether to hold nothing, until told otherwise."""
        if releasing != self._releasing:
            self._releasing = releasing
            self._look_at_all()

    async def empty(self) -> None:
        """Until nothing runs here and the registry gives us nothing that we have not given up."""
        mine = self._site.mirror.mine
        while self.holders or len(self.sleepers) or self._agenda or len(self._given_up) < len(mine):
            await self.next_change()

    def phases(self) -> dict[str, float]:
        """Number of agents by phase."""
        phases = {str(phase): float(n) for phase, n in Counter(each.phase for each in self.holders.values()).items()}
        return phases | {"Hibernated": float(len(self.sleepers))}

    def abort(self) -> None:
        """Ends everything now and starts nothing more; calls under way are answered."""
        self._aborted = True
        self.sleepers.stop()
        self._rests.stop()
        for holder in self.holders.values():
            holder.abort()

    async def run(self) -> None:
        """Reconciles until cancelled."""
        loop = asyncio.get_running_loop()
        look = loop.time()
        while not self._aborted:
            if loop.time() >= look:
                look = loop.time() + PERIOD_S
                self._drop_failed()
                self._agenda.add(self._next_of_all())
            self._reconcile()
            if self._agenda and self._site.mirror.synced:
                await asyncio.sleep(0)
                continue
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(look):
                    await self._wake.wait()

    def _look_at(self, uids: Iterable[str]) -> None:
        self._agenda.add(uids)
        self._wake.set()

    def _look_at_all(self) -> None:
        self._whole = False
        self._agenda.add(self._opened)  # whatever runs or sleeps here was opened here
        self._look_at(self._site.mirror.mine)

    def _next_of_all(self) -> list[str]:
        if not self._sweep:
            self._sweep = list({**self._opened, **self._site.mirror.mine})
        part = self._sweep[-PART:]
        del self._sweep[-PART:]
        return part

    def _epoch_here(self, uid: str) -> int | None:
        one = self.holders.get(uid) or self.sleepers.get(uid)
        return None if one is None else one.epoch

    def _reconcile(self) -> None:
        """A part of what is to be compared."""
        if not self._site.mirror.synced or not self._agenda:
            return
        uids = self._agenda.take(PART)
        self._compare(uids)
        self._forget_opened(uids)
        self._notify()

    def _compare(self, uids: Sequence[str]) -> None:
        mine = self._site.mirror.mine
        for uid in uids:
            self._look_at_rest(uid)
            if uid in self._given_up and (uid not in mine or mine[uid].epoch != self._given_up[uid]):
                del self._given_up[uid]
        changes = compare(uids, mine, self._epoch_here, self._given_up, releasing=self._releasing)
        for row in changes.start:  # all in one loop turn: their seals share a frame
            self._begin(row)
        for uid, why in changes.report.items():
            self._report(uid, mine[uid].epoch, why)
        for uid, why in changes.stop.items():
            if (sleeper := self.sleepers.take(uid)) is not None:
                self._report(uid, sleeper.epoch, why)
                self._agenda.add((uid,))
            elif uid not in self._ending:
                self._rests.drop(uid)
                self._ending[uid] = asyncio.get_running_loop().create_task(self._stop(uid, self.holders[uid], why))
        if changes.start or changes.report:  # else whoever looks again at each change would look for ever
            self._notify()

    def _look_at_rest(self, uid: str) -> None:
        one = self.holders.get(uid)
        if isinstance(one, Resting):
            one.settle()
            if one.worker.lost:
                self.find(uid)

    def _begin(self, row: Row) -> None:
        if row.epoch <= self._opened.get(row.uid, 0):  # the copy was older for a while, and it was stopped
            self._report(row.uid, row.epoch, Why.RELEASED)
            return
        self._opened[row.uid] = row.epoch
        if row.hibernated and row.ready_epoch > 0:
            self.sleepers.take_over(row)
        else:
            self.holders[row.uid] = self._hold(row)

    def _forget_opened(self, uids: Iterable[str]) -> None:
        """Deleted agents: not in the copy, at a revision that has seen their creation."""
        for uid in self._site.mirror.gone([uid for uid in uids if uid in self._opened]):
            if not self.here(uid):
                del self._opened[uid]

    async def _stop(self, uid: str, holder: Holder | Resting, why: Why) -> None:
        """Ends an activation, then says so: from the report on somebody else may hold the agent (rule R, a)."""
        await holder.stop(finish_turn=why is not Why.MOVED)
        self._report(uid, holder.epoch, why)
        del self.holders[uid], self._ending[uid]
        self._site.logs.forget(uid)
        self._look_at((uid,))
        self._notify()

    def _report(self, uid: str, epoch: int, why: Why) -> None:
        if why is Why.MOVED:
            return
        self._given_up[uid] = epoch
        if why is Why.DELETED:
            self._site.reports.stopped(uid, epoch)
        else:
            self._site.reports.released(uid, epoch)

    def _drop_failed(self) -> None:
        """An activation that ended by a defect of ours is given up, once a second at most: a second owner of the same
        epoch could write another state under a version that is on its way (protocol 2 [epoch_once]).
        """
        for uid, holder in list(self.holders.items()):
            error = holder.failure
            if error is not None and uid not in self._ending:
                log.error("agent %s: its activation ended by a defect", uid, exc_info=error)
                del self.holders[uid]
                self._report(uid, holder.epoch, Why.RELEASED)
                self._agenda.add((uid,))

    def _notify(self) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)
