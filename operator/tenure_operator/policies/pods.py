"""Why pods and claims wait, in a sentence."""

from __future__ import annotations

from collections.abc import Iterable

from tenure_api.model import Json
from tenure_operator.policies.reading import part, parts

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_UNEVENTFUL = frozenset({"ContainerCreating", "PodInitializing", ""})


def trouble(pod: Json) -> str:
    """What keeps a pod from running; empty when nothing does, or when it is just starting."""
    status = part(pod, "status")
    name = pod["metadata"]["name"]
    for container in [*parts(status, "initContainerStatuses"), *parts(status, "containerStatuses")]:
        waiting = part(container, "state", "waiting")
        if waiting.get("reason", "") not in _UNEVENTFUL:
            message = waiting.get("message", "")
            return f"{name}: {waiting['reason']}" + (f": {message}" if message else "")
    for condition in parts(status, "conditions"):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{name} cannot be scheduled: {condition.get('message', '')}"
    return ""


def waiting_claim(claims: Iterable[Json], classes: Iterable[Json] | None) -> str:
    """Which claim waits, and why; empty when none does. `classes`: all StorageClasses, None when they are not known."""
    known = None if classes is None else list(classes)
    for claim in claims:
        if part(claim, "status").get("phase") == "Bound":
            continue
        why = _why(claim, known)
        if why:
            return f"claim {claim['metadata']['name']} waits: {why}"
    return ""


def _why(claim: Json, classes: list[Json] | None) -> str:
    wanted = claim["spec"].get("storageClassName")
    if classes is None:
        return ""
    names = {item["metadata"]["name"]: item for item in classes}
    if not wanted:
        has_default = any(_is_default(item) for item in classes)
        return "" if has_default else "no default StorageClass"
    if wanted not in names:
        return f"there is no StorageClass {wanted}"
    if names[wanted].get("volumeBindingMode") == "WaitForFirstConsumer":
        return ""  # waits for its pod, which has its own sentence when it cannot be scheduled
    return f"StorageClass {wanted} has not provided a volume yet"


def _is_default(item: Json) -> bool:
    return part(item, "metadata", "annotations").get(DEFAULT_CLASS) == "true"
