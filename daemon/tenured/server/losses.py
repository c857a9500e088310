"""Failovers, counted and timed as the registry records them, for the metrics of a server.

Counters begin at 0 with the process, as everywhere in Prometheus: of a record that was read from a snapshot only what
happens later is counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tenured.core.changes import Delta
from tenured.core.model import FailoverRecord
from tenured.server.replica import Replica

_BUCKETS = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0)
"""Seconds: fine where the promises are."""


class Losses(Collector):
    """A replica's listener and a collector of metrics."""

    def __init__(self, replica: Replica, registry: CollectorRegistry) -> None:
        self._replica = replica
        self._lost = Counter(
            "tenure_failovers", "Hosts that ended without having said so.", ["cause"], registry=registry
        )
        self._agents = Counter(
            "tenure_failover_agents",
            "Agents that lost hosts held, by what became of them.",
            ["became"],
            registry=registry,
        )
        self._seconds = Histogram(
            "tenure_failover_seconds",
            "From a lost host's last sign of life until all its agents were Ready, marked, or gone.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self._known = set(replica.registry.failovers)
        self._done = {name for name, record in replica.registry.failovers.items() if record.done_wall}
        registry.register(self)

    def changed(self, delta: Delta, /) -> None:
        """Count what one entry has done."""
        for key in delta.changed:
            if key.kind == "failover" and (record := self._replica.registry.failovers.get(key.name)) is not None:
                self._note(key.name, record)
        for key in delta.gone:
            if key.kind == "failover":
                self._known.discard(key.name)
                self._done.discard(key.name)

    def replaced(self) -> None:
        """A snapshot was installed: what happened in between was counted by others."""
        failovers = self._replica.registry.failovers
        self._known = set(failovers)
        self._done = {name for name, record in failovers.items() if record.done_wall}

    def collect(self) -> Iterator[Metric]:
        """How many hosts are silent now, and of how many the failover is held back."""
        alive = [host for host in self._replica.registry.hosts.values() if host.alive]
        silent = sum(host.suspect for host in alive)
        held = sum(host.silence == "Held" for host in alive)
        yield GaugeMetricFamily("tenure_hosts_silent", "Living hosts that are not heard.", float(silent))
        yield GaugeMetricFamily(
            "tenure_failover_held_hosts", "Hosts whose failover waits, because many fell silent at once.", float(held)
        )

    def _note(self, name: str, record: FailoverRecord) -> None:
        if name not in self._known:
            self._known.add(name)
            self._lost.labels(record.cause).inc()
        if record.done_wall and name not in self._done:
            self._done.add(name)
            self._agents.labels("ready").inc(record.ready)
            self._agents.labels("unavailable").inc(record.marked_unavailable)
            self._agents.labels("left").inc(record.left)
            if record.agents:
                began = record.last_heard_wall or record.ended_wall
                self._seconds.observe(max(0.0, record.done_wall - began))
