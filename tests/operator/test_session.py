"""The conversation with a cluster's servers, without servers."""

import asyncio
from collections.abc import AsyncIterator

from tenure_operator.registry.session import Session
from tenure_operator.registry.values import Batch, ClusterState, RegistryError


class Failing:
    """Servers whose streams fail in the moment in which they are given up, as gRPC's may."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.closed = False

    async def watch(self, revision: int) -> AsyncIterator[Batch]:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RegistryError("the stream was removed") from None
        yield Batch()

    async def status(self) -> ClusterState:
        return ClusterState(leader="", term=0, servers=(), quorum_ready=0)

    async def close(self) -> None:
        self.closed = True


async def test_a_conversation_that_fails_while_it_is_given_up_ends() -> None:
    """Else the operator could not end, and a cluster that was deleted would be asked for ever."""
    servers = Failing()
    task = asyncio.create_task(Session(lambda: servers, lambda _: None).run())  # type: ignore[arg-type, return-value]
    await servers.asked.wait()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=10)
    try:
        assert done, "it goes on"
        assert task.cancelled()
        assert servers.closed
    finally:
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
