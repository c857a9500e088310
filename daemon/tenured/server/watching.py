"""The watch: everybody's copy of the registry. Each batch is encoded once for all watchers that asked for the same
kinds.

Changes are gathered for up to 20 ms. Of an assignment its new holder hears at once, from the leader (`server.hosts`). A
watcher that reads too slowly for that is left out of it, and brought up at its own pace: each row that changed
meanwhile once, as it is then. Nothing is queued for it, and it never begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from tenure_proto.v1.registry_pb2 import WatchBatch, WatchRequest
from tenured.clocks import wall_s
from tenured.core.changes import Delta
from tenured.core.model import RowKey
from tenured.server import rows
from tenured.server.replica import Replica
from tenured.transport.outbox import Outbox

COALESCE_S = 0.02
"""How long a change may wait for others before it is sent."""
CHUNK_ROWS = 200
"""Rows encoded in one turn of the loop: about 3 ms."""
_MAX_QUEUED = 128
"""Batches that wait for a watcher; with more it has fallen behind."""
_RESUME_WAIT_S = 10.0
_ALIVE_S = 5.0

_Waiting = Outbox[tuple[bytes, int]]
ALL_KINDS = frozenset({"agents", "hosts", "pools", "servers"})
Kinds = frozenset[str]


class Sink(Protocol):
    """Where a watch goes."""

    async def write(self, encoded: bytes, /) -> None:
        """Send one encoded WatchBatch; returns when there is room for more."""
        ...


class _Watcher:
    """One stream that has read a snapshot and follows."""

    def __init__(self, kinds: Kinds, stream: Sink) -> None:
        self.kinds = kinds
        self.revision = 0
        """All that happened up to it has been written."""
        self._stream = stream
        self._outbox = _Waiting(0)

    def follow(self) -> None:
        """It is up to date: from now on it is told what happens."""
        self._outbox = _Waiting(_MAX_QUEUED, max_batch=64)

    def push(self, batch: bytes, revision: int) -> bool:
        """What happened up to that revision. False: it has fallen behind, and follows no more."""
        if self._outbox.put((batch, revision)):
            return True
        self._outbox.close()
        return False

    def stop(self) -> None:
        """It follows no more."""
        self._outbox.close()

    async def take(self) -> Sequence[tuple[bytes, int]]:
        """What waits, or will; nothing once it does not follow any more."""
        return await self._outbox.take()

    async def write(self, batch: bytes, revision: int) -> None:
        """Send one batch; returns when there is room for the next."""
        await self._stream.write(batch)
        self.revision = max(self.revision, revision)


class WatchHub:
    """All watchers of one server. A replica's listener."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._watchers: dict[_Watcher, None] = {}
        self._flushed = 0
        """Revision up to which changes were taken for sending."""
        self._sent = 0
        """Revision up to which every watcher has been sent everything."""
        self._silence: dict[str, str] = {}
        """incarnation -> the silence that watchers have been told of; only those that are silent."""
        self._pieces: Iterator[WatchBatch] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        return len(self._watchers)

    def open(self) -> None:
        """The registry is caught up: what is not in it does not exist. Before that nobody is told anything."""
        self._ready.set()

    # --- changes ----------------------------------------------------------------------------------------------------

    def changed(self, delta: Delta, /) -> None:  # noqa: ARG002 - of Listener
        """Rows changed: say so within 20 ms."""
        if self._watchers and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(COALESCE_S, self.flush)

    def replaced(self) -> None:
        """A snapshot was installed: a watcher that lacks something of it begins anew."""
        self._pieces = None  # of the registry that was
        for watcher in self._watchers:
            watcher.stop()
        self._watchers.clear()

    def flush(self) -> None:
        """Send all changes since the last time; many of them in pieces, one each turn of the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        registry = self._replica.registry
        if self._pieces is not None or self._flushed == registry.revision:
            return
        delta = registry.since(self._flushed) if self._watchers else None
        self._flushed = registry.revision
        if delta is None:
            self._sent = self._flushed
            self.replaced()
            return
        self._pieces = self._batches(delta, self._sent, self._flushed, self._turned(delta))
        self._push_piece()

    def _push_piece(self) -> None:
        piece = next(self._pieces, None) if self._pieces is not None else None
        if piece is not None:
            self._push(piece)
            if not piece.synced:
                asyncio.get_running_loop().call_soon(self._push_piece)
                return
        self._pieces = None
        self._sent = self._flushed
        if self._replica.registry.revision != self._flushed and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(COALESCE_S, self.flush)

    def _push(self, batch: WatchBatch) -> None:
        encoded: dict[Kinds, bytes] = {}
        for watcher in list(self._watchers):
            data = encoded.get(watcher.kinds)
            if data is None:
                data = encoded[watcher.kinds] = _only(batch, watcher.kinds).SerializeToString()
            self._tell(watcher, data, batch.revision)

    def _tell(self, watcher: _Watcher, batch: bytes, revision: int) -> None:
        if not watcher.push(batch, revision):
            self._watchers.pop(watcher, None)

    # --- batches ----------------------------------------------------------------------------------------------------

    def _turned(self, delta: Delta) -> set[str]:
        """Hosts that fell silent, or are heard again, since the last time: the sentences of all their agents change."""
        found: set[str] = set()
        for key in delta.changed:
            if key.kind == "host" and (host := self._replica.registry.hosts.get(key.name)) is not None:
                if host.silence != self._silence.get(key.name, ""):
                    found.add(key.name)
                self._silence.pop(key.name, None)
                if host.silence and host.alive:
                    self._silence[key.name] = host.silence
        for key in delta.gone:
            self._silence.pop(key.name, None)
        return found

    def _batches(
        self, delta: Delta, before: int, revision: int, turned: set[str] | None = None
    ) -> Iterator[WatchBatch]:
        """The rows as they are when each batch is made; only the last one says that the revision is reached.

        `turned`: changed hosts for which the ready agents are sent as well; None: all changed hosts.
        """
        registry = self._replica.registry
        keys = dict.fromkeys(delta.changed)
        for key in delta.changed:
            if key.kind == "host":  # sentences of agents that wait for this host depend on its row
                every = turned is None or key.name in turned
                held = (registry.agents[uid] for uid in registry.held_by.get(key.name, ()))
                depending = (agent.uid for agent in held if not agent.ready or (every and agent.hibernation is None))
                keys.update(dict.fromkeys(RowKey("agent", uid) for uid in sorted(depending, key=int)))
        todo = list(keys)
        while len(todo) > CHUNK_ROWS:
            part, todo = todo[:CHUNK_ROWS], todo[CHUNK_ROWS:]
            yield self._rows(part, before)
        batch = self._rows(todo, revision)
        for key in delta.gone:
            gone = {"agent": batch.gone_agents, "host": batch.gone_hosts, "pool": batch.gone_pools}.get(key.kind)
            if gone is not None:
                gone.append(key.name)
        batch.synced = True
        yield batch

    def _rows(self, keys: Iterable[RowKey], revision: int) -> WatchBatch:
        registry = self._replica.registry
        wall = wall_s()
        batch = WatchBatch(revision=revision, cluster_time=registry.cluster_ns / 1e9)
        for key in keys:
            match key.kind:
                case "agent":
                    if (agent := registry.agents.get(key.name)) is not None:
                        batch.agents.append(rows.agent_row(registry, agent, wall))
                case "host":
                    if (host := registry.hosts.get(key.name)) is not None:
                        batch.hosts.append(rows.host_row(registry, host))
                case "pool":
                    if (pool := registry.pools.get(key.name)) is not None:
                        batch.pools.append(rows.pool_row(pool))
                case _:
                    pass  # nodes and servers are for servers
        return batch

    # --- one stream ---------------------------------------------------------------------------------------------------

    async def serve(self, request: WatchRequest, stream: Sink) -> None:
        """Send a snapshot, or what changed since the revision asked for, and follow until the stream ends."""
        await self._ready.wait()
        watcher = _Watcher(frozenset(request.kinds) or ALL_KINDS, stream)
        watcher.revision = request.from_revision
        if watcher.revision and not await self._replica.reached(watcher.revision, _RESUME_WAIT_S):
            return  # this server is behind what the watcher has seen: it asks another
        if not watcher.revision or not self._replica.registry.reaches(watcher.revision):
            await self._snapshot(watcher)
        try:
            while await self._join(watcher):
                await self._follow(watcher)
        finally:
            self._watchers.pop(watcher, None)

    async def _follow(self, watcher: _Watcher) -> None:
        """Until it falls behind."""
        while True:
            try:
                async with asyncio.timeout(_ALIVE_S):
                    batches = await watcher.take()
            except TimeoutError:  # so that a watcher can tell silence from a dead server
                # Not the revision that others have reached: in this moment something may have come for this one.
                batches = [(self._rows((), watcher.revision).SerializeToString(), watcher.revision)]
            if not batches:
                return
            for batch, revision in batches:
                await watcher.write(batch, revision)

    async def _snapshot(self, watcher: _Watcher) -> None:
        """Write all rows in chunks; rows may be newer than the revision, and the deltas after it repeat them."""
        registry = self._replica.registry
        revision = registry.revision
        keys = [
            *(RowKey("pool", name) for name in registry.pools),
            *(RowKey("host", incarnation) for incarnation in registry.hosts),
            *(RowKey("agent", uid) for uid in registry.agents),
        ]
        for start in range(0, max(1, len(keys)), CHUNK_ROWS):
            batch = self._rows(keys[start : start + CHUNK_ROWS], 0)
            batch.snapshot = start == 0
            await watcher.write(_only(batch, watcher.kinds).SerializeToString(), 0)
            await asyncio.sleep(0)
        synced = WatchBatch(revision=revision, synced=True, cluster_time=registry.cluster_ns / 1e9)
        watcher.revision = 0  # what it had before counts no more
        await watcher.write(synced.SerializeToString(), revision)

    async def _join(self, watcher: _Watcher) -> bool:
        """Bring the watcher from its revision to the present one; the last step is one turn of the loop. False: what it
        missed is not known any more, and it has to begin anew.
        """
        while (delta := self._replica.registry.since(watcher.revision)) is not None:
            target = self._replica.registry.revision
            small = len(delta.changed) <= CHUNK_ROWS
            for batch in self._batches(delta, watcher.revision, target):
                data = _only(batch, watcher.kinds).SerializeToString()
                if small and batch.synced and self._replica.registry.revision == target:
                    if not self._watchers and self._pieces is None:
                        self._flushed = self._sent = target  # nobody else is waiting for anything
                    # What is being sent to the others now, this one gets a second time: rows are idempotent.
                    watcher.follow()
                    watcher.push(data, target)
                    self._watchers[watcher] = None
                    return True
                await watcher.write(data, batch.revision)
        return False


def _only(batch: WatchBatch, kinds: Kinds) -> WatchBatch:
    """The batch without the kinds that were not asked for."""
    if kinds >= ALL_KINDS:
        return batch
    copy = WatchBatch()
    copy.CopyFrom(batch)
    if "agents" not in kinds:
        copy.ClearField("agents")
        copy.ClearField("gone_agents")
    if "hosts" not in kinds:
        copy.ClearField("hosts")
        copy.ClearField("gone_hosts")
    if "pools" not in kinds:
        copy.ClearField("pools")
        copy.ClearField("gone_pools")
    return copy
