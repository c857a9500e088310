"""Our side of `bench.raft`: three `tenured server` processes, and a host that is nothing but its lease.

The rows that are written belong to agents that this host holds: a registry whose agents all wait for a host makes the
leader plan at every change, which is not what is measured here.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import msgspec
from grpc import aio

from bench.harness import NAMESPACE, say
from tenure_api import identity
from tenure_api.identity import Identity, Role
from tenure_cli.dev import plan as planning
from tenure_cli.dev.cluster import DevCluster, Options
from tenure_proto.v1 import hostlink_pb2, registry_pb2
from tenure_proto.v1.registry_pb2_grpc import RegistryStub
from tenured.transport.serverlinks import LinkEvents, ServerLinks
from tenured.transport.tls import TlsFiles, open_channel

CLUSTER = "bench"
HOST = "bench-host"
POOL = "default"
BEAT_S = 0.25
START_S = 30.0
AGENTS = 640
VALUE_BYTES = 256


def _no_news(*_: object) -> None:
    """What the links tell is of no interest."""


def boot_ns() -> int:
    """As hosts stamp their heartbeats."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def agent_spec(number: int, filler: bytes = b"") -> registry_pb2.AgentSpec:
    """The row of one agent; `filler` is what changes."""
    spec = registry_pb2.AgentSpec(
        id=f"{NAMESPACE}/agent-{number}", pool=POOL, config=msgspec.msgpack.encode({"v": filler}), cpu_milli=1,
        memory_bytes=1, strategy="LoadBalanced",
    )  # fmt: skip
    setattr(spec, "class", "Bench")
    return spec


def apply_request(number: int, serial: int) -> registry_pb2.ApplyAgentsRequest:
    """One row, changed: VALUE_BYTES that were never there."""
    filler = serial.to_bytes(8, "big") * (VALUE_BYTES // 8)
    return registry_pb2.ApplyAgentsRequest(agents=[agent_spec(number, filler)], managed_by=registry_pb2.MANAGED_BY_API)


class Servers:
    """A running cluster without hosts, and how to reach it."""

    def __init__(self, cluster: DevCluster) -> None:
        self.cluster = cluster
        self.id = identity.cluster_id(NAMESPACE, CLUSTER)
        self.files = TlsFiles(planning.client_dir(cluster.plan))

    @property
    def names(self) -> list[str]:
        """All servers."""
        return [server.name for server in self.cluster.plan.servers]

    def address(self, name: str) -> str:
        """Of its API."""
        return next(f"127.0.0.1:{s.api_port}" for s in self.cluster.plan.servers if s.name == name)

    def framed(self, name: str) -> tuple[str, str]:
        """Address of its framed TLS, and the DNS name that is expected there."""
        port = next(s.raft_port for s in self.cluster.plan.servers if s.name == name)
        return f"127.0.0.1:{port}", Identity(self.id, Role.SERVER, name).dns_name

    def aio_channel(self, name: str) -> aio.Channel:
        """A channel for asyncio."""
        return open_channel(self.address(name), Identity(self.id, Role.SERVER, name).dns_name, self.files)

    def channel(self, name: str) -> grpc.Channel:
        """A synchronous one."""
        files = self.files.read()
        options = [
            ("grpc.ssl_target_name_override", Identity(self.id, Role.SERVER, name).dns_name),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 100),
            ("grpc.enable_http_proxy", 0),
        ]
        credentials = grpc.ssl_channel_credentials(files.authority, files.key, files.certificate)
        return grpc.secure_channel(self.address(name), credentials, options)

    async def leader(self, within_s: float = START_S) -> str:
        """The server that all three call their leader, all caught up."""
        end = time.monotonic() + within_s
        channels = {name: self.aio_channel(name) for name in self.names}
        try:
            while time.monotonic() < end:
                found: set[str] = set()
                try:
                    for name in self.names:
                        stub = RegistryStub(channels[name])
                        status = await stub.Status(registry_pb2.StatusRequest(), timeout=1)
                        found.add(status.leader if status.quorum_ready == 3 else "")
                except aio.AioRpcError:
                    found.clear()
                if len(found) == 1 and (leader := found.pop()):
                    return leader
                await asyncio.sleep(0.05)
        finally:
            for channel in channels.values():
                await channel.close()
        raise SystemExit(f"the servers have no leader after {within_s:g} s: {self.cluster.options.directory}/logs")


class FakeHost:
    """Registered, ready for one class, heartbeating; says of what is assigned to it that it is Ready; runs nothing."""

    def __init__(self, servers: Servers) -> None:
        files = _issue(servers, Role.HOST, HOST)
        plan = servers.cluster.plan
        addresses = {server.name: f"127.0.0.1:{server.peer_port}" for server in plan.servers}
        self._incarnation = f"bench-{boot_ns()}"
        self._assigned: asyncio.Queue[hostlink_pb2.Assigned] = asyncio.Queue()
        events = LinkEvents(_no_news, _no_news, _no_news, _no_news, self._assigned.put_nowait)
        self._links = ServerLinks(servers.id, addresses, files, events)
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Register and say that the class is there."""
        await self._links.start()
        while self._links.leader not in self._links.connected:  # noqa: ASYNC110 - it is not told
            await asyncio.sleep(0.05)
        register = hostlink_pb2.RegisterHost(
            host=HOST, incarnation=self._incarnation, pool=POOL, node="node", address="127.0.0.1:1", version="bench",
            cpu_milli=1_000_000, memory_bytes=1 << 40,
        )  # fmt: skip
        await self._ask(hostlink_pb2.HostFrame(register=register))
        self._beating = asyncio.create_task(self._beat())
        info = registry_pb2.ClassInfo(name="Bench", version=1)
        await self._ask(
            hostlink_pb2.HostFrame(
                report_host=hostlink_pb2.ReportHost(incarnation=self._incarnation, ready=True, classes=[info])
            )
        )

    async def settle(self, agents: int) -> None:
        """Report so many as Ready: of what has not begun the leader tells the holder at every change of its row."""
        ready: set[str] = set()
        while len(ready) < agents:
            rows = (await self._assigned.get()).agents
            reports = [hostlink_pb2.AgentReport(uid=row.uid, epoch=row.epoch, ready=True) for row in rows]
            told = hostlink_pb2.AgentReports(incarnation=self._incarnation, reports=reports)
            await self._ask(hostlink_pb2.HostFrame(agent_reports=told))
            ready.update(row.uid for row in rows)

    async def stop(self) -> None:
        """Fall silent."""
        if self._beating is not None:
            self._beating.cancel()
        await self._links.stop()

    async def _ask(self, frame: hostlink_pb2.HostFrame) -> None:
        answer = await self._links.request(str(self._links.leader), frame, 10)
        if not answer.result.ok:
            raise SystemExit(f"the bench's host was refused: {answer.result.error.message}")

    async def _beat(self) -> None:
        while True:
            self._links.heartbeat(hostlink_pb2.Heartbeat(incarnation=self._incarnation, sent_at_ns=boot_ns()))
            await asyncio.sleep(BEAT_S)


def _issue(servers: Servers, role: Role, holder: str) -> TlsFiles:
    plan = servers.cluster.plan
    lies = planning.authority_dir(plan)
    authority = identity.load_authority((lies / "ca.crt").read_bytes(), (lies / "ca.key").read_bytes())
    issued = identity.issue_with_key(authority, role, holder)
    directory = plan.directory / "bench-tls" / holder
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ca.crt").write_bytes(authority.certificate_pem)
    (directory / "tls.crt").write_bytes(issued.certificate_pem)
    (directory / "tls.key").write_bytes(issued.key_pem)
    return TlsFiles(directory)


@asynccontextmanager
async def running(directory: Path, *, log: bool = False) -> AsyncGenerator[Servers]:
    """Three servers with a leader, and AGENTS agents, all held by the fake host."""

    def sink(name: str, line: str) -> None:
        if log:
            say(f"{name} {line}")

    async with DevCluster(Options(directory, NAMESPACE, CLUSTER, pools=()), sink) as cluster:
        servers = Servers(cluster)
        async with servers.aio_channel(await servers.leader()) as channel:
            stub = RegistryStub(channel)
            await stub.ApplyCluster(registry_pb2.ApplyClusterRequest(pools=[registry_pb2.PoolSpec(name=POOL)]))
            host = FakeHost(servers)
            await host.start()
            for start in range(0, AGENTS, 200):
                specs = [agent_spec(number) for number in range(start, min(AGENTS, start + 200))]
                await stub.ApplyAgents(
                    registry_pb2.ApplyAgentsRequest(agents=specs, managed_by=registry_pb2.MANAGED_BY_API)
                )
            await host.settle(AGENTS)
        say("the servers run")
        try:
            yield servers
        finally:
            await host.stop()
