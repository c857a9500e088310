"""Where things that take minutes to make are kept: binaries, the base image, and buildah's storage."""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path


def directory() -> Path:
    """`$XDG_CACHE_HOME/tenure/k8s`, made if needed."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = base / "tenure" / "k8s"
    path.mkdir(parents=True, exist_ok=True)
    return path


def remove() -> None:
    """Remove all of it."""
    shutil.rmtree(directory(), ignore_errors=True)


def key(files: Iterable[Path], *texts: str) -> str:
    """A short hash of what something is made from."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold a lock among processes; who comes second waits, and then finds the work done."""
    with (directory() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
