"""kopf's events, taken apart: the object goes into the mirror, and what it may concern into the queue.

Only `on.event` handlers: no annotations, no finalizers and no progress of kopf's own on anybody's objects (ADR 0008).
"""

from __future__ import annotations

from typing import Any

import kopf

from tenure_api.model import Json
from tenure_operator.context import NODES, Context, Key
from tenure_operator.kubernetes import kinds
from tenure_operator.kubernetes.kinds import Kind
from tenure_operator.policies import nodes
from tenure_operator.policies.reading import part
from tenure_operator.resources.cluster import MANAGED_BY

OWNED = (kinds.STATEFUL_SET, kinds.DAEMON_SET, kinds.DEPLOYMENT, kinds.POD, kinds.CLAIM)
WATCHED = (kinds.AGENT, kinds.AGENT_CLUSTER, kinds.NODE, *OWNED)
OWNED_LABEL = "app.kubernetes.io/managed-by"
OWNED_SELECTOR = f"{OWNED_LABEL}={MANAGED_BY}"
NODE_PAUSE_S = 0.2
"""Many nodes come and go together, and are told of together."""


def register(registry: kopf.OperatorRegistry, context: Context) -> None:
    """One handler for each kind."""
    for kind in WATCHED:
        _register(registry, context, kind)


def _register(registry: kopf.OperatorRegistry, context: Context, kind: Kind) -> None:
    library: Any = kopf

    async def handle(event: Json, **_: object) -> None:
        item: Json = event["object"]
        take(context, kind, item, deleted=event["type"] == "DELETED", watched=True)

    library.on.event(kind.group, kind.version, kind.plural, registry=registry, id=f"see-{kind.plural}")(handle)


def take(context: Context, kind: Kind, item: Json, *, deleted: bool, watched: bool) -> None:
    """One object as it is now, from the watch or from a list."""
    if watched:
        context.world.saw(kind, item, deleted=deleted)
    before = context.world.get(kind, part(item, "metadata").get("namespace", ""), item["metadata"]["name"])
    if deleted:
        context.world.drop(kind, item)
    else:
        context.world.put(kind, item)
    wake(context, kind, item, None if deleted else before)


def wake(context: Context, kind: Kind, item: Json, before: Json | None) -> None:
    """Queue what this object may concern."""
    metadata = item["metadata"]
    namespace, name = metadata.get("namespace", ""), metadata["name"]
    if kind is kinds.AGENT:
        context.queue.add(Key("Agent", namespace, name))
    elif kind is kinds.AGENT_CLUSTER:
        context.absent.pop(namespace, None)
        context.queue.add(Key("AgentCluster", namespace, name))
        if before is None or _essence(before) != _essence(item):  # not for its status: that would be all agents at once
            context.reconcile_agents(namespace)
    elif kind is kinds.NODE:
        _wake_nodes(context, item, before)
    elif cluster := part(metadata, "labels").get("tenure.dev/cluster"):
        context.queue.add(Key("AgentCluster", namespace, cluster))


def _wake_nodes(context: Context, item: Json, before: Json | None) -> None:
    """A cordon is told at once: who makes an agent after it counts on it. What placement does not see is no news."""
    if before is None:
        context.queue.add(NODES, NODE_PAUSE_S)
    elif nodes.schedulable(before) != nodes.schedulable(item):
        context.queue.add(NODES)
    elif nodes.rows([before]) != nodes.rows([item]):
        context.queue.add(NODES, NODE_PAUSE_S)


def _essence(item: Json) -> tuple[object, ...]:
    metadata = item["metadata"]
    return metadata.get("uid"), metadata.get("generation"), bool(metadata.get("deletionTimestamp"))
