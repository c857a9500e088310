"""Incarnations and proof of death by file locks (protocol additions 1, API.md section 3).

The daemon and each of its workers hold a shared `flock` on `<incarnation>.lock`. The kernel drops a lock with the last
descriptor of a dead process, so whoever gets the exclusive lock knows that the daemon *and* all its workers are gone,
frozen ones excluded: a stopped process keeps its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

SUFFIX = ".lock"


def new_incarnation() -> str:
    """A random id for one start of the daemon; ids are never used again."""
    return secrets.token_hex(8)


class OwnLock:
    """The shared lock of this incarnation, held until the process ends."""

    def __init__(self, directory: Path, incarnation: str) -> None:
        """Creates the file and locks it. Raises OSError."""
        self.path = directory / f"{incarnation}{SUFFIX}"
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)


class DeadLocks:
    """The locks of earlier incarnations, taken one by one as their last holder dies."""

    def __init__(self, directory: Path, own: str) -> None:
        self._waiting = {path.stem: path for path in directory.glob(f"*{SUFFIX}") if path.stem != own}
        self._held: dict[str, int] = {}
        self._paths: dict[str, Path] = dict(self._waiting)

    @property
    def dead(self) -> tuple[str, ...]:
        """Incarnations whose exclusive lock is held here: provably dead, and nothing else is."""
        return tuple(sorted(self._held))

    @property
    def waiting(self) -> tuple[str, ...]:
        """Incarnations of which some process still lives."""
        return tuple(sorted(self._waiting))

    def poll(self) -> bool:
        """Takes what can be taken now; true when nothing is left to wait for."""
        for incarnation, path in list(self._waiting.items()):
            descriptor = _take(path)
            if descriptor is None:
                continue
            del self._waiting[incarnation]
            self._held[incarnation] = descriptor
        return not self._waiting

    def forget(self, incarnations: Iterable[str]) -> None:
        """Removes the files of these dead, once a server has committed their end: they need no proof any more."""
        for incarnation in incarnations:
            # Removed while locked: a late worker that opens the path finds nothing to lock.
            with contextlib.suppress(FileNotFoundError):
                self._paths[incarnation].unlink()
            os.close(self._held.pop(incarnation))


def _take(path: Path) -> int | None:
    """The exclusive lock without waiting, or None while somebody else holds it or the file cannot be opened."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None  # no proof, no claim: the lease of that incarnation ends by its time
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
