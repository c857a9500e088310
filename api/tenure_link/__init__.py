"""The worker link: what `tenured host` and the processes that run user code say to each other over a unix socket.

Every message is one frame: 4 bytes big-endian length, then msgpack of one of the structs below (tagged by `t`).
A frame may be at most `MAX_FRAME` bytes; a longer one, or one that does not decode, ends the connection.

Three kinds of process connect (`Hello.kind`):

* `supervisor`: PID 1 of the worker container. No user code. Gets `Lease` at each renewal and kills its workers when
  it passes (CLOCK_BOOTTIME). Starts workers, reports `Workers` and `Terminating`.
* `worker`: runs agents. After `Welcome` it takes a shared flock on `Welcome.lock` before it answers anything, and ends
  within 1 s of losing its socket.

Order: frames of one connection are handled in order by the daemon; a worker answers `Turn` frames of one agent in order
and of several agents in any order, queries beside them. Turns of one agent may run ahead: each works on the draft that
the one before left (protocol additions 9). `Commit(turn)` says that everything up to that turn is durable, `Drop(turn)`
that it and every later turn of the agent did not happen. A turn that fails leaves the draft as it found it.

A turn with steps (protocol 9) says each finished step in `Progress` and goes on when `Progressed` says that it is
durable. One that waits ends with `TurnDone.waits`; it is run again, with its journal, when what it waits for is there.

Nothing here comes from the network: the socket's peer credentials are checked. Still, the daemon trusts no worker with
anything but its own agents: a worker is user code.
"""

import msgspec

from tenure_link._frames import (
    Activate,
    Activated,
    ActivationFailed,
    Commit,
    Deactivate,
    Drop,
    Frame,
    FromDaemon,
    FromProcess,
    Hello,
    Kill,
    Lease,
    LogLine,
    Ping,
    Pong,
    Progress,
    Progressed,
    Refused,
    Spawn,
    Stop,
    Terminating,
    Turn,
    TurnDone,
    Welcome,
    Workers,
    decode_from_daemon,
    decode_from_process,
)
from tenure_link._values import AgentClass, Due, Entry, Fault, Method, Outgoing, Signal, Wait, Work

__all__ = [
    "LINK_VERSION",
    "MAX_FRAME",
    "Activate",
    "Activated",
    "ActivationFailed",
    "AgentClass",
    "Commit",
    "Deactivate",
    "Drop",
    "Due",
    "Entry",
    "Fault",
    "Frame",
    "FrameTooLarge",
    "FromDaemon",
    "FromProcess",
    "Hello",
    "Kill",
    "Lease",
    "LogLine",
    "Method",
    "Outgoing",
    "Ping",
    "Pong",
    "Progress",
    "Progressed",
    "Refused",
    "Signal",
    "Spawn",
    "Splitter",
    "Stop",
    "Terminating",
    "Turn",
    "TurnDone",
    "Wait",
    "Welcome",
    "Work",
    "Workers",
    "decode_from_daemon",
    "decode_from_process",
    "encode",
]

LINK_VERSION = 2
"""A daemon serves this version and the one before. 2: signals, timers, turns that run ahead, steps."""

MAX_FRAME = 64 * 1024 * 1024
"""Bytes of one frame at most."""

_encoder = msgspec.msgpack.Encoder()


class FrameTooLarge(ValueError):
    """A frame of more than MAX_FRAME bytes, sent or announced."""


def encode(frame: Frame) -> bytes:
    """The frame with its length in front. Raises FrameTooLarge."""
    body = _encoder.encode(frame)
    if len(body) > MAX_FRAME:
        raise FrameTooLarge(f"a frame of {len(body)} bytes; the limit is {MAX_FRAME}")
    return len(body).to_bytes(4, "big") + body


class Splitter:
    """Cuts a byte stream into frame bodies; no I/O."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete now. Raises FrameTooLarge on an announced length over the limit."""
        self._buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= 4:
            size = int.from_bytes(self._buffer[start : start + 4], "big")
            if size > MAX_FRAME:
                raise FrameTooLarge(f"a frame of {size} bytes was announced; the limit is {MAX_FRAME}")
            if len(self._buffer) - start - 4 < size:
                break
            bodies.append(bytes(self._buffer[start + 4 : start + 4 + size]))
            start += 4 + size
        del self._buffer[:start]
        return bodies
