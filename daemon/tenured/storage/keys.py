"""Keys that records are encrypted with, and the file that they come in (docs/durability.md, Encryption).

A line a key: `ID BASE64`, the id up to 32 letters, digits, dots, hyphens and underscores, the key 32 bytes. The first
one writes, all read. `none` in the first place: nothing is encrypted any more. Empty lines and those that begin with
`#` are passed over.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tenured.storage.errors import StoreForeign

KEY_BYTES = 32
NONE = "none"
_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")


class Keyring(msgspec.Struct, frozen=True):
    """Never printed: `repr` shows ids only."""

    writes: str | None = None
    """Id of the key that writes; None: nothing is encrypted."""
    keys: Mapping[str, bytes] = {}
    source: str = ""
    """Where they came from, for messages."""

    def __repr__(self) -> str:
        return f"Keyring(writes={self.writes!r}, ids={list(self.keys)}, source={self.source!r})"


def parse(text: str, source: str) -> Keyring:
    """Reads a key file's text. Raises StoreForeign; the message names the line, never a key."""
    keys: dict[str, bytes] = {}
    writes: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words == [NONE] and not writes:
            writes.append(NONE)
            continue
        if len(words) != 2 or not _ID.fullmatch(words[0]) or words[0] == NONE:
            raise StoreForeign(f"{source}, line {number}: expected ID and 32 bytes as base64.")
        if words[0] in keys:
            raise StoreForeign(f"{source}, line {number}: there are two keys {words[0]}.")
        keys[words[0]] = _key(words[1], f"{source}, line {number}")
        writes.append(words[0])
    if not writes:
        raise StoreForeign(f"{source} has no key. Make one: echo first $(openssl rand -base64 32)")
    return Keyring(None if writes[0] == NONE else writes[0], keys, source)


def _key(text: str, where: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise StoreForeign(f"{where}: the key is not 32 bytes as base64. Make one: openssl rand -base64 32")
    return key


class KeyFile:
    """A key file that may change: a Secret that is mounted is replaced under its path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    def read(self) -> Keyring | None:
        """The keys, or None when the file is as it was at the last call. Raises StoreForeign."""
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return None
            self._seen = seen
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StoreForeign(f"The keys cannot be read: {error}.") from error
        return parse(text, str(self._path))
