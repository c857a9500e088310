"""How an agent gets into the memory of a worker, and what becomes of one whose activation ends that worker.

Validators and `on_start` are user code: they may end a process that others share. What had begun there when it ended
is a suspect, as turns are (protocol 3, poison [alone, note_first]): the agent comes into a worker of its own next. Only
one that has lived through that comes among others again.
"""

from __future__ import annotations

import asyncio

import tenure_link
from tenure_api.reasons import Reason
from tenured.clocks import wall_s
from tenured.host.parts import Parts
from tenured.host.rows import Row
from tenured.host.site import Site
from tenured.host.worker import ActivationRefused, Worker

ACTIVATION_LIMIT_S = 60.0
"""User code that takes longer to come up has failed."""


class Intake:
    """Of one agent at one epoch."""

    def __init__(self, site: Site, row: Row) -> None:
        self.alone = False
        """With no other agent in the process: it may have ended one."""
        self._site = site
        self._row = row
        self._number = 0
        """Of the activation under way."""
        self._ended = 0
        """Workers that ended while it came among others, since it last did so in peace."""

    @property
    def under_way(self) -> bool:
        """It has been asked for, and is not over."""
        return self._number > 0

    async def take_in(self, worker: Worker, parts: Parts) -> None:
        """What it begins with is committed before anything sees it.

        Raises ActivationRefused, WorkerLost, RecordLost.
        """
        self._number = next(self._site.turns)
        try:
            activated = await self._activated(worker, parts)
        except ActivationRefused:
            self._number = 0
            raise
        self._number = 0
        if not worker.reserved:
            self._ended = 0
        self.alone = False
        if parts.ledger.state is None and activated.state is None:
            raise ActivationRefused(tenure_link.Fault(code="StateInvalid", message="the worker made no first state"))
        await parts.beginning.commit(activated)
        parts.alarms.due = activated.due

    async def _activated(self, worker: Worker, parts: Parts) -> tenure_link.Activated:
        site, row = self._site, self._row
        frame = tenure_link.Activate(
            uid=row.uid,
            epoch=row.epoch,
            id=row.id,
            class_name=row.kind.name,
            state=parts.ledger.state,
            initial=row.state,
            config=row.config,
            now=site.lease.cluster_now,
            wall=wall_s(),
            turn=self._number,
        )
        try:
            async with asyncio.timeout(ACTIVATION_LIMIT_S):
                return await worker.activate(frame)
        except TimeoutError:
            worker.deactivate(row.uid, row.epoch)
            slow = f"the agent was not in memory after {ACTIVATION_LIMIT_S:g} s"
            raise ActivationRefused(tenure_link.Fault(code="ActivationFailed", message=slow)) from None

    def ended_its_worker(self, worker: Worker, how: str) -> tuple[str, str] | None:
        """The worker has died, perhaps of this. (reason, message) of what asks for a pause before the next try."""
        number, self._number = self._number, 0
        begun = number and (worker.begun is None or number in worker.begun)
        if not begun or worker.no_fault:
            return None
        self.alone = True
        if worker.reserved:
            return Reason.CRASH_LOOP, f"the agent ended its worker process as it came into memory, also alone: {how}"
        self._ended += 1
        if self._ended == 1:
            return None
        return Reason.CRASH_LOOP, f"{self._ended} worker processes ended as the agent came into their memory: {how}"
