"""`Agent`: one long-lived, addressable, stateful object."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from tenure_api.embedded import Capabilities, NodeSelector
from tenure_api.model import (
    ATOMIC_LIST,
    FREE_FORM,
    Condition,
    Json,
    Model,
    ObjectMeta,
    Quantity,
    cel,
    immutable,
    list_map,
    not_negative,
)

PHASES = (
    "Pending",
    "Starting",
    "Running",
    "Hibernated",
    "FailingOver",
    "Migrating",
    "Backoff",
    "Paused",
    "Unavailable",
    "Terminating",
    "Ended",
)
DEFAULT_POOL = "default"
VOLATILE_SLEEPS = "lifecycle.idleTimeout needs the durability Quorum: a Volatile agent that leaves memory is gone"
VOLATILE_READS = "reads Quorum needs the durability Quorum: of a Volatile agent the servers know nothing"
GROUP_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
"""As the value of a label."""


class ClusterRef(Model):
    """An AgentCluster in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=30)]


class AgentRequests(Model):
    """What one agent is expected to use."""

    cpu: Quantity = "100m"
    """Cores."""
    memory: Quantity = "128Mi"
    """Bytes."""


class AgentResources(Model):
    """For placement only: nothing limits a single agent, its worker container has the limits."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                " && ".join(not_negative(f"self.requests.{name}") for name in ("cpu", "memory")),
                "a request is negative",
            )
        )
    )

    requests: AgentRequests = AgentRequests()


class AgentToleration(Model):
    """A taint of a node or of the pool that does not keep the agent away."""

    key: Annotated[str, Field(min_length=1, max_length=316)]
    value: Annotated[str, Field(max_length=63)] = ""
    """Absent: any value of the key."""


class Spread(Model):
    """The agents of a group lie evenly over zones, nodes or hosts."""

    by: Literal["Zone", "Node", "Host"]
    """`Zone`: the node's label `topology.kubernetes.io/zone`."""
    max_skew: Annotated[int, Field(ge=1, le=100_000, json_schema_extra={"format": "int32"})] = 1
    """How many more agents of the group a place may hold than the emptiest one that has room."""
    group: Annotated[str, Field(max_length=63, pattern=GROUP_PATTERN)] = ""
    """Agents of the namespace that name the same group count together. Absent: those of the agent's class."""


class Placement(Model):
    """Where the agent may run, and how a host is chosen among those. Read at each placement: an edit moves no agent."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.near) || self.strategy in ['LocalPreferred', 'Optimal']",
                "near needs the strategy LocalPreferred or Optimal",
            )
        )
    )

    strategy: Literal["LoadBalanced", "CapabilityMatched", "LeaderOnly", "Random", "LocalPreferred", "Optimal"] = (
        "LoadBalanced"
    )
    """`LoadBalanced`: the host with the fewest agents for its size. `CapabilityMatched`: the host with the fewest
    capabilities beyond those required. `LeaderOnly`: the host that serves longest, all of them there. `Random`: by
    chance. `LocalPreferred`: close to `near`. `Optimal`: the least weighted sum of cpu, memory, agents, distance, like
    agents and capabilities.
    """
    node_selector: NodeSelector = Field(default_factory=dict)
    """Labels that the host's node must carry."""
    requires: Capabilities = Field(default_factory=list[str])
    """Capabilities that the host must have: those of its pool, and its own."""
    tolerations: Annotated[list[AgentToleration], Field(json_schema_extra={**ATOMIC_LIST, "maxItems": 32})] = Field(
        default_factory=list[AgentToleration]
    )
    """Taints of nodes and of the pool that the agent accepts."""
    spread: Annotated[list[Spread], Field(json_schema_extra={**ATOMIC_LIST, "maxItems": 8})] = Field(
        default_factory=list[Spread]
    )
    """Rules in order of importance: where no host keeps all of them, the later ones are passed over."""
    near: Annotated[str | None, Field(min_length=1, max_length=317)] = None
    """For `LocalPreferred` and `Optimal`: an agent (`namespace/name`) or a node. Absent: the node where it was last."""

    @model_validator(mode="after")
    def _near_is_used(self) -> Self:
        if self.near is not None and self.strategy not in ("LocalPreferred", "Optimal"):
            raise ValueError("near needs the strategy LocalPreferred or Optimal")
        return self


class Delivery(Model):
    """How often and how long a signal to the agent, or one of its own, is tried."""

    max_attempts: Annotated[int, Field(ge=1, le=100, json_schema_extra={"format": "int32"})] = 5
    """How often a signal is tried whose turn fails. Then `onExhausted` decides."""
    backoff: Annotated[float, Field(ge=0.001, le=60)] = 0.1
    """Seconds before the second attempt, doubling to 60."""
    ttl: Annotated[float, Field(ge=1, le=3600)] = 300
    """Seconds until the agent gives up a signal that it has sent and that its receiver does not take: it becomes a dead
    letter of the agent's.
    """


class Lifecycle(Model):
    """When the agent is in memory."""

    idle_timeout: Annotated[float | None, Field(ge=0.1, le=31_536_000)] = None
    """Seconds without work after which the agent hibernates: its state stays in the store, and a call, a signal or a
    timer brings it back. Absent: never.
    """


class AgentSpec(Model):
    """What the user asks for."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(oldSelf.clusterRef) || (has(self.clusterRef) && self.clusterRef.name == oldSelf.clusterRef.name)",
                "clusterRef is immutable: an agent's state does not move between clusters",
            ),
            (
                "self.durability != 'Volatile' || !has(self.lifecycle) || !has(self.lifecycle.idleTimeout)",
                VOLATILE_SLEEPS,
            ),
            ("self.durability != 'Volatile' || self.reads != 'Quorum'", VOLATILE_READS),
        )
    )

    cluster_ref: ClusterRef | None = None
    """The cluster that runs the agent. Absent: the only AgentCluster of the namespace."""
    class_: Annotated[
        str,
        Field(
            alias="class",
            min_length=1,
            max_length=128,
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
            json_schema_extra=immutable("class is immutable: delete the agent and create it anew"),
        ),
    ]
    """A class that the pool's modules registered: its name, never an import path."""
    pool: Annotated[str, Field(min_length=1, max_length=20)] = DEFAULT_POOL
    """The pool of the cluster whose hosts may run the agent."""
    state: Annotated[Json, Field(json_schema_extra=FREE_FORM)] = Field(default_factory=dict)
    """Initial values of the state. A later edit changes nothing, and a condition says so."""
    config: Annotated[Json, Field(json_schema_extra=FREE_FORM)] = Field(default_factory=dict)
    """Settings that the agent reads and never writes."""
    capabilities: Capabilities = Field(default_factory=list[str])
    """What the agent offers, beside what its class declares: lookups find it by them."""
    critical: bool = True
    """false: when its host is lost, the agent is marked Unavailable instead of moved."""
    resources: AgentResources = AgentResources()
    """What the agent is expected to use; placement adds it up."""
    placement: Placement = Placement()
    durability: Annotated[
        Literal["Quorum", "Volatile"],
        Field(
            json_schema_extra=immutable(
                "durability is immutable, it says whether state is stored: delete the agent and create it anew"
            )
        ),
    ] = "Quorum"
    """`Quorum`: a turn counts when a majority of the servers has its state on disk. `Volatile`: nothing is stored, and
    state ends with the host; for agents that can begin anew.
    """
    reads: Literal["Local", "Quorum"] = "Local"
    """`Local`: the holder answers queries by its lease, without asking the servers. `Quorum`: it asks a majority of
    them first, and trusts no clock.
    """
    on_exhausted: Literal["DeadLetter", "Pause"] = "DeadLetter"
    """What becomes of a signal that failed for the last time. `DeadLetter`: it is put aside (`tenure dlq`), and the
    next one follows. `Pause`: the agent keeps its order and takes nothing new until `tenure resume`, `skip` or
    `redrive`.
    """
    delivery: Delivery = Delivery()
    """How often and how long a signal is tried."""
    lifecycle: Lifecycle = Lifecycle()
    """When the agent is in memory."""

    @model_validator(mode="after")
    def _stored_if_needed(self) -> Self:
        if self.durability == "Volatile" and self.lifecycle.idle_timeout is not None:
            raise ValueError(VOLATILE_SLEEPS)
        if self.durability == "Volatile" and self.reads == "Quorum":
            raise ValueError(VOLATILE_READS)
        return self


class LastFailover(Model):
    """The last move that nobody asked for."""

    time: Annotated[str | None, Field(json_schema_extra={"format": "date-time"})] = None
    """When the agent answered again; for one that has not yet, when its host was lost."""
    from_: Annotated[str, Field(alias="from")] = ""
    """Host before, and its node in brackets."""
    to: str = ""
    """Host after, and its node in brackets."""
    reason: str = ""
    duration_ms: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})] = 0
    """From the loss of the host to the agent answering elsewhere, in milliseconds. 0: not over yet."""


class AgentStatus(Model):
    """What the registry says of the agent. Written by the operator alone."""

    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] = 0
    """The metadata.generation that the registry has taken up."""
    phase: Annotated[str, Field(json_schema_extra={"enum": list(PHASES)})] = "Pending"
    summary: str = ""
    """The state in one sentence."""
    reason: str = ""
    """From the catalogue in docs/reference/reasons.md; empty when there is nothing to say."""
    next_action: str = ""
    """What a user can do about it; empty when nothing is to be done."""
    uid: str = ""
    """The agent's own identity, which its state is kept under."""
    epoch: Annotated[int, Field(json_schema_extra={"format": "int64"})] = 0
    """Grows by one at each assignment; fences every earlier holder."""
    host: str = ""
    """The pod that holds the agent."""
    node_name: str = ""
    restarts: Annotated[int, Field(json_schema_extra={"format": "int32"})] = 0
    """Activations that nobody asked for."""
    dead_letters: Annotated[int, Field(ge=0, json_schema_extra={"format": "int32"})] = 0
    """Signals that the agent could not process or deliver (`tenure dlq list`)."""
    last_failover: LastFailover | None = None
    conditions: Annotated[list[Condition], Field(json_schema_extra=list_map("type"))] = Field(
        default_factory=list[Condition]
    )
    """Accepted, Ready, Progressing, Degraded."""


class Agent(Model):
    """A long-lived, addressable, stateful agent, run by the AgentCluster of its namespace."""

    api_version: Literal["tenure.dev/v1alpha1"] = "tenure.dev/v1alpha1"
    kind: Literal["Agent"] = "Agent"
    metadata: ObjectMeta = ObjectMeta()
    spec: AgentSpec
    status: AgentStatus | None = None
