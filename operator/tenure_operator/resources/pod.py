"""What every pod of ours has in common: the profile `restricted`, probes, resources."""

from __future__ import annotations

from tenure_api.embedded import Affinity, LocalObjectReference, ResourceRequirements, Toleration
from tenure_api.model import Json, Model
from tenure_operator.resources.cluster import HTTP_PORT, said

USER = GROUP = 65532
DEFAULT_REQUESTS = {"cpu": "250m", "memory": "256Mi"}

CONTAINER_SECURITY: Json = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def pod_security(user: int = USER, group: int = GROUP) -> Json:
    """User and group are both named: the group of an image's USER is not used by kubelet, it would be 0."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": group,
        "fsGroup": group,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def http_probe(path: str, *, period: int, failures: int, timeout: int = 1) -> Json:
    return {
        "httpGet": {"path": path, "port": HTTP_PORT},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def dumped(model: Model) -> Json:
    """The model as a manifest writes it."""
    return model.model_dump(by_alias=True, exclude_none=True)


def resources(given: ResourceRequirements | None, default: Json) -> Json:
    return dumped(given) if given is not None else default


def placement(
    node_selector: dict[str, str],
    tolerations: list[Toleration],
    affinity: Json,
    pull_secrets: list[LocalObjectReference],
) -> Json:
    """The fields of a pod's spec that come straight from the user."""
    return said(
        {
            "nodeSelector": node_selector,
            "tolerations": [dumped(toleration) for toleration in tolerations],
            "affinity": affinity,
            "imagePullSecrets": [dumped(secret) for secret in pull_secrets],
        }
    )


def affinity_of(given: Affinity | None) -> Json:
    return dumped(given) if given is not None else {}


def field_variable(name: str, path: str) -> Json:
    """An environment variable with a field of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
