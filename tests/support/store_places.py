"""Where the contract of state stores is played (`tests/host/test_store_contract.py`): one store, several hosts."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

from cutting_proxy import CuttingProxy
from postgres_server import PostgresServer
from register_links import SERVERS, RegisterLinks

from tenured.clocks import boot_ns
from tenured.core.frames import MAX_STORED
from tenured.host.encoding import EncodedStore
from tenured.host.pgstore import PostgresStore
from tenured.host.store import Store
from tenured.host.stores import StateStore
from tenured.storage import Register
from tenured.storage.codec import RecordCodec
from tenured.storage.keys import Keyring
from tenured.storage.postgres import Postgres

CLUSTER = "demo.shop"
_schemas = count()


class Place(ABC):
    """One store. Each `host` is another process with a connection of its own."""

    def __init__(self) -> None:
        self.stack = contextlib.AsyncExitStack()
        self.keyring: Keyring | None = None
        """Hosts from now on compress, and encrypt with these; None: they write what they are given."""

    async def host(self) -> Host:
        """One more host."""
        host = await self._host()
        if self.keyring is not None:
            host.encode(self.keyring)
        running = asyncio.ensure_future(host.store.keep_repeating())
        self.stack.push_async_callback(_end, running)
        return host

    @abstractmethod
    async def _host(self) -> Host: ...

    async def stored(self, uid: str) -> dict[str, bytes]:
        """The entries without any host, plain."""
        codec = RecordCodec(uid, self.keyring or Keyring(), compress=False)
        return {name: codec.decode(name, data) for name, data in (await self.raw(uid)).items()}

    @abstractmethod
    async def raw(self, uid: str) -> dict[str, bytes]:
        """The entries as they are kept."""


class Host(ABC):
    """A host's store, and what a test does to its connection."""

    store: StateStore

    def encode(self, keyring: Keyring) -> None:
        """As a host does it (`tenured.host.app`)."""
        self.store.limit = MAX_STORED  # type: ignore[attr-defined]
        self.store = EncodedStore(self.store, compress=True)
        self.store.keyring = keyring

    @abstractmethod
    def lose_answers(self) -> None:
        """From now on what is asked is done, and no answer arrives."""

    @abstractmethod
    async def done_unheard(self) -> None:
        """Until something has been done whose answer was lost."""

    @abstractmethod
    def reconnect(self) -> None:
        """The connection breaks, with all answers under way, and is there again."""


async def _end(task: asyncio.Future[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


# --- the servers ------------------------------------------------------------------------------------------------------


class ServersPlace(Place):
    """Three real registers."""

    def __init__(self, registers: dict[str, Register]) -> None:
        super().__init__()
        self.registers = registers

    async def _host(self) -> Host:
        host = ServersHost(RegisterLinks(self.registers))
        self.stack.push_async_callback(host.links.end)
        return host

    async def raw(self, uid: str) -> dict[str, bytes]:
        readings = [(await register.read_many([uid]))[0] for register in self.registers.values()]
        return dict(max(readings, key=lambda reading: reading.version).entries)


class ServersHost(Host):
    def __init__(self, links: RegisterLinks) -> None:
        self.links = links
        self.store = Store(links, "h.1", boot_ns)  # type: ignore[arg-type]

    def lose_answers(self) -> None:
        self.links.deaf = True
        self.links.done.clear()

    async def done_unheard(self) -> None:
        await self.links.done.wait()

    def reconnect(self) -> None:
        self.links.deaf = False
        for server in SERVERS:
            self.store.disconnected(server)
        for server in SERVERS:
            self.store.connected(server)


@contextlib.asynccontextmanager
async def servers(directory: Path) -> AsyncIterator[Place]:
    registers = await RegisterLinks.open(directory)
    place = ServersPlace(registers)
    try:
        async with place.stack:
            yield place
    finally:
        for register in registers.values():
            await register.close()


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


class PostgresPlace(Place):
    """Tables of its own in a real PostgreSQL; each host behind a proxy of its own."""

    def __init__(self, server: PostgresServer, schema: str) -> None:
        super().__init__()
        self.server = server
        self.schema = schema

    async def _host(self) -> PostgresHost:
        proxy = await self.stack.enter_async_context(CuttingProxy(self.server.port))
        return PostgresHost(proxy, self.server.url_at(proxy.port, self.schema))

    async def raw(self, uid: str) -> dict[str, bytes]:
        rows = await self.sql("SELECT key, value FROM tenure_entry WHERE uid = $1", uid)
        return {row["key"].decode(): row["value"] for row in rows}

    async def sql(self, statement: str, *arguments: object) -> list[dict[str, object]]:
        return [dict(row) for row in await self.server.sql(statement, *arguments, schema=self.schema)]

    async def damage(self, uid: str, key: str, value: bytes, *, checksum: bool) -> None:
        """Another value, with a checksum that fits or does not."""
        crc = zlib.crc32(value) ^ (0 if checksum else 1)
        statement = "UPDATE tenure_entry SET value = $3, crc = $4 WHERE uid = $1 AND key = $2"
        await self.sql(statement, uid, key.encode(), value, crc)


class PostgresHost(Host):
    def __init__(self, proxy: CuttingProxy, url: str) -> None:
        self.proxy = proxy
        self.deleted: set[str] = set()
        self.database = Postgres(lambda: url, CLUSTER)
        self.store = PostgresStore(self.database, boot_ns, self._gone)

    def _gone(self, uids: object) -> list[str]:
        assert isinstance(uids, list)
        return [uid for uid in uids if uid in self.deleted]

    def lose_answers(self) -> None:
        self.proxy.hold_answers()

    async def done_unheard(self) -> None:
        await self.proxy.answered()

    def reconnect(self) -> None:
        self.proxy.cut()
        self.proxy.pass_answers()


@contextlib.asynccontextmanager
async def postgresql(server: PostgresServer) -> AsyncIterator[PostgresPlace]:
    schema = f"store_{next(_schemas)}"
    await server.sql(f"CREATE SCHEMA {schema}")
    place = PostgresPlace(server, schema)
    async with place.stack:
        yield place
