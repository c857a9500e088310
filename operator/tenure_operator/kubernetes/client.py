"""Reads and writes of the Kubernetes API. Writes are server-side applies under one field manager."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import httpx2
from lightkube import ApiError, AsyncClient, KubeConfig, generic_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Pod
from lightkube.types import PatchType

from tenure_api.model import Json
from tenure_operator.kubernetes.errors import Conflict, KubernetesError, Refused, Unreachable
from tenure_operator.kubernetes.kinds import ALL, BY_NAME, DEPLOYMENT, Kind

FIELD_MANAGER = "tenure-operator"
TIMEOUT_S: Final = 15.0
CHUNK = 500
"""Objects of one page of a list."""

T = TypeVar("T")


def _resource(kind: Kind) -> Any:
    """lightkube's class for a kind. Its objects are dictionaries, and the rest of the operator sees only those."""
    library: Any = generic_resource
    make = library.create_namespaced_resource if kind.namespaced else library.create_global_resource
    return make(kind.group, kind.version, kind.name, kind.plural)


_RESOURCES: dict[Kind, Any] = {kind: _resource(kind) for kind in ALL}


class Kubernetes:
    """The API server. Each method raises Unreachable, and Conflict or Refused where the server said so."""

    def __init__(self, client: AsyncClient) -> None:
        self._client: Any = client

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """The object; None only if the server says that *this object* does not exist."""
        try:
            found = await _guarded(self._client.get(_RESOURCES[kind], name, **_scope(kind, namespace)))
        except _Missing:
            return None
        return dict(found)

    async def list_all(self, kind: Kind, namespace: str = "*", labels: Mapping[str, str] | None = None) -> list[Json]:
        """All objects of a kind, of one namespace or (`*`) of all."""
        scope = _scope(kind, namespace)
        items = self._client.list(_RESOURCES[kind], labels=dict(labels or {}), chunk_size=CHUNK, **scope)
        return await _guarded(_collected(items))

    async def apply(self, manifest: Json) -> Json:
        """Create the object, or make it say what the manifest says; returns it as it is now."""
        return await self._patch(manifest, _RESOURCES[BY_NAME[manifest["kind"]]])

    async def apply_status(self, manifest: Json) -> Json | None:
        """The same for the status subresource; None when the object is gone."""
        try:
            return await self._patch(manifest, _RESOURCES[BY_NAME[manifest["kind"]]].Status)
        except _Missing:
            return None

    async def create(self, manifest: Json) -> bool:
        """Create the object; False when one of that name is there, which is left as it is."""
        kind = BY_NAME[manifest["kind"]]
        resource = _RESOURCES[kind]
        try:
            await _guarded(self._client.create(resource(manifest), **_scope(kind, _namespace(manifest))))
        except Conflict:
            return False
        return True

    async def set_finalizers(self, current: Json, finalizers: list[str]) -> Json | None:
        """Replace the finalizers of exactly this version of the object; None when it is gone (then, or before)."""
        kind = BY_NAME[current["kind"]]
        meta = current["metadata"]
        patch = {"metadata": {"finalizers": finalizers, "resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}}
        try:
            changed = await _guarded(
                self._client.patch(
                    _RESOURCES[kind],
                    meta["name"],
                    patch,
                    patch_type=PatchType.MERGE,
                    field_manager=FIELD_MANAGER,
                    **_scope(kind, _namespace(current)),
                )
            )
        except _Missing:
            return None
        return dict(changed)

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete the object, what it owns in the background. A vanished object is fine."""
        try:
            await _guarded(self._client.delete(_RESOURCES[kind], name, **_scope(kind, namespace)))
        except _Missing:
            return

    async def scale_deployment(self, namespace: str, name: str, replicas: int) -> bool:
        """Set its number of replicas; False when it does not exist."""
        patch = {"spec": {"replicas": replicas}}
        resource = _RESOURCES[DEPLOYMENT]
        try:
            await _guarded(self._client.patch(resource, name, patch, namespace=namespace, patch_type=PatchType.MERGE))
        except _Missing:
            return False
        return True

    async def evict(self, namespace: str, pod: str) -> bool:
        """Ask for the pod to go, within its disruption budget; False when the budget does not allow it now."""
        eviction = Pod.Eviction(metadata=ObjectMeta(name=pod, namespace=namespace))
        try:
            await _guarded(self._client.create(eviction, name=pod, namespace=namespace))
        except _Missing:
            return True
        except _TooMany:
            return False
        return True

    async def _patch(self, manifest: Json, resource: Any) -> Json:
        kind = BY_NAME[manifest["kind"]]
        patched = self._client.patch(
            resource,
            manifest["metadata"]["name"],
            manifest,
            patch_type=PatchType.APPLY,
            field_manager=FIELD_MANAGER,
            force=True,  # ours to decide: who edits our fields by hand is overruled, as with any controller
            **_scope(kind, _namespace(manifest)),
        )
        return dict(await _guarded(patched))


@asynccontextmanager
async def connect(kubeconfig: Path | None = None) -> AsyncGenerator[Kubernetes]:
    """The API server of this kubeconfig, else of the environment (KUBECONFIG, or the pod's own account)."""
    config = KubeConfig.from_file(str(kubeconfig)).get() if kubeconfig else None
    client = AsyncClient(config=config, timeout=httpx2.Timeout(TIMEOUT_S), field_manager=FIELD_MANAGER)
    try:
        yield Kubernetes(client)
    finally:
        await client.close()


class _Missing(KubernetesError):
    """The server knows the kind, and says that the object does not exist."""


class _TooMany(KubernetesError):
    """429: not now."""


async def _collected(items: Any) -> list[Json]:
    return [cast("Json", dict(item)) async for item in items]


async def _guarded(request: Awaitable[T]) -> T:
    """The answer, or one of our errors."""
    try:
        return await request
    except ApiError as error:
        raise _translated(error) from error
    except httpx2.HTTPError as error:
        raise Unreachable(f"The Kubernetes API does not answer: {error or type(error).__name__}") from error


def _translated(error: ApiError) -> KubernetesError:
    status = error.status
    message = status.message or str(error)
    match status.code:
        case 404 if status.details is not None and status.details.name:
            return _Missing(
                message
            )  # a 404 without a name means that the kind is not served (yet): no proof of anything
        case 409:
            return Conflict(message)
        case 429:
            return _TooMany(message)
        case 400 | 403 | 405 | 413 | 415 | 422:
            return Refused(message)
        case 500 if "typed patch object" in message:
            return Refused(message)  # server-side apply says so of a manifest that does not fit the kind's schema
        case _:
            return Unreachable(message)


def _scope(kind: Kind, namespace: str) -> dict[str, str]:
    return {"namespace": namespace} if kind.namespaced else {}


def _namespace(manifest: Json) -> str:
    return str(manifest["metadata"].get("namespace", ""))
