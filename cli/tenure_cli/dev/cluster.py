"""A local cluster of real processes: servers, and hosts under their supervisors."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tenure_cli.dev import plan as planning
from tenure_cli.dev import state
from tenure_cli.dev.authority import prepare_identity
from tenure_cli.dev.plan import DevPlan, PoolPlan
from tenure_cli.dev.ports import free_ports
from tenure_cli.dev.processes import LogSink, Process, Spec, Watchdog

HOST_GRACE_S = 8.0
SERVER_GRACE_S = 5.0


@dataclass(frozen=True)
class Options:
    """What the user chose. `python_root` is the directory from which hosts import the pools' modules."""

    directory: Path
    namespace: str
    cluster: str
    pools: Sequence[PoolPlan]
    servers: int = 3
    nodes: int = 3
    profile: str = "Balanced"
    python_root: Path = Path()


class DevCluster:
    """Starts a cluster's processes, keeps them running, and leaves none behind."""

    def __init__(self, options: Options, sink: LogSink) -> None:
        self.options = options
        self._sink = sink
        self._processes: dict[str, Process] = {}
        self._lock: state.DirectoryLock | None = None
        self._dog: Watchdog | None = None
        self._plan: DevPlan | None = None

    @property
    def plan(self) -> DevPlan:
        """Known once the cluster was started."""
        if self._plan is None:
            raise RuntimeError("the local cluster has not been started")
        return self._plan

    @property
    def servers(self) -> list[Process]:
        """The servers' processes, in the order of the plan."""
        return [self._processes[server.name] for server in self.plan.servers]

    @property
    def hosts(self) -> list[Process]:
        """The supervisors of the hosts, in the order of the plan."""
        return [self._processes[host.name] for host in self.plan.hosts]

    def process(self, name: str) -> Process:
        """By its name in the plan. Raises KeyError."""
        return self._processes[name]

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start everything. Returns when all processes exist; ready is another matter (`tenure_cli.dev.bring_up`).

        Raises CliError when a cluster runs in that directory already, OSError when ports run out.
        """
        directory = self.options.directory
        self._lock = state.DirectoryLock(directory)
        self._plan = await asyncio.to_thread(self._prepare)
        self._dog = Watchdog()
        self._dog.remove_at_end(state.write_cluster(self.plan))
        for spec in self._specs():
            self._processes[spec.name] = Process(spec, self._dog, self._sink, self._changed)
        self._dog.remove_at_end(self._publish())
        await asyncio.gather(*(process.start() for process in self.servers))
        await asyncio.gather(*(process.start() for process in self.hosts))

    async def stop(self) -> None:
        """End hosts, then servers; what does not end in time is killed. The data stays."""
        if self._plan is not None and self._processes:
            await asyncio.gather(*(process.stop(HOST_GRACE_S) for process in self.hosts))
            await asyncio.gather(*(process.stop(SERVER_GRACE_S) for process in self.servers))
        if self._dog is not None:
            self._dog.close()
            self._dog = None
        if self._lock is not None:  # without it, the files are another cluster's
            for name in (state.CLUSTER_FILE, state.PROCESSES_FILE):
                with contextlib.suppress(FileNotFoundError):
                    (self.options.directory / name).unlink()
            self._lock.release()
            self._lock = None

    async def restart_hosts(self) -> None:
        """End all hosts and start them again: their agents come back with their state."""
        await asyncio.gather(*(process.stop(HOST_GRACE_S) for process in self.hosts))
        await asyncio.gather(*(process.start() for process in self.hosts))

    def _prepare(self) -> DevPlan:
        options = self.options
        needed = planning.ports_needed(options.pools, options.servers, options.nodes)
        ports = free_ports(needed, state.kept_ports(options.directory))
        state.keep_ports(options.directory, ports)
        plan = planning.make_plan(
            options.directory,
            (options.namespace, options.cluster),
            options.pools,
            (options.servers, options.nodes),
            ports,
            options.profile,
        )
        state.claim(options.directory, plan.cluster_id, options.servers)
        prepare_identity(plan)
        for name in [server.name for server in plan.servers] + [host.name for host in plan.hosts]:
            (plan.directory / name / "data").mkdir(mode=0o700, parents=True, exist_ok=True)
        return plan

    def _specs(self) -> list[Spec]:
        plan, logs = self.plan, self.plan.directory / "logs"
        specs = [
            Spec(
                server.name,
                planning.server_command(plan, server),
                plan.directory,
                _environment(),
                logs / f"{server.name}.log",
            )
            for server in plan.servers
        ]
        for host in plan.hosts:
            environment = _environment() | dict(host.pool.env)
            command = planning.host_command(plan, host)
            specs.append(Spec(host.name, command, self.options.python_root, environment, logs / f"{host.name}.log"))
        return specs

    def _changed(self) -> None:
        if self._dog is not None:  # not while the last of them ends
            self._publish()

    def _publish(self) -> Path:
        nodes = {host.name: host.node for host in self.plan.hosts}
        entries = tuple(
            state.ProcessState(
                process.name,
                "host" if process.name in nodes else "server",
                nodes.get(process.name, ""),
                process.pid,
                str(process.spec.log),
            )
            for process in self._processes.values()
        )
        return state.write_processes(self.options.directory, state.Processes(os.getpid(), entries))


def remove_data(directory: Path) -> None:
    """Forget a stopped cluster: its data, its authority, its logs. Raises CliError while it runs."""
    if directory.exists():
        lock = state.DirectoryLock(directory)
        try:
            shutil.rmtree(directory)
        finally:
            lock.release()


def _environment() -> dict[str, str]:
    """Ours without TENURE_*, which would change the flags of the processes, and with unbuffered output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
    return kept | {"PYTHONUNBUFFERED": "1"}
