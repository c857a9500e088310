"""States as JSON and back, without loss. Pure.

msgpack has words that JSON lacks. They become an object with one key that begins with `$`: `{"$bytes": "base64"}`,
`{"$time": "2026-01-02T03:04:05Z"}`, `{"$float": "nan"}`, and `{"$map": [[key, value], ...]}` for a map whose keys are
not all text, or one of whose keys begins with `$` itself.
"""

import base64
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, cast

MARK = "$"
DEPTH_LIMIT = 64
"""Of values within values."""


class NotPlain(ValueError):
    """A value that cannot be turned. The message is part of a sentence, with the place."""


def to_plain(value: object, depth: int = 0) -> Any:  # noqa: PLR0911 - one line a kind
    """What `json.dumps` can write. Raises NotPlain."""
    if depth > DEPTH_LIMIT:
        raise NotPlain(f"values lie more than {DEPTH_LIMIT} deep in one another")
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"$time": value.isoformat().replace("+00:00", "Z")}
    if isinstance(value, list | tuple):
        return [to_plain(item, depth + 1) for item in cast("list[object]", value)]
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value)
        if all(isinstance(key, str) and not key.startswith(MARK) for key in items):
            return {str(key): to_plain(item, depth + 1) for key, item in items.items()}
        return {"$map": [[to_plain(key, depth + 1), to_plain(item, depth + 1)] for key, item in items.items()]}
    raise NotPlain(f"a value of type {type(value).__name__} has no form in JSON")


def from_plain(value: object, depth: int = 0) -> Any:
    """Reverse `to_plain`. Raises NotPlain."""
    if depth > DEPTH_LIMIT:
        raise NotPlain(f"values lie more than {DEPTH_LIMIT} deep in one another")
    if isinstance(value, int) and not isinstance(value, bool) and not -(1 << 63) <= value < 1 << 64:
        raise NotPlain(f"{value} does not fit into 64 bits")
    if isinstance(value, list):
        return [from_plain(item, depth + 1) for item in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    items = cast("dict[str, object]", value)
    word = next(iter(items)) if len(items) == 1 else ""
    if word in _WORDS:
        return _WORDS[word](items[word], depth)
    marked = next((key for key in items if key.startswith(MARK)), None)
    if marked is not None:
        raise NotPlain(f"{marked!r} is none of {', '.join(_WORDS)}, or does not stand alone")
    return {key: from_plain(item, depth + 1) for key, item in items.items()}


def _bytes(value: object, _: int) -> bytes:
    try:
        return base64.b64decode(_text(value, "$bytes"), validate=True)
    except ValueError as error:
        raise NotPlain(f"$bytes is no base64: {error}") from error


def _time(value: object, _: int) -> datetime:
    try:
        found = datetime.fromisoformat(_text(value, "$time"))
    except ValueError as error:
        raise NotPlain(f"$time is no time: {error}") from error
    if found.tzinfo is None:
        raise NotPlain(f"$time {value!r} names no time zone")
    return found


def _float(value: object, _: int) -> float:
    if value not in ("nan", "inf", "-inf"):
        raise NotPlain(f"$float is nan, inf or -inf, not {value!r}")
    return float(value)


def _map(value: object, depth: int) -> dict[Any, Any]:
    pairs = cast("list[object]", value) if isinstance(value, list) else []
    if not isinstance(value, list) or not all(
        isinstance(pair, list) and len(cast("list[object]", pair)) == 2 for pair in pairs
    ):
        raise NotPlain("$map is a list of pairs [key, value]")
    found: dict[Any, Any] = {}
    for key, item in cast("list[tuple[object, object]]", pairs):
        made = from_plain(key, depth + 1)
        try:
            found[made] = from_plain(item, depth + 1)
        except TypeError as error:
            raise NotPlain(f"{key!r} cannot be the key of a map") from error
    return found


_WORDS: dict[str, Callable[[object, int], Any]] = {"$bytes": _bytes, "$time": _time, "$float": _float, "$map": _map}


def _text(value: object, word: str) -> str:
    if not isinstance(value, str):
        raise NotPlain(f"{word} is a text, not {value!r}")
    return value
