"""PodDisruptionBudget `<cluster>-server`: a drain takes one server at a time, while the others are a quorum."""

from __future__ import annotations

from tenure_api.model import Json
from tenure_operator.resources.cluster import Cluster


def manifest(cluster: Cluster) -> Json | None:
    """None for a single server: a budget would block every drain for ever."""
    if cluster.spec.servers.replicas == 1:
        return None
    spec: Json = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": cluster.selector("server")},
        # A server that is not ready adds nothing to the quorum, and its state is on its volume: it may be replaced.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return cluster.object("policy/v1", "PodDisruptionBudget", cluster.server_name, component="server", spec=spec)
