"""The objects that the operator watches, as last seen. A mirror: what it lacks may still exist."""

from __future__ import annotations

from collections import defaultdict

from tenure_api.model import Json
from tenure_operator.kubernetes.kinds import Kind

Key = tuple[str, str]
"""(namespace, name)"""


class World:
    """Filled by lists at the start and at each resync, and by watch events in between."""

    def __init__(self) -> None:
        self._objects: defaultdict[Kind, dict[Key, Json]] = defaultdict(dict)
        self.watched: defaultdict[Kind, dict[Key, str]] = defaultdict(dict)
        """The resourceVersion that the *watch* brought last: shows whether it still brings anything."""

    def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        return self._objects[kind].get((namespace, name))

    def all(self, kind: Kind, namespace: str | None = None) -> list[Json]:
        """All of a kind, of one namespace or of every one."""
        return [item for (where, _), item in self._objects[kind].items() if namespace in (None, where)]

    def of_cluster(self, kind: Kind, namespace: str, cluster: str) -> list[Json]:
        """Owned objects: those with the cluster's label."""
        found = self.all(kind, namespace)
        return [item for item in found if item["metadata"].get("labels", {}).get("tenure.dev/cluster") == cluster]

    def put(self, kind: Kind, item: Json) -> Json | None:
        """Take the object up unless a newer one is known; returns what was known before."""
        item = {"apiVersion": kind.api_version, "kind": kind.name, **item}
        key = key_of(item)
        known = self._objects[kind].get(key)
        if known is None or not _older(item, known):
            self._objects[kind][key] = item
        return known

    def drop(self, kind: Kind, item: Json) -> None:
        """The object is gone (this one: another of its name may be there)."""
        key = key_of(item)
        known = self._objects[kind].get(key)
        if known is not None and known["metadata"].get("uid") == item["metadata"].get("uid"):
            del self._objects[kind][key]

    def saw(self, kind: Kind, item: Json, *, deleted: bool) -> None:
        """Note what the watch has brought."""
        if deleted:
            self.watched[kind].pop(key_of(item), None)
        else:
            self.watched[kind][key_of(item)] = item["metadata"].get("resourceVersion", "")


def key_of(item: Json) -> Key:
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _older(item: Json, known: Json) -> bool:
    """Versions of one object grow (official since Kubernetes 1.35, true before); of two objects they say nothing."""
    new, old = item["metadata"], known["metadata"]
    if new.get("uid") != old.get("uid"):
        return False
    versions = new.get("resourceVersion", ""), old.get("resourceVersion", "")
    return all(version.isdigit() for version in versions) and int(versions[0]) < int(versions[1])
