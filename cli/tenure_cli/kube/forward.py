"""A port-forward to a server pod that is opened again, on the same local ports, when it is lost.

The ports stay the same so that the gRPC channel reconnects by itself and repeats its calls with the same call ids.
"""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from tenure_cli.dev.ports import free_ports
from tenure_cli.errors import CliError
from tenure_cli.kube.discovery import ClusterRef
from tenure_cli.kube.kubectl import Kubectl
from tenure_cli.kube.tunnel import Ports, Tunnel, first_that_answers

PROBE_EVERY_S = 2.0
PROBES_LOST = 2
REOPEN_S = 0.3


class Forward:
    """Local ports that lead to one of the cluster's servers."""

    def __init__(self, kubectl: Kubectl, cluster: ClusterRef, servers: Callable[[], Awaitable[list[str]]]) -> None:
        self._kubectl = kubectl
        self._cluster = cluster
        self._servers = servers
        self._tunnel: Tunnel | None = None
        self._ports: Ports | None = None
        self.reopened = asyncio.Event()
        """Set once it has been lost and opened again."""
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pod(self) -> str:
        """The server that it leads to, or led to last."""
        return self._tunnel.pod if self._tunnel is not None else ""

    @property
    def ports(self) -> Ports:
        """Local ports for API and enrolment; they stay. Raises RuntimeError before it was opened."""
        if self._ports is None:
            raise RuntimeError("the port-forward has not been opened")
        return self._ports

    async def __aenter__(self) -> Self:
        self._tunnel = await self._find(await self._servers(), None)
        self._ports = self._tunnel.ports
        self._keeper = asyncio.create_task(self._keep(), name="keep the port-forward")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._tunnel is not None:
            await self._tunnel.close()

    async def _find(self, pods: Sequence[str], wanted: Ports | None) -> Tunnel:
        """A tunnel to a server that answers. The first one tried gets the wanted ports. Raises CliError."""
        makers = [
            functools.partial(self._made, pod, wanted if number == 0 else None) for number, pod in enumerate(pods)
        ]
        return await first_that_answers(makers)

    def _made(self, pod: str, ports: Ports | None) -> Tunnel:
        if ports is None:
            api, enrol = free_ports(2)
            ports = api, enrol
        return Tunnel(self._kubectl, self._cluster.namespace, pod, ports)

    async def _keep(self) -> None:
        while True:
            await self._lost()
            await self._reopen()

    async def _reopen(self) -> None:
        while True:
            try:
                self._tunnel = await self._found_again()
            except CliError:
                await asyncio.sleep(REOPEN_S)
            else:
                self.reopened.set()
                return

    async def _found_again(self) -> Tunnel:
        """The one that was lost comes last: the API server may call a dead node's pod Ready for a while."""
        before = self.pod
        pods = sorted(await self._servers(), key=lambda name: name == before)
        found = await self._find(pods, self.ports)
        if found.ports == self.ports:
            return found
        await found.close()  # a later one answered, on other ports
        moved = self._made(found.pod, self.ports)
        try:
            await moved.open()
        except BaseException:
            await moved.close()
            raise
        return moved

    async def _lost(self) -> None:
        """Return when kubectl ends, or when the server behind the forward stops answering TLS; then it is closed."""
        tunnel = self._tunnel
        if tunnel is None:
            return
        ended = asyncio.create_task(tunnel.ended())
        missed = 0
        try:
            while missed < PROBES_LOST:
                await asyncio.wait([ended], timeout=PROBE_EVERY_S)
                if ended.done():
                    return
                missed = 0 if await tunnel.answers() else missed + 1
        finally:
            ended.cancel()
            await tunnel.close()
