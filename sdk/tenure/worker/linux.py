"""The few things of Linux that the standard library of Python 3.11 does not reach."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import time
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


class PeerRefused(ConnectionError):
    """The other end of the socket belongs to another user."""


def boot_ns() -> int:
    """CLOCK_BOOTTIME in ns: the clock of leases and deadlines; it goes on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends. Raises OSError."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signal_number: int) -> None:
    """Get this signal when the process that is the parent now ends. Raises OSError."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def children() -> set[int]:
    """PIDs of the direct children of the calling thread's process; empty where the kernel does not tell."""
    try:
        return {int(pid) for pid in Path("/proc/thread-self/children").read_text().split()}
    except OSError:
        return set()


def threads() -> int:
    """Threads of this process, those of native libraries included."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names only


def connect(path: str) -> socket.socket:
    """A stream to the daemon, its user checked: our own, or root. Raises OSError, PeerRefused."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.connect(path)
        _pid, uid, _gid = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except BaseException:
        link.close()
        raise
    if uid not in {0, os.getuid()}:
        link.close()
        raise PeerRefused(f"{path} is served by user {uid}; {os.getuid()} or root was expected")
    return link


SUPERVISED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that the supervisor handles and its children do not inherit."""


def describe_end(status: int) -> str:
    """A wait status in words: `exit status 3`, `signal SIGKILL`."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"signal {signal.Signals(number).name}"
        except ValueError:
            return f"signal {number}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"


def note_signal(number: int, frame: FrameType | None) -> None:
    """A handler that does nothing: the signal interrupts, and wakes a selector through the wake-up descriptor."""
