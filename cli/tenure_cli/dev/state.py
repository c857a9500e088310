"""What a local cluster writes about itself, so that other programs find it.

`cluster.json` is read by `tenure.connect()` and the command line, `processes.json` by the command line alone
(docs/cli.md). Both exist only while the cluster runs: `tenure dev` removes them when it stops, its watchdog when it is
killed.
"""

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tenure_cli.dev import plan as planning
from tenure_cli.dev.authority import write_private
from tenure_cli.errors import CliError

CLUSTER_FILE = "cluster.json"
PROCESSES_FILE = "processes.json"
PORTS_FILE = "ports.json"
OWNER_FILE = "owner.json"
LOCK_FILE = "lock"


class DirectoryLock:
    """Held as long as a local cluster runs in a directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise CliError(
                f"A local cluster already runs in {directory}.",
                f"Stop it with `{stop_command(directory)}`, or start another with `--name`.",
            ) from None

    def release(self) -> None:
        """Let another cluster start here."""
        os.close(self._descriptor)


def stop_command(directory: Path) -> str:
    """What ends the cluster that runs in `directory`."""
    return "tenure dev stop" if directory.name == "dev" else f"tenure dev stop --name {directory.name}"


def is_running(directory: Path) -> bool:
    """Whether a local cluster runs in `directory`."""
    lock = directory / LOCK_FILE
    if not lock.exists():
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@dataclass(frozen=True)
class ProcessState:
    """One process as `processes.json` shows it. `pid` leads its process group; 0 while it is down."""

    name: str
    kind: str  # server, host
    node: str
    pid: int
    log: str


@dataclass(frozen=True)
class Processes:
    """All processes of a local cluster, and the one that manages them."""

    manager: int
    processes: tuple[ProcessState, ...]

    def find(self, name: str) -> ProcessState:
        """The process called `name`. Raises CliError."""
        for process in self.processes:
            if process.name == name:
                return process
        names = ", ".join(process.name for process in self.processes)
        raise CliError(f"The local cluster has no process {name!r}.", f"It has: {names}.")


def write_cluster(plan: planning.DevPlan) -> Path:
    """Write `cluster.json`; returns its path."""
    path = plan.directory / CLUSTER_FILE
    content = {
        "name": plan.directory.name,
        "cluster": plan.cluster_id,
        "pid": os.getpid(),
        "servers": [f"127.0.0.1:{server.api_port}" for server in plan.servers],
        "tls": str(planning.client_dir(plan)),
        "profile": plan.profile,
    }
    write_private(path, json.dumps(content, indent=2).encode())
    return path


def write_processes(directory: Path, processes: Processes) -> Path:
    """Write `processes.json`; returns its path."""
    path = directory / PROCESSES_FILE
    write_private(path, json.dumps(asdict(processes), indent=2).encode())
    return path


def read_processes(directory: Path) -> Processes:
    """The processes of the cluster that runs in `directory`. Raises CliError when none does."""
    if not is_running(directory):
        raise CliError(f"No local cluster called {directory.name!r} runs.", "Start one with `tenure dev -f PATH`.")
    content: dict[str, Any] = json.loads((directory / PROCESSES_FILE).read_text())
    return Processes(
        manager=content["manager"], processes=tuple(ProcessState(**entry) for entry in content["processes"])
    )


def claim(directory: Path, cluster: str, servers: int) -> None:
    """Note whose data `directory` holds. Raises CliError when it holds that of another cluster or number of servers."""
    path = directory / OWNER_FILE
    mine = {"cluster": cluster, "servers": servers}
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text())
        if kept != mine:
            raise CliError(
                f"The local cluster {directory.name!r} holds the data of {kept['cluster']} with {kept['servers']}"
                f" servers, not of {cluster} with {servers}.",
                "Forget that data with `--fresh`, or start another cluster with `--name`.",
            )
    write_private(path, json.dumps(mine).encode())


def kept_ports(directory: Path) -> list[int]:
    """The ports of the last run, so that a restarted cluster is found where it was."""
    try:
        return [int(port) for port in json.loads((directory / PORTS_FILE).read_text())]
    except (OSError, ValueError):
        return []


def keep_ports(directory: Path, ports: list[int]) -> None:
    """Remember the ports for the next run."""
    write_private(directory / PORTS_FILE, json.dumps(ports).encode())
