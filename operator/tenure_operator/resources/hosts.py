"""DaemonSet `<cluster>-host-<pool>`, one host per node; a Deployment of that name where the pool has `replicas`."""

from __future__ import annotations

from tenure_api.agentcluster import Pool
from tenure_api.model import Json
from tenure_operator.resources import host_pods
from tenure_operator.resources.cluster import Cluster

LOST_NODE_S = 30
"""A host on a lost node is replaced after this: its agents have moved long before, this restores capacity."""


def manifest(cluster: Cluster, pool: Pool) -> Json:
    """A new host comes before the old one goes: agents have somewhere to move."""
    name = cluster.host_name(pool)
    template = host_pods.template(cluster, pool)
    spec: Json = {
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": cluster.selector("host", pool.name)},
        "template": template,
    }
    rolling: Json = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    if pool.replicas is None:
        spec["updateStrategy"] = rolling
        return cluster.object("apps/v1", "DaemonSet", name, component="host", pool=pool.name, spec=spec)
    _spread(cluster, pool, template["spec"])
    spec |= {"replicas": pool.replicas, "strategy": rolling, "progressDeadlineSeconds": 600}
    return cluster.object("apps/v1", "Deployment", name, component="host", pool=pool.name, spec=spec)


def _spread(cluster: Cluster, pool: Pool, spec: Json) -> None:
    """Over the nodes as evenly as they allow, and off a lost one sooner than Kubernetes' 300 s."""
    spec["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": cluster.selector("host", pool.name)},
        }
    ]
    given = {(toleration.key, toleration.effect) for toleration in pool.tolerations}
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if (key, "NoExecute") not in given:
            spec.setdefault("tolerations", []).append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LOST_NODE_S}
            )
