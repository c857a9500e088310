"""What tests of `tenure._remote` share: a client of the played cluster, and a call by it."""

import contextlib
from collections.abc import AsyncIterator

import msgspec
from sdk_cluster import FakeCluster

from tenure._remote import Remote

AGENT = "shop/c"


@contextlib.asynccontextmanager
async def client(cluster: FakeCluster, **options: bool) -> AsyncIterator[Remote]:
    async with Remote(cluster.endpoint(**options), timeout_s=10) as remote:
        yield remote


async def call(remote: Remote, timeout_s: float | None = None, agent: str = AGENT) -> object:
    packed = msgspec.msgpack.encode({"by": 2})
    return msgspec.msgpack.decode((await remote.call(agent, "action", "increment", packed, timeout_s=timeout_s)).value)
