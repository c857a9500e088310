"""Keeps the mirror: one watch of any server, resumed by revision, from another server when it is lost.

It comes on the link to that server; by a stream of gRPC from one that is older, or where there is no link.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from tenure_api.identity import Identity, Role
from tenure_proto.v1.registry_pb2 import WatchBatch, WatchRequest
from tenured.host.mirror import Mirror
from tenured.transport.backoff import Reconnect
from tenured.transport.errors import TransportError
from tenured.transport.registry import watch
from tenured.transport.serverlinks import ServerLinks
from tenured.transport.tls import TlsFiles

LINK_S = 1.0
"""How long a link to the server may take to stand, before it is asked by gRPC."""

log = logging.getLogger("tenured.host.watch")

SILENCE_LIMIT_S = 12.0
"""A server says that it is alive every 5 s; a watch without a word for so long hangs: ask another server."""


class Watcher:
    """Follows the registry for as long as it runs."""

    def __init__(
        self,
        cluster: str,
        servers: Mapping[str, str],
        files: TlsFiles,
        mirror: Mirror,
        on_batch: Callable[[WatchBatch], None],
        links: ServerLinks | None = None,
    ) -> None:
        self._cluster = cluster
        self._servers = list(servers.items())
        self._files = files
        self._mirror = mirror
        self._on_batch = on_batch
        self._links = links

    async def run(self, first: str | None = None) -> None:
        """Runs until cancelled. `first`: the server to begin with."""
        turn = next((i for i, (name, _) in enumerate(self._servers) if name == first), 0)
        reconnect = Reconnect()
        said = ""
        while True:
            name, address = self._servers[turn % len(self._servers)]
            turn += 1
            try:
                await self._follow(name, address, reconnect)
            except (TransportError, TimeoutError) as error:
                text = f"watch of {name}: {error or 'silent'}"
                if text != said:
                    log.info("%s", text)
                said = text
            await reconnect.pause()

    async def _follow(self, name: str, address: str, reconnect: Reconnect) -> None:
        request = WatchRequest(
            from_revision=self._mirror.revision if self._mirror.synced else 0, kinds=["agents", "hosts"]
        )
        links = self._links
        if links is not None and await links.reached(name, LINK_S) and links.watches(name):
            stream = links.watch(name, request)
        else:
            expected = Identity(self._cluster, Role.SERVER, name).dns_name
            stream = watch(address, expected, self._files, request)
        async with contextlib.aclosing(stream):
            while True:
                async with asyncio.timeout(SILENCE_LIMIT_S):
                    batch = await anext(stream, None)
                if batch is None:
                    return
                reconnect.succeeded()
                self._on_batch(batch)
