"""Files of `tenure state export`: one agent a line, as JSON. Read whole and checked before anything is sent. Pure."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, cast

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from tenure_cli.errors import UsageError
from tenure_cli.plain import NotPlain, from_plain, to_plain
from tenure_cli.wire import class_of, new_spec
from tenure_proto.v1 import registry_pb2

COMPLAINTS_SHOWN = 10
FIELDS = ("id", "class", "version", "at", "spec", "state")
_ID = re.compile(r"[a-z0-9][-a-z0-9]*/[a-z0-9][-a-z0-9.]*\Z")
_OWN = ("id", "class", "state", "objectUid", "generation")
"""Of a spec: said elsewhere in the line, or of an object that will not be there."""


@dataclass(frozen=True)
class Line:
    """One agent. `number`: of the line in its file, 1-based."""

    number: int
    id: str
    class_: str
    version: int
    """Of the class's state schema."""
    spec: registry_pb2.AgentSpec
    """For an agent that has to be created."""
    state: dict[str, Any]


def write(row: registry_pb2.AgentRow, found: Mapping[str, Any]) -> str:
    """The line of an agent; `found` is what its host answered to state.get. Raises plain.NotPlain."""
    spec = {key: value for key, value in MessageToDict(row.spec).items() if key not in _OWN}
    line = {
        "id": row.spec.id,
        "class": found["class"],
        "version": found["version"],
        "at": list(found["at"]),
        "spec": spec,
        "state": to_plain(found["state"]),
    }
    return json.dumps(line, ensure_ascii=False, allow_nan=False)


def read(name: str, text: str) -> list[Line]:
    """All lines of a file; blank ones are passed over. Raises UsageError with every complaint and its line."""
    lines: list[Line] = []
    complaints: list[str] = []
    first: dict[str, int] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        if not raw.strip():
            continue
        try:
            line = _line(number, raw)
        except (ValueError, RecursionError) as error:
            complaints.append(f"{name}:{number}: {error}")
            continue
        if line.id in first:
            complaints.append(f"{name}:{number}: {line.id} stands here twice, first in line {first[line.id]}")
        first.setdefault(line.id, number)
        lines.append(line)
    refuse(complaints)
    return lines


def refuse(complaints: Sequence[str]) -> None:
    """Raises UsageError if there is anything to complain about."""
    if complaints:
        shown = "\n  ".join(complaints[:COMPLAINTS_SHOWN])
        more = len(complaints) - COMPLAINTS_SHOWN
        rest = f"\n  and {more} more" if more > 0 else ""
        what = f"\n  {shown}{rest}" if len(complaints) > 1 else f" {shown}."
        raise UsageError(f"Nothing was imported:{what}", "Correct the file; `tenure state export` shows the form.")


def check(
    name: str, lines: Iterable[Line], rows: Iterable[registry_pb2.AgentRow], known: Mapping[tuple[str, str], Any]
) -> None:
    """Compare with what the cluster has: `known` are its classes, by pool and name, as ready hosts describe them.

    Raises UsageError with every complaint and its line.
    """
    there = {row.spec.id: row for row in rows}
    complaints: list[str] = []
    for line in lines:
        row = there.get(line.id)
        if row is not None and class_of(row.spec) != line.class_:
            wrong = f"{line.id} is a {class_of(row.spec)} here and a {line.class_} in the file"
        else:
            wrong = _unfit(line, (row.spec if row is not None else line.spec).pool, known)
        if wrong:
            complaints.append(f"{name}:{line.number}: {wrong}")
    refuse(complaints)


def _unfit(line: Line, pool: str, known: Mapping[tuple[str, str], registry_pb2.ClassInfo]) -> str:
    info = known.get((pool, line.class_))
    if info is None:
        names = sorted(name for other, name in known if other == pool)
        close = get_close_matches(line.class_, names, n=1)
        hint = f"did you mean {close[0]!r}" if close else f"it has {', '.join(names) or 'none'}"
        return f"no ready host of pool {pool!r} has the class {line.class_!r} ({hint})"
    if info.version != line.version:
        return (
            f"{line.class_} is of version {info.version} here and {line.version} in the file: import it where that runs"
        )
    schema: dict[str, Any] = json.loads(info.state_schema) if info.state_schema else {}
    fields: Mapping[str, Any] = schema.get("properties", {})
    unknown = sorted(set(line.state) - set(fields)) if fields else []
    if unknown:
        close = get_close_matches(unknown[0], list(fields), n=1)
        return f"{line.class_} has no field {unknown[0]!r}" + (f"; did you mean {close[0]!r}?" if close else "")
    missing = sorted(set(schema.get("required", [])) - set(line.state))
    return f"the field {missing[0]!r} of {line.class_} is missing" if missing else ""


def _line(number: int, raw: str) -> Line:
    """Raises ValueError, with what is wrong."""
    try:
        value = json.loads(raw)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is no JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(value, dict):
        raise ValueError("this is no JSON object")  # noqa: TRY004 - of a file, not of an argument
    fields = cast("dict[str, Any]", value)
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        close = get_close_matches(unknown[0], FIELDS, n=1)
        raise ValueError(f"unknown field {unknown[0]!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    agent, class_, version = fields.get("id"), fields.get("class"), fields.get("version")
    if not isinstance(agent, str) or not _ID.match(agent):
        raise ValueError(f"id is NAMESPACE/NAME of an agent, not {agent!r}")
    if not isinstance(class_, str) or not class_:
        raise ValueError(f"class is the name of a class, not {class_!r}")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"version is that of the class, 1 or more, not {version!r}")
    spec = _spec(agent, class_, fields["spec"]) if "spec" in fields else new_spec(agent, class_)
    return Line(number, agent, class_, version, spec, state_of(fields.get("state")))


def state_of(value: object) -> dict[str, Any]:
    """The fields of a state, as written by `plain.to_plain`. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError(f"state is an object of fields, not {value!r}")  # noqa: TRY004 - of a file, not of an argument
    try:
        found = from_plain(cast("object", value))
    except NotPlain as error:
        raise ValueError(f"state: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in cast("dict[object, Any]", found)):
        raise ValueError("state is an object of fields, and names of fields are texts")
    return cast("dict[str, Any]", found)


def _spec(agent: str, class_: str, value: object) -> registry_pb2.AgentSpec:
    spec = registry_pb2.AgentSpec()
    if not isinstance(value, dict):
        raise ValueError(f"spec is an object, not {value!r}")  # noqa: TRY004 - of a file, not of an argument
    try:
        ParseDict(cast("dict[str, Any]", value), spec)
    except ParseError as error:
        raise ValueError(f"spec: {error}") from error
    spec.id = agent
    spec.pool = spec.pool or "default"
    setattr(spec, "class", class_)
    return spec
