"""Which server is replaced next when the StatefulSet has changed: one at a time, the quorum whole, the leader last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenure_api.model import Json
from tenure_operator.policies.reading import name_of, part, parts

REVISION = "controller-revision-hash"


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """What is known of the servers of a cluster."""

    statefulset: Json
    pods: Sequence[Json]
    leader: str = ""
    caught_up: int = 0
    """Servers that are caught up, as one that answers knows; 0 when none answers."""


def outdated(servers: Servers) -> list[Json]:
    """Pods of an earlier revision that are not on their way out."""
    status = part(servers.statefulset, "status")
    if status.get("observedGeneration") != servers.statefulset["metadata"].get("generation"):
        return []  # the controller has not looked yet: its revision is not the one that we want
    revision = status.get("updateRevision")
    return [pod for pod in servers.pods if not _going(pod) and _revision(pod) != revision]


def next_server(servers: Servers) -> str | None:
    """Name of the pod to replace now; None: nothing to do, or not now."""
    replicas = servers.statefulset["spec"]["replicas"]
    old = sorted(outdated(servers), key=name_of, reverse=True)
    if not old:
        return None
    broken = [pod for pod in old if not ready(pod)]
    if broken:
        return name_of(broken[0])  # it adds nothing to the quorum as it is, and may never get ready
    whole = len(servers.pods) == replicas and all(ready(pod) and not _going(pod) for pod in servers.pods)
    if not whole or not servers.leader or servers.caught_up < replicas:
        return None
    followers = [pod for pod in old if name_of(pod) != servers.leader]
    return name_of((followers or old)[0])


def ready(pod: Json) -> bool:
    """The pod's Ready condition."""
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in parts(part(pod, "status"), "conditions")
    )


def _going(pod: Json) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _revision(pod: Json) -> str:
    return str(part(pod, "metadata", "labels").get(REVISION, ""))
