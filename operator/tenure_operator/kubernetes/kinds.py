"""The kinds that the operator deals with, and how they are addressed."""

from __future__ import annotations

from dataclasses import dataclass

from tenure_api.model import GROUP, VERSION


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, as its URL wants it."""

    group: str
    version: str
    name: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


AGENT = Kind(GROUP, VERSION, "Agent", "agents")
AGENT_CLUSTER = Kind(GROUP, VERSION, "AgentCluster", "agentclusters")
NODE = Kind("", "v1", "Node", "nodes", namespaced=False)
NAMESPACE = Kind("", "v1", "Namespace", "namespaces", namespaced=False)
POD = Kind("", "v1", "Pod", "pods")
CLAIM = Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
SECRET = Kind("", "v1", "Secret", "secrets")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
SERVICE = Kind("", "v1", "Service", "services")
SERVICE_ACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts")
EVENT = Kind("events.k8s.io", "v1", "Event", "events")
STATEFUL_SET = Kind("apps", "v1", "StatefulSet", "statefulsets")
DAEMON_SET = Kind("apps", "v1", "DaemonSet", "daemonsets")
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments")
DISRUPTION_BUDGET = Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
CLUSTER_ROLE_BINDING = Kind(
    "rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False
)
STORAGE_CLASS = Kind("storage.k8s.io", "v1", "StorageClass", "storageclasses", namespaced=False)

ALL = (
    *(AGENT, AGENT_CLUSTER, NODE, NAMESPACE, POD, CLAIM, SECRET, CONFIG_MAP, SERVICE, SERVICE_ACCOUNT, EVENT),
    *(STATEFUL_SET, DAEMON_SET, DEPLOYMENT, DISRUPTION_BUDGET, CLUSTER_ROLE_BINDING, STORAGE_CLASS),
)
BY_NAME = {kind.name: kind for kind in ALL}
