"""The watch: everybody's copy of the registry. Each batch is encoded once for all watchers that asked for the same
kinds.

Changes are gathered for up to 20 ms, except that an assignment goes to its new holder at once. A watcher that reads too
slowly is cut off and resumes from the revision that it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from tenure_api.identity import Identity, Role
from tenure_proto.v1.registry_pb2 import WatchBatch, WatchRequest
from tenured.clocks import wall_s
from tenured.core.model import RowKey
from tenured.core.registry import Delta
from tenured.server import rows
from tenured.server.replica import Replica
from tenured.transport.outbox import Outbox
from tenured.transport.serving import EncodedStream

COALESCE_S = 0.02
"""How long a change may wait for others before it is sent."""
CHUNK_ROWS = 200
"""Rows encoded in one turn of the loop: about 3 ms."""
_MAX_QUEUED = 512
_RESUME_WAIT_S = 10.0
_ALIVE_S = 5.0

ALL_KINDS = frozenset({"agents", "hosts", "pools", "servers"})
Kinds = frozenset[str]


class _Watcher:
    """One stream that has read a snapshot and follows."""

    def __init__(self, peer: Identity, kinds: Kinds) -> None:
        self.kinds = kinds
        self.host = peer.holder if peer.role is Role.HOST else ""
        self.outbox: Outbox[bytes] = Outbox(_MAX_QUEUED, max_batch=64)

    def push(self, batch: bytes) -> None:
        if not self.outbox.put(batch):
            self.outbox.close()  # too slow: it resumes from what it has


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

    def changed(self, delta: Delta, /) -> None:
        """Rows changed: tell new holders at once, the others within 20 ms."""
        if not self._watchers:
            return
        self._tell_holders(delta)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(COALESCE_S, self.flush)

    def replaced(self) -> None:
        """A snapshot was installed: every watcher begins anew."""
        for watcher in list(self._watchers):
            watcher.outbox.close()

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
            watcher.push(data)

    def _tell_holders(self, delta: Delta) -> None:
        agents = self._replica.registry.agents
        assigned: dict[str, list[RowKey]] = {}
        for key in delta.changed:
            if key.kind == "agent" and (row := agents.get(key.name)) is not None and row.held and not row.ready:
                assigned.setdefault(row.host, []).append(key)
        if not assigned:
            return
        for watcher in self._watchers:
            keys = assigned.get(watcher.host)
            if keys and "agents" in watcher.kinds:
                # The revision stays: other rows up to the present one have not been sent.
                watcher.push(self._rows(keys, self._sent).SerializeToString())

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

    async def serve(self, peer: Identity, request: WatchRequest, stream: EncodedStream) -> None:
        """Send a snapshot, or what changed since the revision asked for, and follow until the stream ends."""
        await self._ready.wait()
        watcher = _Watcher(peer, frozenset(request.kinds) or ALL_KINDS)
        revision = request.from_revision
        if revision and not await self._replica.reached(revision, _RESUME_WAIT_S):
            return  # this server is behind what the watcher has seen: it asks another
        if not revision or self._replica.registry.since(revision) is None:
            revision = await self._snapshot(watcher, stream)
        await self._join(watcher, stream, revision)
        try:
            await self._follow(watcher, stream)
        finally:
            watcher.outbox.close()
            self._watchers.pop(watcher, None)

    async def _follow(self, watcher: _Watcher, stream: EncodedStream) -> None:
        while True:
            try:
                async with asyncio.timeout(_ALIVE_S):
                    batches = await watcher.outbox.take()
            except TimeoutError:  # so that a watcher can tell silence from a dead server
                batches = [self._rows((), self._sent).SerializeToString()]
            if not batches:
                return
            for batch in batches:
                await stream.write(batch)

    async def _snapshot(self, watcher: _Watcher, stream: EncodedStream) -> int:
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
            await stream.write(_only(batch, watcher.kinds).SerializeToString())
            await asyncio.sleep(0)
        synced = WatchBatch(revision=revision, synced=True, cluster_time=registry.cluster_ns / 1e9)
        await stream.write(synced.SerializeToString())
        return revision

    async def _join(self, watcher: _Watcher, stream: EncodedStream, revision: int) -> None:
        """Bring the watcher from its revision to the present one; the last step is one turn of the loop."""
        while (delta := self._replica.registry.since(revision)) is not None:
            target = self._replica.registry.revision
            small = len(delta.changed) <= CHUNK_ROWS
            for batch in self._batches(delta, revision, target):
                data = _only(batch, watcher.kinds).SerializeToString()
                if small and batch.synced and self._replica.registry.revision == target:
                    if not self._watchers and self._pieces is None:
                        self._flushed = self._sent = target  # nobody else is waiting for anything
                    # What is being sent to the others now, this one gets a second time: rows are idempotent.
                    watcher.push(data)
                    self._watchers[watcher] = None
                    return
                await stream.write(data)
            revision = target
        watcher.outbox.close()  # so far behind that the history no longer reaches back: it begins anew


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
