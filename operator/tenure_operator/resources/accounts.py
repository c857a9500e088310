"""ServiceAccounts of servers, hosts and clients, and what servers may do: check tokens, nothing else."""

from __future__ import annotations

from tenure_api.model import Json
from tenure_operator.resources.cluster import Cluster


def accounts(cluster: Cluster) -> list[Json]:
    """`<cluster>-server`, `<cluster>-host-<pool>` and `<cluster>-client`. No pod gets a token that it is not given."""
    names = [(cluster.server_name, "server", ""), (f"{cluster.name}-client", "client", "")]
    names += [(cluster.host_name(pool), "host", pool.name) for pool in cluster.spec.pools]
    return [
        {
            **cluster.object("v1", "ServiceAccount", name, component=component, pool=pool),
            "automountServiceAccountToken": False,
        }
        for name, component, pool in names
    ]


def token_review_name(namespace: str, name: str) -> str:
    """Of the ClusterRoleBinding; it lies in no namespace, so the name has both parts."""
    return f"tenure:{namespace}:{name}:server"


def token_review(cluster: Cluster) -> Json:
    """TokenReview is cluster-wide, hence the binding: not owned by the AgentCluster, removed by its finalizer."""
    labels = {**cluster.labels("server"), "tenure.dev/namespace": cluster.namespace}
    api = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{api}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": token_review_name(cluster.namespace, cluster.name), "labels": labels},
        "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": cluster.settings.token_review_role},
        "subjects": [{"kind": "ServiceAccount", "name": cluster.server_name, "namespace": cluster.namespace}],
    }
