"""A cluster that a test fills, behind `tenure_cli.ports.Cluster`."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenure.errors import NotFound, Unavailable
from tenure_cli.ports import CallResult, Rows
from tenure_proto.v1 import calls_pb2, registry_pb2
from tests.cli.cli_fake_holder import Holder

NOW = 1_000_000.0


@dataclass
class FakeCluster:
    """A cluster that a test fills: rows, a status, replies by method; it notes what was asked of it."""

    rows: Rows = field(default_factory=Rows)
    changes: list[Callable[[Rows], None]] = field(default_factory=list)
    answer: registry_pb2.StatusResponse = field(default_factory=registry_pb2.StatusResponse)
    views: list[registry_pb2.StatusResponse] = field(default_factory=list)
    replies: dict[str, Any] = field(default_factory=dict)
    failure: Exception | None = None
    applied: list[registry_pb2.AgentSpec] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    pools: list[registry_pb2.PoolSpec] = field(default_factory=list)
    calls: list[tuple[str, str, dict[str, Any], float]] = field(default_factory=list)
    log: list[calls_pb2.LogLine] = field(default_factory=list)
    results: dict[str, registry_pb2.RowResult] = field(default_factory=dict)
    trials: list[registry_pb2.AgentSpec] = field(default_factory=list)
    trial: registry_pb2.DryRunResponse = field(default_factory=registry_pb2.DryRunResponse)
    explanation: registry_pb2.ExplainResponse = field(default_factory=registry_pb2.ExplainResponse)
    rooms: registry_pb2.ResourcesResponse = field(default_factory=registry_pb2.ResourcesResponse)
    quarantined: list[tuple[str, str]] = field(default_factory=list)
    losses: list[registry_pb2.FailoverRecord] = field(default_factory=list)
    confirmed: list[tuple[str, ...]] = field(default_factory=list)
    holders: dict[str, Holder] = field(default_factory=dict)
    """Of agents that answer operations."""
    grows: bool = False
    """What is applied runs at once."""

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def status(self) -> registry_pb2.StatusResponse:
        """The answer that the test gave."""
        self._check()
        return self.answer

    async def statuses(self) -> Sequence[registry_pb2.StatusResponse]:
        """The answers that the test gave."""
        self._check()
        return self.views

    async def watch(self) -> AsyncIterator[Rows]:
        """The rows, then once more after each change; then the stream ends."""
        self._check()
        yield self.rows
        for change in self.changes:
            change(self.rows)
            yield self.rows

    async def explain(self, agent: str) -> registry_pb2.ExplainResponse:
        """The answer that the test gave."""
        self._check()
        if self.rows.agent(agent) is None:
            raise NotFound(f"There is no agent {agent}.", outcome="not_applied")
        return self.explanation

    async def dry_run(self, spec: registry_pb2.AgentSpec) -> registry_pb2.DryRunResponse:
        """The answer that the test gave."""
        self._check()
        self.trials.append(spec)
        return self.trial

    async def resources(self) -> registry_pb2.ResourcesResponse:
        """The answer that the test gave."""
        self._check()
        return self.rooms

    async def failovers(self) -> registry_pb2.FailoversResponse:
        """What the test filled in."""
        return registry_pb2.FailoversResponse(failovers=self.losses, revision=self.rows.revision)

    async def confirm_failover(self, hosts: Sequence[str]) -> registry_pb2.ConfirmFailoverResponse:
        """It is noted."""
        self.confirmed.append(tuple(hosts))
        held = sorted(row.name for row in self.rows.hosts.values() if row.silence == "Held")
        return registry_pb2.ConfirmFailoverResponse(hosts=hosts or held)

    async def decisions(self, host: str, limit: int) -> registry_pb2.DecisionsResponse:
        """Those of the explanation, of that host."""
        self._check()
        found = [each for each in self.explanation.decisions if host in ("", each.host)]
        return registry_pb2.DecisionsResponse(decisions=found[:limit], kept=len(self.explanation.decisions))

    async def quarantine(self, host: str, reason: str) -> registry_pb2.QuarantineResponse:
        """Notes it."""
        self._check()
        self.quarantined.append((host, reason))
        return registry_pb2.QuarantineResponse(agents=2)

    async def apply_agents(self, specs: Sequence[registry_pb2.AgentSpec]) -> list[registry_pb2.RowResult]:
        """Notes them; created, unless the test said otherwise."""
        self._check()
        self.applied += specs
        for spec in specs:
            if self.grows and self.rows.agent(spec.id) is None:
                self.add_agent(spec.id)
                self.holders[spec.id] = Holder(spec.id)
        return [self._result(spec.id, "created") for spec in specs]

    async def delete_agents(self, ids: Sequence[str]) -> list[registry_pb2.RowResult]:
        """Notes them."""
        self._check()
        self.deleted += ids
        return [self._result(name, "deleting") for name in ids]

    async def apply_pools(self, pools: Sequence[registry_pb2.PoolSpec]) -> None:
        """Notes them."""
        self._check()
        self.pools += pools

    async def call(self, agent: str, method: str, arguments: Mapping[str, Any], timeout_s: float) -> CallResult:
        """The reply that the test gave."""
        self._check()
        self.calls.append((agent, method, dict(arguments), timeout_s))
        return CallResult(self.replies[method], "host-1", 3)

    async def control(self, agent: str, method: str, arguments: Mapping[str, Any], timeout_s: float) -> Any:
        """What the agent's holder says."""
        self._check()
        holder = self.holders.get(agent)
        if holder is None:
            raise Unavailable(f"{agent} did not answer in time.")
        return holder.control(method, arguments)

    async def logs(self, agent: str, tail: int, *, follow: bool) -> AsyncIterator[calls_pb2.LogLine]:
        """The lines of that agent."""
        self._check()
        for line in [line for line in self.log if line.agent == agent][-tail:]:
            yield line

    def _result(self, name: str, outcome: str) -> registry_pb2.RowResult:
        return self.results.get(name) or registry_pb2.RowResult(id=name, outcome=outcome)

    def add_agent(self, name: str = "shop/counter-1", class_: str = "Counter", **fields: Any) -> registry_pb2.AgentRow:
        """A running agent unless `fields` say otherwise."""
        spec = registry_pb2.AgentSpec(id=name, pool=fields.pop("pool", "default"))
        setattr(spec, "class", class_)
        defaults = {
            "uid": f"uid-{name}", "ready": True, "summary": "Running on node-2", "phase": "Running", "node": "node-2",
            "host": "host-2", "epoch": 1, "created_wall": NOW - 12, "managed_by": registry_pb2.MANAGED_BY_API,
        }  # fmt: skip
        row = registry_pb2.AgentRow(spec=spec, **(defaults | fields))
        self.rows.agents[row.uid] = row
        return row

    def add_host(self, name: str = "host-2", **fields: Any) -> registry_pb2.HostRow:
        """A ready host of the default pool that offers Counter, unless `fields` say otherwise."""
        schema = '{"type": "object", "properties": {"by": {"type": "integer"}, "note": {"type": "string"}}}'
        increment = registry_pb2.MethodInfo(name="increment", parameters_schema=schema, description="Add.")
        value = registry_pb2.MethodInfo(name="value", query=True, parameters_schema='{"properties": {}}')
        defaults = {
            "incarnation": f"{name}-a", "pool": "default", "node": "node-2", "ready": True, "schedulable": True,
            "classes": [registry_pb2.ClassInfo(name="Counter", methods=[increment, value])],
            "registered_wall": NOW - 200, "version": "0.1.0", "address": "127.0.0.1:1",
        }  # fmt: skip
        row = registry_pb2.HostRow(name=name, **(defaults | fields))
        self.rows.hosts[row.incarnation] = row
        return row
