"""Servers that are killed, frozen, stopped and restarted: what was acknowledged is there, and somebody leads."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fake_host import FakeHost
from grpc import aio
from local_servers import LocalServers, until

from tenure_proto.v1 import common_pb2, hostlink_pb2, registry_pb2


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[LocalServers]:
    """Three servers that this test may break."""
    async with LocalServers(tmp_path) as servers:
        await servers.ready()
        await servers.declare("default")
        yield servers


def request(name: str) -> registry_pb2.ApplyAgentsRequest:
    spec = registry_pb2.AgentSpec(**{"id": name, "class": "Counter", "pool": "default", "critical": True})  # type: ignore[arg-type]
    return registry_pb2.ApplyAgentsRequest(
        agents=[spec], managed_by=registry_pb2.MANAGED_BY_API, command_id=f"create {name}"
    )


async def apply_until_decided(servers: LocalServers, through: str, name: str) -> float:
    """Create an agent, again with the same command id while nobody leads; seconds until it was acknowledged."""
    begun = time.perf_counter()
    registry = servers.registry(name=through)

    async def created() -> bool:
        row = (await registry.ApplyAgents(request(name))).results[0]
        return row.outcome == "created"

    await until(created, 15, lambda: f"{name} was not created through {through}")
    return time.perf_counter() - begun


async def known(servers: LocalServers, through: str, names: list[str]) -> bool:
    registry = servers.registry(name=through)
    answers = [await registry.Resolve(registry_pb2.ResolveRequest(agent=name)) for name in names]
    return all(answer.HasField("route") for answer in answers)


async def test_the_leader_is_killed_and_nothing_acknowledged_is_lost(own: LocalServers) -> None:
    names = [f"shop/kept-{number}" for number in range(20)]
    leader = await own.leader()
    through = next(name for name in own.servers if name != leader)
    for name in names:
        await apply_until_decided(own, through, name)
    await own.kill(leader)
    took = await apply_until_decided(own, through, "shop/after-the-kill")
    assert took < 5, f"{took:.2f} s without a leader"
    assert await known(own, through, [*names, "shop/after-the-kill"])
    await own.start(leader)
    await own.ready(leader)
    assert await known(own, leader, [*names, "shop/after-the-kill"])


async def test_all_are_killed_at_once_and_come_back_with_everything(own: LocalServers) -> None:
    leader = await own.leader()
    async with FakeHost(own, "writer", activates=False) as host:
        await apply_until_decided(own, leader, "shop/durable")
        await host.until(lambda: len(host.mine) == 1)
        (uid,) = host.mine
        item = hostlink_pb2.WriteItem(uid=uid, version=common_pb2.Version(epoch=1, seq=1), puts={"state": b"kept"})
        for server in own.servers:
            written = await host.ask(server, write=host.writing(1, [item]))
            assert written.written.items[0].verdict == hostlink_pb2.STORE_VERDICT_OK
        await host.vanish()
    await asyncio.gather(*(own.kill(name) for name in own.servers))
    for name in own.servers:
        await own.start(name)
    await own.ready()
    assert await known(own, leader, ["shop/durable"])
    async with FakeHost(own, "reader", activates=False) as host:
        await host.until(lambda: uid in host.mine)  # the next holder; nobody else may read
        for server in own.servers:
            answers: list[hostlink_pb2.Record] = []

            async def readable(server: str = server, answers: list[hostlink_pb2.Record] = answers) -> bool:
                """It may not know yet whom the agent is assigned to: then it refuses, and is asked again."""
                answers += (await host.ask(server, read=host.reading(1, [uid]))).records.items
                return bool(answers)

            await until(readable, 10, lambda: "its record is not to be read")
            assert dict(answers[0].entries) == {"state": b"kept"}


async def test_sigterm_hands_leadership_over_and_ends_with_status_zero(own: LocalServers) -> None:
    leader = await own.leader()
    through = next(name for name in own.servers if name != leader)
    begun = time.perf_counter()
    assert await own.terminate(leader) == 0
    assert time.perf_counter() - begun < 5
    took = await apply_until_decided(own, through, "shop/after-the-stop")
    assert took < 1, f"{took:.2f} s: the leadership was not handed over"


async def test_a_frozen_leader_is_replaced_and_follows_when_it_thaws(own: LocalServers) -> None:
    leader = await own.leader()
    through = next(name for name in own.servers if name != leader)
    own.freeze(leader)
    await apply_until_decided(own, through, "shop/meanwhile")
    own.thaw(leader)
    await own.ready(leader)
    assert await known(own, leader, ["shop/meanwhile"])
    assert await own.leader() != leader


async def test_a_minority_decides_nothing_and_says_so(own: LocalServers) -> None:
    names = list(own.servers)
    await own.kill(names[1])
    await own.kill(names[2])
    answer = await own.registry(name=names[0]).ApplyAgents(request("shop/alone"), timeout=30)
    row = answer.results[0]
    assert (row.outcome, row.error.code, row.error.retryable) == ("refused", "NoQuorum", True)

    async def not_ready() -> bool:
        return (await own.http(names[0], "/readyz"))[0] == 503

    await until(not_ready, 10)
    assert (await own.http(names[0], "/livez"))[0] == 200


async def test_a_server_refuses_to_start_on_what_is_not_its_own(own: LocalServers) -> None:
    first, second, third = own.servers.values()
    await own.kill(first.name)
    shutil.rmtree(first.directory / "data" / "raft")
    await own.start(first.name)
    assert first.process is not None
    assert await first.process.wait() == 1
    assert "holds a state store but no Raft log" in first.log
    await own.kill(second.name)
    for name in ("tls.crt", "tls.key"):
        shutil.copy(third.directory / "tls" / name, second.directory / "tls" / name)
    await own.start(second.name)
    assert second.process is not None
    assert await second.process.wait() == 1
    assert "The certificate in" in second.log
    assert "this is server demo-server-1" in second.log


async def rest(stream: AsyncIterator[registry_pb2.WatchBatch]) -> None:
    """Read a watch to its end."""
    async for _ in stream:
        pass


async def test_a_watch_is_resumed_at_another_server(own: LocalServers) -> None:
    leader = await own.leader()
    await apply_until_decided(own, leader, "shop/first")
    names = list(own.servers)
    revision = 0
    stream = own.registry(name=names[0]).Watch(registry_pb2.WatchRequest())
    async for batch in stream:
        revision = max(revision, batch.revision)
        if batch.synced:
            break
    await own.kill(names[0])
    with pytest.raises(aio.AioRpcError):
        await rest(stream)
    await apply_until_decided(own, names[1], "shop/second")
    resumed = own.registry(name=names[1]).Watch(registry_pb2.WatchRequest(from_revision=revision))
    async with asyncio.timeout(10):
        async for batch in resumed:
            assert not batch.snapshot
            if any(row.spec.id == "shop/second" for row in batch.agents):
                break
    resumed.cancel()
