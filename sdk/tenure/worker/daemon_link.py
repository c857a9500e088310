"""The supervisor's connection to its daemon: without waiting, and again whenever it is lost."""

from __future__ import annotations

import os
import platform
import socket
import sys

import msgspec

import tenure
from tenure.worker import linux
from tenure_link import (
    LINK_VERSION,
    Fault,
    Frame,
    FrameTooLarge,
    FromDaemon,
    Hello,
    Splitter,
    decode_from_daemon,
    encode,
)

MS = 1_000_000
RECONNECT_NS = 50 * MS
"""Between two attempts: connecting to a unix socket costs some 20 us, and a daemon that restarts is waited for."""
REFUSED_NS = 1_000 * MS
"""After a daemon that is not ours, or would not have us."""
BACKLOG = 1024 * 1024
"""Unsent bytes after which the daemon counts as gone: it reads nothing."""


class DaemonLink:
    """A socket that is connected or not; what it reads comes as frames."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._splitter = Splitter()
        self._unsent = b""
        self._said = ""
        self.socket: socket.socket | None = None
        self.retry_at = 0

    def connect(self, now: int, fault: Fault | None) -> bool:
        """Try once and say Hello. False: not now; `retry_at` says when."""
        try:
            link = linux.connect(self._path)
        except OSError as error:
            patient = isinstance(error, FileNotFoundError | ConnectionRefusedError)
            self.retry_at = now + (RECONNECT_NS if patient else REFUSED_NS)
            self._say(f"waiting for the daemon: {error}")
            return False
        link.setblocking(False)
        self.socket, self._splitter, self._unsent = link, Splitter(), b""
        hello = Hello(
            LINK_VERSION, "supervisor", os.getpid(), tenure.__version__, platform.python_version(), fault=fault
        )
        return self.send(hello)

    def send(self, frame: Frame) -> bool:
        """Send now what the socket takes, the rest in `flush`. False: the connection is lost."""
        self._unsent += encode(frame)
        return self.flush()

    @property
    def pending(self) -> bool:
        """There are unsent bytes: call `flush` when the socket is writable."""
        return bool(self._unsent)

    def flush(self) -> bool:
        """Send what waits. False: the connection is lost."""
        if self.socket is None:
            return False
        try:
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            return len(self._unsent) < BACKLOG
        except OSError:
            return False
        return True

    def read(self) -> list[FromDaemon] | None:
        """The frames that have come; None: the connection is lost or speaks nonsense."""
        if self.socket is None:
            return None
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        try:
            return [decode_from_daemon(body) for body in self._splitter.feed(data)]
        except (msgspec.MsgspecError, FrameTooLarge) as error:
            self._say(f"the daemon sent what is no frame: {error}")
            return None

    def close(self, now: int, *, wait_ns: int = RECONNECT_NS) -> None:
        """Forget the connection."""
        if self.socket is not None:
            self.socket.close()
        self.socket = None
        self.retry_at = now + wait_ns

    def _say(self, text: str) -> None:
        """Once, until it is something else."""
        if text != self._said:
            self._said = text
            print(f"tenure.worker: {text}", file=sys.stderr, flush=True)  # noqa: T201
