"""Which way a host follows the registry: on its link to the server, or by a stream of gRPC of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import pytest

from tenure_proto.v1.registry_pb2 import WatchBatch, WatchRequest
from tenured.host import watching
from tenured.host.mirror import Mirror
from tenured.host.watching import Watcher
from tenured.transport.serverlinks import ServerLinks
from tenured.transport.tls import TlsFiles

SERVERS = {"s0": "s0:7444", "s1": "s1:7444"}


class Links:
    """Links that stand, to servers of which some serve a watch there."""

    def __init__(self, *serving: str, standing: bool = True) -> None:
        self.serving, self.standing = serving, standing
        self.asked: list[tuple[str, int]] = []

    async def reached(self, server: str, within_s: float) -> bool:
        return self.standing

    def watches(self, server: str) -> bool:
        return server in self.serving

    async def watch(self, server: str, request: WatchRequest) -> AsyncGenerator[WatchBatch]:
        self.asked.append((server, request.from_revision))
        revision = request.from_revision + 1
        yield WatchBatch(revision=revision, snapshot=not request.from_revision, synced=True)


class Grpc:
    """Streams of gRPC, in the place of the real ones."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def watch(
        self, address: str, expected: str, files: TlsFiles, request: WatchRequest
    ) -> AsyncGenerator[WatchBatch]:
        self.asked.append(address)
        yield WatchBatch(revision=request.from_revision + 1, snapshot=not request.from_revision, synced=True)


@pytest.fixture
def grpc(monkeypatch: pytest.MonkeyPatch) -> Grpc:
    played = Grpc()
    monkeypatch.setattr(watching, "watch", played.watch)
    return played


async def followed(links: Links, revision: int) -> Mirror:
    """Follow until a revision is there; each played stream ends after a batch."""
    mirror, reached = Mirror("me"), asyncio.Event()

    def came(batch: WatchBatch) -> None:
        mirror.apply(batch)
        if mirror.revision >= revision:
            reached.set()

    watcher = Watcher("demo.shop", SERVERS, TlsFiles(Path("/nowhere")), mirror, came, cast("ServerLinks", links))
    task = asyncio.create_task(watcher.run())
    async with asyncio.timeout(10):
        await reached.wait()
    task.cancel()
    await asyncio.wait([task])
    return mirror


async def test_the_watch_goes_on_the_link_and_resumes_at_the_next_server(grpc: Grpc) -> None:
    links = Links("s0", "s1")
    await followed(links, 3)
    assert links.asked == [("s0", 0), ("s1", 1), ("s0", 2)]
    assert grpc.asked == []


async def test_an_older_server_is_followed_by_grpc(grpc: Grpc) -> None:
    """It may be the only one that is there."""
    links = Links("s1")
    await followed(links, 2)
    assert (links.asked, grpc.asked) == ([("s1", 1)], ["s0:7444"])


async def test_a_server_to_which_no_link_stands_is_followed_by_grpc(grpc: Grpc) -> None:
    await followed(Links("s0", "s1", standing=False), 1)
    assert grpc.asked == ["s0:7444"]
