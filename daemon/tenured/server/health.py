"""HTTP on 8080: liveness (the loop turns), readiness (caught up), metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tenured import http
from tenured.raft import Consensus
from tenured.server.census import Census
from tenured.server.losses import Losses
from tenured.server.replica import Replica

_LAG_PERIOD_S = 0.25
_COMMIT_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class _FromState(Collector):
    """Figures that are read when they are asked for."""

    def __init__(self, replica: Replica, consensus: Consensus, watchers: Callable[[], int]) -> None:
        self._replica = replica
        self._consensus = consensus
        self._watchers = watchers

    def collect(self) -> Iterator[Metric]:
        """prometheus_client asks."""
        role, registry = self._consensus.role(), self._replica.registry
        log = self._consensus.snapshots()
        hosts = sum(host.alive for host in registry.hosts.values())
        ready = sum(agent.ready for agent in registry.agents.values())
        for name, text, value in (
            ("leader", "1 while this server leads.", role.is_leader),
            ("ready", "1 while this server is caught up.", role.ready),
            ("term", "Raft term.", role.term),
            ("commit_index", "Highest entry known to be committed.", role.commit_index),
            ("applied_index", "Highest entry applied.", role.applied_index),
            ("lag_entries", "Committed entries not applied yet.", role.lag),
            ("log_entries", "Entries of the Raft log in memory.", log.log_entries),
            ("log_bytes", "Bytes of these entries.", log.log_bytes),
            ("snapshot_index", "Last entry that the newest snapshot covers.", log.index),
            ("snapshot_bytes", "Size of the newest snapshot.", log.size),
            ("snapshot_freeze_seconds", "What the last snapshot took of the event loop.", log.freeze_s),
            ("snapshot_failures", "Attempts to keep a snapshot that failed since the last success.", log.failures),
            ("peers_connected", "Other servers connected.", sum(p.connected for p in role.peers.values())),
            ("registry_revision", "Revision of the registry.", registry.revision),
            ("agents", "Agents in the registry.", len(registry.agents)),
            ("agents_ready", "Agents that are ready.", ready),
            ("hosts", "Hosts whose lease may be held.", hosts),
            ("watchers", "Open watch streams.", self._watchers()),
            ("cluster_time_seconds", "Sum of the leaders' clock steps.", registry.cluster_ns / 1e9),
        ):
            yield GaugeMetricFamily(f"tenure_server_{name}", text, float(value))


class Health:
    """One HTTP listener. `why_not_ready` answers with a sentence, empty when ready."""

    def __init__(
        self,
        replica: Replica,
        consensus: Consensus,
        watchers: Callable[[], int],
        why_not_ready: Callable[[], str],
    ) -> None:
        self._why_not_ready = why_not_ready
        self._registry = CollectorRegistry()
        self._registry.register(_FromState(replica, consensus, watchers))
        replica.listen(Census(replica, self._registry))
        replica.listen(Losses(replica, self._registry))
        self._commit = Histogram(
            "tenure_store_commit_seconds",
            "Time of one synced commit.",
            buckets=_COMMIT_BUCKETS,
            registry=self._registry,
        )
        self._group = Gauge("tenure_store_commit_requests", "Requests in the last commit.", registry=self._registry)
        self._lag = Gauge("tenure_loop_lag_seconds", "How late the event loop was, last time.", registry=self._registry)
        self._lag_max = Gauge("tenure_loop_lag_max_seconds", "The worst since the start.", registry=self._registry)
        self._worst_s = 0.0
        self._expected = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._server: asyncio.Server | None = None
        self.port = 0

    def committed(self, seconds: float, requests: int) -> None:
        """The store finished a commit."""
        self._commit.observe(seconds)
        self._group.set(requests)

    async def start(self, address: str, port: int) -> None:
        """Listen. Port 0: the system chooses one, see `port`. Raises OSError."""
        pages = {"/livez": self._livez, "/readyz": self._readyz, "/metrics": self._metrics}
        self._server = await http.serve(address, port, pages)
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._schedule()

    async def stop(self) -> None:
        """Close the listener."""
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._expected = loop.time() + _LAG_PERIOD_S
        self._timer = loop.call_later(_LAG_PERIOD_S, self._measure)

    def _measure(self) -> None:
        late = max(0.0, asyncio.get_running_loop().time() - self._expected)
        self._worst_s = max(self._worst_s, late)
        self._lag.set(late)
        self._lag_max.set(self._worst_s)
        self._schedule()

    def _livez(self) -> tuple[int, str]:
        return 200, "ok\n"  # that this runs is the proof

    def _readyz(self) -> tuple[int, str]:
        reason = self._why_not_ready()
        return 503 if reason else 200, f"{reason or 'ok'}\n"

    def _metrics(self) -> tuple[int, str]:
        return 200, generate_latest(self._registry).decode()
