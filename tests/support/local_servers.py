"""Servers of a cluster as real processes on loopback, with mTLS.

Example: `async with LocalServers(directory) as servers: await servers.ready()`. `servers.registry("client")` is a stub
of the Registry service of the first one, as that role.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from grpc import aio

from tenure._remote import Remote, from_tls_directory
from tenure_api import identity
from tenure_api.identity import Authority, Identity, Role
from tenure_proto.v1 import registry_pb2
from tenure_proto.v1.registry_pb2_grpc import RegistryStub
from tenured.transport.tls import TlsFiles, open_channel

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a secret for tests"
ROOTS = ("operator", "daemon", "sdk", "api", "cli", "proto/gen")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, below the kernel's ephemeral range: no outgoing connection takes one of them
    before (or between two lives of) the process that it is for.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(range(12_000, 32_000), 2_000):
        if len(found) == count:
            break
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


@dataclass
class ServerProcess:
    """One server: its addresses, and its process while it runs."""

    name: str
    directory: Path
    api_port: int
    peer_port: int
    raft_port: int
    enrol_port: int
    http_port: int
    process: asyncio.subprocess.Process | None = None

    @property
    def api(self) -> str:
        return f"127.0.0.1:{self.api_port}"

    @property
    def peer(self) -> str:
        return f"127.0.0.1:{self.peer_port}"

    @property
    def enrol(self) -> str:
        return f"127.0.0.1:{self.enrol_port}"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()


@dataclass
class LocalServers:
    """A cluster's servers. `directory` keeps everything; give a new one to each cluster."""

    directory: Path
    count: int = 3
    cluster: str = "demo.shop"
    profile: str = "Fast"
    program: tuple[str, ...] = ("-m", "tenured")
    extra: tuple[str, ...] = ()
    servers: dict[str, ServerProcess] = field(default_factory=dict[str, ServerProcess])
    channels: list[aio.Channel] = field(default_factory=list[aio.Channel])

    def __post_init__(self) -> None:
        self.authority: Authority = identity.make_authority(self.cluster)
        self.authority_directory = self.directory / "authority"
        self.authority_directory.mkdir(parents=True)
        (self.authority_directory / "ca.crt").write_bytes(self.authority.certificate_pem)
        (self.authority_directory / "ca.key").write_bytes(self.authority.key_pem)
        self.secret_file = self.directory / "secret"
        self.secret_file.write_text(SECRET)
        ports = iter(free_ports(5 * self.count))
        for number in range(self.count):
            name = f"demo-server-{number}"
            directory = self.directory / name
            self.tls("server", name, directory / "tls")
            self.servers[name] = ServerProcess(name, directory, *(next(ports) for _ in range(5)))

    def tls(self, role: str, holder: str, directory: Path | None = None) -> TlsFiles:
        """A certificate of this cluster's authority, on disk."""
        directory = directory or self.directory / "tls" / role / holder
        if not (directory / "tls.crt").exists():
            directory.mkdir(parents=True)
            issued = identity.issue_with_key(self.authority, Role(role), holder)
            (directory / "ca.crt").write_bytes(self.authority.certificate_pem)
            (directory / "tls.crt").write_bytes(issued.certificate_pem)
            (directory / "tls.key").write_bytes(issued.key_pem)
        return TlsFiles(directory)

    # --- processes ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        for name in self.servers:
            await self.start(name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self.channels:
            await channel.close()
        for server in self.servers.values():
            if server.process is not None and server.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    server.process.send_signal(signal.SIGCONT)
                    server.process.kill()
                await server.process.wait()

    def arguments(self, name: str) -> list[str]:
        """The command line of one server, without the program."""
        server = self.servers[name]
        flags = ["server", "--name", name, "--cluster", identity.slashed(self.cluster), "--listen", "127.0.0.1"]
        for other in self.servers.values():
            flags += ["--peer", f"{other.name}={other.peer}", "--api-address", f"{other.name}={other.api}"]
        flags += ["--data", str(server.directory / "data"), "--tls", str(server.directory / "tls")]
        flags += ["--authority", str(self.authority_directory), "--enrolment", f"secret:{self.secret_file}"]
        flags += ["--profile", self.profile, "--api-port", str(server.api_port), "--peer-port", str(server.peer_port)]
        for other in self.servers.values():
            flags += ["--raft-peer", f"{other.name}=127.0.0.1:{other.raft_port}"]
        flags += ["--raft-port", str(server.raft_port)]
        return [*flags, "--enrol-port", str(server.enrol_port), "--http-port", str(server.http_port), *self.extra]

    def environment(self, name: str) -> dict[str, str]:
        """Variables of one server's process, beside those of this one."""
        return {}

    async def start(self, name: str) -> None:
        """Start one server's process; its log is appended to `log` in its directory."""
        server = self.servers[name]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ROOTS)}
        environment |= self.environment(name)
        with (server.directory / "log").open("ab") as log:
            server.process = await asyncio.create_subprocess_exec(
                sys.executable, *self.program, *self.arguments(name), stderr=log, stdout=log, env=environment
            )

    async def kill(self, name: str) -> None:
        """kill -9, and wait until it is gone."""
        process = self._process(name)
        process.kill()
        await process.wait()

    async def terminate(self, name: str) -> int:
        """SIGTERM, and the exit status."""
        process = self._process(name)
        process.terminate()
        async with asyncio.timeout(15):
            return await process.wait()

    def freeze(self, name: str) -> None:
        """SIGSTOP: silence without a reset."""
        self._process(name).send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self._process(name).send_signal(signal.SIGCONT)

    def _process(self, name: str) -> asyncio.subprocess.Process:
        process = self.servers[name].process
        assert process is not None, f"{name} was not started"
        return process

    # --- what they say --------------------------------------------------------------------------------------------

    async def ready(self, *names: str, within_s: float = 20) -> None:
        """Wait until these servers (all of them, if none is named) answer /readyz with 200."""
        for name in names or tuple(self.servers):

            async def answers(name: str = name) -> bool:
                return (await self.http(name, "/readyz"))[0] == 200

            await until(answers, within_s, lambda name=name: f"{name} is not ready:\n{self.servers[name].log}")

    async def http(self, name: str, path: str) -> tuple[int, str]:
        """Status and text of a GET; (0, reason) when nobody answers."""
        url = f"http://127.0.0.1:{self.servers[name].http_port}{path}"

        def get() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(url, timeout=2) as response:
                    return response.status, response.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()
            except OSError as error:
                return 0, str(error)

        return await asyncio.to_thread(get)

    def registry(self, role: str = "client", name: str | None = None, holder: str = "tester") -> RegistryStub:
        """A stub of the Registry service of one server (the first), as that role."""
        server = self.servers[name or next(iter(self.servers))]
        expected = Identity(self.cluster, Role.SERVER, server.name).dns_name
        channel = open_channel(server.api, expected, self.tls(role, holder))
        self.channels.append(channel)
        return RegistryStub(channel)

    async def declare(self, *pools: str, within_s: float = 20) -> None:
        """Make these the cluster's pools, as its operator; asked again while they elect, as every client does."""
        endpoints = tuple(server.api for server in self.servers.values())
        files = self.tls("operator", "tester").directory
        async with Remote(from_tls_directory(identity.slashed(self.cluster), endpoints, files)) as remote:
            await remote.apply_pools([registry_pb2.PoolSpec(name=pool) for pool in pools], timeout_s=within_s)

    async def leader(self, within_s: float = 10) -> str:
        """Name of the server that all running ones call their leader."""
        found: set[str] = set()

        async def agreed() -> bool:
            found.clear()
            for server in self.servers.values():
                if server.process is not None and server.process.returncode is None:
                    try:
                        status = await self.registry(name=server.name).Status(registry_pb2.StatusRequest())
                    except aio.AioRpcError as error:  # it is starting, or the handshake was cut short
                        found.add(f"{server.name}: {error.details()}")
                        return False
                    found.add(status.leader)
            return len(found) == 1 and "" not in found

        await until(agreed, within_s, lambda: f"no leader: {found}")
        return found.pop()


async def until(
    condition: Callable[[], Awaitable[bool]], within_s: float, why: Callable[[], str] = lambda: "it did not happen"
) -> None:
    """Wait for something outside this process, which cannot be awaited: looks every 20 ms."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not await condition():
        assert loop.time() < end, why()
        await asyncio.sleep(0.02)


async def batches(
    stream: AsyncIterator[registry_pb2.WatchBatch], within_s: float = 10
) -> AsyncIterator[registry_pb2.WatchBatch]:
    """A watch with a time limit for each batch."""
    while True:
        async with asyncio.timeout(within_s):
            yield await anext(stream)
