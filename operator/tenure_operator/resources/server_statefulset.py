"""StatefulSet `<cluster>-server`: the processes that vote.

Parallel: ordered starts would deadlock, one server alone has no quorum to become ready with. OnDelete: `policies.rolls`
replaces servers one at a time while the quorum is whole, the leader last.
"""

from __future__ import annotations

from tenure_api.model import Json
from tenure_operator.resources import pod
from tenure_operator.resources.cluster import API_PORT, ENROL_PORT, HTTP_PORT, PEER_PORT, RAFT_PORT, Cluster

DATA = "/data"
TLS = "/etc/tenure/tls"
AUTHORITY = "/etc/tenure/authority"
VOLUME = "data"
GRACE_S = 30
"""A leader hands over before it goes, which takes an election."""
_PORTS = (("api", API_PORT), ("peer", PEER_PORT), ("enrol", ENROL_PORT), ("raft", RAFT_PORT), ("http", HTTP_PORT))
_DEFAULT_RESOURCES: Json = {"requests": pod.DEFAULT_REQUESTS, "limits": {"memory": "1Gi"}}


def manifest(cluster: Cluster, certificates_digest: str) -> Json:
    """The StatefulSet. A new digest (certificates were issued anew) rolls the servers."""
    storage = cluster.spec.servers.storage
    keep = storage.reclaim_policy
    spec: Json = {
        "serviceName": f"{cluster.name}-peers",
        "replicas": cluster.spec.servers.replicas,
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete"},
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": cluster.selector("server")},
        "template": {
            "metadata": {
                "labels": cluster.labels("server"),
                "annotations": {"tenure.dev/certificates": certificates_digest},
            },
            "spec": _pod(cluster),
        },
    }
    if storage.type == "PersistentVolumeClaim":
        spec["persistentVolumeClaimRetentionPolicy"] = {"whenDeleted": keep, "whenScaled": "Retain"}
        spec["volumeClaimTemplates"] = [_claim(cluster)]
    return cluster.object("apps/v1", "StatefulSet", cluster.server_name, component="server", spec=spec)


def _claim(cluster: Cluster) -> Json:
    storage = cluster.spec.servers.storage
    claim: Json = {
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem",
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name:
        claim["storageClassName"] = storage.storage_class_name
    # Kubernetes fills kind and version in: said here, so that nothing differs
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": VOLUME, "labels": cluster.labels("server")},
        "spec": claim,
    }


def _pod(cluster: Cluster) -> Json:
    servers = cluster.spec.servers
    made: Json = {
        "serviceAccountName": cluster.server_name,
        "automountServiceAccountToken": True,  # TokenReview
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": pod.pod_security(),
        "containers": [_container(cluster)],
        "volumes": _volumes(cluster),
        **pod.placement(
            servers.node_selector, servers.tolerations, _affinity(cluster), cluster.spec.image_pull_secrets
        ),
    }
    if servers.topology_spread_constraints:
        selector = {"matchLabels": cluster.selector("server")}
        made["topologySpreadConstraints"] = [
            {"labelSelector": selector, **pod.dumped(constraint)} for constraint in servers.topology_spread_constraints
        ]
    return made


def _affinity(cluster: Cluster) -> Json:
    """The user's, and never two servers on a node: one node's loss must not be a majority's."""
    made = pod.affinity_of(cluster.spec.servers.affinity)
    if cluster.spec.servers.replicas == 1:
        return made
    term = {
        "labelSelector": {"matchLabels": cluster.selector("server")},
        "topologyKey": "kubernetes.io/hostname",
    }
    anti: Json = dict(made.get("podAntiAffinity", {}))
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    anti[required] = [*anti.get(required, []), term]
    return {**made, "podAntiAffinity": anti}


def _container(cluster: Cluster) -> Json:
    mounts: list[Json] = [
        {"name": VOLUME, "mountPath": DATA},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir of the pod
        {"name": "authority", "mountPath": AUTHORITY, "readOnly": True},
    ]
    # Each server sees its own key only. A subPath is not updated in place: new certificates come with a restart.
    for file, path in (("tls.crt", "$(POD_NAME).crt"), ("tls.key", "$(POD_NAME).key"), ("ca.crt", "ca.crt")):
        mounts.append({"name": "tls", "mountPath": f"{TLS}/{file}", "subPathExpr": path, "readOnly": True})
    made: Json = {
        "name": "server",
        "image": cluster.image,
        "command": ["tenured", "server"],
        "args": arguments(cluster),
        "env": [pod.field_variable("POD_NAME", "metadata.name")],
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in _PORTS],
        "resources": pod.resources(cluster.spec.servers.resources, _DEFAULT_RESOURCES),
        "securityContext": pod.CONTAINER_SECURITY,
        # Ready: caught up. Live: its own loop turns, never quorum: a restart does not bring a majority back.
        "startupProbe": pod.http_probe("/livez", period=1, failures=60),
        "readinessProbe": pod.http_probe("/readyz", period=1, failures=2),
        "livenessProbe": pod.http_probe("/livez", period=5, failures=6, timeout=3),
        "volumeMounts": mounts,
    }
    if cluster.image_pull_policy:
        made["imagePullPolicy"] = cluster.image_pull_policy
    return made


def arguments(cluster: Cluster) -> list[str]:
    """The command line of docs/architecture.md. Every server is given all of them and knows its own name."""
    made = ["--name=$(POD_NAME)", f"--cluster={cluster.id}"]
    made += [f"--peer={name}={cluster.server_address(name, PEER_PORT)}" for name in cluster.servers]
    made += [f"--api-address={name}={cluster.server_address(name, API_PORT)}" for name in cluster.servers]
    made += [f"--data={DATA}", f"--tls={TLS}", f"--authority={AUTHORITY}"]
    return [*made, f"--profile={cluster.spec.lease.profile}", "--enrolment=token-review", "--log-format=json"]


def _volumes(cluster: Cluster) -> list[Json]:
    storage = cluster.spec.servers.storage
    made: list[Json] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "tls", "secret": {"secretName": cluster.server_tls_name, "defaultMode": 0o440}},
        {"name": "authority", "secret": {"secretName": cluster.authority_name, "defaultMode": 0o440}},
    ]
    if storage.type == "Ephemeral":
        made.append({"name": VOLUME, "emptyDir": {"sizeLimit": storage.size}})
    return made
