"""Signals as bytes: CloudEvents' JSON format (its version 1.0.2), and the same attributes as msgpack.

Reading makes values of JSON's or msgpack's own kinds and nothing else: no class is named by the bytes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

import msgspec
import pydantic_core

from tenure import _codec
from tenure.signals._signal import SPEC_VERSION, Signal, SignalInvalid

PAYLOAD_LIMIT = 1 << 20
"""Bytes that a signal may have, unless the caller says otherwise."""
_TEXT = ("id", "source", "type", "subject", "datacontenttype", "dataschema")


def to_json(signal: Signal, *, limit: int = PAYLOAD_LIMIT) -> bytes:
    """CloudEvents JSON; `data` of bytes travels as `data_base64`. Raises SignalInvalid."""
    content = _attributes(signal)
    if isinstance(signal.data, bytes | bytearray):
        content["data_base64"] = base64.b64encode(signal.data).decode()
    elif signal.data is not None:
        content["data"] = signal.data
    try:
        data = pydantic_core.to_json(content, inf_nan_mode="constants", bytes_mode="base64")
    except (pydantic_core.PydanticSerializationError, ValueError) as error:
        raise SignalInvalid(f"{signal.type}: {error}") from error
    return _bounded(data, signal.type, limit)


def from_json(data: bytes, *, limit: int = PAYLOAD_LIMIT) -> Signal:
    """Reverse `to_json`. Raises SignalInvalid."""
    _bounded(data, "a signal", limit)
    try:
        content = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise SignalInvalid(f"not JSON: {error}") from error
    found = _map(content)
    if "data_base64" in found:
        if "data" in found:
            raise SignalInvalid("`data` and `data_base64` exclude each other")
        try:
            found["data"] = base64.b64decode(cast(str, found.pop("data_base64")), validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise SignalInvalid("`data_base64` is not base64") from error
    return _signal(found)


def to_msgpack(signal: Signal, *, limit: int = PAYLOAD_LIMIT) -> bytes:
    """A msgpack map of the attributes. Raises SignalInvalid."""
    content = _attributes(signal)
    if signal.data is not None:
        content["data"] = signal.data
    try:
        return _bounded(_codec.pack(content), signal.type, limit)
    except ValueError as error:
        raise SignalInvalid(f"{signal.type}: {error}") from error


def from_msgpack(data: bytes, *, limit: int = PAYLOAD_LIMIT) -> Signal:
    """Reverse `to_msgpack`. Raises SignalInvalid."""
    _bounded(data, "a signal", limit)
    try:
        return _signal(_map(_codec.unpack(data)))
    except RecursionError as error:
        raise SignalInvalid("nested too deeply") from error
    except SignalInvalid:
        raise
    except ValueError as error:
        raise SignalInvalid(str(error)) from error


def to_map(signal: Signal) -> dict[str, object]:
    """The signal as a map of attributes, `data` as it is."""
    return {**_attributes(signal), "data": signal.data}


def from_map(content: object) -> Signal:
    """The signal of a map of attributes; a signal is left as it is. Raises SignalInvalid."""
    return content if isinstance(content, Signal) else _signal(_map(content))


def _attributes(signal: Signal) -> dict[str, object]:
    content: dict[str, object] = {"specversion": SPEC_VERSION}
    content.update({name: value for name in _TEXT if (value := getattr(signal, name))})
    if signal.time is not None:
        content["time"] = signal.time.astimezone(UTC).isoformat().replace("+00:00", "Z")
    content.update(signal.extensions)
    return content


def _map(content: object) -> dict[str, object]:
    if not isinstance(content, Mapping):
        raise SignalInvalid(f"a signal is a map of attributes, not {type(content).__name__}")
    return {str(name): value for name, value in cast(Mapping[object, object], content).items()}


def _signal(content: dict[str, object]) -> Signal:
    version = content.pop("specversion", None)
    if version != SPEC_VERSION:
        raise SignalInvalid(f"`specversion` is {version!r}; only {SPEC_VERSION!r} is known")
    known: dict[str, str] = {}
    for name in _TEXT:
        value = content.pop(name, None)
        if value is None:
            if name in _TEXT[:3]:
                raise SignalInvalid(f"`{name}` is missing")
            continue
        if not isinstance(value, str):
            raise SignalInvalid(f"`{name}` is text, not {type(value).__name__}")
        known[name] = value
    time, data = _time(content.pop("time", None)), content.pop("data", None)
    extensions = {name: value for name, value in content.items() if value is not None}
    return Signal(**known, time=time, data=data, extensions=extensions)


def _time(value: object) -> datetime | None:
    if value is None or isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(cast(str, value))
    except (ValueError, TypeError) as error:
        raise SignalInvalid(f"`time` is an RFC 3339 time, not {value!r}") from error


def _bounded(data: bytes, what: str, limit: int) -> bytes:
    if len(data) > limit:
        raise SignalInvalid(f"{what} has {len(data):,} bytes, at most {limit:,} are taken")
    return data
