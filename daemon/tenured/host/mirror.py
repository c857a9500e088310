"""The registry as this host has read it: a copy that may be behind by any amount. Kept by `watching`, asked by
everyone. No I/O.

Nothing durable rests on it: a stale route costs a `Moved`, a stale assignment is refused by the store (protocol 2,
seal).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tenure_proto.v1.common_pb2 import Route
from tenure_proto.v1.registry_pb2 import AgentRow, HostRow, WatchBatch
from tenured.core.cells import Verdict, guard_uid
from tenured.host.audience import Audience
from tenured.host.rows import Row, row_of


@dataclass(frozen=True, slots=True)
class Touched:
    """What a batch may have changed of what this incarnation holds; false: nothing."""

    uids: Sequence[str] = ()
    """Agents that are or were ours and whose rows came, and all that are gone."""
    whole: bool = False
    """Everything: a snapshot begins, or has been read."""

    def __bool__(self) -> bool:
        return self.whole or bool(self.uids)


class Mirror:
    """Rows by key, with the indexes that a host needs."""

    def __init__(self, incarnation: str) -> None:
        self.incarnation = incarnation
        self.revision = 0
        self.synced = False
        """A whole snapshot has been read: what is not here did not exist at that revision."""
        self.agents: dict[str, Row] = {}
        """uid -> row"""
        self.hosts: dict[str, HostRow] = {}
        """incarnation -> row"""
        self.mine: dict[str, Row] = {}
        """What the registry says this incarnation holds. Epochs of other process starts are not ours [epoch_once]."""
        self._by_id: dict[str, str] = {}
        self._ahead: dict[str, AgentRow] = {}
        """uid -> row that the leader has sent and the watch has not reached: a snapshot may lack it."""
        self._audience = Audience(self.agents, self.hosts)

    def apply(self, batch: WatchBatch) -> Touched:
        """Takes a batch."""
        if batch.snapshot:
            self.agents.clear()
            self.hosts.clear()
            self._by_id.clear()
            self.mine.clear()
            self._audience.clear()
            self.synced = False
        for host in batch.hosts:
            self._audience.put_host(self.hosts.get(host.incarnation), host)
            self.hosts[host.incarnation] = host
        for incarnation in batch.gone_hosts:
            self._audience.put_host(self.hosts.pop(incarnation, None), None)
        uids = [row.uid for row in batch.agents if self._put(row)]
        for uid in batch.gone_agents:
            self._drop(uid)
        uids += batch.gone_agents
        self.revision = max(self.revision, batch.revision) if not batch.snapshot else batch.revision
        whole = batch.snapshot or (batch.synced and not self.synced)
        self.synced |= batch.synced
        if self._ahead and self.synced:
            self._catch_up(again=whole)
        return Touched(uids, whole)

    def ahead(self, rows: Iterable[AgentRow]) -> Touched:
        """Takes rows of the leader, which the watch brings too, and may have brought: whichever is newer stays."""
        if not self.synced:
            return Touched()
        uids: list[str] = []
        for row in rows:
            held = self.agents.get(row.uid)
            if row.revision > (self.revision if held is None else held.revision) and self._put(row):
                self._ahead[row.uid] = row
                uids.append(row.uid)
        return Touched(uids)

    def _catch_up(self, *, again: bool) -> None:
        """The watch has reached a revision: what it lacks of rows up to there is gone. `again`: it began anew."""
        self._ahead = {uid: row for uid, row in self._ahead.items() if row.revision > self.revision}
        if again:
            for row in self._ahead.values():
                self._put(row)

    def agent(self, agent_id: str) -> Row | None:
        """The row of namespace/name; None also of one that has ended, whose row stands for its object only."""
        uid = self._by_id.get(agent_id)
        row = None if uid is None else self.agents.get(uid)
        return None if row is None or row.ended else row

    def subscribers(self, type_: str, namespace: str) -> list[Row]:
        """Agents of a namespace whose class subscribes to a type of signal, ordered by uid."""
        return self._audience.subscribers(type_, namespace)

    def capable(self, capability: str, namespace: str) -> list[Row]:
        """Agents of a namespace that offer a capability, ordered by uid."""
        return self._audience.capable(capability, namespace)

    def group(self, group: str, namespace: str) -> list[Row]:
        """Agents of a namespace that are in a group (of spread, or of their class), ordered by uid."""
        return self._audience.group(group, namespace)

    def everyone(self, namespace: str) -> list[Row]:
        """All agents of a namespace, ordered by uid."""
        return self._audience.everyone(namespace)

    def gone(self, uids: Iterable[str]) -> list[str]:
        """Those that the registry has no more, for good: not here at a revision that has seen their creation
        [uid_drop, uid_wait].
        """
        if not self.synced:
            return []
        return [uid for uid in uids if guard_uid(uid, self.agents, self.revision) is Verdict.DELETED]

    def route(self, row: Row) -> Route:
        """Where calls to that agent go, as far as this host knows."""
        host = self.hosts.get(row.incarnation) if row.incarnation else None
        return Route(
            agent=row.id,
            uid=row.uid,
            host=row.host,
            address=host.address if host is not None else "",
            frames_address=host.signals_address if host is not None else "",
            epoch=row.epoch,
            ready=row.ready,
            phase=row.phase,
            summary=row.summary,
            revision=self.revision,
        )

    def _put(self, given: AgentRow) -> bool:
        """True: it is ours, or was."""
        own = given.incarnation == self.incarnation
        old = self.agents.get(given.uid)
        row = row_of(given, own=own, old=old)
        uid = row.uid
        if uid in self._ahead and row.revision < self._ahead[uid].revision:
            return False  # of a server that has not applied what the leader said of it
        self.agents[uid] = row
        self._audience.put(old, row)
        self._by_id[row.id] = uid
        if own:
            self.mine[uid] = row
            return True
        return self.mine.pop(uid, None) is not None

    def _drop(self, uid: str) -> None:
        row = self.agents.pop(uid, None)
        if row is not None:
            self._audience.drop(row)
        if row is not None and self._by_id.get(row.id) == uid:
            del self._by_id[row.id]
        self.mine.pop(uid, None)
