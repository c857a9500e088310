"""Three real servers, shared by the tests that break nothing; those that do start their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count

import pytest
from local_servers import LocalServers

from tenure_proto.v1 import registry_pb2
from tenure_proto.v1.registry_pb2_grpc import RegistryStub

Apply = Callable[..., Awaitable[registry_pb2.ApplyAgentsResponse]]
_numbers = count()


@pytest.fixture(scope="session")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalServers]:
    # Calm: on a disk that stands still now and then nobody is elected meanwhile, and no played host loses its lease.
    async with LocalServers(tmp_path_factory.mktemp("servers"), profile="Calm") as running:
        await running.ready()
        await running.declare("default")
        yield running


@pytest.fixture(scope="session")
async def registry(servers: LocalServers) -> RegistryStub:
    """The first server's Registry service, as a client."""
    return servers.registry()


@pytest.fixture
def fresh() -> Callable[[], str]:
    """An agent id that no other test uses."""
    return lambda: f"shop/agent-{next(_numbers)}"
