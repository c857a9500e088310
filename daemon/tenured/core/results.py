"""What applying a command answers: the same on every server, and encoded as the engine's result."""

from __future__ import annotations

import msgspec


class RowResult(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Of one agent in ApplyAgents or DeleteAgents, or one item of Assign."""

    id: str
    uid: str = ""
    outcome: str = ""
    """created, configured, unchanged, deleting, gone, assigned, refused"""
    reason: str = ""
    """From the catalogue, when refused."""
    message: str = ""


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Of one command. Refused as a whole: `ok` is False, with a reason of the catalogue and a sentence."""

    ok: bool = True
    reason: str = ""
    message: str = ""
    revision: int = 0
    """Of the registry after the command."""
    rows: tuple[RowResult, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Result)


def encode(result: Result) -> bytes:
    """Bytes for the engine."""
    return _encoder.encode(result)


def decode(data: bytes) -> Result:
    """Reverse `encode`."""
    return _decoder.decode(data)
