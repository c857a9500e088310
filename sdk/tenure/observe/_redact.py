"""What may leave the process about a value: never a secret, never much, and no code of the value's own is run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import cast

import pydantic

HIDDEN = "[hidden]"
SECRET_NAMES = frozenset(
    {
        *("access_tokens", "api_key", "api_keys", "apikey", "auth_tokens", "authorization", "cookie", "cookies"),
        *("credential", "credentials", "passphrase", "passwd", "password", "passwords", "private_key", "pwd"),
        *("refresh_tokens", "secret", "secrets", "session_id", "token"),
    }
)
"""Names whose values are hidden. A name is compared word by word: `token` hides `accessToken`, and not `max_tokens`."""

_SCALARS = frozenset({bool, int, float, str})
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")
_IN_URL = re.compile(r"(://[^/\s:@]*):[^/\s@]+@")
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
_NAME = re.compile(r"""(?<![\w-])(["']?)([A-Za-z][\w-]*)\1\s*[:=]\s*""")
_VALUE = re.compile(r""""[^"]*"|'[^']*'|[^\s,;&)}\]]+""")


class Redactor:
    """Makes values and messages fit to be shown.

    `names` are hidden beside SECRET_NAMES. `text`: characters of a string; `items`: of a collection; `depth`: levels of
    nesting. What is beyond is cut, and says so.
    """

    def __init__(self, names: Iterable[str] = (), *, text: int = 256, items: int = 20, depth: int = 3) -> None:
        self._names = {_normal(name) for name in (*SECRET_NAMES, *names)}
        self._text = text
        self._items = items
        self._depth = depth
        self._known: dict[str, bool] = {}

    def is_secret(self, name: str) -> bool:
        """Whether the value of a parameter, field or attribute with this name is hidden."""
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= 10_000:
                self._known.clear()
            normal = _normal(name)
            known = self._known[name] = any(secret in normal for secret in self._names)
        return known

    def mapping(self, values: Mapping[str, object]) -> dict[str, object]:
        """Values by name, each fit to be shown. Never raises."""
        try:
            return cast(dict[str, object], self._mapping(values, self._depth))
        except Exception as error:  # noqa: BLE001 - a hostile mapping
            return {"unreadable": type(error).__name__}

    def value(self, value: object) -> object:
        """A value fit to be shown: numbers, text, lists, maps; of others the name of the type. Never raises."""
        try:
            return self._value(value, self._depth)
        except Exception:  # noqa: BLE001 - a hostile collection
            return f"<{type(value).__name__}>"

    def message(self, text: str) -> str:
        """The first line of a message, without what looks like a secret, cut."""
        line = text.strip().partition("\n")[0][: self._text * 8]
        line = _BEARER.sub(rf"\1 {HIDDEN}", _IN_URL.sub(rf"\1:{HIDDEN}@", line))
        return self._cut(self._without_pairs(line))

    def error(self, error: BaseException) -> tuple[str, str]:
        """Type and message of an error, without its traceback. Never raises."""
        try:
            return type(error).__name__, self.message(str(error))
        except Exception:  # noqa: BLE001 - whatever its __str__ raises
            return type(error).__name__, ""

    def _without_pairs(self, line: str) -> str:
        """`password=x` and `"api_key": "x"` without their values."""
        kept, done, at = "", 0, 0
        while (name := _NAME.search(line, at)) is not None:
            at = name.end()
            if self.is_secret(name[2]) and (value := _VALUE.match(line, at)) is not None:
                kept += line[done:at] + HIDDEN
                done = at = value.end()
        return kept + line[done:]

    def _value(self, value: object, depth: int) -> object:
        kind = type(value)
        if value is None or kind in _SCALARS:
            return self._scalar(cast(str | float | None, value))
        if kind in {list, tuple, set, frozenset}:
            return self._sequence(cast(Iterable[object], value), depth)
        if kind is dict:
            return self._mapping(cast(Mapping[object, object], value), depth)
        if isinstance(value, pydantic.BaseModel):
            return self._mapping(cast(Mapping[object, object], vars(value)), depth)
        if isinstance(value, pydantic.SecretStr | pydantic.SecretBytes):
            return HIDDEN
        return f"{kind.__name__}.{value.name}" if isinstance(value, Enum) else f"<{kind.__name__}>"

    def _scalar(self, value: str | float | None) -> object:
        if isinstance(value, str):
            return self._cut(value)
        return "<int>" if isinstance(value, int) and value.bit_length() > 64 else value

    def _mapping(self, values: Mapping[object, object] | Mapping[str, object], depth: int) -> object:
        if depth <= 0:
            return "..."
        shown: dict[str, object] = {}
        for key, value in values.items():
            if len(shown) >= self._items:
                shown["..."] = f"{len(values) - self._items} more"
                break
            name = self._cut(key) if type(key) is str else str(self._value(key, 0))
            shown[name] = HIDDEN if self.is_secret(name) else self._value(value, depth - 1)
        return shown

    def _sequence(self, values: Iterable[object], depth: int) -> object:
        if depth <= 0:
            return "..."
        items = list(values)
        shown = [self._value(item, depth - 1) for item in items[: self._items]]
        return shown if len(items) <= self._items else [*shown, f"... {len(items) - self._items} more"]

    def _cut(self, text: str) -> str:
        return text if len(text) <= self._text else f"{text[: self._text]}... ({len(text)} characters)"


def _normal(name: str) -> str:
    """`accessToken`, `access-token` -> `_access_token_`."""
    return f"_{'_'.join(_WORDS.findall(name)).lower()}_"
