"""Manifests from files, directories or standard input: parsed, checked, and every complaint with its file and line."""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import yaml
from pydantic import ValidationError

from tenure_api.agent import Agent
from tenure_api.agentcluster import AgentCluster
from tenure_api.manifest import BadManifest, parse
from tenure_api.model import GROUP
from tenure_cli.errors import ManifestError, UsageError

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"
# What Kubernetes accepts as a name; our own ids are `namespace/name`, so both parts are checked.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")
_OURS = ("Agent", "AgentCluster")


R_co = TypeVar("R_co", Agent, AgentCluster, Agent | AgentCluster, covariant=True)


@dataclass(frozen=True)
class Document(Generic[R_co]):
    """One document of a file: the resource, and the node it was read from, which knows the lines."""

    file: str
    node: yaml.Node
    resource: R_co

    def line(self, *path: str | int) -> int:
        """The line (1-based) of the field at `path`, or of the nearest field above that is there."""
        return line_of(self.node, path)

    def error(self, path: Sequence[str | int], sentence: str, next_step: str = "") -> ManifestError:
        """A complaint about the field at `path`."""
        return ManifestError(self.file, self.line(*path), sentence, next_step)


AnyDocument = Document[Agent | AgentCluster]


@dataclass(frozen=True)
class Loaded:
    """All resources that were found, and what was left out because it is not ours (a sentence each)."""

    agents: tuple[Document[Agent], ...]
    clusters: tuple[Document[AgentCluster], ...]
    passed_over: tuple[str, ...]


def line_of(node: yaml.Node, path: Iterable[str | int]) -> int:
    """The line (1-based) where the value at `path` begins; the key's line for a mapping."""
    line: int = node.start_mark.line + 1
    for part in path:
        found = _child(node, part)
        if found is None:
            break
        line, node = found
    return line


def _child(node: yaml.Node, part: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            if isinstance(key, yaml.ScalarNode) and key.value == str(part):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        items = cast("list[yaml.Node]", node.value)
        if part < len(items):
            return items[part].start_mark.line + 1, items[part]
    return None


def load(paths: Sequence[str], namespace: str = "") -> Loaded:
    """Read all documents; a directory means its manifests, `-` standard input. Raises ManifestError, UsageError."""
    documents: list[AnyDocument] = []
    passed_over: list[str] = []
    for name, text in _sources(paths):
        found, foreign = _parse_file(name, text)
        documents += found
        passed_over += foreign
    _check_names(documents)
    _check_namespace(documents, namespace)
    _check_twins(documents, namespace)
    return Loaded(
        tuple(Document(item.file, item.node, item.resource) for item in documents if isinstance(item.resource, Agent)),
        tuple(
            Document(item.file, item.node, item.resource)
            for item in documents
            if isinstance(item.resource, AgentCluster)
        ),
        tuple(passed_over),
    )


def _sources(paths: Sequence[str]) -> list[tuple[str, str]]:
    sources: list[tuple[str, str]] = []
    for text in paths:
        if text == STDIN:
            sources.append(("standard input", sys.stdin.read()))
            continue
        path = Path(text)
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
            if not files:
                raise UsageError(f"{text} holds no manifest.", f"A manifest ends in {', '.join(SUFFIXES)}.")
            sources += [(str(file), _read(file)) for file in files]
        else:
            sources.append((text, _read(path)))
    return sources


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist.", _near_file(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error


def _near_file(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    close = get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f"Did you mean {path.parent / close[0]}?" if close else ""


def _parse_file(name: str, text: str) -> tuple[list[AnyDocument], list[str]]:
    documents: list[AnyDocument] = []
    foreign: list[str] = []
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None or (isinstance(node, yaml.ScalarNode) and node.value in ("", "null", "~")):
                continue
            _check_keys(name, node)
            value = cast("Any", loader).construct_document(node)  # the stubs leave it without types
            if (what := _foreign(value)) is not None:
                foreign.append(f"{name}:{line_of(node, ())}: {what} is not Tenure's and was left out")
                continue
            documents.append(Document(name, node, _resource(name, node, value)))
    except yaml.YAMLError as error:
        raise _yaml_error(name, error) from error
    finally:
        loader.dispose()
    return documents, foreign


def _yaml_error(name: str, error: yaml.YAMLError) -> ManifestError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return ManifestError(name, mark.line + 1 if mark else 0, f"this is not YAML: {problem}.")


def _check_keys(name: str, node: yaml.Node) -> None:
    """YAML forbids a key twice in one mapping, PyYAML keeps the last in silence."""
    if isinstance(node, yaml.SequenceNode):
        for item in cast("list[yaml.Node]", node.value):
            _check_keys(name, item)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
        if isinstance(key, yaml.ScalarNode):
            line = key.start_mark.line + 1
            if key.value in seen and key.value != "<<":
                raise ManifestError(
                    name, line, f"the field {key.value!r} stands here twice, first in line {seen[key.value]}."
                )
            seen[key.value] = line
        _check_keys(name, value)


def _foreign(value: object) -> str | None:
    if not isinstance(value, dict):
        return None
    document = cast("dict[object, object]", value)
    kind, version = document.get("kind"), str(document.get("apiVersion", ""))
    if kind in _OURS or not kind or version.startswith(f"{GROUP}/") or not version:
        return None
    return f"{kind} ({version})"


def _resource(name: str, node: yaml.Node, value: object) -> Agent | AgentCluster:
    try:
        return parse(value)
    except BadManifest as error:
        cause = error.__cause__
        path: tuple[str | int, ...] = ()
        if isinstance(cause, ValidationError):
            # A misspelt field is often reported as a missing one too: the misspelling is the place to look at.
            problems = sorted(cause.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
            path = problems[0]["loc"]
        elif "apiVersion" in str(error):
            path = ("apiVersion",)
        raise ManifestError(name, line_of(node, path), f"{error}".rstrip(".") + ".") from error


def _check_names(documents: Iterable[AnyDocument]) -> None:
    for document in documents:
        metadata = document.resource.metadata
        kind = document.resource.kind
        if not metadata.name:
            raise document.error(("metadata",), f"this {kind} has no metadata.name.")
        for path, name in (("name", metadata.name), ("namespace", metadata.namespace)):
            if name and not _NAME.match(name):
                rule = "lower-case letters, digits, '-' and '.' only, at most 253 of them"
                raise document.error(("metadata", path), f"{name!r} cannot be a {path}: {rule}.")


def _check_namespace(documents: Iterable[AnyDocument], namespace: str) -> None:
    for document in documents:
        given = document.resource.metadata.namespace
        if namespace and given and given != namespace:
            what = f"{document.resource.kind} {document.resource.metadata.name}"
            raise document.error(
                ("metadata", "namespace"),
                f"{what} is for namespace {given!r}, not for {namespace!r} as --namespace says.",
            )


def _check_twins(documents: Iterable[AnyDocument], namespace: str) -> None:
    seen: dict[tuple[str, str, str], AnyDocument] = {}
    for document in documents:
        metadata = document.resource.metadata
        key = (document.resource.kind, metadata.namespace or namespace, metadata.name)
        if key in seen:
            first = seen[key]
            place = f"{first.file}:{first.line('metadata', 'name')}"
            raise document.error(
                ("metadata", "name"), f"two {key[0]}s are called {metadata.name!r}: the first is at {place}."
            )
        seen[key] = document
