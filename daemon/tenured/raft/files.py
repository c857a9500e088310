"""A server's directory as the log and the snapshots use it: flat, and with nothing hidden about what is durable.

All of them write through `Files`, so that the simulation runs the same code on a directory that it can take the power
from between any two calls. Every method may raise OSError. What is written is durable after `sync` of the file, and a
name that was created, renamed or removed is durable after `sync` of the directory, never before.
"""

import fcntl
import os
from pathlib import Path
from typing import Protocol

from tenured.raft.interface import LogForeign

LOCK_NAME = "lock"
SECTOR = 512
"""Bytes that a disk writes whole or not at all."""


class OpenFile(Protocol):
    """A file that grows. After one error none of its methods is called again, but for `close`."""

    def write(self, data: bytes) -> None:
        """Append all of `data`."""
        ...

    def sync(self) -> None:
        """Return when everything written is on the disk."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class ReadFile(Protocol):
    """A file that is read by position. It stays readable when its name is gone."""

    def read(self, position: int, count: int) -> bytes:
        """Up to `count` bytes; fewer only at the end."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class Files(Protocol):
    """The files of one directory, by name."""

    def hold(self, name: str) -> None:
        """Lock that file too: by it, versions before the segments exclude each other. Raises LogForeign."""
        ...

    def names(self) -> list[str]:
        """All names, in order."""
        ...

    def where(self, name: str) -> str:
        """The file as a sentence names it."""
        ...

    def read(self, name: str) -> bytes:
        """The whole content."""
        ...

    def open(self, name: str) -> ReadFile:
        """For reading by position."""
        ...

    def create(self, name: str) -> OpenFile:
        """A new and empty file; one of that name is emptied."""
        ...

    def append(self, name: str) -> OpenFile:
        """To write at the end of a file."""
        ...

    def link(self, old: str, new: str) -> None:
        """A second name for a file."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name; a file that has it already is gone."""
        ...

    def remove(self, name: str) -> None:
        """Take a name away; none of that name is no error."""
        ...

    def sync(self) -> None:
        """Return when all names are on the disk."""
        ...

    def close(self) -> None:
        """Let others have the directory."""
        ...


class DiskFiles:
    """A directory of a real disk. Holds an exclusive lock: two processes must not write one log."""

    def __init__(self, directory: Path) -> None:
        """Make the directory if there is none. Raises LogForeign when another process has it, and OSError."""
        self._directory = directory
        if not directory.exists():
            directory.mkdir(parents=True)
            sync_directory(directory.parent)
        self._locks = [_locked(directory / LOCK_NAME, directory)]

    def hold(self, name: str) -> None:
        self._locks.append(_locked(self._directory / name, self._directory))

    def names(self) -> list[str]:
        return sorted(path.name for path in self._directory.iterdir())

    def where(self, name: str) -> str:
        return str(self._directory / name)

    def read(self, name: str) -> bytes:
        return (self._directory / name).read_bytes()

    def open(self, name: str) -> "DiskReadFile":
        return DiskReadFile(self._directory / name)

    def create(self, name: str) -> "DiskFile":
        return DiskFile(self._directory / name, os.O_CREAT | os.O_TRUNC)

    def append(self, name: str) -> "DiskFile":
        return DiskFile(self._directory / name, os.O_APPEND)

    def link(self, old: str, new: str) -> None:
        os.link(self._directory / old, self._directory / new)

    def rename(self, old: str, new: str) -> None:
        (self._directory / old).rename(self._directory / new)

    def remove(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)

    def sync(self) -> None:
        sync_directory(self._directory)

    def close(self) -> None:
        while self._locks:
            os.close(self._locks.pop())


class DiskFile:
    """An OpenFile on a real disk."""

    def __init__(self, path: Path, flags: int) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o644)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class DiskReadFile:
    """A ReadFile on a real disk."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, position: int, count: int) -> bytes:
        return os.pread(self._fd, count, position)

    def close(self) -> None:
        os.close(self._fd)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def put_whole(files: Files, name: str, data: bytes) -> None:
    """Make a file appear whole or not at all, and survive a power cut with its name."""
    temporary = name + TEMPORARY
    file = files.create(temporary)
    try:
        file.write(data)
        file.sync()
    finally:
        file.close()
    files.rename(temporary, name)
    files.sync()


TEMPORARY = ".new"
"""End of the name of a file that is being made. One that is found at a start was never finished, and is removed."""


def _locked(path: Path, directory: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise LogForeign(f"{directory} is in use by another process; stop that server first") from error
    return fd
