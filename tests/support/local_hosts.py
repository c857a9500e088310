"""Hosts of a cluster as real process trees on loopback: supervisor, daemon, PID 1 of the workers, fork server, workers.

Each tree is one process group, as under `tenure dev`, so that freezing or killing the group is a power cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from local_servers import ROOT, ROOTS, LocalServers, free_ports

T = TypeVar("T")


def children(pid: int) -> list[int]:
    """Direct children of a process; none when it is gone."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def command(pid: int) -> str:
    """The command line of a process; empty when it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def name(pid: int) -> str:
    """What a process calls itself; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    return bool(command(pid))


@dataclass
class LocalHost:
    """One host of `servers`, running agents of `modules` found in `code`."""

    servers: LocalServers
    name: str
    pool: str
    code: Path
    modules: str
    extra: tuple[str, ...] = ()
    process: asyncio.subprocess.Process | None = None

    def __post_init__(self) -> None:
        self.directory = self.servers.directory / self.name
        self.directory.mkdir()
        self.port, self.http_port = free_ports(2)

    def arguments(self) -> list[str]:
        """The command line, without the program."""
        flags = ["supervise", "--worker-modules", self.modules, "--", "host", "--name", self.name]
        namespace_name = "/".join(reversed(self.servers.cluster.split(".")))
        flags += ["--cluster", namespace_name, "--pool", self.pool, "--node", f"node-of-{self.name}"]
        for server in self.servers.servers.values():
            flags += ["--server", f"{server.name}={server.peer}", "--enrol", server.enrol]
        flags += ["--token", str(self.servers.secret_file), "--ca", str(self.servers.authority_directory / "ca.crt")]
        flags += ["--run", str(self.directory / "run"), "--listen", "127.0.0.1", "--port", str(self.port)]
        flags += ["--advertise", f"127.0.0.1:{self.port}", "--http-port", str(self.http_port)]
        flags += ["--signals-port", "0"]
        return [*flags, "--profile", self.servers.profile, "--exit-deadline", "10", *self.extra]

    async def start(self) -> None:
        """Start the tree; its output is appended to `log`."""
        paths = [str(self.code), *(str(ROOT / part) for part in ROOTS)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        with (self.directory / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "tenured", *self.arguments()),
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    async def end(self) -> None:
        """Kill what is left of the tree."""
        if self.process is None:
            return
        for number in (signal.SIGCONT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
        await self.process.wait()

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    @property
    def supervisor(self) -> int:
        assert self.process is not None, f"{self.name} was not started"
        return self.process.pid

    def daemon(self) -> int:
        """PID of the daemon; 0 while there is none."""
        return next((pid for pid in children(self.supervisor) if name(pid) == "tenured-host"), 0)

    def spare(self) -> int:
        """PID of the warm spare; 0 while there is none."""
        return next((pid for pid in children(self.supervisor) if name(pid) == "tenured-spare"), 0)

    def pid_1(self) -> int:
        """PID of the workers' PID 1; 0 while there is none."""
        return next((pid for pid in children(self.supervisor) if "tenure.worker" in command(pid)), 0)

    def freeze(self) -> None:
        """The power cut: silence of the whole tree, no reset."""
        os.killpg(self.supervisor, signal.SIGSTOP)

    def thaw(self) -> None:
        """The tree goes on."""
        os.killpg(self.supervisor, signal.SIGCONT)


async def eventually(condition: Callable[[], T], within_s: float = 20, why: Callable[[], str] = lambda: "") -> T:
    """The first true value of a condition on other processes, which cannot be awaited: looks every 10 ms."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not (value := condition()):
        assert loop.time() < end, f"it did not happen within {within_s} s\n{why()}"
        await asyncio.sleep(0.01)
    return value
