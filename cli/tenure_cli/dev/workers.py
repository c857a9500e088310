"""Restarting the workers of a host, so that they import changed modules; the state stays with the servers."""

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from tenure_cli.dev.processes import Process

MARK = b"tenure.worker"


def children(pid: int) -> list[int]:
    """Direct children of a process; none when it is gone (proc_pid_children(5))."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def worker_pids(supervisor: int) -> list[int]:
    """PID 1 of the worker container, which in a local cluster is a child of the host's supervisor."""
    return [pid for pid in children(supervisor) if _is_worker(pid)]


def daemon_pids(supervisor: int) -> list[int]:
    """The host daemon under a supervisor, not its warm spare (docs/processes.md)."""
    return [pid for pid in children(supervisor) if _name(pid) == "tenured-host"]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _is_worker(pid: int) -> bool:
    try:
        return MARK in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def restart_workers(hosts: Iterable[Process]) -> int:
    """Kill the workers' PID 1; its supervisor starts it again at once. Returns how many were killed.

    SIGKILL and not SIGTERM: on SIGTERM a worker asks for a drain, and its agents would move.
    """
    killed = 0
    for host in hosts:
        for pid in worker_pids(host.pid) if host.pid and not host.frozen else []:
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed
