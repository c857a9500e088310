"""The cluster's own store passes what every storage of the SDK must: on three real servers, a new holder each time."""

from collections.abc import AsyncIterator, Callable
from itertools import count

import pytest
from fake_host import FakeHost
from local_servers import LocalServers
from quorum_storage import QuorumStorage

from tenure.storage import Checkpoint, Storage, StorageError
from tenure.testing import StorageContract
from tenure_proto.v1.registry_pb2_grpc import RegistryStub
from tests.server.test_hosts import create, delete

_hosts = count()


class TestTheStoreOfACluster(StorageContract):
    @pytest.fixture(autouse=True)
    async def agent(
        self, servers: LocalServers, registry: RegistryStub, fresh: Callable[[], str]
    ) -> AsyncIterator[None]:
        name = fresh()
        (self.uid,) = await create(registry, name)
        self.servers, self.made = servers, 0
        yield
        await delete(registry, name)

    async def make(self) -> Storage:
        host = await FakeHost(self.servers, f"keeper-{next(_hosts)}", activates=False).__aenter__()
        self.made += 1
        return await QuorumStorage.open(host, self.uid, written=self.made > 1)

    async def test_a_holder_that_was_succeeded_writes_no_more(self) -> None:
        """It does not know of its successor; the servers do [seal_assigned, sealed]."""
        first = await self.make()
        assert isinstance(first, QuorumStorage)
        await first.put("a", b"one")
        first.host.fall_silent()  # until its lease has ended, and longer
        second = await self.make()
        assert await second.get("a") == Checkpoint(b"one", 1)
        await second.put("a", b"two", expected=1)
        with pytest.raises(StorageError, match=r"epoch \d+ is sealed, this one is 1"):
            await first.put("a", b"of the past")
        assert await second.get("a") == Checkpoint(b"two", 2)
        await first.host.vanish()
        await second.close()
