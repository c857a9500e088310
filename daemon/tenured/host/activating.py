"""How an agent gets into the memory of a worker."""

from __future__ import annotations

import asyncio

import tenure_link
from tenured.clocks import wall_s
from tenured.host.parts import Parts
from tenured.host.rows import Row
from tenured.host.site import Site
from tenured.host.worker import ActivationRefused, Worker

ACTIVATION_LIMIT_S = 60.0
"""User code that takes longer to come up has failed."""


async def take_in(site: Site, row: Row, worker: Worker, parts: Parts) -> None:
    """What it begins with is committed before anything sees it. Raises ActivationRefused, WorkerLost, RecordLost."""
    ledger = parts.ledger
    frame = tenure_link.Activate(
        uid=row.uid,
        epoch=row.epoch,
        id=row.id,
        class_name=row.kind.name,
        state=ledger.state,
        initial=row.state,
        config=row.config,
        now=site.lease.cluster_now,
        wall=wall_s(),
    )
    try:
        async with asyncio.timeout(ACTIVATION_LIMIT_S):
            activated = await worker.activate(frame)
    except TimeoutError:
        worker.deactivate(row.uid, row.epoch)
        slow = f"the agent was not in memory after {ACTIVATION_LIMIT_S:g} s"
        raise ActivationRefused(tenure_link.Fault(code="ActivationFailed", message=slow)) from None
    if ledger.state is None and activated.state is None:
        raise ActivationRefused(tenure_link.Fault(code="StateInvalid", message="the worker made no first state"))
    await parts.beginning.commit(activated)
    parts.alarms.due = activated.due
