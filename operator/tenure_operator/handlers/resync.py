"""The whole comparison with the API server, now and then: what a watch missed is found, and so is a dead watch."""

from __future__ import annotations

from dataclasses import dataclass, field

from tenure_operator.context import Context
from tenure_operator.handlers.events import OWNED, OWNED_LABEL, WATCHED, take
from tenure_operator.kubernetes import kinds
from tenure_operator.kubernetes.kinds import Kind
from tenure_operator.kubernetes.world import key_of
from tenure_operator.registry.session import Session
from tenure_operator.registry.values import KUBERNETES, AgentRow
from tenure_operator.resources.cluster import MANAGED_BY

Missed = dict[tuple[Kind, tuple[str, str]], str]
"""What the watch has not brought: object -> the version that the watch knew ("": none) while a list had another."""


@dataclass
class Resync:
    """Remembers one round, to compare the next with it."""

    context: Context
    blind: str = ""
    """Why the watch must be taken for dead; empty while it is alive."""
    _missed: Missed = field(default_factory=Missed)

    async def round(self, *, watching: bool) -> None:
        """List every kind. Raises KubernetesError: then nothing is concluded."""
        missed: Missed = {}
        for kind in WATCHED:
            missed |= await self._compare(kind)
        still = {what for what, version in missed.items() if self._missed.get(what) == version}
        if still and watching:
            kind, (namespace, name) = min(still, key=str)
            self.blind = f"the watch has not brought a change of {kind.name} {namespace}/{name} for a whole round"
        else:
            self.blind = ""
        self._missed = missed
        for _, session in self.context.sessions():
            await remove_orphans(self.context, session)

    async def _compare(self, kind: Kind) -> Missed:
        world = self.context.world
        labels = {OWNED_LABEL: MANAGED_BY} if kind in OWNED else None
        before = {key_of(item): item for item in world.all(kind)}
        watched = dict(world.watched[kind])
        listed = {key_of(item): item for item in await self.context.kubernetes.list_all(kind, "*", labels)}
        missed: Missed = {}
        for key, item in listed.items():
            if watched.get(key, "") != item["metadata"]["resourceVersion"]:
                missed[kind, key] = watched.get(key, "")
            take(self.context, kind, item, deleted=False, watched=False)
        for key in before.keys() - listed.keys():
            if world.get(kind, *key) is before[key]:  # not one that came while the list was on its way
                take(self.context, kind, before[key], deleted=True, watched=False)
        for key in watched.keys() - listed.keys():
            if world.watched[kind].get(key) == watched[key]:
                missed[kind, key] = watched[key]
        return missed


async def remove_orphans(context: Context, session: Session) -> None:
    """Rows whose object went without waiting for our finalizer: only on the API server's word for each."""
    if not session.reachable:
        return
    for row in [*session.mirror.agents.values()]:
        if row.managed_by == KUBERNETES and not row.deleting and await _orphaned(context, row):
            session.delete(row.spec.id, row.spec.object_uid)


async def _orphaned(context: Context, row: AgentRow) -> bool:
    namespace, _, name = row.spec.id.partition("/")
    known = context.world.get(kinds.AGENT, namespace, name)
    if known is not None and known["metadata"]["uid"] == row.spec.object_uid:
        return False
    found = await context.kubernetes.get(kinds.AGENT, namespace, name)
    return found is None or found["metadata"]["uid"] != row.spec.object_uid
