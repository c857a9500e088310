"""JSON and YAML: the rows as plain values, with the names of the wire contract."""

import json
from typing import Any

import msgspec
import yaml
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from tenure_proto.v1 import registry_pb2


def row(message: Message) -> dict[str, Any]:
    """Every field, also those with their default value, with camelCase names as everywhere in Kubernetes."""
    return MessageToDict(message, always_print_fields_with_no_presence=True)


def agent(message: registry_pb2.AgentRow) -> dict[str, Any]:
    """An agent; its initial state and its config are shown as values."""
    values = row(message)
    values["spec"]["state"] = unpacked(message.spec.state)
    values["spec"]["config"] = unpacked(message.spec.config)
    return values


def unpacked(data: bytes) -> Any:
    """The value of msgpack bytes; an empty map of none."""
    return msgspec.msgpack.decode(data) if data else {}


def listing(kind: str, items: list[dict[str, Any]], revision: int) -> dict[str, Any]:
    """A list as `-o json` prints it."""
    return {"kind": f"{kind}List", "revision": revision, "items": items}


def to_json(value: Any) -> str:
    """Indented JSON; what JSON has no word for is written as text."""
    return json.dumps(value, indent=2, default=str, ensure_ascii=False)


def to_yaml(value: Any) -> str:
    """YAML in the order of the fields."""
    plain = json.loads(json.dumps(value, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).rstrip("\n")


def reply(value: Any) -> str:
    """A reply as `tenure call` prints it: text as it is, everything else as JSON on one line if it is short."""
    if isinstance(value, str):
        return value
    short = json.dumps(value, default=str, ensure_ascii=False)
    return short if len(short) <= 100 else to_json(value)
