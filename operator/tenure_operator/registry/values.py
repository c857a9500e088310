"""Rows of the registry, as far as the operator reads and writes them. Plain values: nothing of gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

KUBERNETES = "Kubernetes"
API = "API"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """Keeps agents away that do not tolerate it."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """Lets an agent, or the hosts of a pool, go where a taint is."""

    key: str
    """Empty: every taint."""
    value: str = ""
    """Empty: any value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How evenly the agents of a group lie over zones, nodes or hosts."""

    by: str
    max_skew: int = 1
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How often and how long a signal is tried."""

    max_attempts: int = 5
    backoff_s: float = 0.1
    ttl_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """What the user asked for."""

    id: str
    """namespace/name"""
    class_name: str
    pool: str
    state: bytes = b""
    """msgpack map, keys sorted: two equal states are equal bytes."""
    config: bytes = b""
    critical: bool = True
    cpu_milli: int = 0
    memory_bytes: int = 0
    strategy: str = ""
    node_selector: dict[str, str] = field(default_factory=dict[str, str])
    labels: dict[str, str] = field(default_factory=dict[str, str])
    capabilities: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    spread: tuple[Spread, ...] = ()
    near: str = ""
    durability: str = "Quorum"
    reads: str = "Local"
    on_exhausted: str = "DeadLetter"
    delivery: Delivery = Delivery()
    idle_timeout_s: float = 0.0
    """0: never."""
    object_uid: str = ""
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failover:
    """The last move that nobody asked for."""

    wall_time: float
    from_host: str = ""
    from_node: str = ""
    to_host: str = ""
    to_node: str = ""
    reason: str = ""
    duration_ms: int = 0
    """0: not over yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRow:
    """An agent, its assignment, and what a user reads."""

    uid: str
    spec: AgentSpec
    managed_by: str = KUBERNETES
    epoch: int = 0
    host: str = ""
    node: str = ""
    ready: bool = False
    deleting: bool = False
    phase: str = "Pending"
    summary: str = ""
    reason: str = ""
    next_action: str = ""
    restarts: int = 0
    dead_letters: int = 0
    last_failover: Failover | None = None

    def is_of(self, wanted: AgentSpec) -> bool:
        """The row is of this version of this object."""
        spec = self.spec
        same = spec.object_uid == wanted.object_uid and spec.generation == wanted.generation
        return same and spec.labels == wanted.labels  # which do not count in the generation


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRow:
    """A host process, one incarnation of it."""

    name: str
    incarnation: str
    pool: str
    node: str = ""
    ready: bool = False
    expired: bool = False
    draining: bool = False
    classes: tuple[str, ...] = ()
    worker_error: str = ""
    worker_reason: str = ""
    ended: str = ""
    """Why it ended: LeaseExpired, HostLost, Released; empty while it lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """What hosts of a pool run."""

    name: str
    modules: tuple[str, ...]
    max_agents_per_host: int = 0
    """0: no limit."""
    capabilities: tuple[str, ...] = ()
    taints: tuple[Taint, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    """Of its pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """A Kubernetes node, as placement sees it."""

    name: str
    schedulable: bool
    labels: dict[str, str] = field(default_factory=dict[str, str])
    taints: tuple[Taint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """A server, as the one that answered knows it."""

    name: str
    role: str = "unknown"
    lag: int = 0
    version: str = ""
    connected: bool = False
    store: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """The servers' own view of themselves."""

    leader: str = ""
    term: int = 0
    servers: tuple[ServerState, ...] = ()
    quorum_ready: int = 0
    """Servers that are caught up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one row of a request."""

    id: str
    outcome: str
    """created, configured, unchanged, deleting, gone, refused"""
    code: str = ""
    message: str = ""
    next_step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A part of the watch stream."""

    snapshot: bool = False
    synced: bool = False
    revision: int = 0
    agents: tuple[AgentRow, ...] = ()
    hosts: tuple[HostRow, ...] = ()
    pools: tuple[PoolRow, ...] = ()
    gone_agents: tuple[str, ...] = ()
    gone_hosts: tuple[str, ...] = ()
    gone_pools: tuple[str, ...] = ()


class RegistryError(Exception):
    """The servers did not answer, or not with what was asked for. The message is a sentence."""


class RegistryRefused(RegistryError):
    """A server decided against it: it has no effect, and none later."""


class Registry(Protocol):
    """A cluster's servers. Every method raises RegistryError; requests may be repeated with the same command id."""

    async def apply_agents(self, specs: list[AgentSpec], command: str) -> list[Outcome]: ...
    async def delete_agent(self, agent_id: str, object_uid: str, command: str) -> Outcome: ...
    async def apply_cluster(self, pools: list[PoolRow], command: str) -> None: ...
    async def set_nodes(self, nodes: list[NodeRow], command: str) -> None: ...
    async def status(self) -> ClusterState: ...
    def watch(self, revision: int) -> AsyncIterator[Batch]: ...
    async def close(self) -> None: ...
