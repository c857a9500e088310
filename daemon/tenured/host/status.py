"""What this host says of itself: `ReportHost` at every change, and its load with each heartbeat."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time

import tenure_link
from tenure_proto.v1.hostlink_pb2 import HostFrame, Load, ReportHost
from tenure_proto.v1.registry_pb2 import ClassInfo, MethodInfo
from tenured.host.activations import Activations
from tenured.host.reports import FIRST_PAUSE_S, LONGEST_PAUSE_S, ask_leader
from tenured.host.site import Site
from tenured.transport.errors import TransportError
from tenured.transport.serverlinks import ServerLinks

log = logging.getLogger("tenured.host.status")

LOOK_EVERY_S = 1.0
"""Between two looks at this host's row."""
LOAD_EVERY_S = 1.0
"""Load is measured anew so often, whatever the pace of heartbeats."""


class HostStatus:
    """Level-triggered: `poke` says that something may have changed, `run` sends what differs from the last report
    taken.
    """

    def __init__(self, links: ServerLinks, incarnation: str, site: Site, activations: Activations) -> None:
        self.draining = False
        self._links = links
        self._incarnation = incarnation
        self._site = site
        self._activations = activations
        self._wake = asyncio.Event()
        self._load = _Measure()

    def poke(self) -> None:
        """Something may have changed."""
        self._wake.set()

    async def connected(self) -> None:
        """Until some server is connected."""
        while not self._links.connected:
            self._wake.clear()
            await self._wake.wait()

    async def run(self) -> None:
        """Reports until cancelled. Only once the incarnation is registered.

        An older report may be applied after a newer one: it was on its way when its answer was given up. So the row is
        looked at too, and what differs from what was taken is said again.
        """
        sent: ReportHost | None = None
        pause = FIRST_PAUSE_S
        while True:
            self._wake.clear()
            report = self._report()
            if report == sent:
                if not await self._woken() and self._differs(report):
                    sent = None
                continue
            if await self._send(report):
                sent, pause = report, FIRST_PAUSE_S
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)

    def load(self) -> Load:
        """For a heartbeat."""
        return self._load.take(
            len(self._activations.holders), self._site.metrics.calls.total, self._site.metrics.loop_lag_s
        )

    def _report(self) -> ReportHost:
        pool = self._site.pool
        fault = pool.fault
        return ReportHost(
            incarnation=self._incarnation,
            ready=pool.ready and not self.draining and fault is None,
            draining=self.draining,
            classes=[_class_info(each) for each in pool.classes],
            worker_error=fault.message if fault is not None else "",
            worker_reason=fault.code if fault is not None else "",
        )

    async def _woken(self) -> bool:
        """Something may have changed; False: nothing said so for a while."""
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                return await self._wake.wait()
        except TimeoutError:
            return False

    def _differs(self, report: ReportHost) -> bool:
        """Whether the registry's row, as this host has read it, says something else."""
        row = self._site.mirror.hosts.get(self._incarnation)
        if row is None or row.expired:
            return False
        said = (report.ready, report.draining, report.worker_error, report.worker_reason, list(report.classes))
        return said != (row.ready, row.draining, row.worker_error, row.worker_reason, list(row.classes))

    async def _send(self, report: ReportHost) -> bool:
        try:
            return await ask_leader(self._links, HostFrame(report_host=report))
        except TransportError as error:
            log.debug("the report of this host waits: %s", error)
            return False


def _class_info(described: tenure_link.AgentClass) -> ClassInfo:
    return ClassInfo(
        name=described.name,
        version=described.version,
        description=described.description,
        methods=[
            MethodInfo(
                name=method.name,
                query=method.query,
                description=method.description,
                parameters_schema=json.dumps(method.parameters),
            )
            for method in described.methods
        ],
        state_schema=json.dumps(described.state_schema),
        capabilities=described.capabilities,
        subscribes=described.subscribes,
    )


class _Measure:
    """This process's share of a processor, its memory and its calls a second. Workers are other processes, in another
    container.
    """

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._cpu = time.process_time()
        self._calls = 0
        self._last = Load()

    def take(self, agents: int, calls: int, lag_s: float) -> Load:
        now = time.monotonic()
        passed = now - self._at
        if passed >= LOAD_EVERY_S:
            cpu = time.process_time()
            self._last = Load(
                cpu=min(1.0, (cpu - self._cpu) / passed),
                memory_bytes=_resident_bytes(),
                calls_per_second=(calls - self._calls) / passed,
            )
            self._at, self._cpu, self._calls = now, cpu, calls
        load = Load(agents=agents, loop_lag_ms=lag_s * 1000)
        load.MergeFrom(self._last)
        return load


def _resident_bytes() -> int:
    """From /proc: microseconds, no disk."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - called each second
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
