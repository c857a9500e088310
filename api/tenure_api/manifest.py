"""From one document of a manifest to a resource, or to one clear sentence that says what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeAlias, cast

from pydantic import BaseModel, ValidationError

from tenure_api.agent import Agent
from tenure_api.agentcluster import AgentCluster
from tenure_api.model import API_VERSION

Resource: TypeAlias = Agent | AgentCluster
_KINDS: dict[str, type[Agent | AgentCluster]] = {"Agent": Agent, "AgentCluster": AgentCluster}


class BadManifest(ValueError):
    """The document is no resource of ours, or not a valid one. The message is a sentence for the user."""


def parse(document: object) -> Resource:
    """The resource that this YAML or JSON document describes. Raises BadManifest."""
    fields = _mapping(document)
    if fields is None:
        raise BadManifest("The document is not a mapping: a manifest has apiVersion, kind, metadata and spec.")
    kind, version = fields.get("kind"), fields.get("apiVersion")
    if version != API_VERSION:
        raise BadManifest(f"apiVersion is {version!r}; Tenure knows {API_VERSION}.")
    model = _KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise BadManifest(f"kind is {kind!r}; {API_VERSION} has {' and '.join(_KINDS)}.")
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        raise BadManifest(f"{_name(fields)}: {explain(error, model)}") from error


def explain(error: ValidationError, model: type[BaseModel], prefix: tuple[str, ...] = ()) -> str:
    """All problems, in sentences: where, and what. `prefix`: where in `model` the part lies that was validated."""
    return "; ".join(
        _sentence(problem["type"], (*prefix, *problem["loc"]), problem["msg"], model) for problem in error.errors()
    )


def _name(document: Mapping[str, object]) -> str:
    metadata = _mapping(document.get("metadata")) or {}
    return f"{document.get('kind')} {metadata.get('name', '?')}"


def _sentence(kind: str, location: tuple[int | str, ...], message: str, model: type[BaseModel]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if kind == "extra_forbidden":
        close = get_close_matches(str(location[-1]), _fields_at(model, location[:-1]), n=1)
        return f"unknown field {path!r}" + (f"; did you mean {close[0]!r}?" if close else "")
    if kind == "missing":
        return f"{path} is missing"
    return f"{path}: {message.removeprefix('Value error, ')}"


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The names that would have been valid at this place."""
    schema = model.model_json_schema(by_alias=True)
    definitions: Mapping[str, object] = schema.get("$defs", {})
    node: object = schema
    for part in (None, *location):
        if isinstance(part, int):
            node = _get(node, "items")
        elif part is not None:
            node = _get(_get(node, "properties"), part)
        for choice in _choices(node):
            reference = _get(choice, "$ref")
            if isinstance(reference, str):
                node = definitions.get(reference.rpartition("/")[2])
                break
    return list(_mapping(_get(node, "properties")) or {})


def _mapping(node: object) -> Mapping[str, object] | None:
    return cast("Mapping[str, object]", node) if isinstance(node, Mapping) else None


def _get(node: object, key: str) -> object:
    return (_mapping(node) or {}).get(key)


def _choices(node: object) -> list[object]:
    choices = _get(node, "anyOf")
    return [node, *cast("list[object]", choices)] if isinstance(choices, list) else [node]
