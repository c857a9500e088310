"""`tenure_cli.ports.Cluster` over the SDK's client."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from tenure._remote import Endpoint, Remote
from tenure_cli.ports import CallResult, Rows
from tenure_proto.v1 import calls_pb2, registry_pb2

ASK_S = 10.0
"""How long a read or a write of the registry may take before the command fails."""


class RemoteCluster:
    """One connection. `remote` is the SDK's, for what only tests and benches need."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.remote = Remote(endpoint)

    async def close(self) -> None:
        """End all streams."""
        await self.remote.close()

    async def status(self) -> registry_pb2.StatusResponse:
        """Who leads, which servers are up."""
        return await self.remote.status(timeout_s=ASK_S)

    async def watch(self) -> AsyncIterator[Rows]:
        """The registry: complete at first, then again after each change."""
        rows, complete = Rows(), False
        async for batch in self.remote.watch(patience_s=ASK_S):
            rows.merge(batch)
            # After a reconnect a snapshot comes again, perhaps in pieces: half of it is shown to nobody.
            complete = (complete and not batch.snapshot) or batch.synced
            if complete:
                yield rows

    async def apply_agents(self, specs: Sequence[registry_pb2.AgentSpec]) -> Sequence[registry_pb2.RowResult]:
        """Create or change agents; one result each, in their order."""
        return await self.remote.apply_agents(specs)

    async def delete_agents(self, ids: Sequence[str]) -> Sequence[registry_pb2.RowResult]:
        """Stop agents and remove them."""
        return await self.remote.delete_agents(ids)

    async def apply_pools(self, pools: Sequence[registry_pb2.PoolSpec]) -> None:
        """Declare the whole set of pools."""
        await self.remote.apply_pools(pools)

    async def call(self, agent: str, method: str, arguments: Mapping[str, Any], timeout_s: float) -> CallResult:
        """Call an action or a query by its name."""
        packed = msgspec.msgpack.encode(arguments)
        reply = await self.remote.call(agent, "by_name", method, packed, timeout_s=timeout_s)
        return CallResult(msgspec.msgpack.decode(reply.value), reply.host, reply.epoch, reply.recorded)

    def logs(self, agent: str, tail: int, *, follow: bool) -> AsyncIterator[calls_pb2.LogLine]:
        """What the agent logged."""
        return self.remote.logs(agent, tail=tail, follow=follow)
