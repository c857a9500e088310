"""The registry: all rows, their indexes, and which of them changed after which revision.

`Registry` is the one mutable thing of the core: ten thousand rows cannot be copied at every entry. Only
`tenured.core.machine` calls the methods that change it (`put`, `drop`, `tick`, `remember`); everyone
else reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import msgspec

from tenured.core import snapshots
from tenured.core._indexes import Lookups
from tenured.core.changes import Changes, Delta
from tenured.core.groups import Groups
from tenured.core.lookup import Lookup, look
from tenured.core.model import (
    Agent,
    AnyRow,
    Decision,
    FailoverRecord,
    Host,
    Kind,
    Node,
    Pool,
    Reservation,
    RowKey,
    Server,
    key_of,
)
from tenured.core.results import Result
from tenured.core.snapshots import Snapshot

RESULTS_LIMIT = 10_000
"""Remembered command ids; the oldest is forgotten first."""
RESULT_ROWS_LIMIT = 200_000
"""Row results within the remembered results, in total."""
TOMBSTONES_LIMIT = 10_000
"""Ended incarnations whose rows are gone and which still may not register again."""
FAILOVERS_LIMIT = 200
"""Failover records that are kept; the oldest goes first."""
DECISIONS_LIMIT = 10_000
"""Placements that are remembered, cluster-wide; the oldest is forgotten first."""


@dataclass(slots=True)
class Usage:
    """What the agents that one incarnation holds, and the reservations there, ask for, in sum."""

    agents: int = 0
    cpu_milli: int = 0
    memory_bytes: int = 0


class Registry:
    """All rows at one revision. See the attributes' docstrings; `uid` and `incarnation` are the keys of agents and
    hosts.
    """

    def __init__(self) -> None:
        self.revision = 0
        """Grows by one with each changed row (protocol additions 2)."""
        self.index = 0
        """Of the last applied log entry."""
        self.cluster_ns = 0
        """Cluster time: the sum of the leaders' steps (protocol 1). Never goes back."""
        self.wall = 0.0
        """The latest wall time that an entry carried; for display."""
        self.view = 1
        """Of the state store: +1 whenever a server's disk is replaced (protocol 2)."""
        self.agents: dict[str, Agent] = {}
        self.hosts: dict[str, Host] = {}
        self.pools: dict[str, Pool] = {}
        self.nodes: dict[str, Node] = {}
        self.servers: dict[str, Server] = {}
        self.tombstones: dict[str, int] = {}
        """Ended incarnations without a row -> cluster time of their end. None of them ever comes back."""
        self.results: dict[str, Result] = {}
        """command id -> its first result."""
        self.reservations: dict[str, Reservation] = {}
        self.failovers: dict[str, FailoverRecord] = {}
        """The last 200, oldest first, by the text of their id."""
        self.decisions: deque[Decision] = deque(maxlen=DECISIONS_LIMIT)
        """The last 10,000 placements, oldest first."""
        self.quarantines: dict[str, str] = {}
        """host name -> why nothing new is placed there, under whatever incarnation."""

        # Derived, not in the snapshot.
        self.by_id: dict[str, str] = {}
        """namespace/name -> uid."""
        self.held_by: dict[str, set[str]] = {}
        """incarnation -> uids of the agents that it holds."""
        self.incarnations: dict[str, set[str]] = {}
        """host name -> its incarnations that have a row."""
        self.usage: dict[str, Usage] = {}
        """incarnation -> what its agents and reservations ask for."""
        self.reserved: dict[str, set[str]] = {}
        """incarnation -> ids of the reservations there."""
        self.unheld: set[str] = set()
        """uids that nobody holds, and that are neither being deleted nor have ended: what needs placement."""
        self.placement_version = 0
        """Grows when something changed that may let an agent be placed (or that a waiting agent's sentence depends
        on).
        """
        self.starting: dict[str, int] = {}
        """incarnation -> agents that it is making Ready; only those that are not 0."""
        self.groups = Groups()
        """How many agents of each group every host holds."""
        self._lookups = Lookups()
        self._changes = Changes()
        self._result_rows = 0

    # --- reading ----------------------------------------------------------------------------------------------

    def agent(self, agent_id: str) -> Agent | None:
        """Return the agent of that namespace/name."""
        uid = self.by_id.get(agent_id)
        return None if uid is None else self.agents[uid]

    def alive(self, incarnation: str) -> bool:
        """Tell whether the incarnation is registered and not ended."""
        host = self.hosts.get(incarnation)
        return host is not None and host.alive

    def ended(self, incarnation: str) -> bool:
        """Tell whether the incarnation was declared dead or released itself: it never comes back."""
        host = self.hosts.get(incarnation)
        return incarnation in self.tombstones if host is None else not host.alive

    def agents_of(self, incarnation: str) -> list[Agent]:
        """Return what the incarnation holds, ordered by uid."""
        return self._sorted(self.held_by.get(incarnation, ()))

    def lookup(self, agent_id: str) -> Lookup:
        """Answer whether it is found, not found, unavailable, or on a node that is."""
        agent = self.agent(agent_id)
        return look(agent_id, agent, None if agent is None else self.hosts.get(agent.incarnation))

    def by_capability(self, capability: str) -> list[Agent]:
        """Return the agents that offer it, held or not, ordered by uid."""
        return self._sorted(self.uids_offering(capability))

    def by_label(self, labels: Mapping[str, str]) -> list[Agent]:
        """Return the agents that have all of these labels (at least one is given), ordered by uid."""
        return self._sorted(self.uids_labelled(labels))

    def by_node(self, node: str) -> list[Agent]:
        """Return what the hosts of a node hold, ordered by uid."""
        return self._sorted(self.uids_on(node))

    def uids_offering(self, capability: str) -> set[str]:
        """Name the agents that offer it; the set is the caller's own."""
        return self._lookups.offering(capability, self.hosts.values())

    def uids_labelled(self, labels: Mapping[str, str]) -> set[str]:
        """Name the agents that have all of these labels; the set is the caller's own."""
        return self._lookups.labelled(labels)

    def uids_on(self, node: str) -> set[str]:
        """Name what the hosts of a node hold; the set is the caller's own."""
        held = (self.held_by.get(host.incarnation, set[str]()) for host in self.hosts.values() if host.node == node)
        return set[str]().union(*held)

    def _sorted(self, uids: Iterable[str]) -> list[Agent]:
        return [self.agents[uid] for uid in sorted(uids, key=int)]

    def row(self, key: RowKey) -> AnyRow | None:
        """Return the row of that key, None if it is gone."""
        return self._table(key.kind).get(key.name)

    def reaches(self, revision: int) -> bool:
        """Tell whether `since` can say what changed after that revision; if not, send a snapshot."""
        return revision <= self.revision and self._changes.reaches(revision)

    def since(self, revision: int) -> Delta | None:
        """Return what changed after `revision`, None if that is not known any more."""
        return self._changes.since(revision) if self.reaches(revision) else None

    # --- changing: for tenured.core.machine only ------------------------------------------------------------------

    def put(self, row: AnyRow) -> None:
        """Store a new or changed row under the next revision, and keep every index."""
        self.revision += 1
        row = msgspec.structs.replace(row, revision=self.revision)
        key = key_of(row)
        if isinstance(row, Agent):
            old = self.agents.get(key.name)
            self.agents[key.name] = row
            self._index_agent(old, row)
        elif isinstance(row, FailoverRecord):
            self.failovers[key.name] = row
        elif isinstance(row, Reservation):
            self._index_reservation(self.reservations.get(row.id), row)
            self.reservations[row.id] = row
            self.placement_version += 1
        else:
            cast("dict[str, AnyRow]", self._table(key.kind))[key.name] = row
            self.placement_version += 1
        if isinstance(row, Host):
            self.incarnations.setdefault(row.name, set()).add(row.incarnation)
        self._changes.put(key, self.revision)

    def drop(self, key: RowKey) -> None:
        """Remove a row under the next revision."""
        old = self._table(key.kind).pop(key.name)
        self.revision += 1
        if isinstance(old, Agent):
            self._index_agent(old, None)
        elif isinstance(old, Reservation):
            self._index_reservation(old, None)
        elif isinstance(old, Host):
            self.incarnations[old.name].discard(key.name)
            if not self.incarnations[old.name]:
                del self.incarnations[old.name]
            self.tombstones[key.name] = old.ended_ns
            while len(self.tombstones) > TOMBSTONES_LIMIT:
                del self.tombstones[next(iter(self.tombstones))]
        self.placement_version += 1
        self._changes.drop(key, self.revision)

    def tick(self, step_ns: int) -> None:
        """Let cluster time pass (a negative step counts as none) and drop the reservations whose time is over."""
        self.cluster_ns += max(0, step_ns)
        if self.reservations:
            for row in [row for row in self.reservations.values() if row.until_ns <= self.cluster_ns]:
                self.drop(RowKey("reservation", row.id))

    def remember(self, command_id: str, result: Result) -> None:
        """Keep the first result of a command, within the bounds."""
        self.results[command_id] = result
        self._result_rows += len(result.rows)
        while len(self.results) > RESULTS_LIMIT or (self._result_rows > RESULT_ROWS_LIMIT and len(self.results) > 1):
            oldest = next(iter(self.results))
            self._result_rows -= len(self.results.pop(oldest).rows)

    # --- snapshots --------------------------------------------------------------------------------------------------

    def freeze(self) -> Snapshot:
        """Everything that is not derived, as it is now. Rows are values, so this copies references only."""
        return Snapshot(
            revision=self.revision,
            index=self.index,
            cluster_ns=self.cluster_ns,
            wall=self.wall,
            view=self.view,
            agents=tuple(self.agents.values()),
            hosts=tuple(self.hosts.values()),
            pools=tuple(self.pools.values()),
            nodes=tuple(self.nodes.values()),
            servers=tuple(self.servers.values()),
            tombstones=dict(self.tombstones),
            results=dict(self.results),
            reservations=tuple(self.reservations.values()),
            failovers=tuple(self.failovers.values()),
            decisions=tuple(self.decisions),
            quarantines=dict(self.quarantines),
        )

    def take(self, part: Snapshot) -> None:
        """Add a part of a snapshot. Only for a registry that is being restored; its parts come in order."""
        self.revision, self.index, self.view = part.revision, part.index, part.view
        self.cluster_ns, self.wall = part.cluster_ns, part.wall
        self.hosts.update((row.incarnation, row) for row in part.hosts)
        self.pools.update((row.name, row) for row in part.pools)
        self.nodes.update((row.name, row) for row in part.nodes)
        self.servers.update((row.name, row) for row in part.servers)
        self.tombstones.update(part.tombstones)
        self.results.update(part.results)
        self.failovers.update((str(row.id), row) for row in part.failovers)
        self.decisions.extend(part.decisions)
        self.quarantines.update(part.quarantines)
        for reservation in part.reservations:
            self.reservations[reservation.id] = reservation
            self._index_reservation(None, reservation)
        for host in part.hosts:
            self.incarnations.setdefault(host.name, set()).add(host.incarnation)
        for agent in part.agents:
            self.agents[agent.uid] = agent
            self._index_agent(None, agent)
        self._result_rows += sum(len(result.rows) for result in part.results.values())
        self._changes.begin(part.revision)
        self.placement_version = 1

    def snapshot(self) -> bytes:
        """Encode everything that is not derived, in one piece. The same log gives the same bytes."""
        return snapshots.encode(self.freeze())

    @classmethod
    def restore(cls, data: bytes) -> Registry:
        """Reverse `snapshot`.

        Raises:
            Undecodable: another version, or damage.

        """
        new = cls()
        new.take(snapshots.decode(data))
        return new

    # --- inside -----------------------------------------------------------------------------------------------------

    def _table(  # noqa: PLR0911 - one line a kind
        self, kind: Kind
    ) -> (
        dict[str, Agent]
        | dict[str, Host]
        | dict[str, Pool]
        | dict[str, Node]
        | dict[str, Server]
        | dict[str, Reservation]
        | dict[str, FailoverRecord]
    ):
        match kind:
            case "agent":
                return self.agents
            case "host":
                return self.hosts
            case "pool":
                return self.pools
            case "node":
                return self.nodes
            case "server":
                return self.servers
            case "reservation":
                return self.reservations
            case "failover":
                return self.failovers

    def _index_agent(self, old: Agent | None, new: Agent | None) -> None:
        self._lookups.update(old, new)
        self.groups.update(old, new)
        if old is not None and old.starting:
            self._count_starting(old.incarnation, -1)
        if new is not None and new.starting:
            self._count_starting(new.incarnation, 1)
        if old is not None and old.held:
            self.held_by[old.incarnation].discard(old.uid)
            if not self.held_by[old.incarnation]:
                del self.held_by[old.incarnation]
            self._count(old.incarnation, -1, -old.spec.cpu_milli, -old.spec.memory_bytes)
        if new is not None and new.held:
            self.held_by.setdefault(new.incarnation, set()).add(new.uid)
            self._count(new.incarnation, 1, new.spec.cpu_milli, new.spec.memory_bytes)
        if old is not None and new is None:
            self.unheld.discard(old.uid)
            del self.by_id[old.id]
        if new is not None:
            self.by_id[new.id] = new.uid
            waits = not (new.held or new.deleting or new.ended)
            (self.unheld.add if waits else self.unheld.discard)(new.uid)
            if _matters_for_placement(old, new):
                self.placement_version += 1

    def _count_starting(self, incarnation: str, more: int) -> None:
        count = self.starting.get(incarnation, 0) + more
        if count:
            self.starting[incarnation] = count
        else:
            del self.starting[incarnation]

    def _index_reservation(self, old: Reservation | None, new: Reservation | None) -> None:
        if old is not None:
            self.reserved[old.incarnation].discard(old.id)
            if not self.reserved[old.incarnation]:
                del self.reserved[old.incarnation]
            self._count(old.incarnation, -old.agents, -old.cpu_milli, -old.memory_bytes)
        if new is not None:
            self.reserved.setdefault(new.incarnation, set()).add(new.id)
            self._count(new.incarnation, new.agents, new.cpu_milli, new.memory_bytes)

    def _count(self, incarnation: str, agents: int, cpu_milli: int, memory_bytes: int) -> None:
        usage = self.usage.setdefault(incarnation, Usage())
        usage.agents += agents
        usage.cpu_milli += cpu_milli
        usage.memory_bytes += memory_bytes
        if incarnation not in self.held_by and incarnation not in self.reserved:
            del self.usage[incarnation]


def _matters_for_placement(old: Agent | None, new: Agent) -> bool:
    """Tell whether a change of an agent can let it, or another, be placed: it began to wait, left a host, or asks for
    something else.
    """
    if old is None or old.held != new.held:
        return not new.held
    return old.spec != new.spec or (not new.held and old.unavailable != new.unavailable)
