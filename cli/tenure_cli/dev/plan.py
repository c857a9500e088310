"""Which processes a local cluster consists of, and the command line of each. Pure: values in, values out."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

EXIT_DEADLINE_S = 6.0
PORTS_PER_SERVER = 5
PORTS_PER_HOST = 2


@dataclass(frozen=True)
class PoolPlan:
    """What `tenure dev` takes from a pool of the manifest. `image` is ignored: modules come from the directory."""

    name: str = "default"
    modules: tuple[str, ...] = ()
    max_agents_per_host: int = 0  # 0: no limit
    replicas: int | None = None  # absent: one per node
    workers: int = 1
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ServerPlan:
    """One server and its ports on 127.0.0.1."""

    name: str
    api_port: int
    peer_port: int
    raft_port: int
    enrol_port: int
    http_port: int


@dataclass(frozen=True)
class HostPlan:
    """One host, on a node of its own number, and its ports on 127.0.0.1."""

    name: str
    node: str
    pool: PoolPlan
    port: int
    http_port: int


@dataclass(frozen=True)
class DevPlan:
    """A whole local cluster under `directory`."""

    directory: Path
    namespace: str
    cluster: str
    profile: str
    servers: tuple[ServerPlan, ...]
    hosts: tuple[HostPlan, ...]
    python_path: tuple[Path, ...] = field(default=())

    @property
    def cluster_id(self) -> str:
        """As the daemons take it: NAMESPACE/NAME."""
        return f"{self.namespace}/{self.cluster}"


def host_slots(pools: Sequence[PoolPlan], nodes: int) -> list[tuple[str, str, PoolPlan]]:
    """(host, node, pool) of every host: a pool has `replicas` hosts or one per node, spread over the nodes in turn."""
    slots: list[tuple[str, str, PoolPlan]] = []
    for pool in pools:
        count = nodes if pool.replicas is None else pool.replicas
        prefix = "host" if len(pools) == 1 else f"host-{pool.name}"
        slots += [(f"{prefix}-{index + 1}", f"node-{index % nodes + 1}", pool) for index in range(count)]
    return slots


def ports_needed(pools: Sequence[PoolPlan], servers: int, nodes: int) -> int:
    """How many ports the cluster takes."""
    return servers * PORTS_PER_SERVER + len(host_slots(pools, nodes)) * PORTS_PER_HOST


def make_plan(
    directory: Path,
    identity: tuple[str, str],
    pools: Sequence[PoolPlan],
    size: tuple[int, int],
    ports: Sequence[int],
    profile: str,
) -> DevPlan:
    """The plan for `identity` (namespace, cluster) with `size` (servers, nodes). Takes `ports_needed` of `ports`."""
    servers, nodes = size
    supply = iter(ports)
    return DevPlan(
        directory=directory,
        namespace=identity[0],
        cluster=identity[1],
        profile=profile,
        servers=tuple(
            ServerPlan(f"server-{index}", *(next(supply) for _ in range(PORTS_PER_SERVER))) for index in range(servers)
        ),
        hosts=tuple(
            HostPlan(name, node, pool, next(supply), next(supply)) for name, node, pool in host_slots(pools, nodes)
        ),
    )


def server_command(plan: DevPlan, server: ServerPlan) -> list[str]:
    """The command line of one server (docs/architecture.md, "Command lines")."""
    command = [sys.executable, "-P", "-m", "tenured", "server"]
    command += ["--name", server.name, "--cluster", plan.cluster_id]
    for peer in plan.servers:
        command += ["--peer", f"{peer.name}=127.0.0.1:{peer.peer_port}"]
        command += ["--raft-peer", f"{peer.name}=127.0.0.1:{peer.raft_port}"]
        command += ["--api-address", f"{peer.name}=127.0.0.1:{peer.api_port}"]
    base = plan.directory / server.name
    command += ["--data", str(base / "data"), "--tls", str(base / "tls"), "--authority", str(authority_dir(plan))]
    command += ["--listen", "127.0.0.1", "--api-port", str(server.api_port), "--peer-port", str(server.peer_port)]
    command += ["--raft-port", str(server.raft_port)]
    command += ["--enrol-port", str(server.enrol_port), "--http-port", str(server.http_port)]
    command += ["--profile", plan.profile, "--enrolment", f"secret:{secret_file(plan)}"]
    return command


def host_command(plan: DevPlan, host: HostPlan) -> list[str]:
    """The command line of one host under its supervisor, which in dev also starts the worker."""
    command = [sys.executable, "-P", "-m", "tenured", "supervise", "--worker-modules", ",".join(host.pool.modules)]
    command += ["--", "host", "--name", host.name, "--cluster", plan.cluster_id, "--pool", host.pool.name]
    command += ["--node", host.node, "--profile", plan.profile, "--workers", str(host.pool.workers)]
    for server in plan.servers:
        command += ["--server", f"{server.name}=127.0.0.1:{server.peer_port}"]
        command += ["--frames", f"{server.name}=127.0.0.1:{server.raft_port}"]
        command += ["--enrol", f"127.0.0.1:{server.enrol_port}"]
    command += ["--token", str(secret_file(plan)), "--ca", str(authority_dir(plan) / "ca.crt")]
    command += ["--run", str(plan.directory / host.name), "--exit-deadline", f"{EXIT_DEADLINE_S:g}"]
    command += ["--listen", "127.0.0.1", "--port", str(host.port), "--http-port", str(host.http_port)]
    command += ["--advertise", f"127.0.0.1:{host.port}", "--signals-port", "0"]
    return command


def authority_dir(plan: DevPlan) -> Path:
    """Where the cluster's own authority lies."""
    return plan.directory / "authority"


def secret_file(plan: DevPlan) -> Path:
    """The secret with which hosts enrol, in place of a ServiceAccount token."""
    return plan.directory / "enrol.secret"


def client_dir(plan: DevPlan) -> Path:
    """The client certificate of the command line and of `tenure.connect()`."""
    return plan.directory / "client"
