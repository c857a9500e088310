"""A server's disk is replaced while the cluster works (protocol 2, rejoin 1 to 4), over real processes."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fake_host import FakeHost
from local_servers import LocalServers, until

from tenure_proto.v1 import common_pb2, hostlink_pb2, registry_pb2

OK = hostlink_pb2.STORE_VERDICT_OK
WAIT_S = 60.0


async def begun(directory: Path, count: int) -> LocalServers:
    servers = LocalServers(directory, count=count, profile="Calm")  # what holds the records is not to lose its lease
    await servers.__aenter__()
    await servers.ready(within_s=WAIT_S)
    await servers.declare("default")
    return servers


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[LocalServers]:
    servers = await begun(tmp_path, 3)
    yield servers
    await servers.__aexit__(None, None, None)


@pytest.fixture
async def five(tmp_path: Path) -> AsyncIterator[LocalServers]:
    servers = await begun(tmp_path, 5)
    yield servers
    await servers.__aexit__(None, None, None)


async def wipe(servers: LocalServers, name: str) -> None:
    """kill -9, and the volume is gone."""
    await servers.kill(name)
    shutil.rmtree(servers.servers[name].directory / "data")


def spoil(servers: LocalServers, name: str, by: int) -> None:
    """Change every checksum in the store of a server that was stopped; the opposite number repairs it."""
    with sqlite3.connect(servers.servers[name].directory / "data" / "state.db") as database:
        database.execute("UPDATE entry SET crc = crc + ?", (by,))
    database.close()


async def store_of(servers: LocalServers, name: str, *, seen_by: str) -> str:
    status = await servers.registry(name=seen_by).Status(registry_pb2.StatusRequest())
    return next(server.store for server in status.servers if server.name == name)


async def create(servers: LocalServers, count: int, through: str) -> None:
    specs = [
        registry_pb2.AgentSpec(**{"id": f"shop/agent-{n}", "class": "Counter", "pool": "default", "critical": True})  # type: ignore[arg-type]
        for n in range(count)
    ]
    request = registry_pb2.ApplyAgentsRequest(agents=specs, managed_by=registry_pb2.MANAGED_BY_API)
    answer = await servers.registry(name=through).ApplyAgents(request, timeout=30)
    assert {row.outcome for row in answer.results} == {"created"}


async def write(host: FakeHost, server: str, seq: int, view: int = 1, uids: list[str] | None = None) -> None:
    """One version of every record of the host, at one server."""
    items = [
        hostlink_pb2.WriteItem(
            uid=uid,
            version=common_pb2.Version(epoch=row.epoch, seq=seq),
            puts={"state": f"{uid} at {seq}".encode()},
        )
        for uid, row in host.mine.items()
        if uids is None or uid in uids
    ]
    answer = await host.ask(server, write=host.writing(view, items))
    assert {item.verdict for item in answer.written.items} == {OK}, answer


async def records(host: FakeHost, server: str, view: int) -> dict[str, tuple[int, bytes]]:
    """What a server answers for every record of the host: its seq and state."""
    answer = await host.ask(server, read=host.reading(view, list(host.mine)))
    assert len(answer.records.items) == len(host.mine), answer
    return {item.uid: (item.version.seq, item.entries.get("state", b"")) for item in answer.records.items}


async def test_a_replaced_disk_takes_over_every_record_and_answers(three: LocalServers) -> None:
    """Rejoin 1 to 4: what only the lost disk and one other had acknowledged is on the new disk."""
    leader = await three.leader()
    lost, other = [name for name in three.servers if name != leader]
    await create(three, 700, leader)  # more than one page
    async with FakeHost(three, "writer") as host:
        await host.until(lambda: len(host.mine) == 700 and all(row.ready for row in host.mine.values()), WAIT_S)
        await write(host, leader, 1)
        await write(host, lost, 1)  # acknowledged by a majority that includes the disk that is lost
        newer = list(host.mine)[:100]
        await write(host, other, 2, uids=newer)
        await write(host, lost, 2, uids=newer)
        await wipe(three, lost)
        await three.start(lost)
        await three.ready(lost, within_s=WAIT_S)
        found = await records(host, lost, view=2)
        assert found == {
            uid: (2, f"{uid} at 2".encode()) if uid in newer else (1, f"{uid} at 1".encode()) for uid in host.mine
        }
        old = hostlink_pb2.SealItem(uid=newer[0], epoch=host.mine[newer[0]].epoch)
        late = await host.ask(lost, seal=host.sealing(1, [old]))
        assert late.sealed.items[0].verdict == hostlink_pb2.STORE_VERDICT_OTHER_VIEW
    for name in three.servers:
        assert await store_of(three, lost, seen_by=name) == "ready"


async def test_a_second_lost_disk_waits_until_the_first_has_joined(five: LocalServers) -> None:
    """One disk at a time: the second is refused with a sentence that names the first, and joins by itself later."""
    leader = await five.leader()
    first, second, damaged, other = [name for name in five.servers if name != leader]
    await create(five, 20, leader)
    async with FakeHost(five, "writer") as host:
        await host.until(lambda: len(host.mine) == 20 and all(row.ready for row in host.mine.values()), WAIT_S)
        for name in (leader, first, second):
            await write(host, name, 1)
        await write(host, damaged, 2)  # nobody else has this version
        await five.terminate(damaged)  # in an orderly way: everything is in the database, nothing in its journal
        spoil(five, damaged, 1)
        await five.start(damaged)
        await five.ready(damaged, within_s=WAIT_S)
        await five.kill(other)  # a majority of those that the first reads from has to include the damaged one
        await wipe(five, first)
        await five.start(first)

        async def waits(name: str, sentence: str) -> bool:
            return sentence in (await five.http(name, "/readyz"))[1]

        unreadable = f"cannot be read from {damaged}"
        await until(lambda: waits(first, unreadable), WAIT_S, lambda: five.servers[first].log)
        assert await store_of(five, first, seen_by=leader) == "joining 0/20"
        uid = next(iter(host.mine))  # until then it answers nothing [rejoin]
        seal = await host.ask(first, seal=host.sealing(2, [hostlink_pb2.SealItem(uid=uid, epoch=1)]))
        assert seal.sealed.items[0].verdict == hostlink_pb2.STORE_VERDICT_JOINING
        refusal = await host.ask(first, read=host.reading(2, [uid]))
        assert refusal.result.error.code == "JOINING"
        await wipe(five, second)
        await five.start(second)
        sentence = f"{second} came back with another disk while {first} still reads"
        await until(lambda: waits(second, sentence), WAIT_S, lambda: five.servers[second].log)
        assert five.servers[second].log.count(sentence) == 1, "said once, not at every attempt"
        await five.start(other)
        await five.ready(other, within_s=WAIT_S)
        await five.terminate(damaged)
        spoil(five, damaged, -1)
        await five.start(damaged)
        await five.ready(within_s=WAIT_S)
        for name in (first, second):
            assert {seq for seq, _ in (await records(host, name, view=3)).values()} == {2}
        assert {name: await store_of(five, name, seen_by=other) for name in five.servers} == dict.fromkeys(
            five.servers, "ready"
        )


async def test_a_crash_while_joining_goes_on_from_there(three: LocalServers) -> None:
    """Progress is synced with each page: the next process reads only what is missing, under the same disk."""
    leader = await three.leader()
    lost, other = [name for name in three.servers if name != leader]
    await create(three, 50, leader)
    async with FakeHost(three, "writer") as host:
        await host.until(lambda: len(host.mine) == 50 and all(row.ready for row in host.mine.values()), WAIT_S)
        await write(host, leader, 1)
        await write(host, other, 1)
        await wipe(three, lost)
        await three.start(lost)

        async def voted() -> bool:
            return "is replaced, view 2" in three.servers[lost].log

        await until(voted, WAIT_S, lambda: three.servers[lost].log)
        await three.kill(lost)
        await three.start(lost)
        await three.ready(lost, within_s=WAIT_S)
        assert {seq for seq, _ in (await records(host, lost, view=2)).values()} == {1}
        await asyncio.gather(*(three.kill(name) for name in three.servers))
        for name in three.servers:
            await three.start(name)
        await three.ready(within_s=WAIT_S)
        assert {seq for seq, _ in (await records(host, lost, view=2)).values()} == {1}
