"""`AgentCluster`: the servers that hold a registry, and the pools of hosts that run agents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator

from tenure_api.embedded import (
    Affinity,
    Capabilities,
    EnvFromSource,
    EnvVar,
    LocalObjectReference,
    NodeSelector,
    PodMetadata,
    PullPolicy,
    PullSecrets,
    ResourceRequirements,
    SecretKeyReference,
    SecurityContext,
    Taint,
    Taints,
    Toleration,
    Tolerations,
    TopologySpreadConstraint,
)
from tenure_api.model import (
    ATOMIC_LIST,
    LABEL_PATTERN,
    LIST_SET,
    Condition,
    Model,
    ObjectMeta,
    Quantity,
    above_zero,
    cel,
    immutable,
    list_map,
)

MAX_NAME = 30
"""Characters of a cluster's name: the names of its pods must remain DNS labels."""
PHASES = ("Pending", "Creating", "Running", "Degraded", "Terminating")


class Storage(Model):
    """Where a server keeps its Raft log and the agents' state."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                (
                    "self.type == oldSelf.type && "
                    "quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) == 0 && "
                    "has(self.storageClassName) == has(oldSelf.storageClassName) && "
                    "(!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)"
                ),
                "type, size and storageClassName are immutable: a StatefulSet cannot change its volumes",
            ),
            (
                "self.type == 'PersistentVolumeClaim' || !has(self.storageClassName)",
                "storageClassName makes no sense with type Ephemeral",
            ),
            (above_zero("self.size"), "size is not above zero"),
        )
    )

    type: Literal["PersistentVolumeClaim", "Ephemeral"] = "PersistentVolumeClaim"
    """`Ephemeral`: an emptyDir. The state of every agent is lost with the pods of a majority of the servers."""
    size: Quantity = "5Gi"
    """Of each server's volume; the limit of the emptyDir with `Ephemeral`."""
    storage_class_name: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """Absent: the default StorageClass."""
    reclaim_policy: Literal["Retain", "Delete"] = "Retain"
    """What becomes of the claims when the AgentCluster is deleted."""


class Servers(Model):
    """The processes that vote in Raft and hold the registry."""

    replicas: Annotated[
        int,
        Field(
            json_schema_extra={
                "enum": [1, 3, 5],
                "format": "int32",
                **immutable("servers.replicas is immutable for now: the voters of a cluster are fixed"),
            }
        ),
    ] = 3
    """1, 3 or 5; 3 survive the loss of one, 5 of two."""
    resources: ResourceRequirements | None = None
    """Absent: 250m cores and 256Mi requested, 1Gi at most."""
    node_selector: NodeSelector = Field(default_factory=dict)
    tolerations: Tolerations = Field(default_factory=list[Toleration])
    affinity: Affinity | None = None
    topology_spread_constraints: Annotated[
        list[TopologySpreadConstraint], Field(json_schema_extra={**ATOMIC_LIST, "maxItems": 8})
    ] = Field(default_factory=list[TopologySpreadConstraint])
    storage: Storage = Storage()

    @field_validator("replicas")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value not in (1, 3, 5):
            raise ValueError("servers.replicas is 1, 3 or 5: an even number survives no more losses than one less")
        return value


class Lease(Model):
    """How fast a silent host is replaced."""

    profile: Annotated[
        Literal["Fast", "Balanced", "Calm"],
        Field(json_schema_extra=immutable("lease.profile is immutable for now: servers and hosts must agree on it")),
    ] = "Balanced"
    """Time to live of a host's lease: `Fast` 1 s, `Balanced` 2 s, `Calm` 5 s."""


class StateStore(Model):
    """Where the agents' state is kept, and how it is protected there."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self.type == oldSelf.type", "stateStore.type is immutable: the state of every agent would stay behind"),
            (
                "(self.type == 'PostgreSQL') == has(self.secretRef)",
                "type PostgreSQL needs secretRef, with the URL of the database; Embedded takes none",
            ),
        )
    )

    type: Literal["Embedded", "PostgreSQL"] = "Embedded"
    """`Embedded`: on a majority of the servers. `PostgreSQL`: in one that you run; without a synchronous standby it is
    as durable as its one disk."""
    secret_ref: SecretKeyReference | None = None
    """With `PostgreSQL`: where `postgresql://user:password@host/database` is. Read again at each connection."""
    encryption_keys_ref: SecretKeyReference | None = None
    """Where the keys are that hosts encrypt state with: a line `ID BASE64` each, the first one writes. Absent: state is
    not encrypted."""


class Pool(Model):
    """A kind of worker: an image, resources, a choice of nodes."""

    name: Annotated[str, Field(min_length=1, max_length=20, pattern=LABEL_PATTERN)]
    image: Annotated[str, Field(min_length=1, max_length=1024)]
    """Any image with Python 3.11+ and `pip install tenure`."""
    image_pull_policy: PullPolicy | None = None
    image_pull_secrets: PullSecrets = Field(default_factory=list[LocalObjectReference])
    modules: Annotated[
        list[Annotated[str, Field(max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")]],
        Field(min_length=1, max_length=64, json_schema_extra=LIST_SET),
    ]
    """Python modules that the workers import; the agent classes they define can run in this pool."""
    replicas: Annotated[int | None, Field(ge=0, le=1000, json_schema_extra={"format": "int32"})] = None
    """Number of hosts. Absent: one per node."""
    workers_per_host: Annotated[int, Field(ge=1, le=64, json_schema_extra={"format": "int32"})] = 1
    """Worker processes of each host; the agents of the pool share them."""
    max_agents_per_host: Annotated[int | None, Field(ge=1, le=100_000, json_schema_extra={"format": "int32"})] = None
    """Absent: no limit."""
    capabilities: Capabilities = Field(default_factory=list[str])
    """What each host of the pool has; agents ask for it by placement.requires."""
    taints: Taints = Field(default_factory=list[Taint])
    """Keep agents away that do not tolerate them by placement.tolerations."""
    resources: ResourceRequirements | None = None
    """Of the worker container. Absent: 250m cores and 256Mi requested."""
    env: Annotated[list[EnvVar], Field(json_schema_extra={**list_map("name"), "maxItems": 256})] = Field(
        default_factory=list[EnvVar]
    )
    """Environment of the workers."""
    env_from: Annotated[list[EnvFromSource], Field(json_schema_extra={**ATOMIC_LIST, "maxItems": 64})] = Field(
        default_factory=list[EnvFromSource]
    )
    security_context: SecurityContext = SecurityContext()
    node_selector: NodeSelector = Field(default_factory=dict)
    tolerations: Tolerations = Field(default_factory=list[Toleration])
    affinity: Affinity | None = None
    pod_metadata: PodMetadata | None = None
    termination_grace_period_seconds: Annotated[int, Field(ge=10, le=3600, json_schema_extra={"format": "int64"})] = 60
    """Seconds that a stopping host has to hand its agents over."""


class AgentClusterSpec(Model):
    """What the user asks for."""

    image: Annotated[str | None, Field(min_length=1, max_length=1024)] = None
    """Image of servers and host daemons. Absent: the one that the operator itself was installed with."""
    image_pull_policy: PullPolicy | None = None
    image_pull_secrets: PullSecrets = Field(default_factory=list[LocalObjectReference])
    servers: Servers = Servers()
    lease: Lease = Lease()
    state_store: StateStore = StateStore()
    pools: Annotated[list[Pool], Field(min_length=1, max_length=16, json_schema_extra=list_map("name"))]

    @field_validator("pools")
    @classmethod
    def _unique(cls, pools: list[Pool]) -> list[Pool]:
        names = [pool.name for pool in pools]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two pools are named {twice[0]!r}")
        return pools


class Member(Model):
    """One server."""

    name: str
    node: str = ""
    role: str = ""
    """leader, follower, candidate, joining, unreachable or unknown."""
    lag: Annotated[int, Field(json_schema_extra={"format": "int64"})] = 0
    """Entries behind the leader."""
    version: str = ""


class PoolStatus(Model):
    """The hosts of one pool."""

    name: str
    desired: Annotated[int, Field(json_schema_extra={"format": "int32"})] = 0
    ready: Annotated[int, Field(json_schema_extra={"format": "int32"})] = 0
    """Hosts that hold a lease and have a worker connected."""
    classes: Annotated[list[str], Field(json_schema_extra=ATOMIC_LIST)] = Field(default_factory=list)
    """What the pool's modules registered."""


class AgentClusterStatus(Model):
    """What the servers and the pods say. Written by the operator alone."""

    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] = 0
    phase: Annotated[str, Field(json_schema_extra={"enum": list(PHASES)})] = "Pending"
    summary: str = ""
    """The state in one sentence."""
    leader: str = ""
    term: Annotated[int, Field(json_schema_extra={"format": "int64"})] = 0
    quorum: str = ""
    """Servers that are caught up, of all: `3/3`."""
    hosts: str = ""
    """Hosts that are ready, of all: `3/3`."""
    agents: Annotated[int | None, Field(json_schema_extra={"format": "int64"})] = None
    """Rows in the registry, those created through the API included. Absent until a server has answered."""
    members: Annotated[list[Member], Field(json_schema_extra=list_map("name"))] = Field(default_factory=list[Member])
    pools: Annotated[list[PoolStatus], Field(json_schema_extra=list_map("name"))] = Field(
        default_factory=list[PoolStatus]
    )
    certificates_expire: Annotated[str | None, Field(json_schema_extra={"format": "date-time"})] = None
    """When the first certificate of a server ends; they are reissued at two thirds of their life."""
    conditions: Annotated[list[Condition], Field(json_schema_extra=list_map("type"))] = Field(
        default_factory=list[Condition]
    )
    """Accepted, Ready, QuorumHealthy, HostsReady, Progressing, Degraded."""


class AgentCluster(Model):
    """Servers that hold a registry, and pools of hosts that run the agents of the namespace."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                f"self.metadata.name.size() <= {MAX_NAME} && self.metadata.name.matches('{LABEL_PATTERN}')",
                f"the name is at most {MAX_NAME} lower-case letters, digits and '-', and begins with a letter",
            )
        )
    )

    api_version: Literal["tenure.dev/v1alpha1"] = "tenure.dev/v1alpha1"
    kind: Literal["AgentCluster"] = "AgentCluster"
    metadata: ObjectMeta = ObjectMeta()
    spec: AgentClusterSpec
    status: AgentClusterStatus | None = None
