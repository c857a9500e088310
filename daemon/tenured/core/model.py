"""Rows of the registry: frozen values. A row that changes is replaced, and its `revision` says when.

`uid` of an agent is the decimal text of the revision that created its row (protocol additions 2): it is never used
again, so the records of a deleted agent cannot come back under its name.
"""

from __future__ import annotations

from typing import Literal

import msgspec

ManagedBy = Literal["Kubernetes", "API"]
"""The door through which an agent came, and through which alone it may be changed."""

Kind = Literal["agent", "host", "pool", "node", "server"]


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all rows."""

    revision: int = 0
    """Of the registry, when this row last changed."""


class AgentSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the user asked for."""

    id: str
    """namespace/name"""
    class_name: str
    pool: str = "default"
    state: bytes = b""
    """msgpack map: initial values. In a row: those of the creation, whatever was applied later."""
    config: bytes = b""
    """msgpack map."""
    critical: bool = True
    cpu_milli: int = 0
    memory_bytes: int = 0
    strategy: str = "LoadBalanced"
    node_selector: dict[str, str] = {}
    object_uid: str = ""
    """Of the Kubernetes object."""
    generation: int = 0
    """Of the Kubernetes object: becomes observedGeneration."""


class Trouble(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an agent that is assigned does not run, in its holder's words."""

    phase: str
    """Backoff, Starting or Unavailable."""
    reason: str
    message: str
    attempt: int = 0
    retry_wall: float = 0.0
    """Wall time of the next attempt; 0: none is planned."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an agent that nobody holds is not placed."""

    reason: str
    message: str
    next_action: str = ""


class Failover(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The last move that nobody asked for."""

    wall: float
    """When its holder was last heard of."""
    from_host: str
    from_node: str
    reason: str
    to_host: str = ""
    to_node: str = ""
    duration_ms: int = 0
    """From `wall` to Ready at the new holder; 0: not ended yet."""


class Agent(Row, frozen=True, kw_only=True, omit_defaults=True):
    """An agent and its assignment.

    Invariants: `incarnation` is empty exactly while nobody holds the agent, and becomes so only by rule R (protocol
    4): the holder's own release, or the committed end of its incarnation. `epoch` only grows, by one with each
    assignment. `ready_epoch <= epoch`.
    """

    uid: str
    spec: AgentSpec
    managed_by: ManagedBy
    created_wall: float = 0.0

    epoch: int = 0
    """0: never assigned."""
    host: str = ""
    """Name of the holder; empty while nobody holds it."""
    incarnation: str = ""
    node: str = ""
    assigned_reason: str = ""
    unheld_reason: str = ""
    """Why nobody holds it: Scheduled (never assigned), LeaseExpired, HostLost, Released, Draining; empty while held."""
    last_host: str = ""
    """The holder before."""
    last_node: str = ""

    ready: bool = False
    ready_epoch: int = 0
    """The latest epoch that reported Ready: a state must exist from then on (protocol 2)."""
    deleting: bool = False
    state_ignored: bool = False
    """The last applied spec.state differs from the initial one, which stays."""

    restarts: int = 0
    """Activations that nobody asked for."""
    last_failover: Failover | None = None
    trouble: Trouble | None = None
    waiting: Waiting | None = None
    explanation: str = ""
    """Of the present (or last) assignment, <= 256 B."""
    previous_explanation: str = ""

    @property
    def id(self) -> str:
        """namespace/name"""
        return self.spec.id

    @property
    def held(self) -> bool:
        """Whether some incarnation holds it (it need not be ready)."""
        return self.incarnation != ""


class Method(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An action or a query of a class."""

    name: str
    query: bool = False
    description: str = ""
    parameters_schema: str = ""
    """JSON Schema of an object."""


class AgentClass(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A class that a host's worker reported."""

    name: str
    version: int = 1
    description: str = ""
    methods: tuple[Method, ...] = ()
    state_schema: str = ""


class Host(Row, frozen=True, kw_only=True, omit_defaults=True):
    """One incarnation (one process start) of a host. Two incarnations of one name may be alive at once (protocol 1,
    no_supersede).
    """

    name: str
    incarnation: str
    pool: str
    node: str
    address: str = ""
    labels: dict[str, str] = {}
    version: str = ""
    cpu_milli: int = 0
    """Capacity; 0: unknown."""
    memory_bytes: int = 0
    registered_wall: float = 0.0
    ready: bool = False
    """A worker is connected, as the host reported."""
    draining: bool = False
    schedulable: bool = True
    """False while its node is cordoned."""
    classes: tuple[AgentClass, ...] = ()
    worker_error: str = ""
    worker_reason: str = ""
    ended: str = ""
    """Empty while it may hold a lease; else why it ended: LeaseExpired, HostLost or Released. Never empty again."""
    ended_wall: float = 0.0
    ended_ns: int = 0
    """Cluster time of its end."""

    @property
    def alive(self) -> bool:
        """Registered and not ended: it may hold agents."""
        return not self.ended


class Pool(Row, frozen=True, kw_only=True, omit_defaults=True):
    """A kind of worker."""

    name: str
    modules: tuple[str, ...] = ()
    max_agents_per_host: int = 0
    """0: no limit."""


class Node(Row, frozen=True, kw_only=True, omit_defaults=True):
    """A Kubernetes node, as the operator sees it. A node without a row is schedulable and has no labels."""

    name: str
    schedulable: bool = True
    labels: dict[str, str] = {}


class Server(Row, frozen=True, kw_only=True, omit_defaults=True):
    """A voter and its disk."""

    name: str
    incarnation: str
    """Of its disk: a random id written when the volume was first used."""
    address: str = ""
    """host:port of its API."""
    version: str = ""


AnyRow = Agent | Host | Pool | Node | Server


class RowKey(msgspec.Struct, frozen=True, order=True):
    """Names one row."""

    kind: Kind
    name: str
    """uid of an agent, incarnation of a host, name of the others."""
