"""An AgentCluster as the resource modules see it, and the names and labels of what it owns."""

from __future__ import annotations

from dataclasses import dataclass

from tenure_api.agentcluster import AgentClusterSpec, Pool
from tenure_api.model import API_VERSION, Json, Labels
from tenure_operator.settings import Settings

API_PORT, PEER_PORT, HOST_PORT, ENROL_PORT, RAFT_PORT, SIGNALS_PORT, HTTP_PORT = (
    7443,
    7444,
    7445,
    7446,
    7447,
    7448,
    8080,
)
MANAGED_BY = "tenure-operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """An AgentCluster with a valid spec."""

    namespace: str
    name: str
    uid: str
    spec: AgentClusterSpec
    settings: Settings

    @property
    def id(self) -> str:
        """As command lines and audiences write it."""
        return f"{self.namespace}/{self.name}"

    @property
    def audience(self) -> str:
        """Of the tokens that hosts and clients enrol with."""
        return f"tenure.dev/{self.id}"

    @property
    def image(self) -> str:
        """Of servers and host daemons."""
        return self.spec.image or self.settings.image

    @property
    def image_pull_policy(self) -> str:
        return self.spec.image_pull_policy or self.settings.image_pull_policy

    @property
    def servers(self) -> tuple[str, ...]:
        """Names of the server pods."""
        return tuple(f"{self.name}-server-{number}" for number in range(self.spec.servers.replicas))

    def server_address(self, server: str, port: int) -> str:
        """host:port of one server, whether it is ready or not."""
        return f"{server}.{self.name}-peers.{self.namespace}.svc:{port}"

    def host_name(self, pool: Pool) -> str:
        """Of the DaemonSet or Deployment, and of the ServiceAccount of the pool's hosts."""
        return f"{self.name}-host-{pool.name}"

    @property
    def server_name(self) -> str:
        return f"{self.name}-server"

    @property
    def authority_name(self) -> str:
        """Of the Secret with the authority, and of the ConfigMap with its certificate alone."""
        return f"{self.name}-ca"

    @property
    def server_tls_name(self) -> str:
        return f"{self.name}-server-tls"

    def labels(self, component: str = "", pool: str = "") -> Labels:
        """Of every object; with a component also what its pods are selected by."""
        made = {
            "app.kubernetes.io/name": "tenure",
            "app.kubernetes.io/instance": self.name,
            "app.kubernetes.io/managed-by": MANAGED_BY,
            "tenure.dev/cluster": self.name,
        }
        if component:
            made["app.kubernetes.io/component"] = component
        if pool:
            made["tenure.dev/pool"] = pool
        return made

    def selector(self, component: str, pool: str = "") -> Labels:
        """Labels that select the pods of one component."""
        made = {"tenure.dev/cluster": self.name, "app.kubernetes.io/component": component}
        return {**made, "tenure.dev/pool": pool} if pool else made

    def object(
        self, api_version: str, kind: str, name: str, *, component: str = "", pool: str = "", **rest: Json
    ) -> Json:
        """A manifest owned by this AgentCluster: what it owns ends with it."""
        return {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": self.labels(component, pool),
                "ownerReferences": [self.owner()],
            },
            **rest,
        }

    def owner(self) -> Json:
        return {
            "apiVersion": API_VERSION,
            "kind": "AgentCluster",
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


def said(model_dump: Json) -> Json:
    """A manifest's part without what is absent in it: empty lists and maps, and None."""
    return {key: value for key, value in model_dump.items() if value not in (None, [], {})}
