"""Values as bytes: msgpack, for arguments, replies, signals and states.

What msgpack has no word for travels as text or a list (a `Decimal`, a `UUID`, a `set`, a naive `datetime`) and takes
its type again from the annotation that reads it. An aware `datetime` comes back as the same instant in UTC.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Union, cast, get_args, get_origin

import msgspec
import pydantic
import pydantic_core
from pydantic import SecretBytes, SecretStr


def _plain(value: object) -> object:
    """What msgspec cannot encode by itself. Raises PydanticSerializationError where pydantic cannot either."""
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="python", round_trip=True)
    if isinstance(value, SecretStr | SecretBytes):
        return value.get_secret_value()
    return cast(object, pydantic_core.to_jsonable_python(value))


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_native_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()
EMPTY_MAP = _encoder.encode({})


def pack(value: object) -> bytes:
    """msgpack of a value. Raises ValueError, with what cannot be encoded."""
    try:
        return _encoder.encode(value)
    except (TypeError, OverflowError, ValueError, pydantic_core.PydanticSerializationError) as error:
        raise ValueError(f"{type(value).__name__} cannot be encoded: {error}") from error


_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1
NATIVE = frozenset({bool, int, float, str, bytes, type(None)})
"""Types whose values cannot change, and which msgpack has words for."""


def crosses(value: object) -> bool:
    """Whether a value would come out of `unpack(pack(value))` as it is, and nobody could change it in between."""
    kind = type(value)
    if kind is int:
        return _INT_MIN <= cast(int, value) <= _INT_MAX
    if kind is str:
        return cast(str, value).isascii() or _has_utf8(cast(str, value))
    return kind in NATIVE


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_native(annotation: object) -> bool:
    """Whether values of an annotation are of native types only: `int`, `str | None`."""
    if isinstance(annotation, type) and annotation in NATIVE:
        return True
    return get_origin(annotation) in {Union, types.UnionType} and all(map(is_native, get_args(annotation)))


def native_types(annotation: object) -> frozenset[type]:
    """The types of a native annotation; none of any other."""
    if annotation is None:
        return frozenset({type(None)})
    if not is_native(annotation):
        return frozenset()
    return frozenset(get_args(annotation)) or frozenset({cast(type, annotation)})


def pack_native(value: Mapping[str, object]) -> bytes:
    """As `pack`, for a map of what msgpack has words for. Raises ValueError."""
    try:
        return _native_encoder.encode(value)
    except (TypeError, OverflowError, ValueError) as error:
        raise ValueError(f"{type(value).__name__} cannot be encoded: {error}") from error


def unpack(data: bytes) -> object:
    """The value of some msgpack. Raises ValueError."""
    try:
        return cast(object, _decoder.decode(data))
    except msgspec.DecodeError as error:
        raise ValueError(f"not msgpack: {error}") from error


def unpack_map(data: bytes) -> dict[str, object]:
    """The map of some msgpack; nothing is an empty one. Raises ValueError."""
    if not data or data == EMPTY_MAP:
        return {}
    value = unpack(data)
    if not isinstance(value, dict):
        raise ValueError(f"a map of names to values was expected, not {type(value).__name__}")  # noqa: TRY004
    return {str(key): item for key, item in cast(dict[object, object], value).items()}


def explain(error: pydantic.ValidationError) -> str:
    """Each field with what was expected and what came: "`by` should be a valid integer, got 'x'"."""
    return "; ".join(_one(item) for item in error.errors(include_url=False))


def _one(item: pydantic_core.ErrorDetails) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] in {"missing", "missing_argument"}:
        return f"`{where}` is missing"
    if item["type"] in {"extra_forbidden", "unexpected_keyword_argument", "no_such_attribute"}:
        return f"`{where}` is not known"
    text = item["msg"].removeprefix("Input ").removeprefix("Value error, ")
    got = repr(item["input"])
    got = got if len(got) <= 80 else got[:77] + "..."
    return f"`{where}` {text}, got {got}" if where else f"{text}, got {got}"
