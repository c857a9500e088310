"""Rows of the registry: frozen values. A row that changes is replaced, and its `revision` says when.

`uid` of an agent is the decimal text of the revision that created its row (protocol additions 2): it is never used
again, so the records of a deleted agent cannot come back under its name.

`gc=False`: rows are frozen and refer to no row, so they are in no cycle. The collector of cycles would otherwise walk
through all of them: with 100,000 agents it held the event loop for seconds.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from tenured.core.agentspec import AgentSpec, Toleration

ManagedBy = Literal["Kubernetes", "API"]
"""The door through which an agent came, and through which alone it may be changed."""

TaintEffect = Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
TAINT_EFFECTS: tuple[str, ...] = get_args(TaintEffect)

ZONE_LABEL = "topology.kubernetes.io/zone"
"""The label of a node that names its zone."""
GENERAL_PURPOSE = "general_purpose"
"""The capability of an agent whose spec and class declare none."""

Kind = Literal["agent", "host", "pool", "node", "server", "reservation", "failover"]

Silence = Literal["", "Silent", "Lapsed", "Held", "Confirmed"]
"""How the leader last wrote a living host down: heard; suspected; silent for a whole lease; that, and its end is held
back because many are silent at once; that, and an operator has confirmed it (docs/failover.md).
"""


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of all rows."""

    revision: int = 0
    """Of the registry, when this row last changed."""


class Taint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Keeps agents that do not tolerate it away from a node or a pool."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"
    """One of TAINT_EFFECTS."""


class Trouble(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Why an agent that is assigned does not run, in its holder's words."""

    phase: str
    """Backoff, Starting, Unavailable, Paused or Terminating (it has ended, and its record still owes something)."""
    reason: str
    message: str
    attempt: int = 0
    retry_wall: float = 0.0
    """Wall time of the next attempt; 0: none is planned."""


class Hibernation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The agent is not in memory; a call, a signal or a timer brings it back."""

    wake_wall: float = 0.0
    """Wall time at which a timer will; 0: none is set."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Why an agent that nobody holds is not placed."""

    reason: str
    message: str
    next_action: str = ""


class Failover(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
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


class Agent(Row, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An agent and its assignment.

    Invariants: `incarnation` is empty exactly while nobody holds the agent, and becomes so only by rule R (protocol
    4): the holder's own release, or the committed end of its incarnation. `epoch` only grows, by one with each
    assignment. `ready_epoch <= epoch`.
    """

    uid: str
    spec: AgentSpec
    managed_by: ManagedBy
    created_wall: float = 0.0
    asked_revision: int = 0
    """When a user last changed what is asked for; what hosts and the leader write does not count."""

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
    recovered_from: str = ""
    """host/node that was lost last while it held this agent; empty: never."""
    failover_id: int = 0
    """The record of its last loss, until it is Ready elsewhere; 0: none."""
    unavailable: str = ""
    """Reason for which nobody is to hold it for now (mark-unavailable); empty: it is available."""
    unavailable_message: str = ""

    ended: str = ""
    """Why it ended by itself: nobody holds it ever again, and the row stands for its Kubernetes object until that is
    deleted [row_stays]; empty: it has not, or its row is not to go yet.
    """

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
    hibernation: Hibernation | None = None
    """It slept when its holder said something of it last; kept when it moves, for its next holder to leave it asleep.
    That word may be late: whether it must be awake is in its record [wake_owing].
    """
    dead_letters: int = 0
    """In its record, as its last holder counted them."""
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

    @property
    def starting(self) -> bool:
        """Whether its holder is at work to make it Ready: what pacing counts. One in trouble waits for something; one
        that is left asleep is sealed with many others, and neither read nor activated.
        """
        return self.incarnation != "" and not self.ready and self.trouble is None and self.hibernation is None


class Method(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An action or a query of a class."""

    name: str
    query: bool = False
    description: str = ""
    parameters_schema: str = ""
    """JSON Schema of an object."""


class AgentClass(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A class that a host's worker reported."""

    name: str
    version: int = 1
    description: str = ""
    methods: tuple[Method, ...] = ()
    state_schema: str = ""
    capabilities: tuple[str, ...] = ()
    """What every agent of the class offers."""
    subscribes: tuple[str, ...] = ()
    """Patterns of the types of signals that every agent of the class hears."""


class Host(Row, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One incarnation (one process start) of a host. Two incarnations of one name may be alive at once (protocol 1,
    no_supersede).
    """

    name: str
    incarnation: str
    pool: str
    node: str
    address: str = ""
    """host:port of its Calls service."""
    signals_address: str = ""
    """host:port where it takes signals of other hosts; empty: it takes none."""
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
    suspect: bool = False
    """As the leader last classified it: it gets nothing new, and keeps what it has."""
    silence: Silence = ""
    """Empty exactly while it is not suspect."""
    silent_since_wall: float = 0.0
    """When it was last heard of before it fell silent; 0 while it is heard."""
    quarantined: str = ""
    """Why nothing new is placed there; empty: it is not quarantined. Its agents stay."""
    capabilities: tuple[str, ...] = ()
    """Of its pool, and what the host itself says; sorted."""
    own_capabilities: tuple[str, ...] = ()
    """What the host itself says."""
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


class Pool(Row, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A kind of worker."""

    name: str
    modules: tuple[str, ...] = ()
    max_agents_per_host: int = 0
    """0: no limit."""
    capabilities: tuple[str, ...] = ()
    """Of each of its hosts."""
    taints: tuple[Taint, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    """Of its pods: a taint of a node that they accept keeps no agent of theirs away."""


class Node(Row, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A Kubernetes node, as the operator sees it. A node without a row is schedulable and has no labels."""

    name: str
    schedulable: bool = True
    labels: dict[str, str] = {}
    taints: tuple[Taint, ...] = ()

    @property
    def zone(self) -> str:
        """Where it stands; empty: unknown."""
        return self.labels.get(ZONE_LABEL, "")


class Server(Row, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A voter and its disk."""

    name: str
    incarnation: str
    """Of its disk: a random id written when the volume was first used."""
    address: str = ""
    """host:port of its API."""
    version: str = ""
    joining: bool = False
    """Its disk was replaced and has not yet read all records from the others (protocol 2, rejoin)."""


class Reservation(Row, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Room on one incarnation of a host that is kept until a time; counted as used."""

    id: str
    incarnation: str
    host: str = ""
    """Name of the host; the machine fills it in."""
    pool: str = ""
    cpu_milli: int = 0
    memory_bytes: int = 0
    agents: int = 0
    until_ns: int = 0
    """Cluster time at which the first tick drops it."""


class FailoverItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One agent that a lost host held."""

    uid: str
    id: str
    critical: bool = True
    to_host: str = ""
    to_node: str = ""
    ready_wall: float = 0.0
    """When it was Ready elsewhere; 0: not yet."""
    unavailable: str = ""
    """Reason for which it was marked instead of moved."""


class FailoverRecord(Row, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One end of an incarnation that nobody asked for, and what became of its agents. The last 200 are kept."""

    id: int
    """The revision that created it."""
    host: str
    node: str
    incarnation: str
    cause: str
    """LeaseExpired or HostLost."""
    last_heard_wall: float = 0.0
    ended_wall: float = 0.0
    pool: str = ""
    hosts: int = 0
    """Ready hosts of its pool before it was lost, itself included: as many again, and capacity is back."""
    agents: int = 0
    """How many it held."""
    items: tuple[FailoverItem, ...] = ()
    """The first 200 of them, critical ones first."""
    moved: int = 0
    """Assigned again."""
    marked_unavailable: int = 0
    """Marked Unavailable, and still so."""
    ready: int = 0
    """Ready again."""
    left: int = 0
    """Deleted, or lost once more, before they were Ready."""
    done_wall: float = 0.0
    """When every agent was Ready, marked, or had left for the first time; 0: not yet."""


class Decision(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One placement that was carried out. The last 10,000 of the cluster are kept."""

    uid: str
    id: str
    epoch: int
    host: str
    wall: float
    reason: str
    explanation: str


AnyRow = Agent | Host | Pool | Node | Server | Reservation | FailoverRecord


class RowKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """Names one row."""

    kind: Kind
    name: str
    """uid of an agent, incarnation of a host, id of a reservation or a failover, name of the others."""


def key_of(row: AnyRow) -> RowKey:  # noqa: PLR0911 - one line a kind
    """Name a row."""
    match row:
        case Agent():
            return RowKey("agent", row.uid)
        case Host():
            return RowKey("host", row.incarnation)
        case Pool():
            return RowKey("pool", row.name)
        case Node():
            return RowKey("node", row.name)
        case Server():
            return RowKey("server", row.name)
        case Reservation():
            return RowKey("reservation", row.id)
        case FailoverRecord():
            return RowKey("failover", str(row.id))
