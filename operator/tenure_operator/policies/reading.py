"""Reading Kubernetes objects, in which anything may be absent."""

from __future__ import annotations

from tenure_api.model import Json


def part(item: Json, *path: str) -> Json:
    """The mapping at this path; an empty one when it is absent."""
    for key in path:
        item = item.get(key) or {}
    return item


def parts(item: Json, key: str) -> list[Json]:
    """The list under this key; an empty one when it is absent."""
    found: list[Json] = item.get(key) or []
    return found


def meta(item: Json) -> Json:
    return part(item, "metadata")


def name_of(item: Json) -> str:
    return str(meta(item).get("name", ""))


def namespace_of(item: Json) -> str:
    return str(meta(item).get("namespace", ""))
