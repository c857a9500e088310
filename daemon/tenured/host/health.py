"""What kubelet and Prometheus see of a host."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tenured.host.activations import Activations
from tenured.host.metrics import Metrics, gauge
from tenured.host.site import Site
from tenured.http import Page

LAG_EVERY_S = 0.1
LAG_MEMORY = 0.95
"""The longest stand-still is forgotten by so much each time: half of it in 1.4 s."""


def pages(site: Site, activations: Activations) -> Mapping[str, Page]:
    """Path -> page. Liveness is that the loop turns: that it answers. Readiness: the lease is held and a worker
    connected.
    """

    def live() -> tuple[int, str]:
        return 200, "ok\n"

    def ready() -> tuple[int, str]:
        why = [] if site.lease.held else ["no lease is held"]
        why += [] if site.pool.ready else [site.pool.fault.message if site.pool.fault else "no worker is connected"]
        return (503, f"{'; '.join(why)}\n") if why else (200, "ok\n")

    def metrics() -> tuple[int, str]:
        site.courier.count()
        lines = list(site.metrics.lines())
        lines += gauge("tenure_host_lease_remaining_seconds", "Until the lease lapses.", {"": site.lease.remaining_s})
        lines += gauge("tenure_host_agents", "Agents held here, by phase.", activations.phases(), "phase")
        lines += gauge(
            "tenure_host_store_usable", "0 while the state store takes nothing.", {"": 0 if site.store.trouble else 1}
        )
        return 200, "\n".join(lines) + "\n"

    return {"/livez": live, "/readyz": ready, "/metrics": metrics}


async def measure_lag(metrics: Metrics) -> None:
    """Keeps `loop_lag_s`: by how much a timer comes late. Runs until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_EVERY_S
        await asyncio.sleep(LAG_EVERY_S)
        metrics.loop_lag_s = max(metrics.loop_lag_s * LAG_MEMORY, loop.time() - due)
