"""Entries of the log. One union, encoded as one version byte and msgpack; unknown fields are ignored, missing ones
have defaults.

Every command has a `command_id`: a repetition of one that is still remembered answers the first result and changes
nothing. An empty one is not remembered; it is for commands that compare before they set (Assign, AgentReports) and
for ticks, which nobody repeats. `wall` is the proposer's wall clock, for display only.
"""

from __future__ import annotations

import msgspec

from tenured.core.agentspec import AgentSpec
from tenured.core.model import AgentClass, ManagedBy, Node, Pool, Reservation, Silence

SCHEMA_VERSION = 1
"""First byte of every encoded command, result and snapshot."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="k", omit_defaults=True):
    """Base of all commands; the tag is the class name."""

    command_id: str = ""
    wall: float = 0.0


class Tick(Entry, frozen=True, kw_only=True):
    """Cluster time passes: `step_ns` of the leader's boot clock since its own previous tick, 0 for a new leader's
    first (protocol 1).
    """

    step_ns: int


class RegisterHost(Entry, frozen=True, kw_only=True):
    """A host process starts. `dead_incarnations`: earlier ones of the same name whose file lock it holds (protocol
    additions 1).
    """

    name: str
    incarnation: str
    pool: str
    node: str
    address: str = ""
    signals_address: str = ""
    labels: dict[str, str] = {}
    version: str = ""
    cpu_milli: int = 0
    memory_bytes: int = 0
    capabilities: tuple[str, ...] = ()
    """What the host itself says it has, beside those of its pool."""
    dead_incarnations: tuple[str, ...] = ()


class ReportHost(Entry, frozen=True, kw_only=True):
    """What a host says of itself, whole, at every change."""

    incarnation: str
    ready: bool = False
    draining: bool = False
    classes: tuple[AgentClass, ...] = ()
    worker_error: str = ""
    worker_reason: str = ""


class ExpireHost(Entry, frozen=True, kw_only=True):
    """The leader saw the lease end (protocol 1, leader 4)."""

    incarnation: str
    last_heard_wall: float = 0.0
    reason: str = "LeaseExpired"


class ReleaseHost(Entry, frozen=True, kw_only=True):
    """The host stops for good, by its own word: everything that it holds is released."""

    incarnation: str


class FreeAgents(Entry, frozen=True, kw_only=True):
    """Take agents from an incarnation that has ended and held too many for the entry that ended it (rule R, b)."""

    incarnation: str
    uids: tuple[str, ...]
    """In the order of the leader; those that it does not hold are passed by."""


class ForgetHosts(Entry, frozen=True, kw_only=True):
    """Drop the rows of incarnations that ended long ago; they still never come back."""

    incarnations: tuple[str, ...]


class ApplyPools(Entry, frozen=True, kw_only=True):
    """The whole set of pools."""

    pools: tuple[Pool, ...]


class SetNodes(Entry, frozen=True, kw_only=True):
    """The whole set of nodes that the operator sees."""

    nodes: tuple[Node, ...]


class Place(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a new agent goes, as the leader plans it with the row; no incarnation: nowhere yet."""

    incarnation: str = ""
    explanation: str = ""


class ApplyAgents(Entry, frozen=True, kw_only=True):
    """Create or change agents; the result has one `RowResult` an agent, in order."""

    agents: tuple[AgentSpec, ...]
    managed_by: ManagedBy
    expected_revision: int = 0
    """If given: rows for which something else was asked since are refused (`Conflict`)."""
    places: tuple[Place, ...] = ()
    """Of the rows that it creates, in the order of `agents`: each is assigned in this entry, if the rules of an
    assignment allow it, else its row waits as any other. Empty: all wait. Only a leader fills it in.
    """


class DeleteAgents(Entry, frozen=True, kw_only=True):
    """Mark agents as deleting; their rows go when nobody holds them (rule R)."""

    ids: tuple[str, ...]
    managed_by: ManagedBy
    object_uid: str = ""
    """If given: only the row of that Kubernetes object."""
    expected_revision: int = 0
    """As in ApplyAgents."""


class Assignment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One compare-and-set: `uid` at exactly `epoch`, held by nobody -> `incarnation` at `epoch + 1`."""

    uid: str
    epoch: int
    incarnation: str
    reason: str
    explanation: str = ""
    reservation: str = ""
    """Id of a reservation on that incarnation whose room it takes; the reservation shrinks by as much."""


class Assign(Entry, frozen=True, kw_only=True):
    """Many assignments; each stands or falls alone. One that would oversubscribe its host is refused (`NoRoom`)."""

    items: tuple[Assignment, ...]


class TroubleReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of a holder: why the agent does not run."""

    phase: str
    reason: str
    message: str
    attempt: int = 0
    retry_in_seconds: float = 0.0


class HibernationReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of a holder: the agent is not in memory, and comes back by itself."""

    wake_wall: float = 0.0
    """0: no timer will wake it."""


class AgentReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the holder says of one agent at one epoch: one of the six at most, and how many dead letters it has."""

    uid: str
    epoch: int
    ready: bool = False
    released: bool = False
    stopped: bool = False
    trouble: TroubleReport | None = None
    hibernated: HibernationReport | None = None
    ended: str | None = None
    """It has ended by itself, and owes nothing: why."""
    dead_letters: int | None = None
    """None: as many as before."""


class AgentReports(Entry, frozen=True, kw_only=True):
    """Reports of one incarnation. A report of another epoch or holder than the row's is late and changes nothing."""

    incarnation: str
    reports: tuple[AgentReport, ...]


class WaitingItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why one agent is not placed; stands only while the row is unheld at `epoch`."""

    uid: str
    epoch: int
    reason: str
    message: str
    next_action: str = ""


class SetWaiting(Entry, frozen=True, kw_only=True):
    """The leader could not place these agents, and why."""

    items: tuple[WaitingItem, ...]


class HostClass(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the leader's detector thinks of one incarnation."""

    incarnation: str
    suspect: bool = False
    silence: Silence = ""
    silent_since_wall: float = 0.0


class ClassifyHosts(Entry, frozen=True, kw_only=True):
    """The leader's classes of hosts, at most once a second and host; those that did not change cost nothing."""

    items: tuple[HostClass, ...]


class ConfirmFailover(Entry, frozen=True, kw_only=True):
    """An operator says that these hosts are gone (by name; none: all that are held back): their end need not wait."""

    hosts: tuple[str, ...] = ()


class QuarantineHost(Entry, frozen=True, kw_only=True):
    """Place nothing new on a host, under whatever incarnation; an empty reason lifts it."""

    name: str
    reason: str = ""


class UnavailableItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why nobody is to hold one agent for now; stands only while the row is unheld at `epoch`."""

    uid: str
    epoch: int
    reason: str
    message: str


class MarkUnavailable(Entry, frozen=True, kw_only=True):
    """Agents that are not moved for now. An assignment lifts the mark."""

    items: tuple[UnavailableItem, ...]


class MarkAvailable(Entry, frozen=True, kw_only=True):
    """Lift the marks of these agents: they wait to be placed again."""

    uids: tuple[str, ...]


class Reserve(Entry, frozen=True, kw_only=True):
    """Keep room on a host; refused (`NoRoom`) when it would oversubscribe. The same again changes nothing."""

    reservation: Reservation


class Unreserve(Entry, frozen=True, kw_only=True):
    """Give the room back. One that is gone already: nothing."""

    id: str


class RegisterServer(Entry, frozen=True, kw_only=True):
    """A server starts with a disk that the registry knows, or with its first one; another disk is refused
    (`DiskReplaced`).
    """

    name: str
    incarnation: str
    address: str = ""
    version: str = ""


class ReplaceServer(Entry, frozen=True, kw_only=True):
    """A server's disk was replaced: the view grows by one (protocol 2, rejoin). Refused while another server's new
    disk is joining.
    """

    name: str
    incarnation: str


class ServerJoined(Entry, frozen=True, kw_only=True):
    """The replaced disk holds every record and answers: another disk may be replaced now."""

    name: str
    incarnation: str


Command = (
    Tick
    | RegisterHost
    | ReportHost
    | ExpireHost
    | ReleaseHost
    | FreeAgents
    | ForgetHosts
    | ApplyPools
    | SetNodes
    | ApplyAgents
    | DeleteAgents
    | Assign
    | AgentReports
    | SetWaiting
    | ClassifyHosts
    | ConfirmFailover
    | QuarantineHost
    | MarkUnavailable
    | MarkAvailable
    | Reserve
    | Unreserve
    | RegisterServer
    | ReplaceServer
    | ServerJoined
)


class Undecodable(ValueError):
    """Bytes that this version cannot read: another schema version, or damage."""


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)


_APPLY_AGENTS = b"\xa1k\xabApplyAgents"
"""How the map of an ApplyAgents begins, after its first byte: the tag."""


def applies_agents(data: bytes) -> bool:
    """Tell whether encoded bytes are an ApplyAgents, without reading them."""
    return data.startswith(_APPLY_AGENTS, 2)


def encode(command: Command) -> bytes:
    """Bytes of a log entry."""
    return bytes([SCHEMA_VERSION]) + _encoder.encode(command)


def decode(data: bytes) -> Command:
    """Reverse `encode`.

    Raises:
        Undecodable: another schema version, or not a command.

    """
    if not data or data[0] != SCHEMA_VERSION:
        raise Undecodable(
            f"a command of schema version {data[0] if data else 'none'}; this server reads {SCHEMA_VERSION}"
        )
    try:
        return _decoder.decode(memoryview(data)[1:])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # ValueError: text that is not UTF-8
        raise Undecodable(str(error)) from error
