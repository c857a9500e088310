"""One Agent: gather, decide, apply."""

from __future__ import annotations

import asyncio

from pydantic import ValidationError

from tenure_api import manifest, quantity
from tenure_api.agent import Agent, AgentSpec
from tenure_api.model import Json
from tenure_operator.context import FINALIZER, Context, Key
from tenure_operator.kubernetes import kinds
from tenure_operator.policies import agents, rows, transitions
from tenure_operator.policies.agents import AgentView, ClusterView
from tenure_operator.policies.clusters import PAUSED
from tenure_operator.policies.reading import name_of, part, parts
from tenure_operator.registry.values import AgentSpec as RowSpec

ABSENCE_S = 2.0
"""For this long the API server's word that a namespace has no AgentCluster is believed."""


async def reconcile(context: Context, key: Key) -> None:
    """Raises KubernetesError; the queue tries again."""
    item = context.world.get(kinds.AGENT, key.namespace, key.name)
    if item is None:
        return
    view = await gather(context, item)
    decision = agents.decide(view, context.clock())
    await apply(context, item, view, decision)


async def gather(context: Context, item: Json) -> AgentView:
    """Everything that the decision needs. Raises KubernetesError."""
    metadata = item["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    agent_id = f"{namespace}/{name}"
    spec, wanted, invalid = _read(item, agent_id)
    return AgentView(
        namespace=namespace,
        name=name,
        uid=metadata["uid"],
        generation=metadata["generation"],
        deleting=bool(metadata.get("deletionTimestamp")),
        finalized=FINALIZER in (metadata.get("finalizers") or []),
        paused=part(metadata, "annotations").get(PAUSED) == "true",
        status=part(item, "status"),
        spec=spec,
        invalid=invalid,
        wanted=wanted,
        clusters=tuple(
            _cluster(context, cluster, agent_id, metadata["uid"]) for cluster in await _clusters(context, namespace)
        ),
    )


def _read(item: Json, agent_id: str) -> tuple[AgentSpec | None, RowSpec | None, str]:
    """(spec, the row that it asks for, why there is none)."""
    try:
        spec = AgentSpec.model_validate(item.get("spec") or {})
        metadata = item["metadata"]
        labels = part(metadata, "labels")
        return spec, rows.agent_row(agent_id, spec, metadata["uid"], metadata["generation"], labels), ""
    except ValidationError as error:
        return None, None, manifest.explain(error, Agent, ("spec",))
    except (quantity.BadQuantity, TypeError, OverflowError) as error:
        return None, None, str(error)


async def _clusters(context: Context, namespace: str) -> list[Json]:
    """The AgentClusters of the namespace. That there is none is not concluded from a watch that may be behind."""
    found = context.world.all(kinds.AGENT_CLUSTER, namespace)
    now = asyncio.get_running_loop().time()
    if found or now - context.absent.get(namespace, -ABSENCE_S) < ABSENCE_S:
        return found
    found = await context.kubernetes.list_all(kinds.AGENT_CLUSTER, namespace)
    if not found:
        context.absent[namespace] = now
    return found


def _cluster(context: Context, cluster: Json, agent_id: str, uid: str) -> ClusterView:
    metadata = cluster["metadata"]
    pools = tuple(pool.get("name", "") for pool in parts(part(cluster, "spec"), "pools"))
    session = context.session(metadata["namespace"], metadata["name"])
    deleting = bool(metadata.get("deletionTimestamp"))
    if session is None:
        return ClusterView(name=name_of(cluster), pools=pools, deleting=deleting, problem="it is being set up")
    return ClusterView(
        name=name_of(cluster),
        pools=pools,
        deleting=deleting,
        reachable=session.reachable,
        problem=session.problem,
        row=session.mirror.agents.get(agent_id),
        refusal=session.refusals.get(agent_id),
        gone=(agent_id, uid) in session.gone,
    )


async def apply(context: Context, item: Json, view: AgentView, decision: agents.AgentDecision) -> None:
    """Finalizer on, row, status, finalizer off: in this order nothing is lost, wherever it is interrupted."""
    agent_id = f"{view.namespace}/{view.name}"
    if decision.finalizer and not view.deleting:
        await context.set_finalizer(item, wanted=True)
    if decision.apply_to and view.wanted is not None:
        session = context.session(view.namespace, decision.apply_to)
        if session is not None:
            session.apply(view.wanted)
    for cluster in decision.delete_from:
        session = context.session(view.namespace, cluster)
        if session is not None:
            session.delete(agent_id, view.uid)
    if decision.status is not None:
        events = transitions.of_agent(view.status, decision.status)
        await context.write_status(item, decision.status, events)
    if view.deleting and not decision.finalizer:
        current = context.world.get(kinds.AGENT, view.namespace, view.name) or item
        await context.set_finalizer(current, wanted=False)
        for _, session in context.sessions():
            session.gone.discard((agent_id, view.uid))
