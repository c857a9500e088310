"""What the commands need of a cluster. `tenure_cli.remote` implements it over the SDK; tests use a fake."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tenure_proto.v1 import calls_pb2, registry_pb2


@dataclass(frozen=True)
class CallResult:
    """The reply of an agent, and who gave it. `recorded`: it had been applied before; this is the reply kept then."""

    value: Any
    host: str
    epoch: int
    recorded: bool = False


@dataclass
class Rows:
    """The registry as a watcher holds it. `revision` is of the server that answered; `cluster_time` in seconds."""

    agents: dict[str, registry_pb2.AgentRow] = field(default_factory=dict[str, registry_pb2.AgentRow])  # by uid
    hosts: dict[str, registry_pb2.HostRow] = field(default_factory=dict[str, registry_pb2.HostRow])  # by incarnation
    pools: dict[str, registry_pb2.PoolRow] = field(default_factory=dict[str, registry_pb2.PoolRow])  # by name
    revision: int = 0
    cluster_time: float = 0.0

    def merge(self, batch: registry_pb2.WatchBatch) -> None:
        """Take in one batch of a watch."""
        if batch.snapshot:
            self.agents.clear()
            self.hosts.clear()
            self.pools.clear()
        self.agents.update({row.uid: row for row in batch.agents})
        self.hosts.update({row.incarnation: row for row in batch.hosts})
        self.pools.update({row.spec.name: row for row in batch.pools})
        for uid in batch.gone_agents:
            self.agents.pop(uid, None)
        for incarnation in batch.gone_hosts:
            self.hosts.pop(incarnation, None)
        for name in batch.gone_pools:
            self.pools.pop(name, None)
        self.revision = batch.revision or self.revision
        self.cluster_time = batch.cluster_time or self.cluster_time

    def agent(self, name: str) -> registry_pb2.AgentRow | None:
        """The agent called `name` (namespace/name)."""
        return next((row for row in self.agents.values() if row.spec.id == name), None)

    def live_hosts(self) -> list[registry_pb2.HostRow]:
        """Hosts whose incarnation has not ended, by name."""
        return sorted((row for row in self.hosts.values() if not row.expired), key=lambda row: row.name)


class Cluster(Protocol):
    """One connection to a cluster. Each method raises `tenure.errors.TenureError` or `CliError`."""

    async def status(self) -> registry_pb2.StatusResponse:
        """Who leads, which servers are up."""
        ...

    async def statuses(self) -> Sequence[registry_pb2.StatusResponse]:
        """The same from every server that can be reached from here; it may be none."""
        ...

    def watch(self) -> AsyncIterator[Rows]:
        """The registry: complete at first, then again after each change. The same object each time."""
        ...

    async def explain(self, agent: str) -> registry_pb2.ExplainResponse:
        """Why an agent is where it is, or nowhere."""
        ...

    async def dry_run(self, spec: registry_pb2.AgentSpec) -> registry_pb2.DryRunResponse:
        """Where an agent would be placed now; changes nothing."""
        ...

    async def resources(self) -> registry_pb2.ResourcesResponse:
        """Capacity, use and reservations, by node and in all."""
        ...

    async def decisions(self, host: str, limit: int) -> registry_pb2.DecisionsResponse:
        """The last placements of the cluster, or of one host, the newest first."""
        ...

    async def quarantine(self, host: str, reason: str) -> registry_pb2.QuarantineResponse:
        """Place nothing new on a host; an empty reason lifts that."""
        ...

    async def failovers(self) -> registry_pb2.FailoversResponse:
        """The last losses of hosts, the newest first."""
        ...

    async def confirm_failover(self, hosts: Sequence[str]) -> registry_pb2.ConfirmFailoverResponse:
        """Say that these hosts are gone (none: all whose failover is held back)."""
        ...

    async def apply_agents(self, specs: Sequence[registry_pb2.AgentSpec]) -> Sequence[registry_pb2.RowResult]:
        """Create or change agents; one result each, in their order."""
        ...

    async def delete_agents(self, ids: Sequence[str]) -> Sequence[registry_pb2.RowResult]:
        """Stop agents and remove them."""
        ...

    async def apply_pools(self, pools: Sequence[registry_pb2.PoolSpec]) -> None:
        """Declare the whole set of pools."""
        ...

    async def call(self, agent: str, method: str, arguments: Mapping[str, Any], timeout_s: float) -> CallResult:
        """Call an action or a query by its name."""
        ...

    async def control(self, agent: str, method: str, arguments: Mapping[str, Any], timeout_s: float) -> Any:
        """An operation on an agent by its holder's host (docs/operating.md); its answer as plain values."""
        ...

    def logs(self, agent: str, tail: int, *, follow: bool) -> AsyncIterator[calls_pb2.LogLine]:
        """What the agent logged: up to `tail` lines of the past, then, with `follow`, what comes."""
        ...


async def snapshot(cluster: Cluster) -> Rows:
    """The registry as it is now."""
    async for rows in cluster.watch():
        return rows
    return Rows()
