"""From Node objects to what placement needs to know of nodes."""

from __future__ import annotations

from collections.abc import Iterable

from tenure_api.model import Json
from tenure_operator.policies.reading import part, parts
from tenure_operator.registry.values import NodeRow, Taint

DRAIN_TAINTS = frozenset(
    {
        "node.kubernetes.io/unschedulable",
        "node.kubernetes.io/out-of-service",
        "ToBeDeletedByClusterAutoscaler",
        "DeletionCandidateOfClusterAutoscaler",
        "karpenter.sh/disruption",
        "karpenter.sh/disrupted",
    }
)
"""A node with one of these is about to go. `kubectl drain` passes DaemonSet pods by, so the node is what we look at."""

HEALTH_TAINTS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""Prefixes of taints that Kubernetes sets itself: not-ready, unreachable, memory-pressure, ..."""


def rows(nodes: Iterable[Json]) -> list[NodeRow]:
    """All nodes, in the order of their names."""
    made = [
        NodeRow(
            name=node["metadata"]["name"],
            schedulable=schedulable(node),
            labels=node["metadata"].get("labels") or {},
            taints=taints(node),
        )
        for node in nodes
    ]
    return sorted(made, key=lambda row: row.name)


def taints(node: Json) -> tuple[Taint, ...]:
    """What keeps agents away that do not tolerate it. Kubernetes' own words about a node's health are left out: whether
    a host lives is judged by its lease, and what is about to go is not schedulable.
    """
    return tuple(
        Taint(key=taint["key"], value=taint.get("value") or "", effect=taint.get("effect") or "NoSchedule")
        for taint in parts(part(node, "spec"), "taints")
        if not taint["key"].startswith(HEALTH_TAINTS) and taint["key"] not in DRAIN_TAINTS
    )


def schedulable(node: Json) -> bool:
    """Whether new agents may come: not cordoned, not being drained or deleted. Health is judged by leases, not here."""
    spec = part(node, "spec")
    taints = {taint.get("key") for taint in parts(spec, "taints")}
    deleting = bool(node["metadata"].get("deletionTimestamp"))
    return not (spec.get("unschedulable") or taints & DRAIN_TAINTS or deleting)
