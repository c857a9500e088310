"""A port-forward to a server pod that is opened again, on the same local ports, when it is lost.

The ports stay the same so that the gRPC channel reconnects by itself and repeats its calls with the same call ids.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from tenure_cli.dev.ports import free_ports
from tenure_cli.errors import CliError
from tenure_cli.kube.discovery import ClusterRef
from tenure_cli.kube.kubectl import Kubectl, explain

API_PORT = 7443
ENROL_PORT = 7446
OPEN_S = 10.0
PROBE_EVERY_S = 2.0
PROBE_TIMEOUT_S = 2.0
PROBES_LOST = 2
REOPEN_S = 0.3


class Forward:
    """Local ports that lead to one of the cluster's servers."""

    def __init__(self, kubectl: Kubectl, cluster: ClusterRef, servers: Callable[[], Awaitable[list[str]]]) -> None:
        self._kubectl = kubectl
        self._cluster = cluster
        self._servers = servers
        self.api_port, self.enrol_port = free_ports(2)
        self.pod = ""
        """The server that it leads to now."""
        self.reopened = asyncio.Event()
        """Set once it has been lost and opened again."""
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._open(await self._servers())
        self._keeper = asyncio.create_task(self._keep(), name="keep the port-forward")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self._close()

    async def _open(self, servers: list[str]) -> None:
        """Raises CliError, the last one's, when kubectl can forward to none of them."""
        for name in servers[:-1]:
            with contextlib.suppress(CliError):
                await self._open_one(name)
                return
        await self._open_one(servers[-1])

    async def _open_one(self, pod: str) -> None:
        self.pod = pod
        command = self._kubectl.command(
            "port-forward", "-n", self._cluster.namespace, "--address", "127.0.0.1", f"pod/{self.pod}",
            f"{self.api_port}:{API_PORT}", f"{self.enrol_port}:{ENROL_PORT}",
        )  # fmt: skip
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(OPEN_S):
                await self._opened(self._process)
        except TimeoutError:
            await self._close()
            raise CliError(
                f"kubectl port-forward to {self.pod} did not open within {OPEN_S:g} s.",
                f"Check `kubectl get pod -n {self._cluster.namespace} {self.pod}`.",
            ) from None

    async def _opened(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None or process.stderr is None:
            raise RuntimeError("kubectl was started without pipes")
        for _ in range(2):  # one line for each port
            if not await process.stdout.readline():
                stderr = (await process.stderr.read()).decode(errors="replace")
                await process.wait()
                self._process = None
                raise explain(stderr, self._kubectl.context, ("port-forward",))

    async def _keep(self) -> None:
        while True:
            await self._lost()
            await self._close()
            await self._reopen()

    async def _reopen(self) -> None:
        while True:
            before = self.pod
            try:
                servers = await self._servers()
                # The one that was lost comes last: the API server may call a dead node's pod Ready for a while.
                await self._open(sorted(servers, key=lambda name: name == before))
            except CliError:
                await self._close()
                await asyncio.sleep(REOPEN_S)
            else:
                self.reopened.set()
                return

    async def _lost(self) -> None:
        """Returns when kubectl ends, or when the server behind the forward stops answering TLS."""
        if self._process is None:
            return
        ended = asyncio.create_task(self._process.wait())
        drains = [asyncio.create_task(_drain(stream)) for stream in (self._process.stdout, self._process.stderr)]
        missed = 0
        try:
            while missed < PROBES_LOST:
                await asyncio.wait([ended], timeout=PROBE_EVERY_S)
                if ended.done():
                    return
                missed = 0 if await _answers(self.enrol_port) else missed + 1
        finally:
            for task in (ended, *drains):
                task.cancel()

    async def _close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._process = None


async def _drain(stream: asyncio.StreamReader | None) -> None:
    while stream is not None and await stream.read(65536):
        pass


async def _answers(port: int) -> bool:
    """Whether a TLS handshake completes. Nothing is sent and nothing believed: is anybody there?"""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=anybody)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
