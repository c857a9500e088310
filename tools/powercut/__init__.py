"""Power cuts for real processes: what was not synced is lost, whole or page by page, and so are names.

    environment(disk, shadow)   for a process whose files under `disk` are on such a disk
    fresh(disk, shadow)         before its first start
    cut(disk, shadow, rng)      after it was killed: the disk as the power cut left it

The process runs unchanged with shim.c loaded into it, which keeps a shadow of all that was synced. Of what was not,
the page cache still knows: `cut` keeps none of it, or a random choice of its pages and names. Covered is every file
that is written by system calls, the Raft log and SQLite alike. Not covered: disks that lie about a sync, bits that rot.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from tools.k8s import cache
from tools.k8s.shell import HarnessError, run

SOURCE = Path(__file__).with_name("shim.c")
PAGE = 4096
_GETVERSION = 0x80087601  # FS_IOC_GETVERSION
Names = dict[str, str]  # name -> key of the file, or "dir"


@dataclass
class Loss:
    """What a cut took: bytes that were written and not synced, and names."""

    pages: int = 0
    names: int = 0


def library() -> Path:
    """The shim, compiled if need be. Raises HarnessError without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise HarnessError("A power cut needs a C compiler (Debian: gcc libc6-dev).")
    target = cache.directory().parent / "powercut" / cache.key([SOURCE]) / "shim.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}")
        run(compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", partial, SOURCE, "-ldl", "-pthread")
        partial.rename(target)
    return target


def environment(disk: Path, shadow: Path) -> dict[str, str]:
    """Variables for the process."""
    return {"LD_PRELOAD": str(library()), "TENURE_DISK": str(disk), "TENURE_SHADOW": str(shadow)}


def fresh(disk: Path, shadow: Path) -> None:
    """Make the shadow say that everything on `disk` is durable. Nothing may write there meanwhile."""
    shutil.rmtree(shadow, ignore_errors=True)
    (shadow / "files").mkdir(parents=True)
    (shadow / "names").mkdir()
    disk.mkdir(parents=True, exist_ok=True)
    for directory, _, files in os.walk(disk):
        place = Path(directory)
        for name in files:
            shutil.copyfile(place / name, shadow / "files" / _key(place / name))
        lines = "".join(f"{key}\t{name}\n" for name, key in _present(place).items())
        _names_file(disk, shadow, place).write_text(lines)


def cut(disk: Path, shadow: Path, rng: random.Random) -> Loss:
    """Replace `disk` by what a power cut leaves of it. The process must be dead."""
    after = disk.with_name(f"{disk.name}.after")
    shutil.rmtree(after, ignore_errors=True)
    cached = {_key(path): path for path in disk.rglob("*") if path.is_file()}
    keep = rng.choice((0.0, 0.0, rng.random(), 1.0))  # how much survives that nobody synced
    loss = Loss()

    def build(place: Path, target: Path) -> None:
        target.mkdir()
        durable = _listed(_names_file(disk, shadow, place))
        present = _present(place) if place.is_dir() else {}
        loss.names += len(present.keys() ^ durable.keys())
        for name, key in (present if rng.random() < keep else durable).items():
            if key == "dir":
                build(place / name, target / name)
                continue
            kept = shadow / "files" / key
            synced = kept.read_bytes() if kept.exists() else b""
            now = cached[key].read_bytes() if key in cached else synced
            (target / name).write_bytes(_mixed(synced, now, keep, rng, loss))

    build(disk, after)
    shutil.rmtree(disk)
    after.rename(disk)
    fresh(disk, shadow)
    return loss


def _mixed(synced: bytes, now: bytes, keep: float, rng: random.Random, loss: Loss) -> bytes:
    """Each page as it was synced, or as it is in the page cache."""
    size = len(now) if rng.random() < keep else len(synced)
    pages: list[bytes] = []
    for start in range(0, size, PAGE):
        old, new = synced[start : start + PAGE], now[start : start + PAGE]
        survives = old == new or rng.random() < keep
        loss.pages += not survives
        pages.append((new if survives else old).ljust(min(PAGE, size - start), b"\0")[: size - start])
    loss.pages += max(0, len(now) - size + PAGE - 1) // PAGE
    return b"".join(pages)


def _listed(listing: Path) -> Names:
    lines = listing.read_text().splitlines() if listing.exists() else []
    return {name: key for key, name in (line.split("\t", 1) for line in lines)}


def _present(directory: Path) -> Names:
    return {
        path.name: "dir" if path.is_dir() else _key(path)
        for path in directory.iterdir()
        if path.is_dir() or path.is_file()
    }


def _key(path: Path) -> str:
    """Inode and generation: an inode that is used again is another file."""
    with path.open("rb") as file:
        generation = bytearray(8)
        try:
            fcntl.ioctl(file, _GETVERSION, generation)
        except OSError:  # a file system without generations
            generation = bytearray(8)
        return f"{os.fstat(file.fileno()).st_ino}-{struct.unpack('<II', generation)[0]}"


def _names_file(disk: Path, shadow: Path, place: Path) -> Path:
    inner = "" if place == disk else "/" + str(place.relative_to(disk))
    return shadow / "names" / (inner.replace("/", "%") or "root")
