"""Real servers that these tests may break, and clients that write down what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from local_servers import LocalServers
from peer_proxies import ProxiedServers
from registry_history import Load

from tools.judge import Verdict, judge


async def _pool(servers: LocalServers) -> None:
    await servers.ready()
    await servers.declare("default")


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[LocalServers]:
    """Three servers."""
    async with LocalServers(tmp_path) as servers:
        await _pool(servers)
        yield servers


@pytest.fixture
async def proxied(tmp_path: Path) -> AsyncIterator[ProxiedServers]:
    """Three servers whose streams to each other can be cut."""
    servers = ProxiedServers(tmp_path)
    async with servers:
        await _pool(servers)
        yield servers
        servers.heal()
    await servers.stop_lines()


async def settle(servers: LocalServers, load: Load) -> Verdict:
    """Everybody is up: end the load, read everything everywhere, and ask the judge."""
    for name, server in servers.servers.items():
        if server.process is None or server.process.returncode is not None:
            await servers.start(name)
    await servers.ready()
    await load.stop()
    assert await load.look() == [], "servers differ"
    assert not load.surprises
    verdict = await asyncio.to_thread(judge, load.history)
    for operation in sorted(load.history, key=lambda operation: operation.call):
        if operation.key in verdict.bad:
            print(operation)
    return verdict


@pytest.fixture
def settled() -> type[None]:
    """`await settled(servers, load)`: the verdict."""
    return settle  # type: ignore[return-value]


@pytest.fixture
def make_load() -> type[Load]:
    """Load(servers, seed=...)."""
    return Load
