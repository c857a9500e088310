"""A mirror of one cluster's registry, and the queue of what the operator wants there.

Level-triggered: the mirror comes from the watch alone, and a wish stays until a server has answered it or the mirror
shows that it is so (whoever wished did not know yet what the servers have). Losing the servers empties neither: what is
known stays known, `reachable` says that it may be old.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from tenure_operator.registry.values import (
    AgentRow,
    AgentSpec,
    Batch,
    ClusterState,
    HostRow,
    NodeRow,
    Outcome,
    PoolRow,
    Registry,
    RegistryError,
    RegistryRefused,
)

RECONNECT_S = 1.0
STATUS_EVERY_S = 2.0
"""Between two questions after the servers' own state: roles and lags are not in the watch."""
MAX_BATCH = 500
"""Agents of one request."""


@dataclass
class Mirror:
    """The registry as last seen. Only `take` changes it."""

    agents: dict[str, AgentRow] = field(default_factory=dict[str, AgentRow])
    """By id."""
    hosts: dict[str, HostRow] = field(default_factory=dict[str, HostRow])
    """By incarnation."""
    pools: dict[str, PoolRow] = field(default_factory=dict[str, PoolRow])
    revision: int = 0
    synced: bool = False
    _ids: dict[str, str] = field(default_factory=dict[str, str])
    """uid -> id"""

    def take(self, batch: Batch) -> set[str]:
        """Take a batch up; returns the ids of the agents that may have changed."""
        changed: set[str] = set()
        if batch.snapshot:
            changed |= set(self.agents)
            self.agents, self.hosts, self.pools, self._ids = {}, {}, {}, {}
            self.synced, self.revision = False, 0
        for uid in batch.gone_agents:
            changed |= self._forget(uid)
        for row in batch.agents:
            self.agents[row.spec.id] = row
            self._ids[row.uid] = row.spec.id
            changed.add(row.spec.id)
        for incarnation in batch.gone_hosts:
            self.hosts.pop(incarnation, None)
        self.hosts |= {row.incarnation: row for row in batch.hosts}
        for name in batch.gone_pools:
            self.pools.pop(name, None)
        self.pools |= {row.name: row for row in batch.pools}
        self.revision = max(self.revision, batch.revision)
        self.synced = self.synced or batch.synced
        return changed

    def _forget(self, uid: str) -> set[str]:
        agent_id = self._ids.pop(uid, None)
        if agent_id is None:
            return set()
        row = self.agents.get(agent_id)
        if row is not None and row.uid == uid:  # the name may be another row's by now
            del self.agents[agent_id]
        return {agent_id}


class Session:
    """The conversation with one cluster.

    `changed` is called with the ids of agents whose row may have changed, with None when the servers came or went.
    """

    def __init__(
        self,
        connect: Callable[[], Registry],
        changed: Callable[[set[str] | None], None],
        reconnect_s: float = RECONNECT_S,
    ) -> None:
        self._connect = connect
        self._reconnect_s = reconnect_s
        self._changed = changed
        self.mirror = Mirror()
        self.state: ClusterState | None = None
        """The servers' own view, when one answered last."""
        self.reachable = False
        self.problem = "no server has answered yet"
        self.refusals: dict[str, tuple[AgentSpec, Outcome]] = {}
        self.gone: set[tuple[str, str]] = set()
        """(id, object uid) that a server has confirmed to be gone."""
        self._applies: dict[str, AgentSpec] = {}
        self._deletes: dict[str, str] = {}
        self._pools: list[PoolRow] | None = None
        self._nodes: list[NodeRow] | None = None
        self._sent_nodes: list[NodeRow] | None = None
        self._saying: tuple[list[NodeRow], str] | None = None
        """Nodes that were said, with the command's id, and not answered: they may still be applied."""
        self._batch = MAX_BATCH
        self._wake = asyncio.Event()

    # --- wishes -----------------------------------------------------------------------------------------------------

    def apply(self, spec: AgentSpec) -> None:
        """Want this row."""
        self._applies[spec.id] = spec
        self._wake.set()

    def delete(self, agent_id: str, object_uid: str) -> None:
        """Want the row of exactly this object to go."""
        self._applies.pop(agent_id, None)
        self._deletes[agent_id] = object_uid
        self._wake.set()

    def want_pools(self, pools: list[PoolRow]) -> None:
        """Want exactly these pools."""
        self._pools = pools
        self._wake.set()

    def want_nodes(self, nodes: list[NodeRow]) -> None:
        """Say which nodes there are: all of them."""
        self._nodes = nodes
        self._wake.set()

    # --- the conversation -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Talk until cancelled; a failure is followed by a new connection after `reconnect_s`."""
        while True:
            try:
                registry = self._connect()
            except RegistryError as error:
                self._lost(str(error))
            else:
                try:
                    await self._talk(registry)
                finally:
                    with contextlib.suppress(RegistryError):
                        await registry.close()
            await asyncio.sleep(self._reconnect_s)

    async def _talk(self, registry: Registry) -> None:
        """Until one part fails. Raises what is no RegistryError: a defect.

        No TaskGroup: one whose children fail in the moment in which it is cancelled raises their errors and forgets the
        cancellation (Python 3.11), and then we would go on for ever, while whoever cancelled us waits.
        """
        self._sent_nodes = None  # whoever answers now may not have heard them
        parts = [asyncio.create_task(part(registry)) for part in (self._follow, self._send, self._ask)]
        try:
            ended, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
        try:
            for part in ended:
                part.result()
        except RegistryError as error:
            self._lost(str(error))

    def _lost(self, problem: str) -> None:
        self.problem = problem
        if self.reachable:
            self.reachable = False
            self._changed(None)

    async def _follow(self, registry: Registry) -> None:
        async for batch in registry.watch(self.mirror.revision if self.mirror.synced else 0):
            changed = self.mirror.take(batch)
            for agent_id in changed:
                self.refusals.pop(agent_id, None)  # another row, another answer
            if self.mirror.synced:
                came, self.reachable = not self.reachable, True
                self._wake.set()
                self._changed(None if came else changed)
        raise RegistryError("the server ended the watch")

    async def _ask(self, registry: Registry) -> None:
        while True:
            state = await registry.status()
            if state != self.state:
                self.state = state
                self._changed(set())
            await asyncio.sleep(STATUS_EVERY_S)

    async def _send(self, registry: Registry) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self.mirror.synced:
                continue
            await self._send_cluster(registry)
            await self._send_applies(registry)
            await self._send_deletes(registry)

    async def _send_cluster(self, registry: Registry) -> None:
        pools = self._pools
        if pools is not None and {pool.name: pool for pool in pools} != self.mirror.pools:
            await registry.apply_cluster(pools, _command())
        await self._send_nodes(registry)

    async def _send_nodes(self, registry: Registry) -> None:
        """The nodes are not in the watch, so nothing would tell that an older word came after a newer one.

        So there is one word at a time: what was not answered is said again with its command's id, which has one effect
        however often it arrives, before anything newer is said.
        """
        while self._saying is not None or (self._nodes is not None and self._nodes != self._sent_nodes):
            if self._saying is None:
                self._saying = (list(self._nodes or ()), _command())
            nodes, command = self._saying
            try:
                await registry.set_nodes(nodes, command)
            except RegistryRefused:
                self._saying = None
                raise
            self._sent_nodes, self._saying = nodes, None

    async def _send_applies(self, registry: Registry) -> None:
        rows = self.mirror.agents
        self._applies = {
            agent_id: spec
            for agent_id, spec in self._applies.items()
            if (row := rows.get(agent_id)) is None or not row.is_of(spec)
        }
        while self._applies:
            specs = list(self._applies.values())[: self._batch]
            try:
                outcomes = await registry.apply_agents(specs, _command())
            except RegistryError:
                # Smaller and in another order next time: a row that no server can take holds no other up.
                self._batch = max(1, self._batch // 2)
                for spec in specs:
                    self._applies[spec.id] = self._applies.pop(spec.id, spec)
                raise
            self._batch = min(MAX_BATCH, self._batch * 2)
            for spec, outcome in zip(specs, outcomes, strict=True):
                if self._applies.get(spec.id) is spec:
                    del self._applies[spec.id]
                if outcome.outcome == "refused":
                    self.refusals[spec.id] = (spec, outcome)
                else:
                    self.refusals.pop(spec.id, None)
                self.gone.discard((spec.id, spec.object_uid))
            self._changed({spec.id for spec in specs})

    async def _send_deletes(self, registry: Registry) -> None:
        while self._deletes:
            agent_id, object_uid = next(iter(self._deletes.items()))
            outcome = await registry.delete_agent(agent_id, object_uid, _command())
            if self._deletes.get(agent_id) == object_uid:
                del self._deletes[agent_id]
            # A row that came through the other door is not ours to remove: for our object it is as good as gone.
            if outcome.outcome in ("gone", "refused"):
                self.gone.add((agent_id, object_uid))
            self._changed({agent_id})


def _command() -> str:
    return uuid.uuid4().hex
