"""Control groups of the nodes (version 1, or hybrid): /tenure/node-N/{system,kubepods} in every hierarchy."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tools.k8s.shell import HarnessError, wait_for

ROOT = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """Mount points of the version 1 hierarchies."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [Path(path) for _, path, kind, *_ in mounts if kind == "cgroup" and Path(path).parent == ROOT]


def require() -> None:
    """Raise HarnessError where the harness cannot make groups."""
    if not any(path.name == "freezer" for path in hierarchies()):
        raise HarnessError(
            "The node harness needs control groups of version 1 (found no freezer hierarchy). "
            "On a machine with version 2 only, install Docker and kind: they are used when they work."
        )


def make(name: str) -> None:
    for root in hierarchies():
        path = root
        for part in Path(name).parts:
            path /= part
            path.mkdir(exist_ok=True)
            if root.name == "cpuset":  # a new cpuset is empty and refuses processes until it is filled
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (path / file).write_text((path.parent / file).read_text())


def enter(name: str) -> None:
    for root in hierarchies():
        (root / name / "cgroup.procs").write_text("0")  # 0: the writer itself


def pids(name: str) -> Iterator[int]:
    """Every process in the group and below."""
    for directory, _, files in os.walk(ROOT / "freezer" / name):
        if "cgroup.procs" in files:
            with contextlib.suppress(OSError):
                yield from map(int, Path(directory, "cgroup.procs").read_text().split())


def remove(name: str) -> None:
    for root in [*hierarchies(), ROOT / "unified"]:
        for directory, _, _ in os.walk(root / name, topdown=False):
            with contextlib.suppress(FileNotFoundError):
                Path(directory).rmdir()


def state(name: str) -> str:
    """FROZEN, FREEZING or THAWED; empty when there is no such group."""
    with contextlib.suppress(FileNotFoundError):
        return (ROOT / "freezer" / name / "freezer.state").read_text().strip()
    return ""


def freeze(name: str) -> None:
    _set(name, "FROZEN")


def thaw(name: str) -> None:
    _set(name, "THAWED")


def _set(name: str, wanted: str) -> None:
    if state(name):
        (ROOT / "freezer" / name / "freezer.state").write_text(wanted)
        wait_for(f"{name} to be {wanted}", lambda: state(name) == wanted, 10, 0.02)
