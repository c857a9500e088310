"""How entries of a record are compressed and encrypted before any store sees them (ADR 0025). No I/O; random nonces.

    value as it is                        any msgpack value: none begins with 0xC1
    C1 form body                          form: 0 as it is, 1 zstd
    C1 (form + 10) n id nonce body+tag    encrypted with key `id` (n bytes): AES-256-GCM, nonce 12 bytes, tag 16

Each agent has a key of its own, derived from that of the file by HKDF with its uid. What is authenticated beside the
body: the header, the uid and the entry's key, so that nobody who writes to the store can exchange entries.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tenured.core.frames import MAX_RECORD
from tenured.storage.keys import KEY_BYTES, Keyring

MARK = 0xC1
"""The one byte that msgpack never uses."""
PLAIN, ZSTD, ENCRYPTED = 0x00, 0x01, 0x10
COMPRESS_FROM = 512
"""Bytes; below it too little is saved (ADR 0025)."""
LEVEL = 1
NONCE_BYTES, TAG_BYTES = 12, 16
OVERHEAD = 3 + 32 + NONCE_BYTES + TAG_BYTES
"""Bytes that an entry may grow by, at most."""
CLEAR = frozenset({"w"})
"""Entries that servers read: neither compressed nor encrypted."""


class Unreadable(ValueError):
    """An entry that cannot be read here; the message says why, and the way out."""


class RecordCodec:
    """For the entries of one record."""

    __slots__ = ("_ciphers", "_compress", "_keyring", "_nonce", "_uid")

    def __init__(
        self, uid: str, keyring: Keyring, *, compress: bool, nonce: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._uid = uid
        self._keyring = keyring
        self._compress = compress
        self._nonce = nonce
        self._ciphers: dict[str, AESGCM] | None = None

    def encode(self, name: str, value: bytes) -> bytes:
        """The bytes to store under that key."""
        if name in CLEAR:
            return value
        form, body = PLAIN, value
        if self._compress and len(value) >= COMPRESS_FROM:
            packed = zstandard.ZstdCompressor(level=LEVEL).compress(value)
            if len(packed) < len(value):
                form, body = ZSTD, packed
        key_id = self._keyring.writes
        if key_id is not None:
            header = bytes((MARK, form | ENCRYPTED, len(key_id))) + key_id.encode()
            nonce = self._nonce(NONCE_BYTES)
            return header + nonce + self._cipher(key_id).encrypt(nonce, body, self._bound(name, header))
        if form == PLAIN and value[:1] != b"\xc1":
            return value
        return bytes((MARK, form)) + body

    def decode(self, name: str, stored: bytes) -> bytes:
        """The value. Raises Unreadable."""
        if name in CLEAR or stored[:1] != b"\xc1":
            return stored
        if len(stored) < 2 or stored[1] & ~(ENCRYPTED | ZSTD):
            raise Unreadable(f"entry {name!r} is damaged, or was written by a newer version")
        body = self._decrypted(name, stored) if stored[1] & ENCRYPTED else stored[2:]
        return _unpacked(name, body) if stored[1] & ZSTD else body

    def stale(self, name: str, stored: bytes) -> bool:
        """Whether `encode` would use another key, or one where there is none."""
        return name not in CLEAR and _key_id(stored) != self._keyring.writes

    def _decrypted(self, name: str, stored: bytes) -> bytes:
        key_id = _key_id(stored) or ""
        if key_id not in self._keyring.keys:
            where = self._keyring.source
            way_out = f"add it to {where} again" if where else "start the host with the file that has it (--keys)"
            raise Unreadable(
                f"entry {name!r} is encrypted with key {key_id!r}, which this host does not have: {way_out}"
            )
        at = 3 + stored[2]
        nonce, body = stored[at : at + NONCE_BYTES], stored[at + NONCE_BYTES :]
        try:
            return self._cipher(key_id).decrypt(nonce, body, self._bound(name, stored[:at]))
        except (InvalidTag, ValueError) as error:
            raise Unreadable(
                f"entry {name!r} is damaged, is not of this record, or was encrypted with another key {key_id!r}: "
                "restore the store from a backup, or the key"
            ) from error

    def _cipher(self, key_id: str) -> AESGCM:
        if self._ciphers is None:
            self._ciphers = {}
        if key_id not in self._ciphers:
            derive = HKDF(SHA256(), KEY_BYTES, salt=None, info=b"tenure record " + self._uid.encode())
            self._ciphers[key_id] = AESGCM(derive.derive(self._keyring.keys[key_id]))
        return self._ciphers[key_id]

    def _bound(self, name: str, header: bytes) -> bytes:
        uid = self._uid.encode()
        return b"tenure entry 1" + header + len(uid).to_bytes(4, "big") + uid + name.encode()


def _key_id(stored: bytes) -> str | None:
    """Of the key that an entry is encrypted with; None when it is not."""
    if len(stored) < 3 or stored[0] != MARK or not stored[1] & ENCRYPTED:
        return None
    return stored[3 : 3 + stored[2]].decode("ascii", "replace")


def _unpacked(name: str, body: bytes) -> bytes:
    try:
        size = zstandard.frame_content_size(body)
        if not 0 <= size <= MAX_RECORD:
            raise Unreadable(f"entry {name!r} is damaged: it says that it has {size} bytes")
        return zstandard.ZstdDecompressor().decompress(body)
    except zstandard.ZstdError as error:
        raise Unreadable(f"entry {name!r} is damaged: {error}") from error
