"""One AgentCluster: gather, decide, apply."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from pydantic import ValidationError

from tenure_api import identity, manifest
from tenure_api.agentcluster import AgentCluster, AgentClusterSpec
from tenure_api.model import Json
from tenure_api.reasons import Reason
from tenure_operator.context import COALESCE_S, FINALIZER, Context, Key, Prepared
from tenure_operator.kubernetes import kinds
from tenure_operator.kubernetes.difference import APPLIED, satisfied, stamped
from tenure_operator.kubernetes.errors import Refused
from tenure_operator.kubernetes.kinds import Kind
from tenure_operator.policies import clusters, nodes, rows, transitions
from tenure_operator.policies.clusters import PAUSED, ClusterView
from tenure_operator.policies.reading import part
from tenure_operator.resources import accounts, certificates, plan
from tenure_operator.resources.certificates import BadSecret
from tenure_operator.resources.cluster import Cluster

_WATCHED = (kinds.STATEFUL_SET, kinds.DAEMON_SET, kinds.DEPLOYMENT)
ROLL_PAUSE_S = 2.0
"""Between two looks at a roll that waits."""


async def reconcile(context: Context, key: Key) -> None:
    """Raises KubernetesError; the queue tries again."""
    item = context.world.get(kinds.AGENT_CLUSTER, key.namespace, key.name)
    if item is None:
        context.close_session(key.namespace, key.name)
        context.prepared.pop((key.namespace, key.name), None)
        return
    view = unpack(item)
    if view.deleting and not view.finalized:
        context.close_session(key.namespace, key.name)
        return
    if not view.deleting:
        await context.set_finalizer(item, wanted=True)
    cluster = _cluster(context, item, view)
    if cluster is not None and view.annotations.get(PAUSED) != "true":
        view = await ensure(context, cluster, view)
    view = await gather(context, view)
    if view.deleting and clusters.may_go(view):
        await tear_down(context, item, view)
        return
    tell_hosts(context, item, view)
    status = clusters.status(view, context.clock())
    await context.write_status(item, status, transitions.of_cluster(view.status, status))
    if view.annotations.get(PAUSED) != "true":
        await roll(context, view)


def unpack(item: Json) -> ClusterView:
    """What the object alone says."""
    metadata = item["metadata"]
    spec, invalid = None, ""
    try:
        spec = AgentClusterSpec.model_validate(item.get("spec") or {})
    except ValidationError as error:
        invalid = manifest.explain(error, AgentCluster, ("spec",))
    return ClusterView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=metadata["generation"],
        deleting=bool(metadata.get("deletionTimestamp")),
        finalized=FINALIZER in (metadata.get("finalizers") or []),
        annotations=part(metadata, "annotations"),
        status=part(item, "status"),
        spec=spec,
        invalid=invalid,
    )


def _cluster(context: Context, item: Json, view: ClusterView) -> Cluster | None:
    if view.spec is None:
        return None
    uid = item["metadata"]["uid"]
    return Cluster(namespace=view.namespace, name=view.name, uid=uid, spec=view.spec, settings=context.settings)


# --- objects ----------------------------------------------------------------------------------------------------------


async def ensure(context: Context, cluster: Cluster, view: ClusterView) -> ClusterView:
    """Make the objects say what the spec asks for, and talk to the servers. What is refused ends in the view."""
    try:
        prepared = await _prepare(context, cluster, view.generation)
    except BadSecret as error:
        return replace(view, refused=str(error), refused_reason=Reason.AUTHORITY_UNUSABLE)
    view = replace(view, certificates_expire=prepared.certificates.expire)
    authority_map = certificates.authority_map(cluster, prepared.authority)
    fresh = context.prepared.get((cluster.namespace, cluster.name)) is not prepared
    refused = ""
    for wanted in plan.objects(cluster, prepared.certificates, authority_map):
        kind = kinds.BY_NAME[wanted["kind"]]
        if fresh or kind in _WATCHED:
            try:
                await _apply(context, kind, wanted)
            except Refused as error:  # the others are made all the same: one bad pool stops no other
                refused = refused or f"{wanted['kind']} {wanted['metadata']['name']}: {error}"
    await _remove_superfluous(context, cluster)
    if not refused:
        context.prepared[cluster.namespace, cluster.name] = prepared
    session = context.open_session(cluster.namespace, cluster.name, prepared.authority)
    session.want_pools(rows.pool_rows(cluster.spec))
    session.want_nodes(nodes.rows(context.world.all(kinds.NODE)))
    return replace(view, refused=refused)


async def _prepare(context: Context, cluster: Cluster, generation: int) -> Prepared:
    """Authority and certificates: as checked a moment ago, or read (and made, where missing or old) now."""
    now = asyncio.get_running_loop().time()
    known = context.prepared.get((cluster.namespace, cluster.name))
    if known and known.generation == generation and now - known.at < context.settings.resync_s:
        return known
    kubernetes, namespace = context.kubernetes, cluster.namespace
    secret = await kubernetes.get(kinds.SECRET, namespace, cluster.authority_name)
    if secret is None:
        await kubernetes.create(certificates.new_authority(cluster))  # create, never apply: it is not written over
        secret = await kubernetes.get(kinds.SECRET, namespace, cluster.authority_name)
    if secret is None:
        raise BadSecret(f"Secret {cluster.authority_name} vanished while it was made.")
    authority = certificates.read_authority(secret, identity.cluster_id(namespace, cluster.name))
    tls = await kubernetes.get(kinds.SECRET, namespace, cluster.server_tls_name)
    found, _ = certificates.current(cluster, authority, tls, context.clock())
    return Prepared(generation=generation, at=now, authority=authority, certificates=found)


async def _apply(context: Context, kind: Kind, wanted: Json) -> None:
    """Server-side apply, only if the object does not say it already."""
    manifest_ = stamped(wanted)
    metadata = manifest_["metadata"]
    namespace, name = metadata.get("namespace", ""), metadata["name"]
    found = context.world.get(kind, namespace, name)
    if found is None:
        found = await context.kubernetes.get(kind, namespace, name)
    if found is not None and _says(manifest_, found):
        return
    written = await context.kubernetes.apply(manifest_)
    if kind in _WATCHED:
        context.world.put(kind, written)


def _says(wanted: Json, found: Json) -> bool:
    same = part(found, "metadata", "annotations").get(APPLIED) == wanted["metadata"]["annotations"][APPLIED]
    return same and satisfied(wanted, {**found, "apiVersion": wanted["apiVersion"], "kind": wanted["kind"]})


async def _remove_superfluous(context: Context, cluster: Cluster) -> None:
    """Hosts of pools that are gone, or of the other kind of set."""
    for kind in (kinds.DAEMON_SET, kinds.DEPLOYMENT):
        found = context.world.of_cluster(kind, cluster.namespace, cluster.name)
        for item in plan.superfluous(cluster, found):
            await context.kubernetes.delete(kind, cluster.namespace, item["metadata"]["name"])


# --- status and deletion ----------------------------------------------------------------------------------------------


async def gather(context: Context, view: ClusterView) -> ClusterView:
    """Add what pods, claims and servers say. Raises KubernetesError."""
    namespace, name, world = view.namespace, view.name, context.world
    claims = tuple(world.of_cluster(kinds.CLAIM, namespace, name))
    waiting = any(part(claim, "status").get("phase") != "Bound" for claim in claims)
    classes = tuple(await context.kubernetes.list_all(kinds.STORAGE_CLASS, "")) if waiting else None
    going = False
    if view.deleting:
        owner = await context.kubernetes.get(kinds.NAMESPACE, "", namespace)
        going = owner is None or bool(owner["metadata"].get("deletionTimestamp"))
    pods = [item for item in world.of_cluster(kinds.POD, namespace, name) if _component(item) == "server"]
    view = replace(
        view,
        statefulset=world.get(kinds.STATEFUL_SET, namespace, f"{name}-server"),
        server_pods=tuple(sorted(pods, key=lambda pod: pod["metadata"]["name"])),
        host_sets=tuple(
            item for kind in (kinds.DAEMON_SET, kinds.DEPLOYMENT) for item in world.of_cluster(kind, namespace, name)
        ),
        claims=claims,
        storage_classes=classes,
        object_agents=sum(bool(part(item, "status").get("uid")) for item in _agents(context, namespace, name)),
        namespace_going=going,
    )
    session = context.session(namespace, name)
    if session is None:
        return replace(view, problem="the servers have not been set up yet")
    return replace(
        view,
        reachable=session.reachable,
        problem=session.problem,
        state=session.state,
        rows=tuple(session.mirror.agents.values()),
        hosts=tuple(session.mirror.hosts.values()),
    )


def _component(item: Json) -> str:
    return str(part(item, "metadata", "labels").get("app.kubernetes.io/component", ""))


def _agents(context: Context, namespace: str, name: str) -> list[Json]:
    """Agent objects that name this cluster, or none: then it is the only one."""
    found = context.world.all(kinds.AGENT, namespace)
    return [item for item in found if part(item, "spec", "clusterRef").get("name", name) == name]


def tell_hosts(context: Context, item: Json, view: ClusterView) -> None:
    """Events for hosts that joined or ended since the last look. While the servers are silent nothing is known."""
    session = context.session(view.namespace, view.name)
    if session is not None and session.mirror.synced:
        key = view.namespace, view.name
        events, context.told_hosts[key] = transitions.of_hosts(context.told_hosts.get(key), view.hosts)
        context.record(item, events)


async def tear_down(context: Context, item: Json, view: ClusterView) -> None:
    """Let it go: what it owns goes with it, the volumes as `reclaimPolicy` says."""
    if clusters.agents_go_too(view):
        for agent in _agents(context, view.namespace, view.name):
            await context.kubernetes.delete(kinds.AGENT, view.namespace, agent["metadata"]["name"])
    binding = accounts.token_review_name(view.namespace, view.name)
    await context.kubernetes.delete(kinds.CLUSTER_ROLE_BINDING, "", binding)
    current = context.world.get(kinds.AGENT_CLUSTER, view.namespace, view.name) or item
    await context.set_finalizer(current, wanted=False)
    context.close_session(view.namespace, view.name)


async def roll(context: Context, view: ClusterView) -> None:
    """Replace the next server, if one is to be replaced and may be."""
    pod = clusters.next_server(view)
    if pod is not None:
        await context.kubernetes.evict(view.namespace, pod)
        context.queue.add(Key("AgentCluster", view.namespace, view.name), ROLL_PAUSE_S)
    else:
        context.queue.add(Key("AgentCluster", view.namespace, view.name), context.settings.resync_s + COALESCE_S)
