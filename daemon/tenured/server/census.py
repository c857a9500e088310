"""Who came and who went, counted from what changes in the registry, for the metrics of a server.

Counters begin at 0 with the process: rows that it restores or replays are counted as they are applied, so that only
differences tell something, as with every Prometheus counter. No label grows with the number of agents.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tenured.core.changes import Delta
from tenured.core.model import Host
from tenured.server.replica import Replica


class Census(Collector):
    """A replica's listener and a collector of metrics."""

    def __init__(self, replica: Replica, registry: CollectorRegistry) -> None:
        self._replica = replica
        self._registered = Counter(
            "tenure_registry_agents_registered", "Rows of agents that were created.", registry=registry
        )
        self._unregistered = Counter(
            "tenure_registry_agents_unregistered", "Rows of agents that were removed.", registry=registry
        )
        self._joined = Counter("tenure_registry_hosts_joined", "Incarnations that registered.", registry=registry)
        self._ended = Counter("tenure_registry_hosts_ended", "Incarnations that ended.", ["reason"], registry=registry)
        self._alive = {host.incarnation for host in replica.registry.hosts.values() if host.alive}
        registry.register(self)

    def changed(self, delta: Delta, /) -> None:
        """Count what one entry has done."""
        registry = self._replica.registry
        for key in delta.changed:
            if key.kind == "agent" and (agent := registry.agents.get(key.name)) is not None:
                if agent.uid == str(agent.revision):  # the uid is the revision that created the row
                    self._registered.inc()
            elif key.kind == "host" and (host := registry.hosts.get(key.name)) is not None:
                self._host(host)
        self._unregistered.inc(sum(1 for key in delta.gone if key.kind == "agent"))

    def replaced(self) -> None:
        """A snapshot was installed: what happened in between was counted by others."""
        self._alive = {host.incarnation for host in self._replica.registry.hosts.values() if host.alive}

    def collect(self) -> Iterator[Metric]:
        """Agents of each host; cheap, since the registry keeps these sums."""
        registry = self._replica.registry
        agents = GaugeMetricFamily("tenure_host_agents", "Agents that a host holds.", labels=["host", "node"])
        for incarnation in sorted(self._alive):
            host, usage = registry.hosts.get(incarnation), registry.usage.get(incarnation)
            if host is not None:
                agents.add_metric([host.name, host.node], float(usage.agents if usage is not None else 0))
        yield agents

    def _host(self, host: Host) -> None:
        if host.alive and host.incarnation not in self._alive:
            self._alive.add(host.incarnation)
            self._joined.inc()
        elif not host.alive and host.incarnation in self._alive:
            self._alive.discard(host.incarnation)
            self._ended.labels(host.ended).inc()
