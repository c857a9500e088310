"""Processor time of a local cluster's processes, by kind, from /proc."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
MARKS = (("supervise", "supervisor"), ("tenure.worker", "worker"), ("host", "host"), ("server", "server"))
"""A word of the command line, and what it tells; the first counts."""
KINDS = ("server", "host", "worker", "supervisor", "other")


def children(pid: int) -> list[int]:
    """The processes that this one started and that live, and theirs."""
    found = [pid]
    for each in found:
        for task in _tasks(each):
            try:
                found += [int(word) for word in task.joinpath("children").read_text().split()]
            except OSError:  # it has ended
                continue
    return found[1:]


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def seconds(pid: int) -> float:
    """Of the processor, by one process; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def kind(pid: int) -> str:
    """What a process of a local cluster is."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return "other"
    for word, name in (
        ("supervise", "supervisor"),
        ("tenure.worker", "worker"),
        ("host", "host"),
        ("server", "server"),
    ):
        if word in words:
            return name
    return "other"


def by_kind(roots: Iterable[int]) -> Counter[str]:
    """Processor seconds of these processes and all below them."""
    used: Counter[str] = Counter()
    for root in roots:
        for pid in (root, *children(root)):
            used[kind(pid)] += seconds(pid)
    return used


def spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Seconds between two readings, of the kinds that used any."""
    return {name: after[name] - before.get(name, 0.0) for name in KINDS if after.get(name, 0.0) > before.get(name, 0.0)}
