"""Real hosts whose agents' state is in a real PostgreSQL, encrypted; the servers keep the registry only."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from local_hosts import LocalHost
from local_servers import LocalServers, until
from postgres_server import PostgresServer

from tenure._remote import Remote, from_tls_directory

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
AGENT, POOL = "shop/counter", "kept"


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[LocalServers]:
    async with LocalServers(tmp_path / "c", profile="Balanced") as cluster:
        await cluster.ready(within_s=60)
        await cluster.declare(POOL)
        yield cluster


@pytest.fixture
async def remote(servers: LocalServers) -> AsyncIterator[Remote]:
    files = servers.tls("client", "tester")
    api = tuple(server.api for server in servers.servers.values())
    async with Remote(from_tls_directory("shop/demo", api, files.directory)) as client:
        yield client


@pytest.fixture
async def database() -> AsyncIterator[PostgresServer]:
    async with PostgresServer() as running:
        yield running


@pytest.fixture
async def start(servers: LocalServers, database: PostgresServer, tmp_path: Path) -> AsyncIterator[Any]:
    """start(name) -> a host with the store and the keys of this test; ended with it."""
    (tmp_path / "url").write_text(f"{database.url}\n")
    (tmp_path / "keys").write_text(f"first {KEY}\n")
    started: list[LocalHost] = []

    async def host(name: str) -> LocalHost:
        extra = ("--store", f"file:{tmp_path / 'url'}", "--keys", str(tmp_path / "keys"))
        made = LocalHost(servers, name, POOL, Path(__file__).parent, "matrix_agents", extra)
        await made.start()
        started.append(made)
        return made

    yield host
    for each in started:
        await each.end()


async def increment(remote: Remote, within_s: float = 40) -> tuple[int, str]:
    """The count, and who held the agent."""
    reply = await remote.call(AGENT, "action", "increment", msgspec.msgpack.encode({}), timeout_s=within_s)
    return msgspec.msgpack.decode(reply.value), reply.host


async def test_agents_live_in_postgresql(
    servers: LocalServers, remote: Remote, database: PostgresServer, start: Any
) -> None:
    """Their state survives the loss of their host, of the database's processes, and a time of silence."""
    hosts = {name: await start(name) for name in ("host-a", "host-b")}
    empty = msgspec.msgpack.encode({})
    await remote.create(AGENT, "Victim", pool=POOL, state=empty, config=empty)
    assert (await increment(remote))[0] == 1
    count, holder = await increment(remote)
    await hosts[holder].end()  # kill -9 of the whole tree
    assert count == 2
    count, successor = await increment(remote)
    assert (count, successor != holder) == (3, True)

    database.freeze()
    under_way = asyncio.ensure_future(increment(remote))
    done, _ = await asyncio.wait({under_way}, timeout=1.5)
    assert not done, "nothing is answered before it is kept, nor called not applied"
    database.thaw()
    assert (await under_way)[0] == 4
    await database.kill()
    under_way = asyncio.ensure_future(increment(remote))
    await database.start()
    assert (await under_way)[0] == 5

    rows = await database.sql("SELECT value FROM tenure_entry")
    assert rows
    assert all(row["value"][:2] == b"\xc1\x10" for row in rows), "encrypted with the key of the hosts"
    for server in servers.servers.values():
        with sqlite3.connect(f"file:{server.directory}/data/state.db?mode=ro&immutable=1", uri=True) as kept:
            assert kept.execute("SELECT count(*) FROM record").fetchone() == (0,)
        kept.close()
    await remote.delete(AGENT)

    async def gone() -> bool:
        return not await database.sql("SELECT FROM tenure_record UNION ALL SELECT FROM tenure_entry")

    await until(gone, 20)


async def test_a_host_that_cannot_use_its_store_says_why(database: PostgresServer, start: Any, tmp_path: Path) -> None:
    """In a sentence, and it does not run without."""
    first = await start("host-a")
    await until(_tables(database), 30)
    await first.end()
    await database.sql("UPDATE tenure_store SET cluster = 'other.place'")
    await until(_says(await start("host-b"), "cannot start: This database keeps the state of cluster other.place"), 30)
    (tmp_path / "keys").unlink()
    await until(_says(await start("host-c"), "cannot start: The keys cannot be read"), 30)


def _says(host: LocalHost, text: str) -> Any:
    async def said() -> bool:
        return text in host.log

    return said


def _tables(database: PostgresServer) -> Any:
    async def made() -> bool:
        return bool(await database.sql("SELECT FROM pg_tables WHERE tablename = 'tenure_store'"))

    return made
