"""All activations of this host, kept as the registry says: level-triggered, at every change and once a second."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from tenure_proto.v1.registry_pb2 import AgentRow
from tenured.core.cells import Version
from tenured.core.signals import Again, Answer, Signal
from tenured.core.turns import Wake
from tenured.host.holder import Holder
from tenured.host.reconcile import Why, compare
from tenured.host.site import Site
from tenured.host.sleeping import Sleepers

log = logging.getLogger("tenured.host.activations")

PERIOD_S = 1.0
"""Without any change: lost messages only cost time."""


class Activations:
    """See the module."""

    def __init__(self, site: Site) -> None:
        self.holders: dict[str, Holder] = {}
        """uid -> activation, in whatever phase."""
        self.sleepers = Sleepers(site, self.find)
        self._site = site
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._given_up: set[tuple[str, int]] = set()
        self._opened: dict[str, int] = {}
        """uid -> the highest epoch that was ever opened here (protocol 2, owner 1 [epoch_once])."""
        self._releasing = False
        self._aborted = False
        self._wake = asyncio.Event()
        self._change: asyncio.Future[None] | None = None

    def deliver(self, signal: Signal) -> asyncio.Future[Answer]:
        """A signal for an activation here; answered when its turn is committed, or with why it has to come again."""
        holder = self.find(signal.receiver) if self._site.lease.held else None
        if holder is not None and self._site.lease.held:
            return holder.deliver(signal)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        answer.set_result(self._refusal(signal.receiver))
        return answer

    def here(self, uid: str) -> bool:
        """Whether this host holds it, awake or asleep."""
        return uid in self.holders or uid in self.sleepers

    def find(self, uid: str) -> Holder | None:
        """The activation of an agent, which is woken for it; None: it is not held here."""
        one = self.sleepers.take(uid)
        if one is None:
            return self.holders.get(uid)
        row = self._site.mirror.mine.get(uid)
        if row is None or row.epoch != one.epoch or self._releasing or row.deleting:
            self._wake.set()  # it leaves; the next look at the registry says how
            return None
        holder = self.holders[uid] = self._hold(row, known=one.known)
        self._notify()
        return holder

    def _hold(self, row: AgentRow, known: Version | None = None) -> Holder:
        return Holder(self._site, row, known=known, on_asleep=self._fell_asleep, on_ended=self._ended)

    def _fell_asleep(self, holder: Holder, known: Version, wake: Wake) -> None:
        """Everything of it is committed, and nothing of it runs."""
        if self.holders.get(holder.uid) is holder and holder.uid not in self._ending:
            del self.holders[holder.uid]
            self.sleepers.lay(holder.uid, holder.epoch, known, wake)

    def _ended(self, holder: Holder, reason: str) -> None:
        """It has ended by itself, and its record owes nothing: its row may go (protocol 3, ends)."""
        if self.holders.get(holder.uid) is holder and holder.uid not in self._ending:
            del self.holders[holder.uid]
            self._given_up.add((holder.uid, holder.epoch))
            self._site.reports.ended(holder.uid, holder.epoch, reason)
            self._site.logs.forget(holder.uid)
            self._notify()

    def _refusal(self, receiver: str) -> Again:
        if not self._site.lease.held:
            return Again("Fenced", "the lease of this host has lapsed")
        row = self._site.mirror.agents.get(receiver)
        if row is not None and row.host and row.incarnation != self._site.mirror.incarnation:
            return Again("Moved", f"{row.spec.id} is held by {row.host}")
        return Again("NotReady", "the agent does not run here" if row is None else f"{row.spec.id} is not running")

    def rows_changed(self, *, touched: bool) -> None:
        """The mirror has taken a batch; `touched`: what is ours may have changed."""
        if touched:
            self._wake.set()
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
            self._wake.set()

    async def empty(self) -> None:
        """Until nothing runs here and the registry gives us nothing that we have not given up."""
        while self.holders or len(self.sleepers) or self._unreported():
            self._wake.set()
            await self.next_change()

    def phases(self) -> dict[str, float]:
        """Number of agents by phase."""
        phases = {str(phase): float(n) for phase, n in Counter(each.phase for each in self.holders.values()).items()}
        return phases | {"Hibernated": float(len(self.sleepers))}

    def abort(self) -> None:
        """Ends everything now and starts nothing more; calls under way are answered."""
        self._aborted = True
        self.sleepers.stop()
        for holder in self.holders.values():
            holder.abort()

    async def run(self) -> None:
        """Reconciles until cancelled."""
        while not self._aborted:
            self._reconcile()
            self._wake.clear()
            try:
                async with asyncio.timeout(PERIOD_S):
                    await self._wake.wait()
            except TimeoutError:
                self._drop_failed()

    def _reconcile(self) -> None:
        if not self._site.mirror.synced:  # what a snapshot has not brought yet is not gone
            return
        mine = self._site.mirror.mine
        self._forget_opened()
        self._given_up = {(uid, epoch) for uid, epoch in self._given_up if uid in mine and mine[uid].epoch == epoch}
        running = {uid: holder.epoch for uid, holder in self.holders.items()} | self.sleepers.epochs()
        changes = compare(mine, running, self._given_up, releasing=self._releasing)
        for row in changes.start:  # all in one loop turn: their seals share a frame
            if row.epoch <= self._opened.get(row.uid, 0):  # the copy was older for a while, and it was stopped
                self._report(row.uid, row.epoch, Why.RELEASED)
                continue
            self._opened[row.uid] = row.epoch
            if row.hibernated and row.ready_epoch > 0:
                self.sleepers.take_over(row)
            else:
                self.holders[row.uid] = self._hold(row)
        for uid, why in changes.report.items():
            self._report(uid, mine[uid].epoch, why)
        for uid, why in changes.stop.items():
            if (one := self.sleepers.take(uid)) is not None:
                self._report(uid, one.epoch, why)
                self._notify()
            elif uid not in self._ending:
                self._ending[uid] = asyncio.get_running_loop().create_task(self._stop(uid, self.holders[uid], why))
        if changes.start or changes.report:
            self._notify()

    def _forget_opened(self) -> None:
        """Deleted agents: not in the copy, at a revision that has seen their creation."""
        mirror = self._site.mirror
        gone = [uid for uid in self._opened if uid not in mirror.agents and int(uid) <= mirror.revision]
        for uid in gone:
            if not self.here(uid):
                del self._opened[uid]

    async def _stop(self, uid: str, holder: Holder, why: Why) -> None:
        """Ends an activation, then says so: from the report on somebody else may hold the agent (rule R, a)."""
        await holder.stop(finish_turn=why is not Why.MOVED)
        self._report(uid, holder.epoch, why)
        del self.holders[uid], self._ending[uid]
        self._site.logs.forget(uid)
        self._wake.set()
        self._notify()

    def _report(self, uid: str, epoch: int, why: Why) -> None:
        if why is Why.MOVED:
            return
        self._given_up.add((uid, epoch))
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

    def _unreported(self) -> bool:
        return any((uid, row.epoch) not in self._given_up for uid, row in self._site.mirror.mine.items())

    def _notify(self) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)
