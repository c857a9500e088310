"""Fixtures: servers of one process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.raft.raft_servers import Servers


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Servers]:
    """Three servers, not started."""
    cluster = Servers(tmp_path, ("a", "b", "c"))
    yield cluster
    for name in list(cluster.running):
        await cluster.kill(name)
    assert not cluster.fatal


@pytest.fixture
def make_servers() -> type[Servers]:
    """For other numbers of servers."""
    return Servers
