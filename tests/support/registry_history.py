"""Clients of real servers that write down what they asked, when, and what they were told.

Each client asks any server, repeats under the same command id while the outcome is open, and gives up after a while:
then the outcome stays unknown. What was certainly not applied is not in the history.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import grpc
import msgspec
from grpc import aio
from local_servers import LocalServers, until

from tenure_proto.v1 import common_pb2, registry_pb2
from tenure_proto.v1.registry_pb2_grpc import RegistryStub
from tools.judge import Operation

ATTEMPT_S = 1.0
PATIENCE_S = 6.0
PAUSE_S = 0.01
DECIDED = {"created", "configured", "unchanged", "gone"}
CERTAIN = common_pb2.OUTCOME_NOT_APPLIED


@dataclass
class Answer:
    """The last word on one operation; outcome "" means certainly not applied."""

    outcome: str
    uid: str = ""
    value: int = 0


@dataclass
class Load:
    """`clients` clients on `keys` names. `start`, then faults, then `stop`, then `look` once everybody is up again."""

    servers: LocalServers
    seed: int = 1
    clients: int = 8
    keys: int = 24
    prefix: str = "shop/row"
    history: list[Operation] = field(default_factory=list[Operation])
    counts: Counter[str] = field(default_factory=Counter[str])
    seen: int = 0  # the highest revision that anybody was told
    surprises: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.stubs: dict[tuple[str, int], RegistryStub] = {}
        self.numbers = itertools.count(1)
        self.tasks: list[asyncio.Task[None]] = []
        self.stopping = False
        self.acknowledged = asyncio.Event()

    def start(self) -> None:
        for client in range(self.clients):
            self.tasks.append(asyncio.create_task(self._client(client, random.Random(f"{self.seed}/{client}"))))

    async def stop(self) -> None:
        """Every operation that is under way comes to its end."""
        self.stopping = True
        await asyncio.gather(*self.tasks)

    async def progress(self, within_s: float = 60) -> None:
        """Until one write more is acknowledged that was begun after this call."""
        begun = time.monotonic_ns()
        async with asyncio.timeout(within_s):
            while not (self.history and any(o.call > begun and o.outcome in DECIDED for o in self.history[-50:])):
                self.acknowledged.clear()
                await self.acknowledged.wait()

    async def reach(self, operations: int, within_s: float = 60) -> None:
        """Until the history has so many."""
        async with asyncio.timeout(within_s):
            while len(self.history) < operations:
                self.acknowledged.clear()
                await self.acknowledged.wait()

    # ---- one client ----------------------------------------------------------------------------------------------

    async def _client(self, client: int, rng: random.Random) -> None:
        while not self.stopping:
            key = f"{self.prefix}-{rng.randrange(self.keys)}"
            kind = rng.choice(("put", "put", "put", "delete", "read"))
            value = rng.choice((1, 2, next(self.numbers) + 10))
            call = time.monotonic_ns()
            answer = await (self._read(key, rng) if kind == "read" else self._write(client, key, kind, value, rng))
            self.counts[answer.outcome or "not applied"] += 1
            if answer.outcome:
                end = time.monotonic_ns()
                self.history.append(Operation(client, key, kind, value, call, end, answer.outcome, answer.uid))
                self.acknowledged.set()
            await asyncio.sleep(PAUSE_S * rng.random())

    async def _write(self, client: int, key: str, kind: str, value: int, rng: random.Random) -> Answer:
        command_id = f"{self.prefix}/{self.seed}/{client}/{next(self.numbers)}"
        open_attempt = False
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            stub = self._stub(rng.choice(list(self.servers.servers)), client)
            try:
                row = await self._ask(stub, key, kind, value, command_id)
            except aio.AioRpcError as error:
                open_attempt |= error.code() is not grpc.StatusCode.INVALID_ARGUMENT
                await asyncio.sleep(0.05)
                continue
            if row.outcome in DECIDED:
                return Answer(row.outcome, row.uid)
            if row.error.code != "NoQuorum":
                self.surprises.append(f"{kind} {key}: {row.error.code} {row.error.message}")
                return Answer("")
            open_attempt |= row.error.outcome != CERTAIN
            await asyncio.sleep(0.02)
        return Answer("unknown" if open_attempt else "")

    async def _ask(
        self, stub: RegistryStub, key: str, kind: str, value: int, command_id: str
    ) -> registry_pb2.RowResult:
        door = registry_pb2.MANAGED_BY_API
        if kind == "put":
            applied = await stub.ApplyAgents(
                registry_pb2.ApplyAgentsRequest(agents=[spec(key, value)], managed_by=door, command_id=command_id),
                timeout=ATTEMPT_S,
            )
            self.seen = max(self.seen, applied.revision)
            return applied.results[0]
        deleted = await stub.DeleteAgents(
            registry_pb2.DeleteAgentsRequest(ids=[key], managed_by=door, command_id=command_id), timeout=ATTEMPT_S
        )
        self.seen = max(self.seen, deleted.revision)
        return deleted.results[0]

    async def _read(self, key: str, rng: random.Random) -> Answer:
        """Only "there is no such agent" promises to be the latest word; a route may be an old one."""
        stub = self._stub(rng.choice(list(self.servers.servers)), 0)
        try:
            found = await stub.Resolve(registry_pb2.ResolveRequest(agent=key), timeout=ATTEMPT_S)
        except aio.AioRpcError:
            return Answer("")
        return Answer("absent" if found.error.code == "NotFound" else "")

    def _stub(self, server: str, client: int) -> RegistryStub:
        place = (server, client % 4)
        if place not in self.stubs:
            self.stubs[place] = self.servers.registry(name=server, holder=f"client-{client % 4}")
        return self.stubs[place]

    # ---- at the end ----------------------------------------------------------------------------------------------

    async def look(self, within_s: float = 30) -> list[str]:
        """Read all rows on every server once it has what anybody was told, as operations of the history.

        Returns how the servers differ, also from what they told: nothing, if all is well.
        """
        marker = f"{self.prefix}-end"
        told, self.seen = self.seen, 0  # nothing may ever come up to what was told, if that was lost
        for name in self.servers.servers:  # what is still queued somewhere comes before this, or never
            value, command_id = next(self.numbers), f"{marker}/{self.seed}/{name}"

            async def marked(name: str = name, value: int = value, command_id: str = command_id) -> bool:
                stub = self.servers.registry(name=name)  # a channel that knows nothing of refused connections
                try:
                    return (await self._ask(stub, marker, "put", value, command_id)).outcome in DECIDED
                except aio.AioRpcError:
                    return False

            await until(marked, within_s, lambda name=name: f"{name} takes no writes")
        lost = [f"revision {told} was told, and after it {self.seen}"] if self.seen <= told else []
        tables = await self._tables(within_s)
        for client, (call, rows) in enumerate(tables):
            for number in range(self.keys):
                key = f"{self.prefix}-{number}"
                row = rows.get(key)
                outcome, value, uid = ("absent", 0, "") if row is None else ("present", value_of(row), row.uid)
                end = time.monotonic_ns()
                self.history.append(Operation(self.clients + client, key, "read", value, call, end, outcome, uid))
        contents = [{key: (row.uid, row.revision, value_of(row)) for key, row in rows.items()} for _, rows in tables]
        return lost + sorted(
            f"{key}: {[rows.get(key) for rows in contents]}"
            for key in set().union(*contents)
            if len({rows.get(key) for rows in contents}) > 1
        )

    async def _tables(self, within_s: float) -> list[tuple[int, dict[str, registry_pb2.AgentRow]]]:
        """What each server has at one revision of all: the leader may still write why an agent waits."""
        async with asyncio.timeout(within_s):
            while True:
                tables = [await self._table(name) for name in self.servers.servers]
                revisions = {revision for revision, _, _ in tables}
                if len(revisions) == 1:
                    return [(call, rows) for _, call, rows in tables]
                self.seen = max(revisions)

    async def _table(self, name: str) -> tuple[int, int, dict[str, registry_pb2.AgentRow]]:
        """The revision, when it was asked for, and the rows."""
        while True:
            try:
                return await self._watched(name)
            except aio.AioRpcError:  # a connection that broke while it was made: the next one
                await asyncio.sleep(0.05)

    async def _watched(self, name: str) -> tuple[int, int, dict[str, registry_pb2.AgentRow]]:
        call, revision = time.monotonic_ns(), 0
        rows: dict[str, registry_pb2.AgentRow] = {}
        watch = self.servers.registry(name=name).Watch(registry_pb2.WatchRequest(kinds=["agents"]))
        async for batch in watch:
            if batch.snapshot:
                rows.clear()
            rows.update({row.uid: row for row in batch.agents})
            for uid in batch.gone_agents:
                rows.pop(uid, None)
            revision = max(revision, batch.revision)
            if batch.synced and revision >= self.seen:
                break
        watch.cancel()
        return revision, call, {row.spec.id: row for row in rows.values() if row.spec.id.startswith(self.prefix)}


def spec(key: str, value: int) -> registry_pb2.AgentSpec:
    """A row that holds `value`."""
    config = msgspec.msgpack.encode({"value": value})
    fields = {"id": key, "class": "Counter", "pool": "default", "critical": True, "config": config}
    return registry_pb2.AgentSpec(**fields)  # type: ignore[arg-type]


def value_of(row: registry_pb2.AgentRow) -> int:
    """What `spec` put into it."""
    return int(msgspec.msgpack.decode(row.spec.config)["value"])
