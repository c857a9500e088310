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
        self.agents: dict[str, AgentRow] = {}
        """uid -> row"""
        self.hosts: dict[str, HostRow] = {}
        """incarnation -> row"""
        self.mine: dict[str, AgentRow] = {}
        """What the registry says this incarnation holds. Epochs of other process starts are not ours [epoch_once]."""
        self._by_id: dict[str, str] = {}
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
        return Touched(uids, whole)

    def agent(self, agent_id: str) -> AgentRow | None:
        """The row of namespace/name; None also of one that has ended, whose row stands for its object only."""
        uid = self._by_id.get(agent_id)
        row = None if uid is None else self.agents.get(uid)
        return None if row is None or row.ended else row

    def subscribers(self, type_: str, namespace: str) -> list[AgentRow]:
        """Agents of a namespace whose class subscribes to a type of signal, ordered by uid."""
        return self._audience.subscribers(type_, namespace)

    def capable(self, capability: str, namespace: str) -> list[AgentRow]:
        """Agents of a namespace that offer a capability, ordered by uid."""
        return self._audience.capable(capability, namespace)

    def group(self, group: str, namespace: str) -> list[AgentRow]:
        """Agents of a namespace that are in a group (of spread, or of their class), ordered by uid."""
        return self._audience.group(group, namespace)

    def everyone(self, namespace: str) -> list[AgentRow]:
        """All agents of a namespace, ordered by uid."""
        return self._audience.everyone(namespace)

    def gone(self, uids: Iterable[str]) -> list[str]:
        """Those that the registry has no more, for good: not here at a revision that has seen their creation
        [uid_drop, uid_wait].
        """
        if not self.synced:
            return []
        return [uid for uid in uids if guard_uid(uid, self.agents, self.revision) is Verdict.DELETED]

    def route(self, row: AgentRow) -> Route:
        """Where calls to that agent go, as far as this host knows."""
        host = self.hosts.get(row.incarnation) if row.incarnation else None
        return Route(
            agent=row.spec.id,
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

    def _put(self, row: AgentRow) -> bool:
        """True: it is ours, or was."""
        uid = row.uid  # each reading of it is another object of 50 bytes, and a host keeps it in five places
        self.agents[uid] = row
        self._audience.put(uid, row)
        self._by_id[row.spec.id] = uid
        if row.incarnation == self.incarnation:
            self.mine[uid] = row
            return True
        return self.mine.pop(uid, None) is not None

    def _drop(self, uid: str) -> None:
        row = self.agents.pop(uid, None)
        self._audience.drop(uid)
        if row is not None and self._by_id.get(row.spec.id) == uid:
            del self._by_id[row.spec.id]
        self.mine.pop(uid, None)
