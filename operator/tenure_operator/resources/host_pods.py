"""The pod of a host: the daemon as a native sidecar (starts first, stops last) beside the worker, the user's image."""

from __future__ import annotations

from tenure_api import quantity
from tenure_api.agentcluster import Pool
from tenure_api.embedded import LocalObjectReference, SecretKeyReference
from tenure_api.model import Json
from tenure_operator.resources import pod
from tenure_operator.resources.cluster import (
    ENROL_PORT,
    HOST_PORT,
    HTTP_PORT,
    PEER_PORT,
    RAFT_PORT,
    SIGNALS_PORT,
    Cluster,
    said,
)

RUN = "/run/tenure"
TOKEN = "/var/run/secrets/tenure"  # noqa: S105 - a directory
STORE, KEYS = "/var/run/secrets/tenure-store", "/var/run/secrets/tenure-keys"
TOKEN_LIFETIME_S = 3600
EXIT_MARGIN_S = 5
"""The daemon is done this long before the grace period ends (API.md section 3)."""
_DAEMON_RESOURCES: Json = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
_WORKER_RESOURCES: Json = {"requests": pod.DEFAULT_REQUESTS}


def template(cluster: Cluster, pool: Pool) -> Json:
    """The pod template of the pool's DaemonSet or Deployment."""
    own = pool.pod_metadata
    labels = {**((own.labels if own else None) or {}), **cluster.labels("host", pool.name)}
    annotations = (own.annotations if own else None) or {}
    user = pool.security_context
    return {
        "metadata": said({"labels": labels, "annotations": annotations}),
        "spec": {
            "serviceAccountName": cluster.host_name(pool),
            "automountServiceAccountToken": False,  # user code gets no token; the daemon has one of its own
            "terminationGracePeriodSeconds": pool.termination_grace_period_seconds,
            "securityContext": pod.pod_security(user.run_as_user, user.run_as_group),
            "initContainers": [_daemon(cluster, pool)],
            "containers": [_worker(pool)],
            "volumes": _volumes(cluster),
            **pod.placement(
                pool.node_selector,
                pool.tolerations,
                pod.affinity_of(pool.affinity),
                _pull_secrets(cluster, pool),
            ),
        },
    }


def _pull_secrets(cluster: Cluster, pool: Pool) -> list[LocalObjectReference]:
    seen = {secret.name: secret for secret in [*cluster.spec.image_pull_secrets, *pool.image_pull_secrets]}
    return list(seen.values())


def _volumes(cluster: Cluster) -> list[Json]:
    token: Json = {"audience": cluster.audience, "expirationSeconds": TOKEN_LIFETIME_S, "path": "token"}
    authority: Json = {"name": cluster.authority_name, "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    return [
        {"name": "run", "emptyDir": {}},
        {"name": "daemon-tmp", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {
            "name": "enrolment",
            "projected": {
                "defaultMode": 0o440,
                "sources": [{"serviceAccountToken": token}, {"configMap": authority}],
            },
        },
        *(_secret(name, ref, path) for name, ref, path in _store_secrets(cluster)),
    ]


def _store_secrets(cluster: Cluster) -> list[tuple[str, SecretKeyReference, str]]:
    """(volume, what it holds, path in the daemon's container). Mounted as directories: a single file would stay as it
    was when the Secret changes.
    """
    store = cluster.spec.state_store
    found = [
        ("state-store", store.secret_ref, f"{STORE}/url"),
        ("state-keys", store.encryption_keys_ref, f"{KEYS}/keys"),
    ]
    return [(name, ref, path) for name, ref, path in found if ref is not None]


def _secret(name: str, ref: SecretKeyReference, path: str) -> Json:
    items = [{"key": ref.key, "path": path.rpartition("/")[2]}]
    return {"name": name, "secret": {"secretName": ref.name, "items": items, "defaultMode": 0o440}}


def _daemon(cluster: Cluster, pool: Pool) -> Json:
    made: Json = {
        "name": "daemon",
        "image": cluster.image,
        "restartPolicy": "Always",  # what makes an init container a native sidecar
        "command": ["tenured", "supervise", "--", "host"],
        "args": arguments(cluster, pool),
        "env": [
            pod.field_variable("POD_NAME", "metadata.name"),
            pod.field_variable("POD_IP", "status.podIP"),
            pod.field_variable("NODE_NAME", "spec.nodeName"),
        ],
        "ports": [
            {"name": "calls", "containerPort": HOST_PORT, "protocol": "TCP"},
            {"name": "signals", "containerPort": SIGNALS_PORT, "protocol": "TCP"},
            {"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"},
        ],
        "resources": _DAEMON_RESOURCES,
        "securityContext": pod.CONTAINER_SECURITY,
        # The socket listens: the worker may start.
        "startupProbe": pod.http_probe("/livez", period=1, failures=60),
        # A lease is held and a worker connected.
        "readinessProbe": pod.http_probe("/readyz", period=1, failures=2),
        "livenessProbe": pod.http_probe("/livez", period=5, failures=6, timeout=3),
        "volumeMounts": [
            {"name": "run", "mountPath": RUN},
            {"name": "daemon-tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir of the pod
            {"name": "enrolment", "mountPath": TOKEN, "readOnly": True},
            *(
                {"name": name, "mountPath": path.rpartition("/")[0], "readOnly": True}
                for name, _, path in _store_secrets(cluster)
            ),
        ],
    }
    if cluster.image_pull_policy:
        made["imagePullPolicy"] = cluster.image_pull_policy
    return made


def arguments(cluster: Cluster, pool: Pool) -> list[str]:
    """The command line of docs/architecture.md."""
    made = ["--name=$(POD_NAME)", f"--cluster={cluster.id}", f"--pool={pool.name}", "--node=$(NODE_NAME)"]
    made += [f"--server={name}={cluster.server_address(name, PEER_PORT)}" for name in cluster.servers]
    made += [f"--frames={name}={cluster.server_address(name, RAFT_PORT)}" for name in cluster.servers]
    made += [f"--enrol={cluster.server_address(name, ENROL_PORT)}" for name in cluster.servers]
    made += [f"--token={TOKEN}/token", f"--ca={TOKEN}/ca.crt", f"--run={RUN}", f"--advertise=$(POD_IP):{HOST_PORT}"]
    made += [f"--signals-port={SIGNALS_PORT}"]
    made += [f"--profile={cluster.spec.lease.profile}", f"--workers={pool.workers_per_host}"]
    cpu, memory = capacity(pool)
    made += [f"--cpu-milli={cpu}", f"--memory-bytes={memory}"]
    store = cluster.spec.state_store
    made += [f"--store=file:{STORE}/url", f"--cluster-uid={cluster.uid}"] if store.secret_ref else []
    made += [f"--keys={KEYS}/keys"] if store.encryption_keys_ref else []
    return [*made, f"--exit-deadline={pool.termination_grace_period_seconds - EXIT_MARGIN_S}"]


def capacity(pool: Pool) -> tuple[int, int]:
    """Thousandths of cores and bytes that a host offers to agents: the worker's limits, else 0, which means unknown.

    Requests are no capacity: a worker may use more, and agents' requests are estimates of the same kind.
    """
    limits = (pool.resources.limits if pool.resources else None) or {}
    cpu = quantity.milli(limits["cpu"]) if "cpu" in limits else 0
    memory = quantity.whole(limits["memory"]) if "memory" in limits else 0
    return cpu, memory


def _worker(pool: Pool) -> Json:
    made: Json = {
        "name": "worker",
        "image": pool.image,
        "command": ["python", "-m", "tenure.worker"],
        "args": [f"--socket={RUN}/worker.sock", f"--modules={','.join(pool.modules)}"],
        "resources": pod.resources(pool.resources, _WORKER_RESOURCES),
        "securityContext": pod.CONTAINER_SECURITY,
        "volumeMounts": [{"name": "run", "mountPath": RUN}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
    made |= said(
        {
            "env": [pod.dumped(variable) for variable in pool.env],
            "envFrom": [pod.dumped(source) for source in pool.env_from],
            "imagePullPolicy": pool.image_pull_policy,
        }
    )
    return made
