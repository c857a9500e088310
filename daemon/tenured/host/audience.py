"""Who is meant by a signal that names no single agent: subscribers, a capability, a group, everybody in a namespace.

Indexes over the rows of the mirror, so that nothing walks over all agents. What a host answers may be behind the
registry by any amount; what counts is what the emitting turn commits (protocol 3, outbox).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tenure_proto.v1.registry_pb2 import ClassInfo, HostRow
from tenured.core import patterns
from tenured.core.model import GENERAL_PURPOSE
from tenured.host.rows import Row

TYPES_LIMIT = 10_000
"""Types of signals whose classes are remembered; then they are looked up anew."""

Table = dict[tuple[str, ...], dict[str, None]]
"""Key -> uids. As keys of a dict they take less memory than in a set."""


class Audience:
    """Follows rows; every answer is ordered by uid, without agents that are being deleted, or have ended."""

    def __init__(self, agents: Mapping[str, Row], hosts: Mapping[str, HostRow]) -> None:
        """`agents` (by uid) and `hosts` (by incarnation) are the mirror's own; they are read, never changed."""
        self._agents = agents
        self._hosts = hosts
        self._kinds: Table = {}
        """(namespace, pool, class) -> its agents, which answer alike."""
        self._offering: Table = {}
        """(namespace, capability) -> agents whose own spec offers it."""
        self._grouped: Table = {}
        """(namespace, group) -> agents that name it in a spread."""
        self._classes: dict[tuple[str, str], list[ClassInfo]] | None = None
        """(pool, class) -> how hosts describe it; None: to be made anew."""
        self._hearing: dict[str, frozenset[tuple[str, str]]] = {}
        """Type of a signal -> (pool, class) that hear it."""

    # --- following ---------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget all rows."""
        for table in (self._kinds, self._offering, self._grouped):
            table.clear()
        self._forget_classes()

    def put(self, old: Row | None, row: Row) -> None:
        """An agent's row is new or has changed."""
        if old is not None:
            if old.kind == row.kind and old.listed == row.listed:
                return
            self.drop(old)
        for table, key in self._entries(row):
            table.setdefault(key, {})[row.uid] = None

    def drop(self, row: Row) -> None:
        """An agent's row is gone."""
        for table, key in self._entries(row):
            uids = table[key]
            uids.pop(row.uid, None)
            if not uids:
                del table[key]

    def put_host(self, old: HostRow | None, new: HostRow | None) -> None:
        """A host's row is new, has changed, or is gone."""
        if old is None or new is None or _described(old) != _described(new):
            self._forget_classes()

    # --- answers -----------------------------------------------------------------------------------------------------

    def subscribers(self, type_: str, namespace: str) -> list[Row]:
        """Agents whose class subscribes to a pattern that the type matches."""
        hearing = self._hearing_of(type_)
        found = (
            uids for (space, pool, name), uids in self._kinds.items() if space == namespace and (pool, name) in hearing
        )
        return self._rows(found)

    def capable(self, capability: str, namespace: str) -> list[Row]:
        """Agents that offer it, by their own spec or by their class; with neither they offer `general_purpose`."""
        found = [self._offering.get((namespace, capability), {})]
        described = self._described_classes()
        for (space, pool, name), uids in self._kinds.items():
            if space != namespace:
                continue
            offered = {word for info in described.get((pool, name), ()) for word in info.capabilities}
            if capability in offered:
                found.append(uids)
            elif capability == GENERAL_PURPOSE and not offered:
                found.append({uid: None for uid in uids if not self._agents[uid].kind.capabilities})
        return self._rows(found)

    def group(self, group: str, namespace: str) -> list[Row]:
        """Agents that name the group in a spread, and those of a class of that name."""
        of_class = (uids for (space, _, name), uids in self._kinds.items() if space == namespace and name == group)
        return self._rows([self._grouped.get((namespace, group), {}), *of_class])

    def everyone(self, namespace: str) -> list[Row]:
        """All agents of a namespace."""
        return self._rows(uids for (space, _, _), uids in self._kinds.items() if space == namespace)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _rows(self, found: Iterable[dict[str, None]]) -> list[Row]:
        return [self._agents[uid] for uid in sorted(set[str]().union(*found), key=int)]

    def _hearing_of(self, type_: str) -> frozenset[tuple[str, str]]:
        known = self._hearing.get(type_)
        if known is None:
            known = frozenset(
                key
                for key, infos in self._described_classes().items()
                if any(patterns.matches(pattern, type_) for info in infos for pattern in info.subscribes)
            )
            if len(self._hearing) >= TYPES_LIMIT:
                self._hearing.clear()
            self._hearing[type_] = known
        return known

    def _described_classes(self) -> dict[tuple[str, str], list[ClassInfo]]:
        """What living hosts say of the classes of their pools. Where none lives, the last word of those that ended: a
        signal must not pass by an agent whose hosts are all away for a moment.
        """
        if self._classes is None:
            living: dict[tuple[str, str], list[ClassInfo]] = {}
            ended: dict[tuple[str, str], list[ClassInfo]] = {}
            for host in self._hosts.values():
                table = ended if host.expired else living
                for info in host.classes:
                    table.setdefault((host.pool, info.name), []).append(info)
            self._classes = {**ended, **living}
        return self._classes

    def _forget_classes(self) -> None:
        self._classes = None
        self._hearing.clear()

    def _entries(self, row: Row) -> Iterable[tuple[Table, tuple[str, ...]]]:
        if not row.listed:
            return
        kind = row.kind
        yield self._kinds, (kind.namespace, kind.pool, kind.name)
        for word in kind.capabilities:
            yield self._offering, (kind.namespace, word)
        for word in kind.groups:
            yield self._grouped, (kind.namespace, word)


def _described(host: HostRow) -> tuple[str, bool, list[ClassInfo]]:
    return host.pool, host.expired, list(host.classes)
