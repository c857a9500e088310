"""Frames between two hosts (docs/adr/0028): msgpack arrays, many signals in one.

The sending host dials: Hello, then Batches. The receiving host answers: Welcome or Refused, then Answers.
"""

from __future__ import annotations

import msgspec

from tenured.core.signals import Answer, Signal

VERSION = 1
"""Of these frames. A receiver serves its own version and says so otherwise."""
BATCH_SIGNALS = 256
"""Signals in one frame."""
BATCH_BYTES = 128 * 1024
"""Of one frame, unless one signal alone has more."""


class BadFrame(ValueError):
    """What came is no frame of this protocol, or not in its place."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="h"):
    """First frame of who dials."""

    version: int
    incarnation: str
    """Its own."""
    to: str
    """Incarnation that it believes to reach."""


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="w"):
    """The way is open."""

    signals: int
    """How many signals may come, counted from the beginning of this connection."""
    size: int
    """The same in bytes."""


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="r"):
    """The way is not open."""

    message: str


class Batch(msgspec.Struct, frozen=True, array_like=True, tag="b"):
    """Signals, under the numbers `first`, `first` + 1, ... of this connection."""

    first: int
    signals: list[Signal]


class Answers(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    """What became of signals."""

    serial: int
    """1, 2, 3, ... on this connection."""
    signals: int
    """As in Welcome: only ever more."""
    size: int
    runs: list[tuple[int, int, Answer]]
    """(first, last, answer of all of them)"""


ToReceiver = Hello | Batch
ToSender = Welcome | Refused | Answers

_encoder = msgspec.msgpack.Encoder()
_to_receiver: msgspec.msgpack.Decoder[ToReceiver] = msgspec.msgpack.Decoder(ToReceiver)
_to_sender: msgspec.msgpack.Decoder[ToSender] = msgspec.msgpack.Decoder(ToSender)

encode = _encoder.encode


def decode_to_receiver(frame: bytes) -> ToReceiver:
    """Raises BadFrame."""
    try:
        return _to_receiver.decode(frame)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadFrame(f"a frame cannot be read: {error}") from error


def decode_to_sender(frame: bytes) -> ToSender:
    """Raises BadFrame."""
    try:
        return _to_sender.decode(frame)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadFrame(f"a frame cannot be read: {error}") from error
